// Requests to every operation, drawn from the document: good ones, ones that are wrong in one
// place, and ones that are wrong altogether. What a path names is drawn from what there is at the
// time, so it is told by a number and looked up when the request is sent.
import fc from 'fast-check';
import { committedDocument, documentOperations } from '../helpers/documented-answers.ts';
import { type Json, resolve } from '../helpers/openapi.ts';
import { typeSamples } from '../helpers/type-samples.ts';
import { broken, naughtyTexts, naughtyValue } from './naughty.ts';
import { drawnFrom } from './values.ts';

/** What stands in a path: a thing that there is, by a number, or a text. */
export type Part = { readonly pick: number } | { readonly text: string };

export interface FuzzRequest {
  readonly operation: string;
  readonly as: number;
  readonly parts: Readonly<Record<string, Part>>;
  readonly query: readonly (readonly [string, string])[];
  readonly headers: Readonly<Record<string, string>>;
  /** As text, as it goes out; undefined sends none. */
  readonly body: string | undefined;
}

/** Never in any answer: it is sent only where secrets are. */
export const secretCanary = 'secret-canary-7f3a91c2';
/** Never in a refusal: it is sent anywhere. */
export const valueCanary = 'value-canary-51be04d8';

/** A request to the operation. */
export function requestTo(operation: string): fc.Arbitrary<FuzzRequest> {
  const found = documentOperations.get(operation);
  if (found === undefined) throw new Error(`there is no operation ${operation}`);
  const parameters = ((found.operation['parameters'] ?? []) as Json[]).map((each) =>
    resolve(committedDocument, each),
  );
  const named = (place: string): Json[] => parameters.filter((each) => each['in'] === place);
  return fc.record({
    operation: fc.constant(operation),
    as: fc.nat(),
    parts: fc.record(
      Object.fromEntries(named('path').map((each) => [String(each['name']), partOf(each)])),
    ),
    query: queryOf(named('query')),
    headers: headersOf(named('header')),
    body: bodyOf(operation, found.operation['requestBody'] as Json | undefined, found.method),
  });
}

const text = fc.oneof(
  fc.constantFrom(...naughtyTexts.filter((each) => each.length < 1_000)),
  fc.constant(valueCanary),
);

const partOf = (parameter: Json): fc.Arbitrary<Part> =>
  fc.oneof(
    { weight: 17, arbitrary: fc.nat().map((pick) => ({ pick })) },
    {
      weight: 1,
      arbitrary: drawnFrom(parameter['schema'] as Json).map((value) => ({ text: String(value) })),
    },
    { weight: 2, arbitrary: text.map((each) => ({ text: each })) },
  );

function queryOf(parameters: readonly Json[]): fc.Arbitrary<[string, string][]> {
  const known = parameters.map((parameter) =>
    fc.tuple(
      fc.constant(String(parameter['name'])),
      fc.oneof(
        { weight: 3, arbitrary: drawnFrom(parameter['schema'] as Json).map(String) },
        { weight: 1, arbitrary: text },
      ),
    ),
  );
  const unknown = fc.tuple(fc.constantFrom('access_token', 'unknown', '__proto__', 'limit'), text);
  return fc.oneof(
    { weight: 3, arbitrary: fc.constant<[string, string][]>([]) },
    {
      weight: 2,
      // A name may come twice.
      arbitrary: fc.array(fc.oneof(...known, unknown), { maxLength: 4 }),
    },
  );
}

const headerText = text.map((each) => each.replaceAll(/[^\x20-\x7e]/g, '?'));
const anyHeaders: fc.Arbitrary<Readonly<Record<string, string>>> = fc.dictionary(
  fc.constantFrom(
    'content-type',
    'accept',
    'idempotency-key',
    'if-match',
    'if-none-match',
    'x-forwarded-for',
    'x-http-method-override',
    'x-request-id',
    'range',
    'origin',
    'expect',
    'prefer',
    'cookie',
  ),
  fc.oneof(
    headerText,
    fc.constantFrom(
      '*',
      '"1"',
      'W/"1"',
      '"1", "2"',
      '""',
      '"0"',
      '"99999999999"',
      'application/json',
      'application/json; charset=utf-16',
      'application/x-www-form-urlencoded',
      'multipart/form-data; boundary=x',
      'text/plain',
      '127.0.0.1',
      'bytes=0-1',
    ),
  ),
  { maxKeys: 2 },
);

function headersOf(parameters: readonly Json[]): fc.Arbitrary<Readonly<Record<string, string>>> {
  const known = fc.record(
    Object.fromEntries(
      parameters.map((parameter) => [
        String(parameter['name']).toLowerCase(),
        fc.oneof(
          { weight: 3, arbitrary: drawnFrom(parameter['schema'] as Json).map(String) },
          { weight: 2, arbitrary: fc.constantFrom('*', '"1"', '"2"') },
        ),
      ]),
    ),
    { requiredKeys: [] },
  ) as fc.Arbitrary<Record<string, string>>;
  return fc.oneof(
    { weight: 4, arbitrary: known },
    { weight: 1, arbitrary: fc.tuple(known, anyHeaders).map(([a, b]) => ({ ...a, ...b })) },
  );
}

function bodyOf(
  operation: string,
  requestBody: Json | undefined,
  method: string,
): fc.Arbitrary<string | undefined> {
  const schema = requestBody?.['content']?.['application/json']?.['schema'] as Json | undefined;
  const none = fc.constant(undefined);
  if (method === 'GET') return none;
  const good =
    schema === undefined ? fc.constant({}) : fc.oneof(drawnFrom(schema), ownBody(operation));
  const asText = (value: unknown): string => JSON.stringify(value) ?? '';
  return fc.oneof(
    { weight: schema === undefined ? 6 : 1, arbitrary: none },
    { weight: 6, arbitrary: good.map(asText) },
    { weight: 5, arbitrary: broken(good).map(asText) },
    { weight: 1, arbitrary: naughtyValue.map(asText) },
    { weight: 1, arbitrary: good.map(asText).map(tornText) },
  );
}

/** Bodies that pass all checks, with a secret in them. */
function ownBody(operation: string): fc.Arbitrary<unknown> {
  const secrets = (names: readonly string[]) =>
    Object.fromEntries(names.map((name) => [name, secretCanary]));
  const credential = fc
    .tuple(fc.constantFrom(...Object.keys(typeSamples)), fc.nat(9_999))
    .map(([type, n]) => {
      const { public: open, secret } = typeSamples[type]!;
      const isFormed = type === 'webhook';
      const fields = { ...open, ...(isFormed ? secret : secrets(Object.keys(secret))) };
      const names = type === 'custom' ? { publicFieldNames: Object.keys(open) } : {};
      return { name: `fuzzed ${n}`, type, fields, ...names };
    });
  switch (operation) {
    case 'createCredential':
      return credential;
    case 'putCredential':
      return credential.map(({ name: _, ...rest }) => rest);
    case 'updateCredential':
      return fc.constantFrom<unknown>({ fields: secrets(['apiKey']) }, { description: 'fuzzed' });
    case 'changeCredentials':
      return fc
        .array(credential, { minLength: 1, maxLength: 3 })
        .map((items) => ({ items: items.map((item) => ({ op: 'create', ...item })) }));
    default:
      return fc.constant({});
  }
}

/** The text of a body with one thing wrong that no value can have. */
function tornText(body: string): string {
  const tears: readonly ((text: string) => string)[] = [
    (whole) => whole.slice(0, -1),
    (whole) => `${whole}${valueCanary}`,
    (whole) => whole.replace('{', `{"${valueCanary}":1,"${valueCanary}":2,`),
    (whole) => whole.replace(/:/, `:"\\ud800${valueCanary}",`),
    (whole) => `\ufeff${whole}`,
    (whole) => whole.replace('{', '{"__proto__":{"x":1},'),
    (whole) => whole.replace(/\d+/, '9007199254740991.4'),
    (whole) => whole.replace(/\d+/, '12345678901234567890'),
    (whole) => `${'['.repeat(2_000)}${whole}`,
    () => 'NaN',
    () => '',
    () => `'${valueCanary}'`,
  ];
  let sum = 0;
  for (const character of body) sum = (sum * 31 + character.charCodeAt(0)) % 65_521;
  return tears[sum % tears.length]!(body);
}
