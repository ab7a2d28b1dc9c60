// Root keys: read strictly, named by fingerprint, and what they wrap opens only as what it was
// wrapped as.
import { createHmac } from 'node:crypto';
import { inspect } from 'node:util';
import t from 'tap';
import {
  generateRootKey,
  KeyUnavailable,
  parseRootKeys,
  RootKeyInvalid,
} from '../../src/crypto/index.ts';
import type { KeyContext } from '../../src/crypto/index.ts';
import { newId } from '../../src/shared/ids.ts';
import type { TeamId } from '../../src/shared/ids.ts';
import { isRefused, withFlippedBit } from '../helpers/crypto.ts';

const context: KeyContext = {
  purpose: 'dataKey',
  owner: newId<TeamId>(),
  key: 'k1',
  version: 1,
  format: 'fernet',
};
const bytes = Buffer.alloc(32, 5);

t.test(
  'a generated root key is 44 characters, and reads back; its fingerprint is as the format page says',
  async (t) => {
    const text = generateRootKey();
    t.match(text, /^[A-Za-z0-9_-]{43}=$/);
    t.not(generateRootKey(), text);
    const expected = createHmac('sha256', Buffer.from(text, 'base64url'))
      .update('credential-vault/fingerprint/v1')
      .digest('hex')
      .slice(0, 16);
    t.equal(parseRootKeys(text).primary, expected);
  },
);

t.test('the first of several keys is the primary', async (t) => {
  const [a, b] = [generateRootKey(), generateRootKey()];
  const both = parseRootKeys(`${a},${b}`);
  t.strictSame(both.fingerprints, [parseRootKeys(a).primary, parseRootKeys(b).primary]);
  t.equal(both.primary, parseRootKeys(a).primary);
  t.equal(both.wrap(context, bytes).rootFingerprint, both.primary);
});

t.test('any other text is refused; the message says where, and quotes nothing', async (t) => {
  const good = generateRootKey();
  const bad = [
    '',
    ' ',
    good.slice(0, -1),
    `${good}=`,
    ` ${good}`,
    `${good}\n`,
    good.replace('=', ''),
    'A'.repeat(44),
    `${'A'.repeat(42)}B=`,
    'a'.repeat(64),
    '+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/s=',
    Buffer.alloc(31).toString('base64'),
    Buffer.alloc(33).toString('base64'),
    Buffer.alloc(64, 1).toString('base64url'),
  ];
  for (const text of bad) {
    t.throws(() => parseRootKeys(text), {
      name: 'RootKeyInvalid',
      message: 'root key 1 is not 44 characters of padded urlsafe base64',
    });
    t.throws(() => parseRootKeys(`${good},${text}`), {
      name: 'RootKeyInvalid',
      message: 'root key 2 is not 44 characters of padded urlsafe base64',
    });
  }
  t.throws(() => parseRootKeys(`${good},${generateRootKey()},${good}`), {
    name: 'RootKeyInvalid',
    message: 'root key 3 is in the list twice',
  });
  t.throws(() => parseRootKeys('x'), RootKeyInvalid);
});

t.test('what was wrapped unwraps, each time under another nonce', async (t) => {
  const roots = parseRootKeys(generateRootKey());
  const held = roots.wrap(context, bytes);
  t.strictSame(roots.unwrap(context, held), bytes);
  t.notSame(roots.wrap(context, bytes).wrapped, held.wrapped);
  t.notOk(held.wrapped.includes(bytes));
});

t.test('a wrapped key opens as nothing else: each member of its context is bound', async (t) => {
  const roots = parseRootKeys(generateRootKey());
  const held = roots.wrap(context, bytes);
  const others: Partial<KeyContext>[] = [
    { purpose: 'rowSeal' },
    { purpose: 'canary' },
    { owner: newId<TeamId>() },
    { owner: 'system' },
    { key: 'k2' },
    { version: 2 },
    { format: 'fernet-256' },
  ];
  for (const other of others)
    t.ok(
      isRefused(() => roots.unwrap({ ...context, ...other }, held)),
      Object.keys(other).join(),
    );
  t.strictSame(
    new Set(others.flatMap(Object.keys)),
    new Set(Object.keys(context)),
    'no member was left out',
  );
});

t.test('every flipped bit and every shorter text of a wrapped key is refused', async (t) => {
  const roots = parseRootKeys(generateRootKey());
  const held = roots.wrap(context, bytes);
  const opened: string[] = [];
  for (let bit = 0; bit < held.wrapped.length * 8; bit += 1) {
    const wrapped = withFlippedBit(held.wrapped, bit);
    if (!isRefused(() => roots.unwrap(context, { ...held, wrapped }))) opened.push(`bit ${bit}`);
  }
  for (let length = 0; length < held.wrapped.length; length += 1) {
    if (
      !isRefused(() =>
        roots.unwrap(context, { ...held, wrapped: held.wrapped.subarray(0, length) }),
      )
    )
      opened.push(`${length} bytes`);
  }
  t.same(opened, []);
});

t.test(
  'a key wrapped by a root key that is not configured is unavailable, not undecryptable',
  async (t) => {
    const absent = parseRootKeys(generateRootKey());
    const held = absent.wrap(context, bytes);
    t.throws(() => parseRootKeys(generateRootKey()).unwrap(context, held), {
      name: 'KeyUnavailable',
      fingerprint: absent.primary,
    });
    t.throws(() => parseRootKeys(generateRootKey()).makeCanary(absent.primary), KeyUnavailable);
  },
);

t.test('a canary says whether the right root key is configured', async (t) => {
  const [text, other] = [generateRootKey(), generateRootKey()];
  const roots = parseRootKeys(text);
  const canary = roots.makeCanary(roots.primary);
  const several = parseRootKeys(`${other},${text}`);
  t.ok(several.checkCanary(roots.primary, canary), 'wherever it stands in the list');
  t.notOk(several.checkCanary(several.primary, canary), 'another key does not open it');
  t.notOk(parseRootKeys(other).checkCanary(roots.primary, canary), 'the key is missing');
  t.notOk(roots.checkCanary(roots.primary, withFlippedBit(canary, 300)), 'it was changed');
  t.notOk(roots.checkCanary(roots.primary, Buffer.alloc(0)));
});

t.test('root keys do not show', async (t) => {
  const text = generateRootKey();
  const roots = parseRootKeys(text);
  for (const shown of [inspect(roots, { depth: 9, showHidden: true }), JSON.stringify(roots)]) {
    t.notMatch(shown, text.slice(0, 10));
    t.match(shown, roots.primary);
  }
});
