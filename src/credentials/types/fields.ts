// The fields that types are made of: secrets, and public values by their form.
import { z } from 'zod';
import { pemLengthMax, publicFieldLengthMax, secretFieldBytesMax } from '../../shared/limits.ts';
import { httpTokenForm, lineForm } from '../../shared/patterns.ts';
import { type Refinement, refined } from '../../shared/refine.ts';
import type { PublicValue } from '../public-values.ts';
import type { FieldSpec } from './define.ts';

const isMask = /^[*•●]{3,}$/u;
const wellFormed = (text: string): boolean => text.isWellFormed();

const rulesOfSecrets = [
  { rule: 'nul', check: (text) => !text.includes('\0'), says: 'No NUL characters.' },
  { rule: 'loneSurrogate', check: wellFormed, says: 'Whole characters.' },
  {
    rule: 'maxBytes',
    allowed: { max: secretFieldBytesMax },
    check: (text) => Buffer.byteLength(text, 'utf8') <= secretFieldBytesMax,
    says: `At most ${secretFieldBytesMax} bytes in UTF-8.`,
  },
  { rule: 'mask', check: (text) => !isMask.test(text), says: 'No mask of asterisks or dots.' },
] as const satisfies readonly Refinement<string>[];
/** The value of any secret field: kept to the byte, or refused. */
export const secretValue = rulesOfSecrets
  .reduce<z.ZodString>(
    (schema, rule) => refined(schema, rule),
    z.string().min(1).max(secretFieldBytesMax),
  )
  .meta({ writeOnly: true, description: 'Kept to the byte; never returned.' });

/** The public value of an open type's field. */
export const publicValue = z.union([
  z
    .string()
    .max(publicFieldLengthMax)
    .regex(/^[^\p{Cc}\p{Cs}]*$/u, 'no control characters'),
  z.int(),
  z.boolean(),
]);

type Options = { title: string; description?: string };

/** A required secret. */
export const secret = (options: Options): FieldSpec => ({
  ...options,
  class: 'secret',
  isRequired: true,
  schema: secretValue,
  isDestination: false,
});
/** A secret that may be absent. */
export const optionalSecret = (options: Options): FieldSpec => ({
  ...secret(options),
  isRequired: false,
});

const publicField = (
  schema: z.ZodType<PublicValue>,
  options: Options & { default?: PublicValue; optional?: true; destination?: true },
): FieldSpec => ({
  title: options.title,
  ...(options.description === undefined ? {} : { description: options.description }),
  class: 'public',
  isRequired: options.default === undefined && options.optional !== true,
  schema,
  ...(options.default === undefined ? {} : { default: options.default }),
  isDestination: options.destination === true,
});

const text = (max: number) => z.string().min(1).max(max).regex(lineForm, 'no control characters');
const hostForm = /^(?:[A-Za-z0-9](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9])?|[0-9a-fA-F:.]{2,45})$/;
// The parser alone would take blanks and backslashes, and drop or turn them: what is stored is what
// was meant.
const urlForm = /^https?:\/\/[^\s\\\p{Cc}\p{Cs}]+$/u;
const isPlainUrl = (value: string): boolean => {
  const url = URL.parse(value);
  return (
    url !== null &&
    (url.protocol === 'https:' || url.protocol === 'http:') &&
    url.username === '' &&
    url.password === '' &&
    url.search === '' &&
    url.hash === ''
  );
};

const plainUrl: Refinement<string> = {
  rule: 'url',
  check: isPlainUrl,
  says: 'Without user, query and fragment.',
};
/** No name in a query is one that the vault sets. */
const freeOf = (
  reserved: ReadonlySet<string>,
  query: (value: string) => string,
): Refinement<string> => ({
  rule: 'reserved',
  check: (value) => areFree(query(value), reserved),
  says: `No name in the query is set by the vault: ${[...reserved].sort().join(', ')}.`,
});

/** One line that says who logs in. */
export const username = (options: Options & { optional?: true; default?: string }): FieldSpec =>
  publicField(text(320), options);
/** One line of public text. */
export const publicText = (
  options: Options & { default?: string; optional?: true; destination?: true },
): FieldSpec => publicField(text(publicFieldLengthMax), options);
/** A host name or an address: a destination. */
export const host = (options: Options & { optional?: true }): FieldSpec =>
  publicField(z.string().max(253).regex(hostForm, 'a host name or an IP address'), {
    ...options,
    destination: true,
  });
/** A TCP port: a destination. */
export const port = (standard: number): FieldSpec =>
  publicField(z.int().min(1).max(65_535), { title: 'Port', default: standard, destination: true });
/** An http(s) URL without user, query or fragment: a destination. */
export const url = (options: Options & { default?: string; optional?: true }): FieldSpec =>
  publicField(
    refined(
      z
        .string()
        .max(publicFieldLengthMax)
        .regex(urlForm, 'http:// or https://, without blanks and backslashes'),
      plainUrl,
    ).meta({ format: 'uri' }),
    { ...options, destination: true },
  );
/** The https URL of a host under a name: a destination that may come late. */
export const instanceUrl = ({ under, ...options }: Options & { under: string }): FieldSpec =>
  publicField(
    refined(
      z
        .string()
        .max(publicFieldLengthMax)
        .regex(/^https:\/\/[A-Za-z0-9.-]+\/?$/, 'https:// and a host'),
      {
        rule: 'host',
        check: (value) => URL.parse(value)?.hostname.endsWith(under) === true,
        says: `Its host ends in ${under}.`,
      },
    ).meta({ format: 'uri' }),
    { ...options, optional: true, destination: true },
  );
/** A list in JSON, as text. */
export const jsonText = (options: Options & { optional?: true }): FieldSpec =>
  publicField(
    refined(
      z
        .string()
        .max(pemLengthMax)
        .regex(/^[^\p{Cc}\p{Cs}]*$/u, 'JSON without control characters'),
      { rule: 'json', check: isJsonList, says: 'A JSON list.' },
    ),
    options,
  );
const isJsonList = (text: string): boolean => {
  try {
    return Array.isArray(JSON.parse(text));
  } catch {
    return false; // no JSON is no list
  }
};
/** The same, https only. */
export const httpsUrl = (options: Options): FieldSpec =>
  publicField(
    refined(
      z
        .string()
        .max(publicFieldLengthMax)
        .regex(/^https:\/\/[^\s\\\p{Cc}\p{Cs}]+$/u, 'https://, without blanks and backslashes'),
      plainUrl,
    ).meta({ format: 'uri' }),
    { ...options, destination: true },
  );
/** An HTTP header's name: a destination. */
export const headerName = (options: Options): FieldSpec =>
  publicField(z.string().max(100).regex(httpTokenForm, 'the name of an HTTP header'), {
    ...options,
    destination: true,
  });
/** The name of a query parameter: a destination. */
export const parameterName = (options: Options): FieldSpec =>
  publicText({ ...options, destination: true });
/** One line of a given form. */
export const plainText = ({
  form,
  words,
  reserved,
  ...options
}: Options & {
  form: RegExp;
  /** What the form is. */
  words: string;
  /** Values that the vault sets itself. */
  reserved?: { readonly has: (value: string) => boolean; readonly says: string };
  optional?: true;
  destination?: true;
}): FieldSpec =>
  publicField(
    reserved === undefined
      ? z.string().min(1).max(publicFieldLengthMax).regex(form, words)
      : refined(z.string().min(1).max(publicFieldLengthMax).regex(form, words), {
          rule: 'reserved',
          check: (value) => !reserved.has(value),
          says: reserved.says,
        }),
    options,
  );
/** Yes; absent where it is no. */
export const flag = (options: Options & { destination?: true }): FieldSpec =>
  publicField(z.boolean(), { ...options, optional: true });
/** Yes or no. */
export const toggle = (options: Options & { default: boolean; destination?: true }): FieldSpec =>
  publicField(z.boolean(), options);
/** A whole number. */
export const number = (
  options: Options & {
    default?: number;
    optional?: true;
    destination?: true;
    min: number;
    max: number;
  },
): FieldSpec => publicField(z.int().min(options.min).max(options.max), options);
/** One of a few words. */
export const oneOf = ({
  values,
  ...options
}: Options & {
  values: readonly [string, ...string[]];
  default?: string;
  optional?: true;
  destination?: true;
}): FieldSpec => publicField(z.enum(values), options);
/** A moment, RFC 3339. */
export const moment = (options: Options & { optional?: true }): FieldSpec =>
  publicField(
    refined(
      z
        .string()
        .max(40)
        .regex(
          /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)$/,
          'RFC 3339 with an offset',
        ),
      {
        rule: 'time',
        check: (value) => !Number.isNaN(Date.parse(value)),
        says: 'A moment that there is.',
      },
    ),
    options,
  );
/**
 * A query string whose names are none of `reserved`, however they are spelled for whoever reads
 * them.
 */
export const queryString = ({
  reserved,
  ...options
}: Options & {
  optional?: true;
  destination?: true;
  reserved: ReadonlySet<string>;
}): FieldSpec =>
  publicField(
    refined(
      z
        .string()
        .min(1)
        .max(publicFieldLengthMax)
        .regex(queryForm, 'printable ASCII, encoded where it has to be'),
      freeOf(reserved, (value) => value),
    ),
    options,
  );
/**
 * An http(s) URL without user or fragment, with a query whose names are none of `reserved`: a
 * destination.
 */
export const endpointUrl = ({
  reserved,
  ...options
}: Options & { optional?: true; reserved: ReadonlySet<string> }): FieldSpec => ({
  ...publicField(
    (
      [
        {
          rule: 'url',
          check: (value) => !value.includes('#') && isPlainUrl(value.split('?', 1)[0]!),
          says: 'Without user and fragment.',
        },
        {
          rule: 'query',
          check: (value) => !value.includes('?') || queryForm.test(queryOf(value)),
          says: 'Its query is printable ASCII, encoded where it has to be.',
        },
        freeOf(reserved, (value) => (value.includes('?') ? queryOf(value) : '')),
      ] as readonly Refinement<string>[]
    )
      .reduce<z.ZodString>(
        (schema, rule) => refined(schema, rule),
        z
          .string()
          .max(publicFieldLengthMax)
          .regex(urlForm, 'http:// or https://, without blanks and backslashes'),
      )
      .meta({ format: 'uri' }),
    { ...options, destination: true },
  ),
  hasHiddenQuery: true,
});
const queryOf = (url: string): string => url.slice(url.indexOf('?') + 1);
const queryForm = /^[A-Za-z0-9._~!$&'()*+,;=:@/?%-]+$/;

/**
 * SECURITY: a name is compared as the most forgiving reader reads it: without case, blanks and what
 * stands in brackets, dots and blanks inside as underscores, and parameters separated by
 * semicolons.
 */
function areFree(query: string, reserved: ReadonlySet<string>): boolean {
  return query
    .split(/[&;]/)
    .filter((part) => part !== '')
    .map((part) => new URLSearchParams(`${part.split('=', 1)[0]}=`).keys().next().value ?? '')
    .every((name) => {
      const read = name
        .normalize('NFKC')
        .toLowerCase()
        .trim()
        .replace(/\[.*$/, '')
        .replace(/[ .]/g, '_');
      return read !== '' && !reserved.has(read);
    });
}
/** Certificates and the like in PEM: public text of several lines. */
export const pem = (options: Options & { optional?: true; destination?: true }): FieldSpec =>
  publicField(
    z
      .string()
      .max(pemLengthMax)
      .regex(/^-----BEGIN [A-Z0-9 ]+-----[A-Za-z0-9+/=\r\n -]+-----END [A-Z0-9 ]+-----\s*$/, 'PEM'),
    options,
  );
