// What an entry of the catalogue of OAuth providers is: facts from the provider's own page, which
// are written out into a credential's version when it is stored. Nothing of an entry is looked up
// when tokens are asked for.

/** Public fields of a credential that stand for a part of an endpoint. */
export const placeholderNames = [
  'tenant',
  'subdomain',
  'shop',
  'region',
  'domain',
  'baseUrl',
  'realm',
] as const;
export type PlaceholderName = (typeof placeholderNames)[number];

/** What may stand in the place of a name in braces. */
export type Placeholder = {
  readonly title: string;
  readonly example: string;
  /** What counts when nothing is said. */
  readonly default?: string;
} & (
  | { readonly kind: 'label' | 'segment' | 'url' }
  /** A whole host; where all of them end in the same, that. */
  | { readonly kind: 'host'; readonly suffix?: string }
  /** One of these words, each with the text that it stands for. */
  | { readonly kind: 'word'; readonly words: Readonly<Record<string, string>> }
);

/** Fields of a credential that an entry fills in, and that the caller may say otherwise. */
export const quirkNames = [
  'clientAuthentication',
  'basicEncoding',
  'requestFormat',
  'pkce',
  'scopeParameter',
  'grantType',
  'redirectUriOnRefresh',
  'tokenPath',
  'tokenParameters',
  'exchangeParameters',
  'refreshParameters',
  'issuerCheck',
  'assumedLifetimeSeconds',
] as const;
export type QuirkName = (typeof quirkNames)[number];

/** How the provider answers: for the page that is made of the entries, and for their test. */
export interface Answers {
  /**
   * `rotates`: each refresh token is good once. `none`: the access token is all there is. `unsaid`:
   * the pages that were read do not say which.
   */
  readonly refreshToken: 'rotates' | 'keeps' | 'none' | 'unsaid';
  /** No lifetime is said. */
  readonly isWithoutLifetime?: true;
  /** What else is unusual: other members, other places. */
  readonly members?: Readonly<Record<string, unknown>>;
  /** The token stands under this member in place of the top. */
  readonly under?: string;
  readonly isForm?: true;
}

export interface OAuthProvider {
  readonly name: string;
  readonly title: string;
  /** Grows with every change of what is written out. */
  readonly revision: number;
  readonly grants: readonly ('authorizationCode' | 'clientCredentials')[];
  /** With names in braces. Absent where nobody authorizes. */
  readonly authorizationUrl?: string;
  /** Absent where it is read from the provider's own document. */
  readonly tokenUrl?: string;
  /** Where refreshes go to another place than exchanges. */
  readonly refreshUrl?: string;
  /** The endpoints are read, once, from the document of OpenID Connect that the issuer has. */
  readonly hasDiscovery?: true;
  readonly placeholders?: Readonly<Partial<Record<PlaceholderName, Placeholder>>>;
  readonly quirks: Readonly<
    { readonly clientAuthentication: 'header' | 'body' } & Partial<
      Record<Exclude<QuirkName, 'clientAuthentication'>, string | number | boolean>
    >
  >;
  /** Sent along to the authorization: what makes the provider give a refresh token, for example. */
  readonly parameters?: string;
  /** What counts when no scope is said. */
  readonly scope?: string;
  /** Added to the scope: without it there is no refresh token. */
  readonly offlineScope?: string;
  /** A blank without it. */
  readonly scopeSeparator?: ',';
  /**
   * A member of the answer that says where the account lives, and what its host has to end in: one
   * of these.
   */
  readonly instance?: { readonly member: string; readonly suffixes: readonly string[] };
  readonly answers: Answers;
  /** Something to know that no field says. */
  readonly note?: string;
  readonly read: readonly SourcePage[];
}

/** A page of the provider's, and the day on which it was read. */
export interface SourcePage {
  readonly url: string;
  readonly on: string;
  /** The definition of a well-known library that goes by the page, where that was read. */
  readonly by?: string;
}

const on = '2026-11-30';
const nango =
  'https://github.com/NangoHQ/nango/blob/2f4c0af671e2ca1c43dd4e78f3c369218bf3fc87/packages/providers/providers.yaml';
const authjs =
  'https://github.com/nextauthjs/next-auth/blob/a1a16a5a7780488c7449feece410033f445d0b31/packages/core/src/providers';

/** A page that was read itself. */
export const page = (url: string): SourcePage => ({ url, on });
/** A page as Nango's definition of the provider has it. */
export const pageByNango = (url: string): SourcePage => ({ url, on, by: nango });
/** A page as the definition of Auth.js has it, in this file. */
export const pageByAuthjs = (url: string, file: string): SourcePage => ({
  url,
  on,
  by: `${authjs}/${file}.ts`,
});

/** An entry, frozen. */
export const defineProvider = (
  provider: Omit<OAuthProvider, 'grants' | 'revision'> &
    Partial<Pick<OAuthProvider, 'grants' | 'revision'>>,
): OAuthProvider =>
  Object.freeze<OAuthProvider>({
    ...provider,
    grants: provider.grants ?? ['authorizationCode'],
    revision: provider.revision ?? 1,
  });
