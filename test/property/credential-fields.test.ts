// The laws of changing fields, for any stored credential and any change.
import fc from 'fast-check';
import t from 'tap';
import {
  applyFields,
  type FieldsChange,
  type FieldsInput,
  isWider,
} from '../../src/credentials/fields.ts';
import { isUnder, limitDefaults, methods, type Policy } from '../../src/credentials/policy.ts';
import { credentialTypes } from '../../src/credentials/types/registry.ts';
import { AppError } from '../../src/shared/errors.ts';
import type { PublicFields } from '../../src/credentials/public-values.ts';
import type { CredentialType } from '../../src/credentials/types/define.ts';
import type { Delivery } from '../../src/db/tables.ts';

const name = fc.oneof(
  fc.stringMatching(/^[A-Za-z_][A-Za-z0-9_.-]{0,8}$/),
  fc.constantFrom(
    'a',
    'b',
    'c',
    'constructor',
    'toString',
    '__proto__',
    'host',
    'port',
    'apiKey',
    'password',
  ),
);
const secretText = fc
  .string({ minLength: 1, unit: 'grapheme' })
  .filter((text) => !/^[*•●]{3,}$/u.test(text) && !text.includes('\0'));
const publicText = fc.oneof(fc.stringMatching(/^[ -~]{0,10}$/), fc.integer(), fc.boolean());
const custom = credentialTypes.find((type) => type.isOpen === true) as CredentialType;

/** A stored custom credential: names either public or secret. */
const stored = fc
  .uniqueArray(name, { minLength: 1, maxLength: 6 })
  .chain((names) =>
    fc.tuple(
      fc.constant(names),
      fc.array(fc.boolean(), { minLength: names.length, maxLength: names.length }),
      fc.array(publicText, { minLength: names.length, maxLength: names.length }),
    ),
  )
  .map(([names, isPublic, values]) => ({
    publicFields: Object.fromEntries(
      names.flatMap((each, i) => (isPublic[i] ? [[each, values[i] ?? '']] : [])),
    ) as PublicFields,
    secretFieldNames: names.filter((_, i) => !isPublic[i]),
  }));
const input: fc.Arbitrary<FieldsInput> = fc
  .uniqueArray(
    fc.tuple(name, fc.oneof(secretText, fc.constant(null), fc.integer(), fc.boolean())),
    { selector: ([each]) => each, maxLength: 6 },
  )
  .map((entries) => Object.fromEntries(entries));
/** A change of a stored credential: of its own names as often as of others. */
const change = stored.chain((held) =>
  fc.tuple(
    fc.constant(held),
    fc
      .tuple(
        input,
        fc.array(
          fc.tuple(
            fc.constantFrom(...Object.keys(held.publicFields), ...held.secretFieldNames),
            fc.oneof(secretText, fc.constant(null)),
          ),
          { maxLength: 4 },
        ),
      )
      .map(([others, own]): FieldsInput => Object.fromEntries([...Object.entries(others), ...own])),
  ),
);

const tried = (
  type: CredentialType,
  held: Parameters<typeof applyFields>[1],
  given: FieldsInput,
  declared: ReadonlySet<string> = new Set(),
): FieldsChange | undefined => {
  try {
    return applyFields(type, held, given, declared);
  } catch (error) {
    if (error instanceof AppError && error.code === 'invalidRequest') return undefined;
    throw error;
  }
};
const same = (a: readonly string[], b: readonly string[]): boolean =>
  a.length === b.length && a.toSorted().join('\0') === b.toSorted().join('\0');

t.test('kept, given and cleared are what was stored and what came, each once', async (t) => {
  fc.assert(
    fc.property(change, ([held, given]) => {
      const result = tried(custom, held, given);
      if (result === undefined) return;
      const { kept, cleared, secrets } = result;
      const sets = [...kept, ...cleared, ...Object.keys(secrets)];
      if (new Set(sets).size !== sets.length) throw new Error('a name stands twice');
      const newOnes = Object.keys(secrets).filter((each) => !held.secretFieldNames.includes(each));
      if (!same(sets, [...held.secretFieldNames, ...newOnes]))
        throw new Error('a secret came or went unsaid');
      if (
        !same(
          kept,
          held.secretFieldNames.filter((each) => !Object.hasOwn(given, each)),
        )
      )
        throw new Error('kept is what was not mentioned');
      if (!cleared.every((each) => given[each] === null && held.secretFieldNames.includes(each)))
        throw new Error('cleared is what was stored and is null now');
    }),
    { numRuns: 2000 },
  );
  t.pass('holds');
});

t.test('what is not mentioned stays, null clears, a value is stored as it came', async (t) => {
  fc.assert(
    fc.property(change, ([held, given]) => {
      const result = tried(custom, held, given);
      if (result === undefined) return;
      for (const [each, value] of Object.entries(held.publicFields))
        if (!Object.hasOwn(given, each) && result.publicFields[each] !== value)
          throw new Error('an unmentioned public field changed');
      for (const [each, value] of Object.entries(given)) {
        const wasPublic = Object.hasOwn(held.publicFields, each);
        if (
          value === null &&
          (Object.hasOwn(result.publicFields, each) || Object.hasOwn(result.secrets, each))
        )
          throw new Error('null clears');
        if (
          value !== null &&
          (wasPublic ? result.publicFields[each] : result.secrets[each]) !== value
        )
          throw new Error('a value is stored as it came');
      }
    }),
    { numRuns: 2000 },
  );
  t.pass('holds');
});

t.test('no class ever changes, whatever is declared', async (t) => {
  fc.assert(
    fc.property(change, fc.array(name, { maxLength: 4 }), ([held, given], declared) => {
      const result = tried(custom, held, given, new Set(declared));
      if (result === undefined) return;
      for (const each of held.secretFieldNames)
        if (Object.hasOwn(result.publicFields, each))
          throw new Error('a stored secret became public');
      for (const each of Object.keys(held.publicFields))
        if (Object.hasOwn(result.secrets, each))
          throw new Error('a stored public field became secret');
      for (const each of Object.keys(result.secrets))
        if (Object.hasOwn(result.publicFields, each)) throw new Error('a field is both');
      for (const each of Object.keys(result.publicFields))
        if (!Object.hasOwn(held.publicFields, each) && !declared.includes(each))
          throw new Error('a field is public undeclared');
    }),
    { numRuns: 2000 },
  );
  for (const type of credentialTypes.filter(({ isOpen }) => isOpen !== true)) {
    fc.assert(
      fc.property(input, fc.array(name), (given, declared) => {
        const result = tried(
          type,
          { publicFields: {}, secretFieldNames: [] },
          given,
          new Set(declared),
        );
        for (const each of Object.keys(result?.publicFields ?? {}))
          if (type.fields[each]?.class !== 'public') throw new Error(each);
        for (const each of Object.keys(result?.secrets ?? {}))
          if (type.fields[each]?.class !== 'secret') throw new Error(each);
      }),
    );
  }
  t.pass('holds');
});

t.test(
  'a change that was made, made again, changes no public field and keeps the same',
  async (t) => {
    fc.assert(
      fc.property(change, ([held, given]) => {
        const once = tried(custom, held, given);
        if (once === undefined) return;
        const after = {
          publicFields: once.publicFields,
          secretFieldNames: [...once.kept, ...Object.keys(once.secrets)],
        };
        const empty = tried(custom, after, {});
        if (
          empty === undefined ||
          Object.keys(empty.secrets).length + empty.cleared.length > 0 ||
          !same(empty.kept, after.secretFieldNames)
        )
          throw new Error('an empty change is none');
        if (
          JSON.stringify(Object.entries(empty.publicFields).sort()) !==
          JSON.stringify(Object.entries(after.publicFields).sort())
        )
          throw new Error('an empty change is none');
        // A public field that was cleared comes back as a secret, so only changes that clear no
        // public one are repeatable.
        if (
          Object.entries(given).some(
            ([each, value]) => value === null && Object.hasOwn(held.publicFields, each),
          )
        )
          return;
        const twice = tried(custom, after, given);
        if (
          twice === undefined ||
          JSON.stringify(Object.entries(twice.publicFields).sort()) !==
            JSON.stringify(Object.entries(after.publicFields).sort())
        )
          throw new Error('not the same twice');
      }),
      { numRuns: 2000 },
    );
    t.pass('holds');
  },
);

const hosts = fc.uniqueArray(fc.constantFrom('a.test', 'b.test', 'c.test', '*.test'));
const prefixes = ['/', '/v1', '/v1/', '/v1/chat', '/v2'];
const paths = ['/', '/v1', '/v1/', '/v1x', '/v1/chat', '/v1/chat/x', '/v1/chatx', '/v2', '/v3'];
const bounds = [1, limitDefaults.concurrency, 2 * limitDefaults.concurrency];
const policy: fc.Arbitrary<Policy> = fc.record({
  delivery: fc.subarray<Delivery>(['lease', 'broker']),
  allowedHosts: hosts,
  methods: fc.option(fc.subarray([...methods], { minLength: 1 }), { nil: undefined }),
  pathPrefixes: fc.option(fc.subarray(prefixes, { minLength: 1 }), { nil: undefined }),
  limits: fc.option(
    fc.record({ concurrency: fc.option(fc.constantFrom(...bounds), { nil: undefined }) }),
    { nil: undefined },
  ),
});
/** Everything that a policy lets through, from a small world, one by one. */
const reach = ({
  delivery,
  allowedHosts,
  methods: some = methods,
  pathPrefixes,
  limits,
}: Policy): ReadonlySet<string> =>
  new Set([
    ...delivery,
    ...allowedHosts,
    ...some,
    ...paths.filter(
      (path) => pathPrefixes === undefined || pathPrefixes.some((prefix) => isUnder(path, prefix)),
    ),
    ...bounds
      .filter((bound) => bound <= (limits?.concurrency ?? limitDefaults.concurrency))
      .map(String),
  ]);
const state = fc.record({
  publicFields: fc.dictionary(
    fc.constantFrom('host', 'port', 'useSsl', 'username', 'mailbox', 'baseUrl', 'name', 'x'),
    fc.constantFrom('1', '2'),
    { noNullPrototype: true },
  ),
  policy,
});
const anyType = fc.constantFrom(...credentialTypes);
const destinations = (
  type: CredentialType,
  { publicFields }: { publicFields: PublicFields },
): string =>
  JSON.stringify(
    Object.entries(publicFields)
      .filter(([each]) => type.isOpen === true || type.fields[each]?.isDestination === true)
      .sort(),
  );

t.test(
  'isWider: never to itself, never by narrowing, always by a new destination, and a chain of free changes never ends wider',
  async (t) => {
    fc.assert(fc.property(anyType, state, (type, a) => !isWider(type, a, a)));
    fc.assert(
      fc.property(anyType, state, fc.func(fc.boolean()), (type, a, keep) => {
        const narrower = {
          publicFields: a.publicFields,
          policy: {
            ...a.policy,
            delivery: a.policy.delivery.filter((each) => keep(each)),
            allowedHosts: a.policy.allowedHosts.filter((each) => keep(each)),
          },
        };
        return (
          !isWider(type, a, narrower) &&
          isWider(type, narrower, a) ===
            (narrower.policy.delivery.length < a.policy.delivery.length ||
              narrower.policy.allowedHosts.length < a.policy.allowedHosts.length)
        );
      }),
    );
    fc.assert(
      fc.property(anyType, state, state, (type, a, b) => {
        const isElsewhere = destinations(type, a) !== destinations(type, b);
        const before = reach(a.policy);
        const adds = [...reach(b.policy)].some((each) => !before.has(each));
        return isWider(type, a, b) === (isElsewhere || adds);
      }),
      { numRuns: 5000 },
    );
    // Monotone: what several changes reach without secrets, one change reaches without secrets.
    fc.assert(
      fc.property(
        anyType,
        state,
        state,
        state,
        (type, a, b, c) => isWider(type, a, b) || isWider(type, b, c) || !isWider(type, a, c),
      ),
      { numRuns: 1000 },
    );
    t.pass('holds');
  },
);
