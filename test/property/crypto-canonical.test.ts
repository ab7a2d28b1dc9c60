// Canonical JSON agrees with another implementation of RFC 8785, on whatever JSON can say.
import canonicalize from 'canonicalize';
import fc from 'fast-check';
import t from 'tap';
import { canonicalJson } from '../../src/crypto/index.ts';
import type { JsonValue } from '../../src/shared/json.ts';

const json = fc.jsonValue({ stringUnit: 'binary', maxDepth: 5 }) as fc.Arbitrary<JsonValue>;
const anyNumber = fc.double({ noNaN: true, noDefaultInfinity: true });

t.test('the text is the oracle’s', async () => {
  fc.assert(
    fc.property(json, (value) => canonicalJson(value) === canonicalize(value)),
    { numRuns: 2000 },
  );
  fc.assert(
    fc.property(anyNumber, (value) => canonicalJson(value) === canonicalize(value)),
    { numRuns: 2000 },
  );
});

t.test('the text reads back as the value, and as the same text', async () => {
  fc.assert(
    fc.property(
      json,
      (value) =>
        canonicalJson(JSON.parse(canonicalJson(value)) as JsonValue) === canonicalJson(value),
    ),
  );
});

t.test('the order of members makes no difference', async () => {
  fc.assert(
    fc.property(fc.dictionary(fc.string({ unit: 'binary' }), json), (value) => {
      const reversed = Object.fromEntries(Object.entries(value).toReversed());
      return canonicalJson(reversed) === canonicalJson(value);
    }),
  );
});
