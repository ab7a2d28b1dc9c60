// What a credential type is. One file a type; the registry lists them.
import type { InputFault } from '../../shared/errors.ts';
import type { z } from 'zod';
import type { JsonObject } from '../../shared/json.ts';
import type { PublicValue } from '../public-values.ts';

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
  /** At most one of these two is. */
  readonly notBoth?: readonly [string, string];
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
