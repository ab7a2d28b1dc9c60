// The codec against the vectors: those of the specification, those made with Python's
// `cryptography`, and everything tampered with.
import { createHmac, createCipheriv } from 'node:crypto';
import { readFileSync } from 'node:fs';
import t from 'tap';
import { fromBase64, toBase64 } from '../../src/crypto/encoding.ts';
import { decrypt, encrypt, encryptWithIv, importKey, keyBytesOf } from '../../src/crypto/fernet.ts';
import type { FernetKey, TokenFormat } from '../../src/crypto/fernet.ts';
import { formats, isRefused, withFlippedBit } from '../helpers/crypto.ts';

interface Vectors {
  keys: Record<string, string>;
  generate: { key: string; iv: string; time: number; msg_b64: string; token: string }[];
}
interface Verify {
  desc: string;
  key: string;
  token: string;
  ttl: number | null;
  now: number | null;
  result: 'valid' | 'invalid';
  msg_b64?: string;
}
interface Rotate {
  keysNewestFirst: [string, string];
  token: string;
  rotated_by_pyca: string;
  msg_b64: string;
}
interface BadKey {
  desc: string;
  key: string;
}
interface FernetVectors extends Vectors {
  verify: Verify[];
  rotate: Rotate[];
  badKeys: BadKey[];
}
interface Fernet256Vectors extends Vectors {
  invalid: { desc: string; key: string; token: string }[];
  badKeys: BadKey[];
}

const standard = read<FernetVectors>('fernet');
const extended = read<Fernet256Vectors>('fernet-256');
const clockSkewSeconds = 60;

t.test('the vector of the specification is made and opened', async (t) => {
  const { secret, iv, time, message, token } = read<{
    secret: string;
    iv: number[];
    time: number;
    message: string;
    token: string;
  }>('spec');
  const key = keyFrom('fernet', secret);
  t.equal(encryptWithIv(key, Buffer.from(message), BigInt(time), Buffer.from(iv)), token);
  t.strictSame(decrypt(key, token), { time: BigInt(time), plaintext: Buffer.from(message) });
});

for (const [format, vectors] of [
  ['fernet', standard],
  ['fernet-256', extended],
] as const) {
  t.test(`${format}: each generated vector is made to the letter, and opens`, async (t) => {
    t.ok(vectors.generate.length > 20);
    for (const { key: name, iv, time, msg_b64, token } of vectors.generate) {
      const key = keyNamed(format, vectors, name);
      const plaintext = Buffer.from(msg_b64, 'base64');
      t.equal(encryptWithIv(key, plaintext, BigInt(time), Buffer.from(iv, 'hex')), token);
      t.strictSame(decrypt(key, token), { time: BigInt(time), plaintext });
    }
  });

  t.test(`${format}: bad keys are not read`, async (t) => {
    t.ok(vectors.badKeys.length > 5);
    for (const { desc, key } of vectors.badKeys)
      t.throws(() => keyFrom(format, key), TypeError, desc);
  });
}

t.test(
  'fernet: the verdict on each token is that of the other library, but stricter on encodings',
  async (t) => {
    t.ok(standard.verify.length > 200);
    for (const { desc, key: name, token, ttl, now, result, msg_b64 } of standard.verify) {
      const key = keyNamed('fernet', standard, name);
      const isLenientThere = desc.startsWith('encoding: ') && result === 'valid';
      if (ttl !== null && now !== null) {
        // The vault has no expiry at rest: the token opens, and its time gives the verdict.
        const time = Number(decrypt(key, token).time);
        t.equal(time + ttl >= now && time <= now + clockSkewSeconds, result === 'valid', desc);
      } else if (result === 'invalid' || isLenientThere) {
        t.ok(
          isRefused(() => decrypt(key, token)),
          desc,
        );
      } else {
        t.strictSame(decrypt(key, token).plaintext, Buffer.from(msg_b64 ?? '', 'base64'), desc);
      }
    }
  },
);

t.test('fernet-256: each invalid token is refused', async (t) => {
  t.ok(extended.invalid.length > 100);
  for (const { desc, key, token } of extended.invalid)
    t.ok(
      isRefused(() => decrypt(keyNamed('fernet-256', extended, key), token)),
      desc,
    );
});

t.test(
  'a token rotated by the other library opens under the newer key alone, with its old timestamp',
  async (t) => {
    for (const {
      keysNewestFirst: [newest],
      token,
      rotated_by_pyca,
      msg_b64,
    } of standard.rotate) {
      const [now, before] = [
        decrypt(keyNamed('fernet', standard, newest), rotated_by_pyca),
        fromBase64(token),
      ];
      t.strictSame(now.plaintext, Buffer.from(msg_b64, 'base64'));
      t.equal(now.time, before?.readBigUInt64BE(1));
      t.ok(isRefused(() => decrypt(keyNamed('fernet', standard, newest), token)));
    }
  },
);

for (const format of formats) {
  const key = importKey(format, Buffer.alloc(keyBytesOf(format), 7));
  const token = encrypt(key, Buffer.from('a secret of some length'), 1_700_000_000n);
  const bytes = fromBase64(token) as Buffer;

  t.test(`${format}: every flipped bit is noticed`, async (t) => {
    t.same(decrypt(key, token).plaintext.toString(), 'a secret of some length');
    for (let bit = 0; bit < bytes.length * 8; bit += 1) {
      if (!isRefused(() => decrypt(key, toBase64(withFlippedBit(bytes, bit)))))
        t.fail(`bit ${bit} of the token`);
    }
    for (let bit = 0; bit < token.length * 8; bit += 1) {
      if (
        !isRefused(() => decrypt(key, withFlippedBit(Buffer.from(token), bit).toString('latin1')))
      )
        t.fail(`bit ${bit} of the text`);
    }
  });

  t.test(`${format}: no beginning of a token is a token`, async (t) => {
    const opened: string[] = [];
    for (let length = 0; length < token.length; length += 1) {
      if (!isRefused(() => decrypt(key, token.slice(0, length))))
        opened.push(`${length} characters`);
    }
    for (let length = 0; length < bytes.length; length += 1) {
      if (!isRefused(() => decrypt(key, toBase64(bytes.subarray(0, length)))))
        opened.push(`${length} bytes`);
    }
    t.same(opened, []);
  });

  t.test(
    `${format}: a token with the version byte of the other format does not open, though its MAC is right`,
    async (t) => {
      const other = Buffer.from(bytes);
      other[0] = format === 'fernet' ? 0x41 : 0x80;
      t.ok(isRefused(() => decrypt(key, signed(key, other.subarray(0, -32)))));
      t.same(
        decrypt(key, signed(key, bytes.subarray(0, -32))).plaintext.toString(),
        'a secret of some length',
        'the signing in this test is right',
      );
    },
  );

  t.test(
    `${format}: no key is used for what is not shaped like a token, and the cipher's not for what has a wrong MAC`,
    async (t) => {
      const used: string[] = [];
      const watched: FernetKey = {
        format,
        get signing() {
          used.push('signing');
          return key.signing;
        },
        get encryption() {
          used.push('encryption');
          return key.encryption;
        },
      };
      const otherVersion = Buffer.concat([Buffer.of(0x81), bytes.subarray(1, -32)]);
      const misshapen = [
        '',
        token.slice(4),
        `${token} `,
        signed(key, bytes.subarray(0, -33)),
        signed(key, bytes.subarray(0, 25)),
        signed(key, otherVersion),
      ];
      for (const text of misshapen) t.ok(isRefused(() => decrypt(watched, text)));
      t.strictSame(used, []);
      t.ok(isRefused(() => decrypt(watched, toBase64(withFlippedBit(bytes, 300)))));
      t.strictSame(used, ['signing']);
      decrypt(watched, token);
      t.strictSame(used, ['signing', 'signing', 'encryption']);
    },
  );

  t.test(
    `${format}: text around or inside a token, or another spelling of it, is not a token`,
    async (t) => {
      for (const text of [
        ` ${token}`,
        `${token}\n`,
        `${token}=`,
        `${token}====`,
        `"${token}"`,
        token.replace(/=+$/, ''),
        `${token}AAAA`,
        `${token}\0`,
        `${token.slice(0, 40)}\n${token.slice(40)}`,
        `${token.slice(0, 40)}!${token.slice(40)}`,
        token.replaceAll('-', '+').replaceAll('_', '/') + ' ',
      ]) {
        t.ok(isRefused(() => decrypt(key, text)));
      }
    },
  );

  t.test(
    `${format}: a right MAC over wrong padding gives the same error as a wrong MAC`,
    async (t) => {
      const head = bytes.subarray(0, 25);
      const cipher = createCipheriv(
        format === 'fernet' ? 'aes-128-cbc' : 'aes-256-cbc',
        key.encryption,
        head.subarray(9),
      ).setAutoPadding(false);
      const badlyPadded = signed(
        key,
        Buffer.concat([head, cipher.update(Buffer.alloc(32)), cipher.final()]),
      );
      t.ok(isRefused(() => decrypt(key, badlyPadded)));
    },
  );

  t.test(`${format}: two tokens of one plaintext differ, and both open`, async (t) => {
    const again = encrypt(key, Buffer.from('a secret of some length'), 1_700_000_000n);
    t.not(again, token);
    t.strictSame(decrypt(key, again), decrypt(key, token));
  });
}

function signed(key: FernetKey, message: Buffer): string {
  return toBase64(
    Buffer.concat([message, createHmac('sha256', key.signing).update(message).digest()]),
  );
}

function keyNamed(format: TokenFormat, { keys }: Vectors, name: string): FernetKey {
  return keyFrom(format, keys[name] as string);
}

function keyFrom(format: TokenFormat, text: string): FernetKey {
  return importKey(format, fromBase64(text) ?? Buffer.alloc(0));
}

function read<T>(name: string): T {
  return JSON.parse(
    readFileSync(new URL(`../vectors/fernet/${name}.json`, import.meta.url), 'utf8'),
  ) as T;
}
