// Whether a value fits a JSON Schema (2020-12), as far as the vault's own schemas go. Throws for a
// keyword that it does not know: what is not understood must not be ignored.
import { resolve } from './openapi.ts';

type Json = Readonly<Record<string, any>>;

const saysNothing = [
  'title',
  'description',
  'default',
  'examples',
  'writeOnly',
  'readOnly',
  '$schema',
  '$id',
  'discriminator',
];
const formats: Readonly<Record<string, (value: string) => boolean>> = {
  uri: (value) => URL.canParse(value),
  uuid: (value) => /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(value),
  'date-time': (value) => new Date(value).toISOString() === value,
  int32: () => true,
  int64: () => true,
  double: () => true,
};
const typeOf = (value: unknown): string =>
  value === null
    ? 'null'
    : Array.isArray(value)
      ? 'array'
      : Number.isSafeInteger(value)
        ? 'integer'
        : typeof value;
const isMap = (value: unknown): value is Json => typeOf(value) === 'object';

/** Whether the value fits; references lead into the document. */
export function takes(given: Json, value: unknown, document: Json = {}): boolean {
  const schema = resolve(document, given);
  const fits = (other: Json, of: unknown): boolean => takes(other, of, document);
  return Object.entries(schema).every(([keyword, rule]) => {
    if (saysNothing.includes(keyword)) return true;
    switch (keyword) {
      case 'type':
        return rule === typeOf(value) || (rule === 'number' && typeof value === 'number');
      case 'const':
        return value === rule;
      case 'enum':
        return (rule as unknown[]).includes(value);
      case 'format':
        return typeof value !== 'string'
          ? typeof value === 'number'
          : formats[rule as string]!(value);
      case 'minLength':
        return typeof value !== 'string' || Array.from(value).length >= rule;
      case 'maxLength':
        return typeof value !== 'string' || Array.from(value).length <= rule;
      case 'pattern':
        return typeof value !== 'string' || new RegExp(rule as string, 'u').test(value);
      case 'minimum':
        return typeof value !== 'number' || value >= rule;
      case 'maximum':
        return typeof value !== 'number' || value <= rule;
      case 'minItems':
        return !Array.isArray(value) || value.length >= rule;
      case 'maxItems':
        return !Array.isArray(value) || value.length <= rule;
      case 'items':
        return !Array.isArray(value) || value.every((each) => fits(rule as Json, each));
      case 'uniqueItems':
        return (
          !Array.isArray(value) ||
          new Set(value.map((each) => JSON.stringify(each))).size === value.length
        );
      case 'anyOf':
        return (rule as Json[]).some((each) => fits(each, value));
      case 'oneOf':
        return (rule as Json[]).filter((each) => fits(each, value)).length === 1;
      case 'not':
        return !fits(rule as Json, value);
      case 'required':
        return !isMap(value) || (rule as string[]).every((name) => Object.hasOwn(value, name));
      case 'dependentRequired':
        return (
          !isMap(value) ||
          Object.entries(rule as Record<string, string[]>).every(
            ([name, others]) =>
              !Object.hasOwn(value, name) || others.every((other) => Object.hasOwn(value, other)),
          )
        );
      case 'maxProperties':
        return !isMap(value) || Object.keys(value).length <= rule;
      case 'propertyNames':
        return !isMap(value) || Object.keys(value).every((name) => fits(rule as Json, name));
      case 'properties':
        return (
          !isMap(value) ||
          Object.entries(value).every(
            ([name, each]) =>
              !Object.hasOwn(rule as Json, name) || fits((rule as Json)[name] as Json, each),
          )
        );
      case 'additionalProperties':
        return (
          !isMap(value) ||
          Object.entries(value).every(
            ([name, each]) =>
              Object.hasOwn((schema['properties'] ?? {}) as Json, name) ||
              (rule !== false && fits(rule as Json, each)),
          )
        );
      default:
        throw new Error(`a keyword that this check does not know: ${keyword}`);
    }
  });
}
