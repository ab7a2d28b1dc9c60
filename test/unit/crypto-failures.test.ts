// What a caller is told when a key or a token fails: a code, and nothing of the key.
import t from 'tap';
import { DecryptionFailed, failureOfKeys, KeyUnavailable } from '../../src/crypto/index.ts';

t.test('a key out of reach is another refusal than a value that does not open', (t) => {
  const unavailable = failureOfKeys(new KeyUnavailable('fingerprint-1'));
  t.match(unavailable, { code: 'keyUnavailable' });
  t.notMatch(unavailable?.message, /fingerprint-1/);
  const undecryptable = failureOfKeys(new DecryptionFailed());
  t.match(undecryptable, { code: 'undecryptable' });
  for (const failure of [unavailable, undecryptable]) t.ok(failure?.cause, 'the log has its cause');
  t.end();
});

t.test('any other failure is none of keys', (t) => {
  for (const thrown of [new Error('x'), new TypeError('x'), undefined, 'x'])
    t.equal(failureOfKeys(thrown), undefined);
  t.end();
});
