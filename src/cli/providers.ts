// The page of the catalogue of OAuth providers, made of its entries: docs/providers.md.
import {
  fixedSuffix,
  type OAuthProvider,
  oauthProviders,
  type Placeholder,
  placeholderNames,
  quirkNames,
} from '../credentials/index.ts';

const head = `# OAuth providers

The catalogue: what \`provider\` of a credential of type \`oauth2\` can name in place of URLs.
Generated: \`npm run -s vault -- providers > docs/providers.md\`.
\`GET /v1/oauth-providers\` gives the same for programs;
[credentials.md](credentials.md#providers-of-oauth-20) says what becomes of an entry when a
credential is stored.

An entry says what was read in a page of the provider's, on the day that stands beside it. Where it
was read in the definition of a well-known library that goes by that page, the library is named too.
What no page says is left unsaid: whether each refresh token is good once, for example, which the
vault does not have to know.
`;

/** The page, to the byte. */
export function providersPage(entries: readonly OAuthProvider[] = oauthProviders): string {
  const rows = entries.map(
    (entry) =>
      `| [\`${entry.name}\`](#${entry.name.toLowerCase()}) | ${entry.title} | ${asks(entry)} | ` +
      `${entry.grants.map(grantName).join(', ')} |`,
  );
  return [
    head,
    '| provider | | asks for, besides client ID, secret and scopes | |',
    '|---|---|---|---|',
    ...rows,
    '',
    ...entries.map(detail),
  ].join('\n');
}

const grantName = (grant: OAuthProvider['grants'][number]): string =>
  grant === 'authorizationCode' ? 'a person' : 'the client itself';

function asks({ placeholders = {}, hasDiscovery }: OAuthProvider): string {
  const names = placeholderNames.filter((name) => placeholders[name] !== undefined);
  return [...names, ...(hasDiscovery === true ? ['issuer'] : [])]
    .map((name) => `\`${name}\``)
    .join(', ');
}

function detail(entry: OAuthProvider): string {
  const { placeholders = {}, quirks, answers } = entry;
  const endpoints = [
    ['Authorization', entry.authorizationUrl],
    ['Token', entry.tokenUrl],
    ['Refresh', entry.refreshUrl],
  ].flatMap(([name, url]) => (url === undefined ? [] : [`- ${name}: \`${url}\``]));
  const set = quirkNames.flatMap((name) =>
    quirks[name] === undefined ? [] : [`\`${name}: ${String(quirks[name])}\``],
  );
  return `${[
    `## ${entry.name}`,
    '',
    `${entry.title}.${entry.note === undefined ? '' : ` ${entry.note}`}`,
    '',
    ...(endpoints.length === 0 ? ["- Endpoints: of the issuer's document"] : endpoints),
    ...placeholderNames.flatMap((name) => {
      const placeholder = placeholders[name];
      return placeholder === undefined ? [] : [placeholderLine(name, placeholder)];
    }),
    `- Hosts: ${hostsOf(entry)}`,
    `- Written out: ${set.join(', ')}` +
      `${entry.parameters === undefined ? '' : `; \`${entry.parameters}\` to the authorization`}`,
    ...(entry.scopeSeparator === ',' ? ['- Scopes are separated by commas'] : []),
    ...(entry.scope === undefined ? [] : [`- Scope when none is said: \`${entry.scope}\``]),
    ...(entry.offlineScope === undefined
      ? []
      : [`- Added to the scope: \`${entry.offlineScope}\`, for a refresh token`]),
    `- Refresh tokens: ${refreshWords[answers.refreshToken]}` +
      `${answers.isWithoutLifetime === true ? '; no lifetime is said' : ''}`,
    ...(entry.instance === undefined
      ? []
      : [
          `- Where the account lives: \`${entry.instance.member}\`, shown where it ends in ` +
            `${entry.instance.suffixes.map((suffix) => `\`${suffix}\``).join(', ')}`,
        ]),
    ...entry.read.map(
      ({ url, on, by }) => `- Read ${on}: <${url}>${by === undefined ? '' : `, by <${by}>`}`,
    ),
  ].join('\n')}\n`;
}

const refreshWords: Readonly<Record<OAuthProvider['answers']['refreshToken'], string>> = {
  rotates: 'each is good once',
  keeps: 'the same one stays good',
  none: 'none; the access token is all there is',
  unsaid: 'unsaid whether each is good once',
};

function placeholderLine(name: string, placeholder: Placeholder): string {
  const kinds = {
    label: 'one DNS label',
    segment: 'one segment of a path',
    host: 'a whole host',
    url: 'a base URL',
    word: 'a word',
  };
  const words =
    placeholder.kind === 'word'
      ? `: ${Object.keys(placeholder.words)
          .map((word) => `\`${word}\``)
          .join(', ')}`
      : '';
  const usual =
    placeholder.default === undefined ? '' : `; \`${placeholder.default}\` when left out`;
  return (
    `- \`${name}\`: ${placeholder.title} (${kinds[placeholder.kind]}${words}), such as \`` +
    `${placeholder.example}\`${usual}`
  );
}

/** What every host of the entry ends in, or that there is no such thing. */
function hostsOf(entry: OAuthProvider): string {
  const templates = [entry.authorizationUrl, entry.tokenUrl, entry.refreshUrl].filter(
    (url) => url !== undefined,
  );
  if (templates.length === 0)
    return "the issuer's own; **no fixed suffix**: the issuer is a destination like any other";
  const suffixes = [...new Set(templates.map((url) => fixedSuffix(url, entry)))];
  return suffixes
    .map((suffix) =>
      suffix === undefined
        ? '**no fixed suffix**: the host is a destination like any other'
        : `\`${suffix.startsWith('.') ? '*' : ''}${suffix}\``,
    )
    .join(', ');
}
