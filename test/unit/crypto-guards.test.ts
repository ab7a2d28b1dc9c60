// Guards of cryptography that nothing else would miss.
import { createSecretKey, randomBytes } from 'node:crypto';
import t from 'tap';
import {
  Keyring,
  KeyUnavailable,
  openForeignToken,
  parseRootKeys,
  generateRootKey,
  RootKeys,
  Secret,
} from '../../src/crypto/index.ts';
import type {
  KeyContext,
  Binding,
  SystemPurpose,
  Wrapped,
  WrappedSystemKey,
} from '../../src/crypto/index.ts';
import { newId, type TeamId } from '../../src/shared/ids.ts';
import { freshDataKey, freshKeyring, freshBinding, isRefused } from '../helpers/crypto.ts';

const fields = new Secret({ apiKey: 'sk-guards' });

t.test('a cached key does not serve a row that says another team', async (t) => {
  const keyring = freshKeyring();
  const place = freshBinding();
  const key = freshDataKey(keyring, place.team);
  keyring.seal(key, place, fields);
  const team = newId<TeamId>();
  t.throws(() => keyring.seal({ ...key, team }, { ...place, team }, fields), {
    name: 'KeyUnavailable',
  });
  t.type(keyring.seal(key, place, fields), 'string', 'its own team has it still');
});

t.test('a token of another system that none of the keys opens is refused', async (t) => {
  t.ok(isRefused(() => openForeignToken([randomBytes(32), randomBytes(32)], 'gAAAAA')));
  t.ok(isRefused(() => openForeignToken([], 'gAAAAA')));
});

t.test('without a root key there is no keyring', async (t) => {
  t.throws(() => new RootKeys([]), { name: 'RootKeyInvalid', message: 'there is no root key' });
  t.ok(new Keyring({ roots: parseRootKeys(generateRootKey()), now: Date.now }));
});

t.test('a token opens only beside the names of its own fields', async (t) => {
  const keyring = freshKeyring();
  const place = freshBinding();
  const key = freshDataKey(keyring, place.team);
  // A row can hold any JSON, whatever the type says.
  const open = (token: string, secretFields: unknown) =>
    keyring.open(
      key,
      { ...place, secretFields: secretFields as Binding['secretFields'] & object },
      token,
    );

  // Names of one letter, so that a text of them has as many letters as there are fields.
  const both = { a: 'sk-1', b: 'sk-2' };
  const token = keyring.seal(key, place, new Secret(both));
  t.strictSame(keyring.open(key, place, token).expose(), both, 'a row that says no names');
  t.strictSame(open(token, ['a', 'b']).expose(), both);
  t.strictSame(open(token, ['b', 'a']).expose(), both, 'in any order');
  for (const names of [
    [],
    ['a'],
    ['b'],
    ['a', 'b', 'c'],
    ['a', 'c'],
    ['c', 'd'],
    ['A', 'b'],
    ['a', 'a'],
    ['a', 'b', 'b'],
    ['a', null],
    [['a'], ['b']],
    [['a', 'b']],
    'ab',
    'ba',
    '',
    null,
    0,
    2,
    true,
    {},
    { length: 2, 0: 'a', 1: 'b' },
    { a: 'a', b: 'b' },
  ])
    t.ok(
      isRefused(() => open(token, names)),
      JSON.stringify(names),
    );

  const bare = keyring.seal(key, place, new Secret({}));
  t.strictSame(open(bare, []).expose(), {});
  for (const names of ['', null, 0, {}, ['a'], [null]])
    t.ok(
      isRefused(() => open(bare, names)),
      `no fields beside ${JSON.stringify(names)}`,
    );
});

/** A system key as it was wrapped before wrapping said an epoch. */
function earlierKey(roots: RootKeys, purpose: SystemPurpose): WrappedSystemKey {
  const id = newId();
  const format = purpose === 'leaseSigning' ? 'ed25519' : 'hmac-sha256';
  const context: KeyContext = { purpose, owner: 'system', key: id, version: 1, format };
  return { id, purpose, version: 1, active: true, ...roots.wrap(context, randomBytes(32)) };
}

for (const purposes of [
  ['rowSeal', 'auditMac'],
  ['leaseSigning'],
  ['rowSeal', 'leaseSigning'],
] as const) {
  t.test(
    `${purposes.join(' and ')}: keys from before the take-over do not come back`,
    async (t) => {
      const roots = parseRootKeys(generateRootKey());
      const earlier = purposes.map((purpose) => earlierKey(roots, purpose));
      const keyring = new Keyring({ roots, now: Date.now });
      keyring.loadSystemKeys(earlier);
      t.notOk(keyring.isTakenOver, 'the first load may be of any epoch');
      t.ok(keyring.hasUnclosedKeys);
      keyring.loadSystemKeys(earlier);
      t.notOk(keyring.isTakenOver, 'nor is there anything against the same once more');

      const closed = earlier.map((row) => ({ ...row, ...keyring.closeSystemKey(row) }));
      for (const row of closed) t.equal(keyring.closeSystemKey(row), undefined, 'closed for good');
      keyring.loadSystemKeys(closed);
      t.ok(keyring.isTakenOver);
      t.notOk(keyring.hasUnclosedKeys);

      const damaged = { ...closed[0]!, wrapped: Buffer.alloc(61) };
      const sets = [earlier, ...(purposes.length > 1 ? [[damaged, ...earlier.slice(1)]] : [])];
      for (const set of sets) {
        t.throws(() => keyring.loadSystemKeys(set), { name: 'EpochReturned' });
        t.ok(keyring.isTakenOver, 'the set in use stays');
        t.notOk(keyring.hasUnclosedKeys);
      }
      if (purposes.length > 1) {
        keyring.loadSystemKeys([closed[0]!, ...earlier.slice(1)]);
        t.ok(keyring.isTakenOver, 'one closed key speaks for all');
        t.ok(keyring.hasUnclosedKeys, 'the others are still to be closed');
      }
    },
  );
}

t.test('a set of system keys is empty only as long as there were none', async (t) => {
  const keyring = freshKeyring();
  t.strictSame(keyring.loadSystemKeys([]), []);
  t.throws(() => keyring.mac('cursor', 'm'), { message: 'no system key is active for cursor' });
  t.strictSame(keyring.leaseJwks(), { keys: [] });

  const key = keyring.newSystemKey({ id: newId(), purpose: 'cursor', version: 1 });
  keyring.loadSystemKeys([key]);
  const mac = keyring.mac('cursor', 'm');
  t.throws(() => keyring.loadSystemKeys([]), { name: 'SystemKeysMissing' });
  t.ok(keyring.verifyMac('cursor', 'm', mac), 'the set in use stays');
  t.ok(keyring.isTakenOver);
});

t.test('SECURITY: nor does an empty set forget that the take-over is closed', async (t) => {
  const roots = parseRootKeys(generateRootKey());
  const earlier = earlierKey(roots, 'rowSeal');
  const keyring = new Keyring({ roots, now: Date.now });
  keyring.loadSystemKeys([earlier]);
  keyring.loadSystemKeys([{ ...earlier, ...keyring.closeSystemKey(earlier) }]);
  t.throws(() => keyring.loadSystemKeys([]), { name: 'SystemKeysMissing' });
  t.throws(() => keyring.loadSystemKeys([earlier]), { name: 'EpochReturned' });
  t.ok(keyring.isTakenOver);
});

/** Root keys behind a service that fails to answer, once. */
class OnceFailingRoots extends RootKeys {
  failure: Error | undefined;
  unwraps = 0;

  override unwrap(context: KeyContext, held: Wrapped): Buffer {
    this.unwraps += 1;
    const { failure } = this;
    this.failure = undefined;
    if (failure !== undefined) throw failure;
    return super.unwrap(context, held);
  }
}

t.test(
  'an outage while a system key unwraps does not count as a key that was changed',
  async (t) => {
    const roots = new OnceFailingRoots([createSecretKey(randomBytes(32))]);
    const keyring = new Keyring({ roots, now: Date.now });
    const key = keyring.newSystemKey({ id: newId(), purpose: 'cursor', version: 1 });
    for (const failure of [new KeyUnavailable(roots.primary), new Error('the service is away')])
      for (const [name, act] of [
        ['load', () => keyring.loadSystemKeys([key])],
        ['rewrap', () => keyring.rewrapSystemKey(key)],
        ['close', () => keyring.closeSystemKey(key)],
      ] as const) {
        roots.failure = failure;
        roots.unwraps = 0;
        let thrown: unknown;
        try {
          act();
        } catch (error) {
          thrown = error;
        }
        t.equal(thrown, failure, `${name}: ${failure.name} is passed on`);
        t.equal(roots.unwraps, 1, 'the key is not tried as an older one');
      }
    t.strictSame(keyring.loadSystemKeys([key]), [], 'it loads when the service is back');
  },
);
