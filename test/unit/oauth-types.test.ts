// The types whose tokens are stored: what goes together, and what a stored parameter may not stand
// in for.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { readNewFields } from '../../src/credentials/fields.ts';
import { oauthClient } from '../../src/credentials/stored-tokens.ts';
import { policyJson } from '../../src/credentials/policy.ts';
import { shownFields } from '../../src/credentials/shown.ts';
import { reservedParameters } from '../../src/credentials/types/oauth-fields.ts';
import { findType } from '../../src/credentials/types/registry.ts';
import type { CredentialType } from '../../src/credentials/types/define.ts';
import { canonicalJson, Secret } from '../../src/crypto/index.ts';
import { tokenSetBinding } from '../../src/oauth/token-binding.ts';
import type { AppError } from '../../src/shared/errors.ts';
import { freshDataKey, freshKeyring, freshBinding, isRefused } from '../helpers/crypto.ts';

const corpus = JSON.parse(
  readFileSync(join(import.meta.dirname, '../vectors/oauth/versions-0.1.json'), 'utf8'),
);
const typeNamed = (name: string): CredentialType => findType(name)!;
const oauth2 = typeNamed('oauth2');
const code = {
  authorizationUrl: 'https://id.example/authorize',
  tokenUrl: 'https://id.example/token',
  clientId: 'vault',
};
const faultsOf = (fields: Record<string, string>): string[] => {
  try {
    readNewFields(oauth2, fields, []);
    return [];
  } catch (error) {
    return ((error as AppError).errors ?? []).map(({ pointer, rule }) => `${pointer} ${rule}`);
  }
};

t.test('a person authorizes at a URL, a client by itself has a secret', (t) => {
  t.same(faultsOf(code), []);
  t.same(faultsOf({ tokenUrl: code.tokenUrl, clientId: 'vault' }), [
    '/fields/authorizationUrl required',
  ]);
  t.same(faultsOf({ grant: 'clientCredentials', tokenUrl: code.tokenUrl, clientId: 'vault' }), [
    '/fields/clientSecret required',
  ]);
  t.same(
    faultsOf({
      grant: 'clientCredentials',
      tokenUrl: code.tokenUrl,
      clientId: 'vault',
      clientSecret: 's',
    }),
    [],
  );
  for (const [field, value] of [
    ['grant', 'password'],
    ['clientAuthentication', 'url'],
    ['tokenUrl', 'ftp://id.example'],
    ['tokenUrl', 'https://user:pw@id.example/'],
    ['expiresAt', 'soon'],
    ['expiresAt', '2027-13-31T00:00:00Z'],
    ['scope', 'a\nb'],
  ] as const) {
    t.ok(
      faultsOf({ ...code, [field]: value }).every((fault) =>
        fault.startsWith(`/fields/${field} `),
      ) && faultsOf({ ...code, [field]: value }).length > 0,
      `${field} ${value}`,
    );
  }
  t.end();
});

t.test('a stored parameter is none of those that the vault says itself', (t) => {
  t.same(
    faultsOf({ ...code, parameters: 'audience=https%3A%2F%2Fapi.example&prompt=consent' }),
    [],
  );
  for (const parameters of [
    'state=x',
    'a=b&redirect_uri=https%3A%2F%2Fevil.test',
    'REDIRECT_URI=x',
    '%73tate=x',
    'code_challenge_method=plain',
    'client_secret=x',
    'request_uri=x',
    'scope=all',
    '=x',
    'a b',
    'a#b',
  ]) {
    t.match(faultsOf({ ...code, parameters }), [/^\/fields\/parameters /], parameters);
  }
  t.end();
});

t.test('SECURITY: a reserved name stands in no query and in no parameters', (t) => {
  const withSecret = { ...code, clientSecret: 's' };
  t.same(
    faultsOf({
      ...withSecret,
      authorizationUrl:
        'https://tenant.idp.example/oauth2/v2.0/authorize?p=signin&ui_locales=en%20de',
      tokenUrl: 'https://tenant.idp.example/oauth2/v2.0/token?p=signin',
      tokenParameters: 'audience=x;y&resource=a&resource=b&states=1&encode=x&scopes=y',
    }),
    [],
    'others are stored',
  );
  const places: readonly (readonly [string, (query: string) => string])[] = [
    ['authorizationUrl', (query) => `https://id.example/authorize?${query}`],
    ['tokenUrl', (query) => `https://id.example/token?a=b&${query}`],
    ['parameters', (query) => query],
    ['tokenParameters', (query) => query],
    ['exchangeParameters', (query) => `a=b&${query}`],
    ['refreshParameters', (query) => query],
  ];
  for (const name of reservedParameters)
    for (const [field, at] of places)
      for (const query of [`${name}=x`, `${name.toUpperCase()}=x`, name])
        t.same(
          faultsOf({ ...withSecret, [field]: at(query) }),
          [`/fields/${field} reserved`],
          `${query} in ${field}`,
        );
  // As the most forgiving reader reads it.
  for (const query of [
    '%73tate=x',
    's%74ate=x',
    '+state=x',
    'state%20=x',
    'state%5B%5D=x',
    'redirect.uri=x',
    'redirect+uri=x',
    'a=b;state=x',
    '%EF%BD%93tate=x',
    '=x',
    'a=b&=x',
  ])
    for (const [field, at] of places)
      t.same(faultsOf({ ...withSecret, [field]: at(query) }), [`/fields/${field} reserved`], query);
  for (const url of [
    'https://id.example/token#fragment',
    'https://id.example/token?a=b#state=x',
    'https://id.example/token?a=b c',
    'https://id.example/token?a="b"',
    'https://user:pw@id.example/token?a=b',
    'https://id.example\\token?a=b',
    'ftp://id.example/token?a=b',
    'https://id.example/token?',
  ])
    t.match(faultsOf({ ...withSecret, tokenUrl: url }), [/^\/fields\/tokenUrl /], url);
  t.end();
});

t.test('SECURITY: a path names an access token, and PKCE is off only with a secret', (t) => {
  for (const path of [
    'access_token',
    'authed_user.access_token',
    'a.b.c.d',
    'valid_token',
    'data.idToken2',
  ])
    t.same(faultsOf({ ...code, tokenPath: path }), [], path);
  for (const path of [
    'refresh_token',
    'a.refresh_token',
    'Refresh_Token',
    'refreshToken.x',
    'refresh-token',
    'id_token',
    'a.idToken',
    'client_secret',
    'clientSecret',
    '__proto__',
    '__proto__.x',
    'a.constructor',
    'prototype',
    'a.b.c.d.e',
    'a..b',
    '.a',
    'a.',
    'a[0]',
    '0.a',
    'a b',
    '',
  ])
    t.match(faultsOf({ ...code, tokenPath: path }), [/^\/fields\/tokenPath /], path);
  t.same(faultsOf({ ...code, pkce: 'off' }), ['/fields/pkce needsClientSecret']);
  t.same(faultsOf({ ...code, pkce: 'off', clientSecret: 's' }), []);
  t.match(faultsOf({ ...code, pkce: 'plain' }), [/^\/fields\/pkce /]);
  for (const type of ['account_credentials', 'urn:example:own'])
    t.same(faultsOf({ ...code, grantType: type }), [], type);
  for (const type of ['refresh_token', 'password', 'a b', 'a&b', 'a=b'])
    t.match(faultsOf({ ...code, grantType: type }), [/^\/fields\/grantType /], type);
  for (const name of ['scope', 'STATE', 'redirect_uri', 'a b', 'a&b', '1a'])
    t.match(faultsOf({ ...code, scopeParameter: name }), [/^\/fields\/scopeParameter /], name);
  t.same(faultsOf({ ...code, basicEncoding: 'none', clientId: 'a:b' }), [
    '/fields/clientId noColon',
  ]);
  t.same(faultsOf({ ...code, issuerCheck: 'ifSent' }), ['/fields/issuerCheck needsIssuer']);
  t.end();
});

t.test('SECURITY: what 0.1 stored asks as it did, of the same place, as the same client', (t) => {
  for (const { type, publicFields, settings, client } of corpus.versions) {
    t.strictSame(
      typeNamed(type).oauth?.settings(publicFields),
      settings,
      JSON.stringify(publicFields),
    );
    t.strictSame(oauthClient(typeNamed(type), publicFields), client);
  }
  for (const { policy, json } of corpus.policies)
    t.equal(canonicalJson(policyJson(policy)), canonicalJson(json));
  t.end();
});

t.test(
  'settings are read from the public fields; of a version without endpoints they are those of 0.1',
  (t) => {
    t.strictSame(
      oauth2.oauth?.settings({
        ...code,
        grant: 'authorizationCode',
        clientAuthentication: 'body',
        scope: 'read',
      }),
      {
        grant: 'authorizationCode',
        ...code,
        scope: 'read',
        clientAuthentication: 'body',
      },
    );
    const sheets = typeNamed('googleSheets').oauth?.settings({ clientId: 'c' });
    t.match(sheets, {
      tokenUrl: 'https://oauth2.googleapis.com/token',
      authorizationUrl: 'https://accounts.google.com/o/oauth2/v2/auth',
      scope: 'https://www.googleapis.com/auth/spreadsheets',
      clientId: 'c',
    });
    t.match(typeNamed('bigquery').oauth?.settings({ clientId: 'c', scope: 'mine' }), {
      scope: 'mine',
    });
    t.end();
  },
);

t.test(
  "a stored token and a version of the same number and content do not open in each other's place",
  (t) => {
    const keyring = freshKeyring();
    const version = freshBinding();
    const key = freshDataKey(keyring, version.team);
    const held = tokenSetBinding({
      team: version.team,
      credential: version.credential,
      sequence: version.version,
      type: version.type,
      client: version.publicFields,
      policy: version.policy,
    });
    const token = keyring.seal(key, held, new Secret({ accessToken: 'a' }));
    t.same(keyring.open(key, held, token).expose(), { accessToken: 'a' });
    t.ok(isRefused(() => keyring.open(key, version, token)));
    t.ok(
      isRefused(() =>
        keyring.open(key, held, keyring.seal(key, version, new Secret({ accessToken: 'a' }))),
      ),
    );
    for (const changed of [{ sequence: 4 }, { type: 'bigquery' }, { client: {} }, { policy: {} }]) {
      t.ok(
        isRefused(() =>
          keyring.open(
            key,
            tokenSetBinding({
              team: version.team,
              credential: version.credential,
              sequence: 3,
              type: version.type,
              client: version.publicFields,
              policy: version.policy,
              ...changed,
            }),
            token,
          ),
        ),
        String(Object.keys(changed)),
      );
    }
    t.end();
  },
);

t.test('SECURITY: the query of an endpoint is shown with names only, of whatever type', (t) => {
  const fields = {
    tokenUrl: 'https://id.test/token?p=hidden&q',
    clientId: 'a?b=c',
    isOpen: true,
  };
  for (const type of [typeNamed('oauth2'), undefined])
    t.same(
      shownFields(type, fields),
      { ...fields, tokenUrl: 'https://id.test/token?p&q' },
      type?.name ?? 'none that is known',
    );
  t.same(
    shownFields(typeNamed('oauth2'), { clientId: 'https://id.test/?a=b' }),
    { clientId: 'https://id.test/?a=b' },
    'what is no endpoint is shown whole',
  );
  t.end();
});
