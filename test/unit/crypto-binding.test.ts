// A token opens at its place and nowhere else.
import t from 'tap';
import { generateRootKey, Keyring, parseRootKeys, Secret } from '../../src/crypto/index.ts';
import type { Binding, SecretFields, WrappedDataKey } from '../../src/crypto/index.ts';
import { fromBase64 } from '../../src/crypto/encoding.ts';
import { packEnvelope, unpackEnvelope } from '../../src/crypto/envelope.ts';
import { encrypt, importKey } from '../../src/crypto/fernet.ts';
import { newId } from '../../src/shared/ids.ts';
import type { CredentialId, DataKeyId, TeamId } from '../../src/shared/ids.ts';
import type { JsonObject } from '../../src/shared/json.ts';
import { formats, freshDataKey, freshKeyring, freshBinding, isRefused } from '../helpers/crypto.ts';

const fields: SecretFields = new Secret({ apiKey: 'sk-canary-9c1f' });

for (const format of formats) {
  t.test(
    `${format}: what was sealed opens at its place, and the token holds none of it in the clear`,
    async (t) => {
      const [keyring, place] = [freshKeyring(), freshBinding()];
      const key = freshDataKey(keyring, place.team, format);
      const token = keyring.seal(key, place, fields);
      t.strictSame(keyring.open(key, place, token).expose(), { apiKey: 'sk-canary-9c1f' });
      t.notMatch(fromBase64(token)?.toString('latin1'), 'canary');
      t.equal(fromBase64(token)?.[0], format === 'fernet' ? 0x80 : 0x41);
    },
  );

  t.test(`${format}: each change of place is refused`, async (t) => {
    const [keyring, place] = [freshKeyring(), freshBinding()];
    const key = freshDataKey(keyring, place.team, format);
    const token = keyring.seal(key, place, fields);
    const moved: Partial<Binding>[] = [
      { team: newId<TeamId>() },
      { credential: newId<CredentialId>() },
      { version: 4 },
      { type: 'custom' },
      { publicFields: {} },
      { publicFields: { baseUrl: 'https://attacker.example' } },
      { publicFields: { ...place.publicFields, extra: null } },
      { publicFields: JSON.parse('{"port":1e400}') as JsonObject },
      { policy: {} },
      { policy: { ...place.policy, delivery: ['lease', 'broker'] } },
      { publicFields: place.policy, policy: place.publicFields },
    ];
    for (const change of moved)
      t.ok(
        isRefused(() => keyring.open(key, { ...place, ...change }, token)),
        Object.keys(change).join(),
      );
    t.strictSame(
      new Set(moved.flatMap(Object.keys)),
      new Set(Object.keys(place)),
      'no member was left out',
    );
  });
}

t.test('another key of the same team does not open it', async (t) => {
  const [keyring, place] = [freshKeyring(), freshBinding()];
  const key = freshDataKey(keyring, place.team);
  const token = keyring.seal(key, place, fields);
  t.ok(isRefused(() => keyring.open(freshDataKey(keyring, place.team), place, token)));
});

t.test('a token under a key of one format is not read as the other', async (t) => {
  const [keyring, place] = [freshKeyring(), freshBinding()];
  const [short, long] = [
    freshDataKey(keyring, place.team, 'fernet'),
    freshDataKey(keyring, place.team, 'fernet-256'),
  ];
  t.ok(isRefused(() => keyring.open(long, place, keyring.seal(short, place, fields))));
  t.ok(isRefused(() => keyring.open(short, place, keyring.seal(long, place, fields))));
  t.throws(
    () =>
      keyring.open({ ...short, format: 'fernet-256' }, place, keyring.seal(short, place, fields)),
    { name: 'KeyUnavailable' },
  );
});

t.test('each row of a key is bound: id, team, version, format and material', async (t) => {
  const [keyring, place] = [freshKeyring(), freshBinding()];
  const key = freshDataKey(keyring, place.team);
  const token = keyring.seal(key, place, fields);
  const changes: Partial<WrappedDataKey>[] = [
    { id: newId<DataKeyId>() },
    { version: 2 },
    { format: 'fernet-256' },
    { wrapped: freshDataKey(keyring, place.team).wrapped },
  ];
  for (const change of changes)
    t.throws(
      () => keyring.open({ ...key, ...change }, place, token),
      { name: 'KeyUnavailable' },
      Object.keys(change).join(),
    );
  t.ok(
    isRefused(() => keyring.open({ ...key, team: newId<TeamId>() }, place, token)),
    'the key of another team is not even unwrapped',
  );
  t.strictSame(keyring.open(key, place, token).expose(), fields.expose());
});

// The plaintexts below are made with the key itself: the MAC is right, and only the comparisons
// stand between the token and its fields.
t.test('each bound member is compared, though the MAC is right', async (t) => {
  const place = freshBinding();
  const keyId = newId<DataKeyId>();
  const envelope = JSON.parse(packEnvelope(keyId, place, fields).toString()) as Record<
    string,
    unknown
  >;
  const open = (changed: unknown) =>
    unpackEnvelope(
      keyId,
      place,
      Buffer.from(typeof changed === 'string' ? changed : JSON.stringify(changed)),
    );
  t.strictSame(open(envelope).expose(), fields.expose());
  t.strictSame(Object.keys(envelope), [
    'v',
    'team',
    'credential',
    'version',
    'key',
    'type',
    'place',
    'fields',
    'pad',
  ]);
  const changes = {
    v: 2,
    team: newId(),
    credential: newId(),
    version: 4,
    key: newId(),
    type: 'custom',
    place: 'A'.repeat(43),
    fields: null,
  };
  for (const [name, value] of Object.entries(changes)) {
    const { [name]: _, ...rest } = envelope;
    t.ok(
      isRefused(() => open({ ...envelope, [name]: value })),
      `${name} differs`,
    );
    t.ok(
      isRefused(() => open(rest)),
      `${name} is missing`,
    );
  }
  for (const [name, value] of [
    ['v', '1'],
    ['version', '3'],
    ['v', [1]],
    ['team', [place.team]],
  ] as const)
    t.ok(
      isRefused(() => open({ ...envelope, [name]: value })),
      `${name} has another type`,
    );
  for (const bad of [[], ['x'], 'x', 1, { a: 1 }, { a: null }, { a: ['x'] }, { a: { b: 'x' } }])
    t.ok(
      isRefused(() => open({ ...envelope, fields: bad })),
      'fields are not flat',
    );
  for (const text of [
    '',
    'x',
    'null',
    '[]',
    '1',
    '"x"',
    '{',
    '{}',
    `{"__proto__":${JSON.stringify(envelope)}}`,
  ])
    t.ok(
      isRefused(() => open(text)),
      'not an envelope',
    );
});

t.test('a token under another team’s key is neither made nor opened', async (t) => {
  const roots = parseRootKeys(generateRootKey());
  const [keyring, place] = [new Keyring({ roots, now: Date.now }), freshBinding()];
  const theirs = freshDataKey(keyring, newId<TeamId>());
  t.throws(() => keyring.seal(theirs, place, fields), TypeError);
  const { id, team, version, format } = theirs;
  const material = roots.unwrap(
    { purpose: 'dataKey', owner: team, key: id, version, format },
    theirs,
  );
  const token = encrypt(importKey(format, material), packEnvelope(id, place, fields), 1n);
  t.ok(isRefused(() => keyring.open(theirs, place, token)));
});

t.test('secrets come back byte for byte', async (t) => {
  const [keyring, place] = [freshKeyring(), freshBinding()];
  const key = freshDataKey(keyring, place.team);
  const kept = {
    empty: '',
    emoji: '🔑👩‍👩‍👧',
    lines: 'a\r\nb\n\rc\n',
    blanks: '  \t ',
    nul: 'a\0b',
    quotes: '"\\"',
    separators: '\u2028\u2029',
    unnormalised: 'e\u0301é',
    bom: '\ufeffx',
    large: 'ж🔑"\n'.repeat(16 * 1024),
    pem: `-----BEGIN PRIVATE KEY-----\n${'A'.repeat(64)}\n-----END PRIVATE KEY-----\n`,
  };
  t.ok(Buffer.byteLength(kept.large) > 64 * 1024);
  t.strictSame(keyring.open(key, place, keyring.seal(key, place, new Secret(kept))).expose(), kept);
});

t.test('a field named __proto__ is a field, and changes no prototype', async (t) => {
  const [keyring, place] = [freshKeyring(), freshBinding()];
  const key = freshDataKey(keyring, place.team);
  const odd = JSON.parse('{"__proto__":"a","constructor":"b","toString":"c"}') as Record<
    string,
    string
  >;
  const back = keyring.open(key, place, keyring.seal(key, place, new Secret(odd))).expose();
  t.strictSame(Object.entries(back), [
    ['__proto__', 'a'],
    ['constructor', 'b'],
    ['toString', 'c'],
  ]);
  t.equal(Object.getPrototypeOf(back), Object.prototype);
  t.equal(({} as Record<string, unknown>)['a'], undefined);
});

t.test('fields that are not a flat object of strings are not sealed', async (t) => {
  const [keyring, place] = [freshKeyring(), freshBinding()];
  const key = freshDataKey(keyring, place.team);
  for (const bad of [null, 'x', ['x'], { a: 1 }, { a: undefined }, { a: { b: 'x' } }]) {
    t.throws(() => keyring.seal(key, place, new Secret(bad) as unknown as SecretFields), {
      name: 'TypeError',
      message: 'secret fields are a flat object of strings',
    });
  }
});

t.test('lengths are hidden in steps of 256 bytes, and of 4096 above 4096', async (t) => {
  const [place, keyId] = [freshBinding(), newId<DataKeyId>()];
  const bare = packEnvelope(keyId, place, new Secret({ a: '' }))
    .toString()
    .trimEnd()
    .replace(/ +"}$/, '"}').length;
  const paddedLength = (length: number) =>
    packEnvelope(keyId, place, new Secret({ a: 'x'.repeat(length - bare) })).length;
  for (const [length, padded] of [
    [bare, 512],
    [511, 512],
    [512, 512],
    [513, 768],
    [4095, 4096],
    [4096, 4096],
    [4097, 8192],
    [8192, 8192],
    [8193, 12288],
  ] as const) {
    t.equal(paddedLength(length), padded, `${length} bytes become ${padded}`);
  }
});

t.test(
  'resealing moves a token to another key, and changes neither its fields nor its timestamp',
  async (t) => {
    let seconds = 1_700_000_000;
    const keyring = new Keyring({
      roots: parseRootKeys(generateRootKey()),
      now: () => seconds * 1000 + 999,
    });
    const place = freshBinding();
    const [from, to] = [
      freshDataKey(keyring, place.team, 'fernet', 1),
      freshDataKey(keyring, place.team, 'fernet-256', 2),
    ];
    const token = keyring.seal(from, place, fields);
    seconds += 86_400;
    const moved = keyring.reseal(from, to, place, token);
    t.strictSame(keyring.open(to, place, moved).expose(), fields.expose());
    t.strictSame([timeOf(token), timeOf(moved)], [1_700_000_000n, 1_700_000_000n]);
    t.ok(isRefused(() => keyring.open(from, place, moved)));
    t.ok(
      isRefused(() => keyring.reseal(from, to, { ...place, version: 9 }, token)),
      'a token that is not at its place is not moved',
    );
    t.throws(
      () => keyring.reseal(from, freshDataKey(keyring, newId<TeamId>()), place, token),
      TypeError,
      'nor to a key of another team',
    );
  },
);

function timeOf(token: string): bigint | undefined {
  return fromBase64(token)?.readBigUInt64BE(1);
}
