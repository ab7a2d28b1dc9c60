// Texts under a passphrase as OpenSSL makes them, which n8n keeps: `openssl enc -aes-256-cbc -md md5`.
import t from 'tap';
import { DecryptionFailed, openSaltedText } from '../../src/crypto/index.ts';

const passphrase = 'n8n-key';
const text = 'U2FsdGVkX18TgfsfLv7hpNaNtDIgmNg9rvtGGRGf1jc='; // made by OpenSSL 3.0.19

t.test('what OpenSSL made is opened', (t) => {
  t.equal(openSaltedText(passphrase, text), 'the plain text');
  t.end();
});

t.test('what is no such text opens nothing', (t) => {
  const bytes = Buffer.from(text, 'base64');
  const without = Buffer.from(bytes);
  without[0] = without[0]! ^ 1;
  for (const [what, other] of [
    ['another mark in front', without],
    ['the mark and the salt alone', bytes.subarray(0, 16)],
    ['half a block', bytes.subarray(0, 24)],
    ['nothing', Buffer.alloc(0)],
  ] as const)
    t.throws(() => openSaltedText(passphrase, other.toString('base64')), DecryptionFailed, what);
  t.throws(() => openSaltedText('another key', text), DecryptionFailed);
  t.end();
});
