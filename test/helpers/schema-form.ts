// A form drawn from the JSON Schema of a type's fields, and filled in by somebody who knows nothing
// else of the type: for each field the first of a handful of ordinary values that its schema takes.
// Secrets are random and as awkward as they may be.
import { randomBytes } from 'node:crypto';
import { testCertificate } from './certificate.ts';
import { takes } from './json-schema.ts';

type Json = Readonly<Record<string, any>>;
export type FormValue = string | number | boolean;
export type Form = Record<string, FormValue>;

/** What a person has at hand. */
const atHand: readonly FormValue[] = [
  true,
  1,
  8443,
  'a-name',
  'host.example',
  'audience=x',
  'https://service.example/base',
  testCertificate(['a.example']).certificate,
  '2031-01-31T00:00:00Z',
];

/** What is looked for where nothing of that fits. */
const lastAtHand: readonly FormValue[] = [
  ...['host.example:9092', 'host.example:9093', 'aname1', 'aname2'],
  ...['https://service.example', 'https://service2.example'],
  testCertificate(['b.example']).certificate,
];

/** A value that the schema takes, another one than `besides`. */
export function valueFor(schema: Json, besides: readonly unknown[] = []): FormValue {
  if (schema['writeOnly'] === true)
    return takes(schema, secretValue())
      ? secretValue()
      : `whsec_${randomBytes(24).toString('base64')}`;
  // What a pattern cannot say, the description does.
  for (const [said, values] of [
    ['A JSON list', ['[]', '[{}]']],
    ['Host of the log-in', ['a.my.salesforce.com', 'b.my.salesforce.com']],
    ['ends in .salesforce.com', ['https://a.my.salesforce.com', 'https://b.my.salesforce.com']],
  ] as const)
    if (`${schema['title']} ${schema['description']}`.includes(said))
      return values.find((value) => !besides.includes(value))!;
  const options: readonly FormValue[] = [
    ...((schema['enum'] ?? []) as FormValue[]),
    ...atHand,
    ...atHand.map((value) =>
      typeof value === 'string' ? `${value}2` : typeof value === 'number' ? value + 1 : !value,
    ),
  ];
  const found = [...options, ...lastAtHand].find(
    (value) => takes(schema, value) && !besides.includes(value),
  );
  if (found === undefined) throw new Error(`nothing at hand fits ${JSON.stringify(schema)}`);
  return found;
}

/** Lines of both kinds, an emoji, quotes, a blank at the end: what has to come back to the byte. */
export const secretValue = (): string =>
  `${randomBytes(9).toString('hex')} "\\ü🔑\r\n\t${randomBytes(9).toString('hex')} `;
/** The same for a header, a path, a log-in: plain letters. */
export const plainSecret = (): string => randomBytes(18).toString('hex');

/** The names of the secret fields of a schema. */
export const secretNames = (schema: Json): string[] =>
  Object.entries(schema['properties'] as Json)
    .filter(([, each]) => (each as Json)['writeOnly'] === true)
    .map(([name]) => name);

/**
 * Fields that a form leaves out: what the vault writes, what goes with another field, which has a
 * form of its own, and the second of two that do not go together.
 */
export function besides(schema: Json): ReadonlySet<string> {
  const dependent = Object.entries((schema['dependentRequired'] ?? {}) as Record<string, string[]>);
  const [, second] = (schema['not']?.required ?? []) as string[];
  return new Set([
    ...dependent.flat(2),
    ...(second === undefined ? [] : [second]),
    ...Object.entries(schema['properties'] as Json).flatMap(([name, each]) =>
      (each as Json)['readOnly'] === true ? [name] : [],
    ),
  ]);
}

/** The whole form, every field filled in; an open type gets a field of each kind that it takes. */
export function fillWhole(schema: Json): Form {
  const leftOut = besides(schema);
  const form: Form = Object.fromEntries(
    Object.entries(schema['properties'] as Json).flatMap(([name, each]) =>
      leftOut.has(name) ? [] : [[name, valueFor(each as Json)]],
    ),
  );
  if (schema['additionalProperties'] !== false)
    for (const [at, each] of (
      (schema['additionalProperties'] as Json)['anyOf'] as Json[]
    ).entries())
      form[`field${at}`] = valueFor(each);
  return form;
}

/** The shortest forms: what is required, with each alternative where the schema names some. */
export function fillShortest(schema: Json): Form[] {
  const properties = schema['properties'] as Json;
  const alternatives = (schema['anyOf'] ?? [{ required: [] }]) as { required: string[] }[];
  if (Object.keys(properties).length === 0) return [fillWhole(schema)];
  const leftOut = besides(schema);
  return alternatives
    .filter(({ required }) => !required.some((name) => leftOut.has(name)))
    .map(({ required }) =>
      Object.fromEntries(
        [...(schema['required'] as string[]), ...required].map((name) => [
          name,
          valueFor(properties[name] as Json),
        ]),
      ),
    );
}
