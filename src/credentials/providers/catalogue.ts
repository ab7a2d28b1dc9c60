// The providers there are. An entry is added in the file of its family; none is ever taken away,
// and each change of what is written out of one grows its revision.
import { chat } from './chat.ts';
import { customers } from './customers.ts';
import type { OAuthProvider } from './define.ts';
import { development } from './development.ts';
import { files } from './files.ts';
import { googleProviders } from './google.ts';
import { identity } from './identity.ts';
import { microsoft } from './microsoft.ts';
import { money } from './money.ts';
import { social } from './social.ts';
import { work } from './work.ts';

/** Every provider, by name. */
export const oauthProviders: readonly OAuthProvider[] = [
  ...googleProviders,
  ...microsoft,
  ...chat,
  ...development,
  ...work,
  ...files,
  ...customers,
  ...money,
  ...social,
  ...identity,
].toSorted((a, b) => (a.name < b.name ? -1 : 1));

/** The names, in the order of the list. */
export const providerNames = oauthProviders.map(({ name }) => name) as [string, ...string[]];

const byName: ReadonlyMap<string, OAuthProvider> = new Map(
  oauthProviders.map((provider) => [provider.name, provider]),
);

/** The provider of a name. */
export const findProvider = (name: string): OAuthProvider | undefined => byName.get(name);
