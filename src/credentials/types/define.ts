// What a credential type is. One file a type; the registry lists them.
import { type Refinement, refined } from '../../shared/refine.ts';
import type { InputFault } from '../../shared/errors.ts';
import { z } from 'zod';
import { pemLengthMax, publicFieldLengthMax, secretFieldBytesMax } from '../../shared/limits.ts';
import type { JsonObject } from '../../shared/json.ts';
import type { PublicValue } from '../public-values.ts';
import { httpTokenForm, lineForm } from '../../shared/patterns.ts';

/** One field. A field is secret unless its type says otherwise. */
export interface FieldSpec {
  readonly title: string;
  readonly description?: string;
  readonly class: 'public' | 'secret';
  readonly isRequired: boolean;
  readonly schema: z.ZodType<PublicValue>;
  readonly default?: PublicValue;
  /** Where the secret goes: a change of it demands all secrets again. */
  readonly isDestination: boolean;
  /** What is stored of a public value that was sent; the value itself without it. */
  readonly stored?: (value: PublicValue) => PublicValue;
  /** A URL whose query is shown with names only. */
  readonly hasHiddenQuery?: true;
  /** Written by the vault: not for a form to ask. */
  readonly isWritten?: true;
  /** Goes only with this other field. */
  readonly needs?: string;
}

/** How the broker puts the secret into a request. */
export type Injection =
  | { readonly kind: 'bearer'; readonly field: string }
  /** `also`: headers that are added when the caller sends none of that name. */
  | {
      readonly kind: 'header';
      readonly name: string;
      readonly field: string;
      readonly also?: Readonly<Record<string, string>>;
    }
  /** Several headers; one marked `isOptional` is left out where its field is not set. */
  | { readonly kind: 'headers'; readonly headers: readonly InjectedHeader[] }
  | { readonly kind: 'namedHeader'; readonly nameField: string; readonly field: string }
  | { readonly kind: 'basic'; readonly usernameField: string; readonly passwordField: string }
  /** The key stands where the user name does; a password only where one is set. */
  | { readonly kind: 'basicKey'; readonly field: string; readonly passwordField: string }
  /** By what is stored: one way where the field is set, the other where it is not. */
  | {
      readonly kind: 'whenSet';
      readonly field: string;
      readonly set: PlainInjection;
      readonly unset: PlainInjection;
    }
  | { readonly kind: 'query'; readonly nameField: string; readonly field: string }
  /** In front of the caller's path: `before`, the value, `after`. */
  | {
      readonly kind: 'path';
      readonly before: string;
      readonly field: string;
      readonly after: string;
    }
  /** The secret is the whole URL. */
  | { readonly kind: 'url'; readonly field: string }
  | { readonly kind: 'sigv4'; readonly service?: 's3' }
  /** A bearer: the access token that is stored beside the version. */
  | { readonly kind: 'oauth' };

/** One of several headers of an injection. */
export interface InjectedHeader {
  readonly name: string;
  readonly field: string;
  /** In front of the value, with a blank between. */
  readonly scheme?: 'Bearer';
  readonly isOptional?: true;
}
/** An injection that depends on nothing. */
export type PlainInjection = Exclude<Injection, { readonly kind: 'whenSet' }>;

/**
 * Where the broker's requests go: a fixed base URL, a public field that has it, a host and a port
 * (over TLS), the secret URL, or a host that the policy names.
 */
export type Upstream =
  | { readonly kind: 'fixed'; readonly baseUrl: string }
  | { readonly kind: 'field'; readonly field: string }
  /** A field that may be absent: then the hosts of the policy. */
  | { readonly kind: 'optionalField'; readonly field: string }
  /** Plain http only where `secureField` is false. */
  | {
      readonly kind: 'hostPort';
      readonly hostField: string;
      readonly portField: string;
      readonly secureField?: string;
    }
  | { readonly kind: 'secret' }
  | { readonly kind: 'policy' };

/**
 * How a connection is tested with stored values: through the type's own injection, to its own
 * upstream. 2xx is good; 400, 401 and 403 say that the log-in is refused.
 */
export interface HttpTest {
  readonly kind: 'http';
  readonly method: 'GET' | 'POST';
  /** `{name}` is a public field, encoded; `{name=x}` one that may be absent. */
  readonly path: string;
  /** Where it goes when the credential names no target of its own; as `path`. */
  readonly baseUrl?: string;
  /** Beside what the type injects. */
  readonly headers?: Readonly<Record<string, string>>;
  /** As JSON. */
  readonly body?: JsonObject;
  /** Statuses beside 2xx that say that the log-in counts, though it may do less. */
  readonly accepted?: readonly number[];
  /** A text in the body of a 403 that says the same. */
  readonly acceptedText?: string;
  /** Statuses beside the usual ones that say that it does not. */
  readonly refused?: readonly number[];
  /** A member of a 2xx answer that says that it does not, by being false or by being there. */
  readonly refusal?: { readonly member: string; readonly by: 'false' | 'presence' };
}
export type ConnectionTest =
  | HttpTest
  | { readonly kind: 'smtp' | 'imap' | 'redis' | 'qdrant' | 'rabbitmq' | 'kafka' };

/**
 * How tokens are got from a provider: what they belong to. A change of one of these ends what is
 * stored, but for `clientAuthentication` and `assumedLifetimeSeconds`. What is not set is absent:
 * stored tokens are bound to what is.
 */
export interface OAuthSettings {
  readonly grant: 'authorizationCode' | 'clientCredentials';
  /** Only where a person authorizes. */
  readonly authorizationUrl?: string;
  readonly tokenUrl: string;
  /** Where refreshes go to another place than exchanges. */
  readonly refreshUrl?: string;
  readonly clientId: string;
  readonly scope?: string;
  /** Under which name the scope is asked for; `scope` without it. */
  readonly scopeParameter?: string;
  /**
   * Sent along to the authorization, or with the request of a client for itself: a query string.
   */
  readonly parameters?: string;
  /** Sent along with every token request, with the exchange of a code, with a refresh. */
  readonly tokenParameters?: string;
  readonly exchangeParameters?: string;
  readonly refreshParameters?: string;
  /** In place of `authorization_code` or `client_credentials`. */
  readonly grantType?: string;
  readonly redirectUriOnRefresh?: true;
  /** What the provider calls itself in its answers. */
  readonly issuer?: string;
  /** `ifSent`: an answer without an issuer is believed. */
  readonly issuerCheck?: 'ifSent';
  readonly clientAuthentication: 'header' | 'body';
  /** `none`: id and secret stand in the header as they are. */
  readonly basicEncoding?: 'none';
  /** Token requests as JSON in place of a form. */
  readonly requestFormat?: 'json';
  readonly pkce?: 'off';
  /** Where the access token stands in an answer, as names with dots between. */
  readonly tokenPath?: string;
  /** Where no lifetime is said; an hour without it. */
  readonly assumedLifetimeSeconds?: number;
}

/**
 * Systems whose credentials can be brought along. `env`: the variable's name is the type, its value
 * the one field `value`.
 */
export type System = 'heym' | 'n8n' | 'airflow' | 'env';
export interface Alias {
  readonly type: string;
  /** Theirs to ours; several of theirs may say one of ours, and then have to agree. */
  readonly fields: Readonly<Record<string, string | AliasField>>;
  /** What it means there that nothing is said about one of our fields. */
  readonly absent?: Readonly<Record<string, PublicValue>>;
  /** Members that say what is so anyway, with the texts by which they do. */
  readonly idle?: Readonly<Record<string, readonly string[]>>;
  /** Members without which it means something else than this type. */
  readonly demands?: readonly string[];
  /** Members that make of it something else than this type, unless they are off or idle. */
  readonly unfit?: readonly string[];
  /** Members that choose: by each of their words, those of the others that do not count then. */
  readonly modes?: Readonly<Record<string, Readonly<Record<string, readonly string[]>>>>;
}
/** One of our fields, with what the other system's words for it mean here. */
export interface AliasField {
  readonly to: string;
  readonly words?: Readonly<Record<string, PublicValue>>;
  /** What the text there means here; undefined for a text that means nothing. */
  readonly read?: (text: string) => PublicValue | undefined;
  /** Counts only where nothing is said by this other member. */
  readonly unless?: string;
}
/** What is said about TLS in one word, by whatever knows it. */
export const tlsWords: Readonly<Record<string, PublicValue>> = {
  ...Object.fromEntries(
    ['disable', 'disabled', 'false', 'f', '0', 'no', 'off', 'none', 'never'].map((w) => [w, false]),
  ),
  ...Object.fromEntries(
    [
      ...['require', 'required', 'true', 't', '1', 'yes', 'on', 'enabled', 'always'],
      ...['verify-ca', 'verify_ca', 'verify-full', 'verify_full', 'verify_identity'],
    ].map((w) => [w, true]),
  ),
};

/** The same as a member of its own. */
export const tlsField: AliasField = { to: 'tls', words: tlsWords };
/** What Airflow's connections say about TLS among what is extra. */
export const airflowTls: Alias['fields'] = Object.fromEntries(
  ['sslmode', 'ssl_mode', 'ssl-mode', 'ssl', 'tls', 'use_ssl', 'useSSL', 'usessl'].map((name) => [
    `extra.${name}`,
    tlsField,
  ]),
);

export interface CredentialType {
  readonly name: string;
  readonly title: string;
  readonly description: string;
  readonly fields: Readonly<Record<string, FieldSpec>>;
  /**
   * Takes any field beside those listed: secret unless declared public when the credential is made.
   * Its public fields are all destinations.
   */
  readonly isOpen?: true;
  /**
   * Used by the vault itself: engines get it only where its own policy says so, whatever the team's
   * default.
   */
  readonly isForVault?: true;
  /** At least one of these fields is set. */
  readonly anyOf?: readonly string[];
  /** Absent where nothing can be put into an HTTP request. */
  readonly broker?: {
    readonly injection: Injection;
    readonly upstream: Upstream;
    /**
     * What its hosts serve are stored objects, asked for in parts and by their length: all of them,
     * or those whose name says so.
     */
    readonly objectStore?: 'always' | 'byHost';
  };
  readonly test?: ConnectionTest;
  /** Why there is no test: a sentence. */
  readonly noTest?: string;
  /** Why nothing of it goes through the broker: a sentence. */
  readonly noBroker?: string;
  /**
   * For a type whose requests carry an access token of a provider's. Its fields `accessToken`,
   * `refreshToken` and the one of the expiry are what it starts with.
   */
  readonly oauth?: {
    /** Whose provider is always the same entry of the catalogue; any one without it. */
    readonly provider?: string;
    readonly settings: (publicFields: Readonly<Record<string, PublicValue>>) => OAuthSettings;
    readonly expiryField: string;
  };
  /**
   * What no single field's rule can say: fields that are needed besides, and pointers of those that
   * do not go together.
   */
  readonly faults?: (
    publicFields: Readonly<Record<string, PublicValue>>,
    isSet: (name: string) => boolean,
  ) => readonly InputFault[];
  /**
   * What it is called where people come from, and what its fields are called there: theirs to ours.
   */
  readonly aliases?: Readonly<Partial<Record<System, readonly Alias[]>>>;
}

/** A type, frozen. */
export const defineType = (type: CredentialType): CredentialType => Object.freeze(type);

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
