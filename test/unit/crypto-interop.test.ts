// Other people's Fernet opens our tokens, and we open theirs.
import { createRequire } from 'node:module';
import t from 'tap';
import { toBase64 } from '../../src/crypto/encoding.ts';
import { decrypt, encrypt, importKey, keyBytesOf } from '../../src/crypto/fernet.ts';
import { runPython, skipWithoutPython } from '../helpers/python.ts';

interface FernetPackage {
  Secret: new (key: string) => object;
  Token: new (options: {
    secret: object;
    token?: string;
    ttl?: number;
  }) => { encode(message: string): string; decode(): string };
}

const fernet = createRequire(import.meta.url)('fernet') as FernetPackage;
const messages = [
  '',
  'a',
  'fifteen bytes..',
  'sixteen bytes...',
  'ключ 🔑\r\n',
  'x'.repeat(10_000),
];
const keyBytes = Buffer.from(Array.from({ length: keyBytesOf('fernet') }, (_, index) => index * 7));
const keyText = toBase64(keyBytes);
const key = importKey('fernet', keyBytes);

t.test('the npm package opens our tokens, and we open those that it makes', async (t) => {
  const secret = new fernet.Secret(keyText);
  for (const message of messages) {
    const ours = encrypt(key, Buffer.from(message), 1_700_000_000n);
    t.equal(new fernet.Token({ secret, token: ours, ttl: 0 }).decode(), message);
    const theirs = new fernet.Token({ secret }).encode(message);
    t.equal(decrypt(key, theirs).plaintext.toString(), message);
  }
});

t.test(
  'Python opens our tokens, and we open those that it makes',
  { skip: skipWithoutPython },
  async (t) => {
    const ours = messages.map((message) => encrypt(key, Buffer.from(message), 1_700_000_000n));
    const { opened, theirs } = runPython<{ opened: string[]; theirs: string[] }>(
      `
from cryptography.fernet import Fernet
box = Fernet(given["key"])
answer({
  "opened": [box.decrypt(token.encode()).decode() for token in given["tokens"]],
  "theirs": [box.encrypt(message.encode()).decode() for message in given["messages"]],
})`,
      { key: keyText, messages, tokens: ours },
    );
    t.strictSame(opened, messages);
    t.strictSame(
      theirs.map((token) => decrypt(key, token).plaintext.toString()),
      messages,
    );
  },
);

t.test(
  'Python’s MultiFernet rotates our tokens, and keeps their timestamp',
  { skip: skipWithoutPython },
  async (t) => {
    const newerBytes = Buffer.alloc(keyBytesOf('fernet'), 9);
    const rotated = runPython<string>(
      `
from cryptography.fernet import Fernet, MultiFernet
answer(MultiFernet([Fernet(key) for key in given["keys"]]).rotate(given["token"].encode()).decode())`,
      {
        keys: [toBase64(newerBytes), keyText],
        token: encrypt(key, Buffer.from('rotate me'), 1_600_000_000n),
      },
    );
    t.strictSame(decrypt(importKey('fernet', newerBytes), rotated), {
      time: 1_600_000_000n,
      plaintext: Buffer.from('rotate me'),
    });
  },
);
