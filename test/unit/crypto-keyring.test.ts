// The keyring's cache, system keys, row MACs and lease signer.
import { createPublicKey, createSecretKey, generateKeyPairSync, randomBytes } from 'node:crypto';
import { inspect } from 'node:util';
import { calculateJwkThumbprint, compactDecrypt, compactVerify } from 'jose';
import t from 'tap';
import {
  generateRootKey,
  Keyring,
  parseRootKeys,
  recipientKey,
  RootKeys,
  Secret,
} from '../../src/crypto/index.ts';
import type {
  KeyContext,
  SystemPurpose,
  Wrapped,
  WrappedSystemKey,
} from '../../src/crypto/index.ts';
import { newId } from '../../src/shared/ids.ts';
import {
  formats,
  freshDataKey,
  freshKeyring,
  freshBinding,
  isRefused,
  withFlippedBit,
} from '../helpers/crypto.ts';

const fields = new Secret({ apiKey: 'sk-canary-77aa' });
const purposes: readonly SystemPurpose[] = [
  'rowSeal',
  'auditMac',
  'cursor',
  'idempotency',
  'leaseSigning',
];
const macPurposes = ['auditMac', 'cursor', 'idempotency'] as const;

/** Root keys that count how often they are asked to unwrap. */
class CountingRoots extends RootKeys {
  unwraps = 0;

  override unwrap(context: KeyContext, held: Wrapped): Buffer {
    this.unwraps += 1;
    return super.unwrap(context, held);
  }
}

function counted(cacheEntriesMax?: number) {
  const clock = { ms: 1_700_000_000_000 };
  const roots = new CountingRoots([createSecretKey(randomBytes(32))]);
  const keyring = new Keyring({
    roots,
    now: () => clock.ms,
    ...(cacheEntriesMax === undefined ? {} : { cacheEntriesMax }),
  });
  return { clock, roots, keyring };
}

t.test('a data key is unwrapped once a minute, however often it is used', async (t) => {
  const { clock, roots, keyring } = counted();
  const place = freshBinding();
  const key = freshDataKey(keyring, place.team);
  const token = keyring.seal(key, place, fields);
  clock.ms += 59_999;
  keyring.open(key, place, token);
  t.equal(roots.unwraps, 1);
  clock.ms += 1;
  keyring.open(key, place, token);
  t.equal(roots.unwraps, 2, 'age counts from loading, not from use');
  clock.ms -= 10_000;
  keyring.open(key, place, token);
  t.equal(roots.unwraps, 3, 'a clock that was set back makes no entry younger');
  keyring.forget();
  keyring.open(key, place, token);
  t.equal(roots.unwraps, 4);
});

t.test(
  'the cache holds so many keys and no more; the least recently used goes first',
  async (t) => {
    const { roots, keyring } = counted(2);
    const place = freshBinding();
    const [a, b, c] = [
      freshDataKey(keyring, place.team),
      freshDataKey(keyring, place.team),
      freshDataKey(keyring, place.team),
    ];
    for (const key of [a, b, a, c]) keyring.seal(key, place, fields);
    t.equal(roots.unwraps, 3);
    keyring.seal(a, place, fields);
    t.equal(roots.unwraps, 3, 'a was used after b');
    keyring.seal(b, place, fields);
    t.equal(roots.unwraps, 4, 'b had to go for c');
  },
);

t.test('the cache speaks only for the very row that it was made from', async (t) => {
  const { roots, keyring } = counted();
  const place = freshBinding();
  const key = freshDataKey(keyring, place.team);
  const token = keyring.seal(key, place, fields);
  const tampered = withFlippedBit(key.wrapped, 300);
  for (const change of [{ wrapped: tampered }, { version: 2 }, { format: 'fernet-256' as const }]) {
    t.throws(
      () => keyring.open({ ...key, ...change }, place, token),
      { name: 'KeyUnavailable', fingerprint: key.rootFingerprint },
      Object.keys(change).join(),
    );
    keyring.open(key, place, token);
  }
  t.throws(() => keyring.open({ ...key, rootFingerprint: '0'.repeat(16) }, place, token), {
    name: 'KeyUnavailable',
    fingerprint: '0'.repeat(16),
  });
  const material = roots.unwrap(
    { purpose: 'dataKey', owner: key.team, key: key.id, version: key.version, format: key.format },
    key,
  );
  const rewrapped = roots.wrap(
    { purpose: 'dataKey', owner: key.team, key: key.id, version: key.version, format: key.format },
    material,
  );
  t.strictSame(
    keyring.open({ ...key, ...rewrapped }, place, token).expose(),
    fields.expose(),
    'a rewrapped row opens at once',
  );
});

t.test('a data key whose root key is missing is unavailable', async (t) => {
  const place = freshBinding();
  const key = freshDataKey(freshKeyring(), place.team);
  t.throws(() => freshKeyring().seal(key, place, fields), {
    name: 'KeyUnavailable',
    fingerprint: key.rootFingerprint,
  });
  t.throws(() => freshKeyring().open(key, place, 'any'), {
    name: 'KeyUnavailable',
    fingerprint: key.rootFingerprint,
  });
});

t.test(
  'a data key that does not unwrap is unavailable too: its tokens are not called undecryptable',
  async (t) => {
    const [keyring, place] = [freshKeyring(), freshBinding()];
    const [key, next] = [freshDataKey(keyring, place.team), freshDataKey(keyring, place.team)];
    const token = keyring.seal(key, place, fields);
    keyring.forget();
    const tampered = { ...key, wrapped: withFlippedBit(key.wrapped, 300) };
    const unavailable = {
      name: 'KeyUnavailable',
      fingerprint: key.rootFingerprint,
      cause: undefined,
    };
    t.throws(() => keyring.open(tampered, place, token), unavailable);
    t.throws(() => keyring.reseal(tampered, next, place, token), unavailable);
    t.throws(
      () =>
        keyring.reseal(key, { ...next, wrapped: withFlippedBit(next.wrapped, 300) }, place, token),
      unavailable,
    );
    t.throws(() => keyring.seal(tampered, place, fields), unavailable);
    t.strictSame(keyring.open(key, place, token).expose(), fields.expose());
  },
);

t.test('data keys differ, and their fingerprints are 16 hex digits', async (t) => {
  const [keyring, place] = [freshKeyring(), freshBinding()];
  for (const format of formats) {
    const made = [1, 2].map((version) =>
      keyring.newDataKey({ id: newId(), team: place.team, version, format }),
    );
    t.match(made[0]?.fingerprint, /^[0-9a-f]{16}$/);
    t.not(made[0]?.fingerprint, made[1]?.fingerprint);
    t.strictSame(Object.keys(made[0] ?? {}).toSorted(), [
      'fingerprint',
      'format',
      'id',
      'rootFingerprint',
      'team',
      'version',
      'wrapped',
    ]);
  }
});

t.test(
  'a MAC verifies under the key that made it, also when another has become active',
  async (t) => {
    const keyring = freshKeyring();
    for (const purpose of macPurposes) {
      const first = systemKey(keyring, purpose, 1);
      keyring.loadSystemKeys([first]);
      const held = keyring.mac(purpose, 'message');
      t.equal(held.version, 1);
      t.equal(held.mac.length, 32);
      keyring.loadSystemKeys([{ ...first, active: false }, systemKey(keyring, purpose, 2)]);
      t.ok(keyring.verifyMac(purpose, 'message', held), 'an old version still verifies');
      t.ok(keyring.verifyMac(purpose, Buffer.from('message'), held), 'text is UTF-8');
      t.equal(keyring.mac(purpose, 'message').version, 2, 'the active one makes');
      t.notOk(keyring.verifyMac(purpose, 'messagf', held));
      t.notOk(
        keyring.verifyMac(purpose, 'message', { ...held, version: 2 }),
        'under another version',
      );
      t.notOk(
        keyring.verifyMac(purpose, 'message', { ...held, version: 3 }),
        'under a version that is not there',
      );
      for (const mac of [
        Buffer.alloc(0),
        held.mac.subarray(0, 31),
        Buffer.concat([held.mac, Buffer.alloc(1)]),
        Buffer.alloc(32),
      ])
        t.notOk(keyring.verifyMac(purpose, 'message', { version: 1, mac }));
    }
  },
);

t.test('no purpose verifies what another made', async (t) => {
  const keyring = loaded();
  for (const made of macPurposes)
    for (const read of macPurposes)
      t.equal(
        keyring.verifyMac(read, 'm', keyring.mac(made, 'm')),
        made === read,
        `${made} read as ${read}`,
      );
});

t.test(
  'a system key moved to another purpose, version or id does not load, and the set stays',
  async (t) => {
    const keyring = new Keyring({ roots: parseRootKeys(generateRootKey()), now: Date.now });
    const row = systemKey(keyring, 'cursor', 1);
    keyring.loadSystemKeys([row]);
    const before = keyring.mac('cursor', 'm');
    for (const change of [
      { purpose: 'auditMac' as const },
      { purpose: 'leaseSigning' as const },
      { version: 2 },
    ]) {
      t.ok(
        isRefused(() => keyring.loadSystemKeys([{ ...row, ...change }])),
        Object.keys(change).join(),
      );
    }
    for (const damaged of [{ ...row, id: newId() }, systemKey(freshKeyring(), 'cursor', 1)]) {
      t.same(keyring.loadSystemKeys([damaged]), [damaged], 'named; the key stays as it was loaded');
      t.ok(keyring.verifyMac('cursor', 'm', before));
    }
    t.throws(() => freshKeyring().loadSystemKeys([row]), { name: 'KeyUnavailable' });
    t.throws(() => keyring.loadSystemKeys([row, systemKey(keyring, 'cursor', 2)]), {
      message: 'two system keys are active for cursor',
    });
    t.throws(
      () => keyring.loadSystemKeys([row, { ...systemKey(keyring, 'cursor', 1), active: false }]),
      { message: 'two system keys are version 1 of cursor' },
    );
    t.ok(keyring.verifyMac('cursor', 'm', before));
  },
);

t.test('without an active key nothing is made', async (t) => {
  const keyring = freshKeyring();
  keyring.loadSystemKeys(
    purposes.map((purpose) => ({ ...systemKey(keyring, purpose, 1), active: false })),
  );
  for (const purpose of macPurposes)
    t.throws(() => keyring.mac(purpose, 'm'), {
      message: `no system key is active for ${purpose}`,
    });
  t.throws(() => keyring.rowMac('engine', {}), { message: 'no system key is active for rowSeal' });
  t.throws(() => keyring.leaseKeyId(), { message: 'no system key is active for leaseSigning' });
});

t.test('a row with a MAC verifies as it is and not otherwise', async (t) => {
  const keyring = loaded();
  const row = { id: newId(), role: 'viewer', revision: 1 };
  const seal = keyring.rowMac('membership', row);
  t.equal(seal.length, 34);
  t.equal(seal.readUInt16BE(), 1);
  t.ok(
    keyring.verifyRowMac('membership', { revision: 1, role: 'viewer', id: row.id }, seal),
    'the order of columns makes no difference',
  );
  for (const change of [{ role: 'admin' }, { id: newId() }, { revision: 2 }, { extra: null }])
    t.notOk(
      keyring.verifyRowMac('membership', { ...row, ...change }, seal),
      Object.keys(change).join(),
    );
  t.notOk(
    keyring.verifyRowMac('membership', { id: row.id, role: row.role }, seal),
    'a column is missing',
  );
  t.notOk(keyring.verifyRowMac('engine', row, seal), 'another table');
  t.notOk(
    keyring.verifyRowMac('membership', { ...row, revision: JSON.parse('1e400') as number }, seal),
    'a number that only a database can hold',
  );
  for (let bit = 0; bit < seal.length * 8; bit += 1) {
    if (keyring.verifyRowMac('membership', row, withFlippedBit(seal, bit))) t.fail(`bit ${bit}`);
  }
  for (const length of [0, 1, 2, 33])
    t.notOk(keyring.verifyRowMac('membership', row, seal.subarray(0, length)), `${length} bytes`);
  t.notOk(keyring.verifyRowMac('membership', row, Buffer.concat([seal, Buffer.alloc(1)])));
  t.notOk(loaded().verifyRowMac('membership', row, seal), 'another vault');
});

t.test('a row sealed under an older key verifies, and a version takes two bytes', async (t) => {
  const keyring = freshKeyring();
  const old = systemKey(keyring, 'rowSeal', 258);
  keyring.loadSystemKeys([old]);
  const seal = keyring.rowMac('credential', { id: 'a' });
  t.strictSame([...seal.subarray(0, 2)], [1, 2]);
  keyring.loadSystemKeys([{ ...old, active: false }, systemKey(keyring, 'rowSeal', 259)]);
  t.ok(keyring.verifyRowMac('credential', { id: 'a' }, seal));
  t.strictSame([...keyring.rowMac('credential', { id: 'a' }).subarray(0, 2)], [1, 3]);
});

t.test(
  'a row MAC that has verified does so no longer when its key is not loaded any more',
  async (t) => {
    const keyring = freshKeyring();
    const [old, next] = [systemKey(keyring, 'rowSeal', 1), systemKey(keyring, 'rowSeal', 2)];
    keyring.loadSystemKeys([old]);
    const seal = keyring.rowMac('credential', { id: 'a' });
    t.ok(keyring.verifyRowMac('credential', { id: 'a' }, seal));
    t.ok(keyring.verifyRowMac('credential', { id: 'a' }, seal), 'from memory');
    t.notOk(keyring.verifyRowMac('credential', { id: 'b' }, seal), 'of another row');
    t.notOk(
      keyring.verifyRowMac('credential', { id: 'a' }, withFlippedBit(seal, 100)),
      'another row MAC of the row',
    );
    keyring.loadSystemKeys([next]);
    t.notOk(keyring.verifyRowMac('credential', { id: 'a' }, seal));
  },
);

t.test(
  'the lease signer is Ed25519; its kid is the RFC 7638 thumbprint, and its public half stands in the JWK set',
  async (t) => {
    const keyring = freshKeyring();
    const old = systemKey(keyring, 'leaseSigning', 1);
    const next = systemKey(keyring, 'leaseSigning', 2);
    keyring.loadSystemKeys([{ ...old, active: false }, next]);
    const kid = keyring.leaseKeyId();
    const { keys } = keyring.leaseJwks();
    t.equal(keys.length, 2);
    for (const jwk of keys) {
      t.equal(jwk.kid, await calculateJwkThumbprint(jwk));
      t.strictSame(
        Object.keys(jwk).toSorted(),
        ['alg', 'crv', 'kid', 'kty', 'use', 'x'],
        'nothing private',
      );
      t.strictSame([jwk.kty, jwk.crv, jwk.alg, jwk.use], ['OKP', 'Ed25519', 'EdDSA', 'sig']);
    }
    const jwk = keys.find((candidate) => candidate.kid === kid);
    t.ok(jwk);
    const engine = generateKeyPairSync('x25519');
    const sealed = keyring.sealLease(
      Buffer.from('lease'),
      recipientKey(
        'engine',
        engine.publicKey.export({ format: 'jwk' }) as { kty: string; crv: 'X25519'; x: string },
      ),
    );
    const { payload, protectedHeader } = await compactVerify(
      (await compactDecrypt(sealed, engine.privateKey)).plaintext,
      createPublicKey({ key: { ...jwk }, format: 'jwk' }),
    );
    t.equal(Buffer.from(payload).toString(), 'lease');
    t.equal(protectedHeader.kid, kid);
    keyring.loadSystemKeys([next]);
    t.equal(keyring.leaseKeyId(), kid, 'the same row gives the same key');
  },
);

t.test('a keyring shows none of its keys', async (t) => {
  const keyring = loaded();
  const place = freshBinding();
  keyring.seal(freshDataKey(keyring, place.team), place, fields);
  t.notMatch(inspect(keyring, { depth: 9, showHidden: true }), /canary|KeyObject|Buffer/);
  t.equal(JSON.stringify(keyring), '{}');
});

function systemKey(keyring: Keyring, purpose: SystemPurpose, version: number): WrappedSystemKey {
  return keyring.newSystemKey({ id: newId(), purpose, version });
}

function loaded(): Keyring {
  const keyring = new Keyring({ roots: parseRootKeys(generateRootKey()), now: Date.now });
  keyring.loadSystemKeys(purposes.map((purpose) => systemKey(keyring, purpose, 1)));
  return keyring;
}
