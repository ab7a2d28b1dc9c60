// Which keys of a document verify tokens: public ones, for signatures, of a kind that is accepted.
import { generateKeyPairSync } from 'node:crypto';
import t from 'tap';
import { AnswerUnfit, readKeys } from '../../src/access/verifying-keys.ts';
import { folded } from '../helpers/folded.ts';

const pair = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const jwk = pair.publicKey.export({ format: 'jwk' });
const privateJwk = pair.privateKey.export({ format: 'jwk' });
const countOf = (...keys: unknown[]): number => readKeys({ keys }).keys.size;

t.test('a document without a list of keys is refused', async (t) => {
  for (const document of [{}, { keys: null }, { keys: {} }, { keys: 'x' }, { keys: { length: 1 } }])
    t.throws(() => readKeys(document), new AnswerUnfit('noKeys'), JSON.stringify(document));
});

t.test(
  'a public key for signatures is taken',
  folded((t) => {
    for (const more of [
      {},
      { kid: 'a' },
      { use: 'sig' },
      { alg: 'ES256' },
      { key_ops: ['verify'] },
      { key_ops: ['sign', 'verify'] },
    ])
      t.equal(countOf({ ...jwk, ...more }), 1, JSON.stringify(more));
  }),
);

t.test(
  'a key for anything else is not',
  folded((t) => {
    for (const more of [
      { kid: 7 },
      { kid: null },
      { kid: ['a'] },
      { use: 'enc' },
      { use: null },
      { alg: 'RS256' },
      { alg: 'none' },
      { key_ops: ['encrypt'] },
      { key_ops: [] },
      { crv: 'P-257' },
      { x: 'AA' },
    ])
      t.equal(countOf({ ...jwk, ...more }), 0, JSON.stringify(more));
    for (const no of [null, 'key', 7, [], { kty: 'EC' }]) t.equal(countOf(no), 0, String(no));
  }),
);

t.test("SECURITY: a private key that is published verifies nobody's tokens", async (t) => {
  t.equal(countOf(privateJwk), 0);
  t.equal(countOf({ kty: 'oct', k: 'c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3I' }), 0);
  t.equal(countOf({ ...jwk, k: 'AA' }), 0);
  t.equal(countOf({ ...jwk, d: privateJwk.d }), 0);
});
