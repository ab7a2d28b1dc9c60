// Values from the document's schemas: such as an operation would take.
import fc from 'fast-check';
import { committedDocument } from '../helpers/documented-answers.ts';
import { takes } from '../helpers/json-schema.ts';
import { type Json, resolve } from '../helpers/openapi.ts';

const depthMax = 5;

/** Values that the schema takes, as far as it can be told from its keywords. */
export function drawnFrom(given: Json, depth = 0): fc.Arbitrary<unknown> {
  const schema = resolve(committedDocument, given);
  const examples = ((schema['examples'] ?? []) as unknown[]).map((each) => fc.constant(each));
  const made = madeOf(schema, depth);
  return examples.length === 0
    ? made
    : fc.oneof({ weight: 2, arbitrary: fc.oneof(...examples) }, { weight: 3, arbitrary: made });
}

function madeOf(schema: Json, depth: number): fc.Arbitrary<unknown> {
  if (schema['const'] !== undefined) return fc.constant(schema['const']);
  if (schema['enum'] !== undefined) return fc.constantFrom(...(schema['enum'] as unknown[]));
  const choices = (schema['anyOf'] ?? schema['oneOf']) as Json[] | undefined;
  // Where the alternatives say only what is needed, the object itself says the rest.
  if (choices !== undefined && schema['properties'] === undefined)
    return fc.oneof(...choices.map((each) => drawnFrom(each, depth + 1)));
  switch (schema['type']) {
    case 'string':
      return textOf(schema);
    case 'integer':
      return fc.integer({
        min: Math.max(schema['minimum'] ?? -1_000, -(2 ** 31)),
        max: Math.min(schema['maximum'] ?? 1_000, 2 ** 31),
      });
    case 'number':
      return fc.double({ min: schema['minimum'] ?? 0, max: schema['maximum'] ?? 10, noNaN: true });
    case 'boolean':
      return fc.boolean();
    case 'null':
      return fc.constant(null);
    case 'array':
      return fc.array(drawnFrom((schema['items'] ?? {}) as Json, depth + 1), {
        minLength: schema['minItems'] ?? 0,
        maxLength:
          depth > depthMax ? (schema['minItems'] ?? 0) : Math.min(schema['maxItems'] ?? 4, 4),
      });
    case 'object':
      return objectOf(schema, depth);
    default:
      return fc.constantFrom<unknown>('text', 1, true);
  }
}

function objectOf(schema: Json, depth: number): fc.Arbitrary<unknown> {
  const properties = Object.entries((schema['properties'] ?? {}) as Json);
  const required = (schema['required'] ?? []) as string[];
  const shown = properties.filter(([name]) => depth <= depthMax || required.includes(name));
  const known = fc.record(
    Object.fromEntries(shown.map(([name, each]) => [name, drawnFrom(each as Json, depth + 1)])),
    { requiredKeys: required },
  );
  const { additionalProperties: more, propertyNames: names } = schema;
  if (typeof more !== 'object' || depth > depthMax) return known;
  const others = fc.dictionary(
    (names === undefined
      ? fc.constantFrom('apiKey', 'token', 'note')
      : drawnFrom(names as Json, depth + 1)) as fc.Arbitrary<string>,
    drawnFrom(more as Json, depth + 1),
    { maxKeys: 3 },
  );
  return fc.tuple(known, others).map(([a, b]) => ({ ...b, ...a }));
}

const formats: Readonly<Record<string, fc.Arbitrary<string>>> = {
  uuid: fc.uuid({ version: 7 }),
  uri: fc.constantFrom('https://service.example/a', 'http://127.0.0.1:1/'),
  'date-time': fc.constantFrom('2031-01-31T00:00:00Z', '2031-01-31T00:00:00.000Z'),
};

function textOf(schema: Json): fc.Arbitrary<unknown> {
  const { pattern, format, minLength = 0, maxLength = 60 } = schema;
  const formed = formats[String(format)];
  if (formed !== undefined) return formed;
  const bounds = { minLength, maxLength: Math.min(maxLength, minLength + 60) };
  const plain = fc.string({ unit: 'grapheme-ascii', ...bounds });
  if (pattern === undefined) return fc.oneof(plain, fc.string({ unit: 'grapheme', ...bounds }));
  // Property escapes are more than the generator of matching texts knows; most plain texts fit them.
  if (/\\p\{|\\u/.test(String(pattern))) {
    const fit = (text: string): boolean => takes(schema, text, committedDocument);
    return fc
      .oneof(plain, fc.string({ unit: 'grapheme', ...bounds }))
      .map((text) => (fit(text) ? text : 'text'));
  }
  return fc
    .stringMatching(new RegExp(String(pattern)), { size: 'small' })
    .map((text) => text.slice(0, maxLength));
}
