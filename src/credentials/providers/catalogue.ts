// The providers there are. An entry is added by one file or by a line in the file of its family;
// none is ever taken away, and each change of one grows its revision.
import type { OAuthProvider } from './define.ts';
import { google } from './google.ts';
import { openIdConnect } from './identity.ts';

/** Every provider, by name. */
export const oauthProviders: readonly OAuthProvider[] = [...google, ...openIdConnect].toSorted(
  (a, b) => (a.name < b.name ? -1 : 1),
);

/** The names, in the order of the list. */
export const providerNames = oauthProviders.map(({ name }) => name) as [string, ...string[]];

const byName: ReadonlyMap<string, OAuthProvider> = new Map(
  oauthProviders.map((provider) => [provider.name, provider]),
);

/** The provider of a name. */
export const findProvider = (name: string): OAuthProvider | undefined => byName.get(name);
