// The types whose tokens are held: what goes together, and what a stored parameter may not stand in
// for.
import t from 'tap';
import { readNewFields } from '../../src/credentials/fields.ts';
import { typeNamed } from '../../src/credentials/versions.ts';
import { Secret } from '../../src/crypto/index.ts';
import { heldPlace } from '../../src/oauth/place.ts';
import type { AppError } from '../../src/shared/errors.ts';
import { freshDataKey, freshKeyring, freshPlace, isRefused } from '../helpers/crypto.ts';

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
    ['tokenUrl', 'https://id.example/?a=b'],
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

t.test(
  'settings are read from the public fields, and from nothing for a provider that is always the same',
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
    const sheets = typeNamed('googleSheets').oauth?.settings({
      clientId: 'c',
      tokenUrl: 'https://evil.test',
    });
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
  "a held token and a version of the same number and content do not open in each other's place",
  (t) => {
    const keyring = freshKeyring();
    const version = freshPlace();
    const key = freshDataKey(keyring, version.team);
    const held = heldPlace({
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
            heldPlace({
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
