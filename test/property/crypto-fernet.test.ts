// Laws of the codec, in both formats.
import fc from 'fast-check';
import t from 'tap';
import { decrypt, encrypt, encryptWithIv, importKey, keyBytesOf } from '../../src/crypto/fernet.ts';
import type { FernetKey, TokenFormat } from '../../src/crypto/fernet.ts';
import { formats, isRefused } from '../helpers/crypto.ts';

const bytes = (length: number) =>
  fc.uint8Array({ minLength: length, maxLength: length }).map((array) => Buffer.from(array));
const message = fc.uint8Array({ maxLength: 2000 }).map((array) => Buffer.from(array));
const time = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });
const keyOf = (format: TokenFormat): fc.Arbitrary<FernetKey> =>
  bytes(keyBytesOf(format)).map((material) => importKey(format, material));

for (const format of formats) {
  t.test(`${format}: what was encrypted decrypts to the same bytes and time`, async () => {
    fc.assert(
      fc.property(keyOf(format), message, time, (key, plaintext, time) => {
        const opened = decrypt(key, encrypt(key, plaintext, time));
        return opened.time === time && opened.plaintext.equals(plaintext);
      }),
    );
  });

  t.test(`${format}: with key, time and iv given, there is one token`, async () => {
    fc.assert(
      fc.property(
        keyOf(format),
        message,
        time,
        bytes(16),
        (key, plaintext, time, iv) =>
          encryptWithIv(key, plaintext, time, iv) === encryptWithIv(key, plaintext, time, iv),
      ),
    );
  });

  t.test(`${format}: another key opens nothing`, async () => {
    fc.assert(
      fc.property(keyOf(format), keyOf(format), message, (key, other, plaintext) => {
        fc.pre(!key.signing.equals(other.signing));
        return isRefused(() => decrypt(other, encrypt(key, plaintext, 1n)));
      }),
    );
  });

  t.test(`${format}: no text that was not made with the key opens`, async () => {
    const text = fc.oneof(
      fc.string({ unit: 'binary' }),
      fc.base64String(),
      message.map((array) => array.toString('base64url')),
    );
    fc.assert(
      fc.property(keyOf(format), text, (key, token) => isRefused(() => decrypt(key, token))),
    );
  });
}
