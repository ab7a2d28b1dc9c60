// Laws of sealing: everything comes back at its place, nothing comes back elsewhere.
import fc from 'fast-check';
import t from 'tap';
import { canonicalJson, Secret } from '../../src/crypto/index.ts';
import type { Binding, TokenFormat } from '../../src/crypto/index.ts';
import { fromBase64 } from '../../src/crypto/encoding.ts';
import { packEnvelope } from '../../src/crypto/envelope.ts';
import { newId } from '../../src/shared/ids.ts';
import type { CredentialId, DataKeyId, TeamId } from '../../src/shared/ids.ts';
import type { JsonObject } from '../../src/shared/json.ts';
import { formats, freshDataKey, freshKeyring, isRefused } from '../helpers/crypto.ts';

const text = fc.string({ unit: 'binary', maxLength: 600 });
const fields = fc.dictionary(text, text, { maxKeys: 5 });
const object = fc.dictionary(
  fc.string({ unit: 'binary' }),
  fc.jsonValue({ stringUnit: 'binary', maxDepth: 2 }),
  { maxKeys: 4 },
) as fc.Arbitrary<JsonObject>;
const format = fc.constantFrom<TokenFormat>(...formats);
const place: fc.Arbitrary<Binding> = fc.record(
  {
    team: fc.constant(null).map(() => newId<TeamId>()),
    credential: fc.constant(null).map(() => newId<CredentialId>()),
    version: fc.integer({ min: 1 }),
    type: fc.stringMatching(/^[a-z][a-zA-Z0-9]{0,30}$/),
    publicFields: object,
    policy: object,
  },
  { noNullPrototype: true },
);
const keyring = freshKeyring();

t.test('any fields come back as they were', async () => {
  fc.assert(
    fc.property(format, place, fields, (format, place, fields) => {
      const key = freshDataKey(keyring, place.team, format);
      const opened = keyring
        .open(key, place, keyring.seal(key, place, new Secret(fields)))
        .expose();
      return canonicalJson(opened) === canonicalJson(fields);
    }),
    { numRuns: 300 },
  );
});

t.test('at any other place the token is refused, also when it was resealed', async () => {
  fc.assert(
    fc.property(
      format,
      place,
      place,
      fc.subarray(['team', 'credential', 'version', 'type', 'publicFields', 'policy'] as const, {
        minLength: 1,
      }),
      fields,
      (format, place, other, members, fields) => {
        const moved = {
          ...place,
          ...Object.fromEntries(members.map((member) => [member, other[member]])),
        };
        fc.pre(canonicalJson({ ...moved }) !== canonicalJson({ ...place }));
        const [key, next] = [
          freshDataKey(keyring, place.team, format),
          freshDataKey(keyring, place.team),
        ];
        const token = keyring.seal(key, place, new Secret(fields));
        const resealed = keyring.reseal(key, next, place, token);
        return (
          isRefused(() => keyring.open(key, moved, token)) &&
          isRefused(() => keyring.open(next, moved, resealed)) &&
          canonicalJson(keyring.open(next, place, resealed).expose()) === canonicalJson(fields)
        );
      },
    ),
    { numRuns: 300 },
  );
});

t.test(
  'the length of a plaintext is a multiple of 256, or of 4096 above 4096, and the next one',
  async () => {
    fc.assert(
      fc.property(place, fc.nat({ max: 20_000 }), (place, length) => {
        const plaintext = packEnvelope(
          newId<DataKeyId>(),
          place,
          new Secret({ a: 'x'.repeat(length) }),
        );
        const { pad } = JSON.parse(plaintext.toString()) as { pad: string };
        const bare = plaintext.length - pad.length;
        const step = bare > 4096 ? 4096 : 256;
        return plaintext.length % step === 0 && pad.length < step && pad.trim() === '';
      }),
    );
  },
);

t.test('fields of the same step make tokens of the same length', async () => {
  const [team, credential] = [newId<TeamId>(), newId<CredentialId>()];
  const place: Binding = {
    team,
    credential,
    version: 1,
    type: 'custom',
    publicFields: {},
    policy: {},
  };
  const key = freshDataKey(keyring, team);
  const lengths = new Set(
    Array.from(
      { length: 60 },
      (_, length) =>
        fromBase64(keyring.seal(key, place, new Secret({ a: 'x'.repeat(length) })))?.length,
    ),
  );
  t.equal(lengths.size, 1);
});
