// docs/format.md and its vectors: each value is computed again from the ones before it, the product
// agrees, and the page's Python works.
import { createCipheriv, createDecipheriv, createHash, createHmac } from 'node:crypto';
import { readFileSync } from 'node:fs';
import t from 'tap';
import { generateRootKey, Keyring, parseRootKeys, Secret } from '../../src/crypto/index.ts';
import type {
  Binding,
  SystemPurpose,
  TokenFormat,
  WrappedSystemKey,
} from '../../src/crypto/index.ts';
import { packEnvelope } from '../../src/crypto/envelope.ts';
import { encryptWithIv, importKey } from '../../src/crypto/fernet.ts';
import type { DataKeyId, TeamId } from '../../src/shared/ids.ts';
import type { JsonObject } from '../../src/shared/json.ts';
import { formats, freshDataKey, freshBinding } from '../helpers/crypto.ts';
import { runPython, skipWithoutPython } from '../helpers/python.ts';

interface WrappedVector {
  context: JsonObject;
  associatedData: string;
  nonce: string;
  ciphertext: string;
  tag: string;
  wrapped: string;
}
interface DataKeyVector extends WrappedVector {
  id: DataKeyId;
  team: TeamId;
  version: number;
  format: TokenFormat;
  rootFingerprint: string;
  bytes: string;
  fingerprint: string;
}
interface TokenVector {
  format: TokenFormat;
  dataKey: DataKeyVector;
  place: Binding;
  boundText: string;
  boundDigest: string;
  fields: Record<string, string>;
  plaintext: string;
  plaintextBytes: number;
  time: number;
  iv: string;
  signingKey: string;
  encryptionKey: string;
  token: string;
}
interface SystemKeyVector extends WrappedVector {
  id: string;
  version: number;
  bytes: string;
}
interface Vectors {
  rootKey: string;
  rootFingerprint: string;
  canary: WrappedVector & { text: string };
  tokens: [TokenVector, TokenVector];
  rowSeal: {
    key: SystemKeyVector;
    table: 'credential';
    row: JsonObject;
    sealedText: string;
    mac: string;
    seal: string;
  };
  leaseSigning: { key: SystemKeyVector; x: string; kid: string };
}

const page = readFileSync(new URL('../../docs/format.md', import.meta.url), 'utf8');
const vectors = JSON.parse(
  readFileSync(new URL('../vectors/format.json', import.meta.url), 'utf8'),
) as Vectors;
const python = [...page.matchAll(/^```python\n(.*?)^```$/gms)].map(([, code]) => code).join('\n');
const root = hexOf(Buffer.from(vectors.rootKey, 'base64url'));
const { rowSeal, leaseSigning, canary } = vectors;

t.test('each value of the vectors follows from those before it', async (t) => {
  t.equal(fingerprint(root), vectors.rootFingerprint);
  checkWrapped(t, canary, hexOf(Buffer.from(canary.text)));
  for (const {
    format,
    dataKey,
    place,
    boundText,
    boundDigest,
    plaintext,
    plaintextBytes,
    fields,
    time,
    iv,
    signingKey,
    encryptionKey,
    token,
  } of vectors.tokens) {
    checkWrapped(t, dataKey, dataKey.bytes);
    t.equal(fingerprint(dataKey.bytes), dataKey.fingerprint);
    t.equal(signingKey + encryptionKey, dataKey.bytes);
    t.strictSame(JSON.parse(boundText), { policy: place.policy, publicFields: place.publicFields });
    t.equal(createHash('sha256').update(boundText).digest('base64url'), boundDigest);
    const { pad, ...bound } = JSON.parse(plaintext) as { pad: string };
    const { team, credential, version, type } = place;
    t.strictSame(bound, {
      v: 1,
      team,
      credential,
      version,
      key: dataKey.id,
      type,
      place: boundDigest,
      fields,
    });
    t.match(pad, /^ +$/);
    t.equal(Buffer.byteLength(plaintext), plaintextBytes);
    t.equal(plaintextBytes % 256, 0);
    const cipher = createCipheriv(
      format === 'fernet' ? 'aes-128-cbc' : 'aes-256-cbc',
      Buffer.from(encryptionKey, 'hex'),
      Buffer.from(iv, 'hex'),
    );
    const signed = Buffer.concat([
      Buffer.from(format === 'fernet' ? '80' : '41', 'hex'),
      Buffer.from(time.toString(16).padStart(16, '0'), 'hex'),
      Buffer.from(iv, 'hex'),
      cipher.update(plaintext),
      cipher.final(),
    ]);
    const whole = Buffer.concat([
      signed,
      createHmac('sha256', Buffer.from(signingKey, 'hex')).update(signed).digest(),
    ]);
    t.equal(whole.toString('base64').replaceAll('+', '-').replaceAll('/', '_'), token);
  }
  checkWrapped(t, rowSeal.key, rowSeal.key.bytes);
  t.strictSame(JSON.parse(rowSeal.sealedText), [rowSeal.table, rowSeal.row]);
  t.equal(
    createHmac('sha256', Buffer.from(rowSeal.key.bytes, 'hex'))
      .update(rowSeal.sealedText)
      .digest('hex'),
    rowSeal.mac,
  );
  t.equal(rowSeal.seal, rowSeal.key.version.toString(16).padStart(4, '0') + rowSeal.mac);
  checkWrapped(t, leaseSigning.key, leaseSigning.key.bytes);
  t.equal(
    createHash('sha256')
      .update(`{"crv":"Ed25519","kty":"OKP","x":"${leaseSigning.x}"}`)
      .digest('base64url'),
    leaseSigning.kid,
  );
});

t.test('the vault opens the vectors, and writes them to the letter', async (t) => {
  const roots = parseRootKeys(vectors.rootKey);
  const keyring = new Keyring({ roots, now: Date.now });
  t.equal(roots.primary, vectors.rootFingerprint);
  t.ok(roots.checkCanary(vectors.rootFingerprint, Buffer.from(canary.wrapped, 'hex')));
  for (const { format, dataKey, place, fields, plaintext, time, iv, token } of vectors.tokens) {
    const { id, team, version, rootFingerprint, wrapped } = dataKey;
    t.strictSame(
      keyring
        .open(
          { id, team, version, format, rootFingerprint, wrapped: Buffer.from(wrapped, 'hex') },
          place,
          token,
        )
        .expose(),
      fields,
    );
    t.equal(packEnvelope(id, place, new Secret(fields)).toString(), plaintext);
    t.equal(
      encryptWithIv(
        importKey(format, Buffer.from(dataKey.bytes, 'hex')),
        Buffer.from(plaintext),
        BigInt(time),
        Buffer.from(iv, 'hex'),
      ),
      token,
    );
  }
  const systemKey = (
    purpose: SystemPurpose,
    { id, version, wrapped }: SystemKeyVector,
  ): WrappedSystemKey => ({
    id,
    purpose,
    version,
    active: true,
    rootFingerprint: vectors.rootFingerprint,
    wrapped: Buffer.from(wrapped, 'hex'),
  });
  keyring.loadSystemKeys([
    systemKey('rowSeal', rowSeal.key),
    systemKey('leaseSigning', leaseSigning.key),
  ]);
  t.equal(hexOf(keyring.rowMac(rowSeal.table, rowSeal.row)), rowSeal.seal);
  t.ok(keyring.verifyRowMac(rowSeal.table, rowSeal.row, Buffer.from(rowSeal.seal, 'hex')));
  t.strictSame(
    keyring.leaseJwks().keys.map(({ x, kid }) => ({ x, kid })),
    [{ x: leaseSigning.x, kid: leaseSigning.kid }],
  );
});

t.test('the page shows the values of the vectors', async (t) => {
  const [
    {
      dataKey,
      boundText,
      boundDigest,
      plaintext,
      plaintextBytes,
      fields,
      time,
      iv,
      signingKey,
      encryptionKey,
      token,
    },
  ] = vectors.tokens;
  const shown = [
    vectors.rootKey,
    vectors.rootFingerprint,
    canary.text,
    dataKey.associatedData,
    dataKey.nonce,
    dataKey.ciphertext,
    dataKey.tag,
    dataKey.bytes,
    dataKey.fingerprint,
    signingKey,
    encryptionKey,
    String(time),
    iv,
    boundText,
    boundDigest,
    `${plaintextBytes} bytes`,
    plaintext.replace(/ +"}$/, ''),
    JSON.stringify(fields),
    token,
    rowSeal.key.associatedData,
    rowSeal.key.wrapped,
    rowSeal.key.bytes,
    rowSeal.sealedText,
    rowSeal.seal,
    leaseSigning.key.bytes,
    leaseSigning.x,
    leaseSigning.kid,
  ];
  for (const value of shown) t.ok(page.includes(value), value.slice(0, 40));
});

t.test('the Python of the page opens the vectors', { skip: skipWithoutPython }, async (t) => {
  for (const { format, dataKey, place, plaintext, boundDigest, token } of vectors.tokens) {
    const { opened, bound } = openInPython({
      rootKey: vectors.rootKey,
      format,
      context: dataKey.context,
      wrapped: dataKey.wrapped,
      token,
      place,
    });
    t.strictSame(opened, JSON.parse(plaintext));
    t.equal(bound, boundDigest);
  }
});

t.test(
  'the Python of the page opens what the vault seals',
  { skip: skipWithoutPython },
  async (t) => {
    const rootKey = generateRootKey();
    const keyring = new Keyring({ roots: parseRootKeys(rootKey), now: Date.now });
    for (const format of formats) {
      const place = freshBinding();
      const fields = { apiKey: 'sk-"ключ" 🔑\r\n', large: 'x'.repeat(70_000) };
      const key = freshDataKey(keyring, place.team, format);
      const context = {
        purpose: 'dataKey',
        owner: key.team,
        key: key.id,
        version: key.version,
        format,
      };
      const token = keyring.seal(key, place, new Secret(fields));
      const { opened, bound } = openInPython({
        rootKey,
        format,
        context,
        wrapped: hexOf(key.wrapped),
        token,
        place,
      });
      const { team, credential, version, type } = place;
      t.match(opened, { v: 1, team, credential, version, key: key.id, type, place: bound, fields });
    }
  },
);

function openInPython(given: {
  rootKey: string;
  format: TokenFormat;
  context: JsonObject;
  wrapped: string;
  token: string;
  place: Binding;
}) {
  return runPython<{ opened: JsonObject; bound: string }>(
    `${python}
data_key = unwrap(given["rootKey"], given["context"], bytes.fromhex(given["wrapped"]))
opened = (open_token if given["format"] == "fernet" else open_token_256)(data_key, given["token"])
answer({ "opened": opened, "bound": place(given["place"]["policy"], given["place"]["publicFields"]) })`,
    given,
  );
}

function checkWrapped(
  t: { equal(a: unknown, b: unknown): boolean; strictSame(a: unknown, b: unknown): boolean },
  vector: WrappedVector,
  bytes: string,
): void {
  t.strictSame(JSON.parse(vector.associatedData), vector.context);
  t.equal(
    JSON.stringify(
      Object.fromEntries(Object.entries(vector.context).toSorted(([a], [b]) => (a < b ? -1 : 1))),
    ),
    vector.associatedData,
  );
  t.equal(`01${vector.nonce}${vector.ciphertext}${vector.tag}`, vector.wrapped);
  const decipher = createDecipheriv(
    'aes-256-gcm',
    Buffer.from(root, 'hex'),
    Buffer.from(vector.nonce, 'hex'),
  )
    .setAAD(Buffer.from(vector.associatedData))
    .setAuthTag(Buffer.from(vector.tag, 'hex'));
  t.equal(
    hexOf(
      Buffer.concat([decipher.update(Buffer.from(vector.ciphertext, 'hex')), decipher.final()]),
    ),
    bytes,
  );
}

function fingerprint(keyHex: string): string {
  return createHmac('sha256', Buffer.from(keyHex, 'hex'))
    .update('credential-vault/fingerprint/v1')
    .digest('hex')
    .slice(0, 16);
}

function hexOf(bytes: Buffer): string {
  return bytes.toString('hex');
}
