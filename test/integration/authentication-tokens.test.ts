// Hostile tokens, against each source of keys: all of them 401 with a problem that says nothing,
// none of them 500, none accepted.
import { randomBytes } from 'node:crypto';
import t from 'tap';
import { CompactEncrypt } from 'jose';
import { testDatabase } from '../helpers/database.ts';
import {
  audience,
  forge,
  goodClaims,
  issuer,
  jwkOf,
  keyPair,
  part,
  sharedSecret,
  type Signer,
  startProvider,
} from '../helpers/identity.ts';
import { until } from '../helpers/processes.ts';
import { startVault, type TestVault } from '../helpers/vault.ts';
import { generateRootKey } from '../../src/crypto/index.ts';
import type { TokenType } from '../../src/access/issuers.ts';

const marker = `marker${randomBytes(8).toString('hex')}`;
const database = await testDatabase(t);
const rootKey = generateRootKey();
const provider = await startProvider(t);

/** A vault that trusts this key and says so to nobody else. */
async function vaultFor(
  test: { teardown(action: () => unknown): unknown },
  key: Signer,
  isJwks: boolean,
): Promise<TestVault> {
  const source = isJwks
    ? { jwksUrl: provider.url }
    : key.publicKey === undefined
      ? { secret: key.verifier }
      : { publicKey: key.verifier };
  if (isJwks) provider.answer([jwkOf(key)]);
  return startVault(test, { database, rootKey, verification: { issuer, audience, source } });
}

const whoami = (
  vault: TestVault,
  authorization: string | undefined,
  url = '/v1/whoami',
  more: Record<string, string> = {},
): ReturnType<TestVault['call']> =>
  vault.call(null, 'GET', url, undefined, {
    ...(authorization === undefined ? {} : { authorization }),
    ...more,
  });

const at = Math.floor(Date.now() / 1000);
const day = 86_400;

/** What is wrong with the claims, whatever the key. */
const badClaims: Record<string, unknown> = {
  'no issuer': { iss: undefined },
  'another issuer': { iss: `${issuer}.${marker}` },
  'a part of the issuer': { iss: issuer.slice(0, -1) },
  'issuers in a list': { iss: [issuer] },
  'an issuer in other letters': { iss: issuer.toUpperCase() },
  'an issuer that is null': { iss: null },
  'no audience': { aud: undefined },
  'another audience': { aud: marker },
  'other audiences': { aud: [marker, 'x'] },
  'an empty list of audiences': { aud: [] },
  'our audience beside a number': { aud: [audience, 7] },
  'an audience that is an object': { aud: { [audience]: true } },
  'no expiry': { exp: undefined },
  'an expiry in the past': { exp: at - 60 },
  'an expiry before 1970': { exp: -1 },
  'an expiry as text': { exp: String(at + 600) },
  'an expiry that is null': { exp: null },
  'an expiry in a list': { exp: [at + 600] },
  'an expiry in a hundred years': { exp: at + 36_500 * day },
  'an expiry in milliseconds': { exp: (at + 600) * 1000 },
  'a lifetime of more than a day': { iat: at - 10, exp: at + day + 60 },
  'an old token of more than a day': { iat: at - 2 * day, exp: at + 60 },
  'no issue time': { iat: undefined },
  'an issue time to come': { iat: at + 60 },
  'an issue time as text': { iat: String(at) },
  'an issue time that is null': { iat: null },
  'a start to come': { nbf: at + 60 },
  'a start as text': { nbf: String(at) },
  'a start that is null': { nbf: null },
  'no subject': { sub: undefined },
  'an empty subject': { sub: '' },
  'a subject that is a number': { sub: 7 },
  'subjects in a list': { sub: ['alice'] },
  'a subject that is null': { sub: null },
  'a subject of 256 characters': { sub: 'a'.repeat(256) },
  'a subject with a line break': { sub: `alice\n${marker}` },
  'a subject with a NUL': { sub: 'alice\0' },
  'a subject with a blank in front': { sub: ' alice' },
  'a subject with a blank behind': { sub: 'alice ' },
  'a subject that is a blank': { sub: ' ' },
  'a subject with a tab': { sub: 'alice\tsmith' },
  'a subject with a DEL': { sub: 'alice\x7f' },
  'a subject beyond ASCII': { sub: 'älice' },
  'a subject with a lone surrogate': { sub: '\ud800' },
};

/** What is wrong with the header, whatever the key. */
const badHeaders = (key: Signer): Record<string, unknown> => ({
  'no algorithm': { alg: undefined },
  'an algorithm that is null': { alg: null },
  'algorithms in a list': { alg: [key.alg] },
  'an algorithm in small letters': { alg: key.alg.toLowerCase() },
  'an algorithm that nobody knows': { alg: marker },
  'an algorithm named like a method': { alg: 'constructor' },
  'a key id that is a number': { kid: 7 },
  'key ids in a list': { kid: [key.kid] },
  'a key id that is an object': { kid: { toString: key.kid } },
  'a key id that is null': { kid: null },
  'a key id of 257 characters': { kid: 'k'.repeat(257) },
  jku: { jku: `https://${marker}.test/jwks` },
  x5u: { x5u: `https://${marker}.test/cert` },
  x5c: { x5c: ['MIIB'] },
  jwk: { jwk: { kty: 'oct', k: 'AA' } },
  'a header that must be understood': { crit: ['exp'], exp: at + 600 },
  'an empty crit': { crit: [] },
  'an unencoded payload': { b64: false },
  'an unencoded payload, crit': { b64: false, crit: ['b64'] },
});

/** Spoiled in its bytes. */
const tampered = (good: string): Record<string, string> => {
  const [header = '', claims = '', signature = ''] = good.split('.');
  const flip = (text: string, place: number): string =>
    `${text.slice(0, place)}${text[place] === 'A' ? 'B' : 'A'}${text.slice(place + 1)}`;
  return {
    'without its signature': `${header}.${claims}.`,
    'without its last part': `${header}.${claims}`,
    'one part': header,
    'four parts': `${good}.${signature}`,
    'five parts': `${good}.${header}.${claims}`,
    'no parts': '..',
    'an empty header': `.${claims}.${signature}`,
    'empty claims': `${header}..${signature}`,
    padded: `${good}=`,
    'padded twice': `${good}==`,
    'a header that is padded': `${header}=.${claims}.${signature}`,
    'a space inside': `${header}.${claims}. ${signature}`,
    'a character of the other alphabet': `${header}.${claims}.+${signature.slice(1)}`,
    'a percent-encoded dot': `${header}%2E${claims}.${signature}`,
    'a byte more': `${good}A`,
    'a signature twice': `${header}.${claims}.${signature}${signature}`,
    'the first character of the signature': `${header}.${claims}.${flip(signature, 0)}`,
    'the middle of the signature': `${header}.${claims}.${flip(signature, signature.length >> 1)}`,
    'the header': `${flip(header, 5)}.${claims}.${signature}`,
    'the claims': `${header}.${flip(claims, 20)}.${signature}`,
    "header and claims in each other's place": `${claims}.${header}.${signature}`,
    ...Object.fromEntries(
      [1, 2, 3, 8, 40].map((n) => [`${n} characters short`, good.slice(0, -n)]),
    ),
  };
};

/**
 * Every source of keys; the form of tokens, which is looked at before the key, is tried with three
 * of them.
 */
const sources: [string, Signer, boolean][] = [
  ['a shared secret', sharedSecret(), false],
  ['an RSA key', keyPair('RS256'), false],
  ['a P-256 key', keyPair('ES256'), false],
  ['a P-384 key', keyPair('ES384'), false],
  ['a P-521 key', keyPair('ES512'), false],
  ['an Ed25519 key', keyPair('EdDSA'), false],
  ["a provider's P-256 key", keyPair('ES256'), true],
];

for (const [name, key, isJwks] of sources) {
  t.test(`with ${name}`, async (test) => {
    const vault = await vaultFor(test, key, isJwks);
    const good = { alg: key.alg, kid: key.kid };
    const refused = async (what: string, token: string): Promise<void> => {
      const answer = await whoami(vault, `Bearer ${token}`);
      test.equal(answer.status, 401, what);
      test.match(
        answer,
        {
          headers: { 'www-authenticate': 'Bearer', 'content-type': 'application/problem+json' },
          json: { code: 'unauthenticated' },
        },
        what,
      );
      test.notOk(answer.text.includes(marker), `${what}: nothing of it comes back`);
    };

    test.equal(
      (await whoami(vault, `Bearer ${forge(key)}`)).status,
      200,
      'a good token is accepted',
    );
    test.equal(
      (await whoami(vault, `bearer ${forge(key)}`)).status,
      200,
      'whatever the case of the scheme',
    );
    test.equal(
      (await whoami(vault, `Bearer ${forge(key, good, { ...goodClaims(), aud: ['x', audience] })}`))
        .status,
      200,
      'our audience among others',
    );
    test.equal(
      (
        await whoami(
          vault,
          `Bearer ${forge(key, good, { ...goodClaims(), exp: at + 600.5, nbf: at - 1.5 })}`,
        )
      ).status,
      200,
      'times with a fraction',
    );

    const isOneOfThree = isJwks || key.alg === 'HS256' || key.alg === 'RS256';
    for (const [what, claims] of Object.entries(isOneOfThree ? badClaims : {}))
      await refused(what, forge(key, good, { ...goodClaims(), ...(claims as object) }));
    for (const [what, header] of Object.entries(isOneOfThree ? badHeaders(key) : {}))
      await refused(what, forge(key, { ...good, ...(header as object) }));
    for (const [what, token] of Object.entries(tampered(forge(key)))) await refused(what, token);

    const claimsText = JSON.stringify(goodClaims());
    for (const [what, claims] of Object.entries({
      'claims that name the subject twice': claimsText.replace('{', '{"sub":"mallory",'),
      'an expiry of 1e400': claimsText.replace(/"exp":\d+/, '"exp":1e400'),
      'an issue time of -1e400': claimsText.replace(/"iat":\d+/, '"iat":-1e400'),
      'claims in a list': `[${claimsText}]`,
      'claims that are text': JSON.stringify(claimsText),
      'claims that are null': 'null',
      'claims that are no JSON': `${marker}{`,
      'claims nested deeply': `${'{"a":'.repeat(500)}1${'}'.repeat(500)}`,
      'claims with a prototype': claimsText.replace('{', '{"__proto__":{"sub":"x"},'),
      'claims after a mark': `\ufeff${claimsText}`,
      'claims that are no UTF-8': Buffer.concat([
        Buffer.from('{"x":"'),
        Buffer.from([0xff, 0xfe]),
        Buffer.from(`",${claimsText.slice(1)}`),
      ]),
    }))
      await refused(what, forge(key, good, claims));
    const headerText = JSON.stringify(good);
    for (const [what, header] of Object.entries({
      'a header that names the algorithm twice': headerText.replace('{', '{"alg":"none",'),
      'a header in a list': `[${headerText}]`,
      'a header that is text': `"${key.alg}"`,
      'a header that is null': 'null',
      'a header that is no JSON': marker,
      'a header nested deeply': `${'['.repeat(2_000)}${']'.repeat(2_000)}`,
    }))
      await refused(what, forge(key, header));

    for (const alg of ['none', 'None', 'NONE', 'nOnE', 'none ', '']) {
      const input = `${part({ ...good, alg })}.${part(goodClaims())}`;
      await refused(`alg ${alg}, no signature`, `${input}.`);
      await refused(`alg ${alg}, no last part`, input);
      await refused(`alg ${alg}, a true signature`, forge(key, { ...good, alg }));
    }
    for (const secret of [key.verifier, key.verifier.trim(), '', JSON.stringify(jwkOf(key))]) {
      for (const alg of ['HS256', 'HS384', 'HS512'] as const) {
        if (key.alg === alg && secret.trim() === key.verifier) continue;
        await refused(
          `${alg} under what everybody knows`,
          forge(sharedSecret(secret === '' ? '\0'.slice(1) : secret, alg), { ...good, alg }),
        );
      }
    }
    for (const alg of [
      'RS256',
      'RS384',
      'RS512',
      'PS384',
      'ES256',
      'ES384',
      'ES512',
      'EdDSA',
      'HS256',
    ]) {
      if (alg !== key.alg)
        await refused(`a true signature that calls itself ${alg}`, forge(key, { ...good, alg }));
    }
    const foreign = key.publicKey === undefined ? sharedSecret() : keyPair(key.alg as 'RS256');
    await refused("a key of somebody else's", forge({ ...foreign, kid: key.kid }));
    await refused(
      'a key of a kind that is too small',
      forge(keyPair('RS256', { kid: key.kid, bits: 1024 })),
    );

    const longer = forge(key, good, { ...goodClaims(), more: 'm'.repeat(13_000) });
    await refused('a token of more than 16,000 characters', longer);
    const [header, payload, signature] = forge(key).split('.');
    await refused('JSON serialization', JSON.stringify({ payload, protected: header, signature }));
    await refused(
      'several signatures',
      JSON.stringify({
        payload,
        signatures: [
          { protected: header, signature },
          { protected: header, signature },
        ],
      }),
    );
    await refused(
      'an encrypted token',
      await new CompactEncrypt(Buffer.from(claimsText))
        .setProtectedHeader({ alg: 'dir', enc: 'A256GCM', kid: key.kid })
        .encrypt(randomBytes(32)),
    );
    if (isJwks) {
      test.equal(
        (await whoami(vault, `Bearer ${forge(key, { alg: key.alg })}`)).status,
        200,
        'no key id, and one key that fits',
      );
      for (const kid of [
        '',
        '../../../etc/passwd',
        `' or '1'='1`,
        '__proto__',
        'constructor',
        `https://${marker}.test/`,
        'k'.repeat(256),
        `${key.kid}\0`,
        key.kid.toUpperCase(),
      ]) {
        await refused(
          `the key id ${JSON.stringify(kid.slice(0, 30))}`,
          forge(key, { ...good, kid }),
        );
      }
    }
    test.notOk(vault.logs.join('').includes(marker), 'nothing of them is logged');
  });
}

t.test('a token counts in one place only', async (test) => {
  const key = sharedSecret();
  const vault = await vaultFor(test, key, false);
  const token = forge(key);
  for (const [what, answer] of Object.entries({
    'no header': await whoami(vault, undefined),
    'an empty header': await whoami(vault, ''),
    'the scheme alone': await whoami(vault, 'Bearer'),
    'the token alone': await whoami(vault, token),
    'a tab': await whoami(vault, `Bearer\t${token}`),
    'a word behind it': await whoami(vault, `Bearer ${token} x`),
    'two tokens': await whoami(vault, `Bearer ${token},Bearer ${token}`),
    'another scheme': await whoami(vault, `Basic ${token}`),
    'a longer scheme': await whoami(vault, `BearerX ${token}`),
    'a token in quotes': await whoami(vault, `Bearer "${token}"`),
    'the query': await whoami(vault, undefined, `/v1/whoami?access_token=${token}`),
    'a cookie': await whoami(vault, undefined, '/v1/whoami', {
      cookie: `token=${token}; jwt=${token}`,
    }),
    'a header of another name': await whoami(vault, undefined, '/v1/whoami', {
      'proxy-authorization': `Bearer ${token}`,
      'x-access-token': token,
      'x-forwarded-authorization': `Bearer ${token}`,
    }),
    'the body': await vault.call(null, 'POST', '/v1/teams', { access_token: token }),
  })) {
    test.match(
      answer,
      { status: 401, headers: { 'www-authenticate': 'Bearer' }, json: { code: 'unauthenticated' } },
      what,
    );
    test.notOk(answer.text.includes(token));
  }
  const twice = await vault.app.inject({
    url: '/v1/whoami',
    headers: { authorization: [`Bearer ${token}`, `Bearer ${token}`] as never },
  });
  test.equal(twice.statusCode, 401, 'two Authorization headers, even equal ones');
});

t.test("a token is measured by the vault's clock", async (test) => {
  const key = sharedSecret();
  const vault = await vaultFor(test, key, false);
  const token = forge(key);
  for (const [ms, status] of [
    [0, 200],
    [590_000, 200],
    [620_000, 401],
    [-3_000, 200],
    [-60_000, 401],
    [1_000, 200],
  ] as const) {
    vault.clock.ms = ms;
    test.equal((await whoami(vault, `Bearer ${token}`)).status, status, `after ${ms} ms`);
  }
  vault.clock.ms = -3_600_000;
  test.equal(
    (await whoami(vault, `Bearer ${forge(key, undefined, goodClaims(Date.now() - 3_600_000))}`))
      .status,
    200,
    'and by no other',
  );
  vault.clock.ms = 0; // the database's, which others use as well
});

t.test(
  'a role that was taken away counts at the next request, with the same token',
  async (test) => {
    const vault = await startVault(test);
    await vault.team('payments');
    await vault.member('payments', 'bob', 'viewer');
    test.equal((await vault.call('bob', 'GET', '/v1/teams/payments')).status, 200);
    test.equal(
      (
        await vault.call('alice', 'DELETE', '/v1/teams/payments/members/bob', undefined, {
          'if-match': '*',
        })
      ).status,
      204,
    );
    test.equal((await vault.call('bob', 'GET', '/v1/teams/payments')).status, 404);
  },
);

t.test('a failed authentication leaves an access record and no subject', async (test) => {
  const vault = await startVault(test);
  const before = await vault.db.selectFrom('subject').select('sub').execute();
  const answer = await whoami(vault, 'Bearer a.b.c');
  const record = await until(() =>
    vault.db
      .selectFrom('access_record')
      .selectAll()
      .where('request_id', '=', answer.json.requestId)
      .executeTakeFirst(),
  );
  test.match(record, { subject_id: null, team_id: null, status: 401, action: 'authenticated' });
  test.same(await vault.db.selectFrom('subject').select('sub').execute(), before);
});

/** What only other kinds of tokens of the same provider have. */
const otherKinds: Record<string, object> = {
  'an ID token': { nonce: 'n-0S6_WzA2Mj' },
  'an ID token with an empty nonce': { nonce: '' },
  'an ID token whose nonce is null': { nonce: null },
  'an ID token by its word (Keycloak)': { typ: 'ID' },
  'a refresh token by its word': { typ: 'Refresh' },
  'an offline token by its word': { typ: 'Offline' },
  'a logout token by its word': { typ: 'Logout' },
  'an ID token by its word (Cognito)': { token_use: 'id' },
  'a logout token': { events: { 'http://schemas.openid.net/event/backchannel-logout': {} } },
  'a security event': { events: { 'https://schemas.openid.net/secevent/risc/event-type/x': {} } },
  'events in a list': { events: [] },
  'events that are null': { events: null },
};
const otherTypes: readonly unknown[] = [
  'logout+jwt',
  'secevent+jwt',
  'application/secevent+jwt',
  'id_token+jwt',
  'dpop+jwt',
  'oauth-authz-req+jwt',
  'entity-statement+jwt',
  'kb+jwt',
  'vc+sd-jwt',
  'at+jwt ',
  ' JWT',
  'JWT\0',
  'application/application/at+jwt',
  'at jwt',
  'at%2Bjwt',
  'jwt+at',
  '',
  null,
  7,
  true,
  ['JWT'],
  { typ: 'JWT' },
];
const accessTypes = [
  'JWT',
  'jwt',
  'Jwt',
  'JOSE',
  'jose',
  'at+jwt',
  'AT+JWT',
  'application/at+jwt',
  'Application/AT+jwt',
  undefined,
];

t.test('only access tokens let anybody in', async (test) => {
  for (const [name, key, isJwks] of sources.filter(([, { alg }]) => alg !== 'ES512')) {
    const vault = await vaultFor(test, key, isJwks);
    const ask = async (header: object, claims: object = {}): Promise<number> =>
      (
        await whoami(
          vault,
          `Bearer ${forge(key, { alg: key.alg, kid: key.kid, ...header }, { ...goodClaims(), ...claims })}`,
        )
      ).status;
    for (const typ of accessTypes) test.equal(await ask({ typ }), 200, `${name}: typ ${typ}`);
    for (const typ of otherTypes)
      test.equal(await ask({ typ }), 401, `${name}: typ ${JSON.stringify(typ)}`);
    for (const [what, claims] of Object.entries(otherKinds))
      for (const typ of ['at+jwt', undefined])
        test.equal(await ask({ typ }, claims), 401, `${name}: ${what}, typ ${typ}`);
    for (const claims of [{ typ: 'Bearer' }, { token_use: 'access' }, { at_hash: 'x' }])
      test.equal(await ask({}, claims), 200, `${name}: ${JSON.stringify(claims)} is no sign`);
  }
});

t.test('a setting narrows the types', async (test) => {
  const key = keyPair('ES256');
  const statusOf = async (
    types: readonly TokenType[],
    typ: string | undefined,
  ): Promise<number> => {
    const vault = await startVault(test, {
      database,
      rootKey,
      verification: { issuer, audience, source: { publicKey: key.verifier }, types },
    });
    return (await whoami(vault, `Bearer ${forge(key, { alg: key.alg, typ })}`)).status;
  };
  for (const typ of ['at+jwt', 'application/at+jwt', 'AT+JWT'])
    test.equal(await statusOf(['at+jwt'], typ), 200, typ);
  for (const typ of ['JWT', 'JOSE', undefined])
    test.equal(await statusOf(['at+jwt'], typ), 401, `${typ} beside at+jwt`);
  test.equal(await statusOf(['absent'], undefined), 200);
  test.equal(await statusOf(['absent'], 'JWT'), 401);
  test.equal(await statusOf(['JWT', 'JOSE'], 'jose'), 200);
});

t.test('why a token was refused stands in the log, and nowhere else', async (test) => {
  const key = keyPair('ES256');
  const vault = await vaultFor(test, key, true);
  const good = { alg: key.alg, kid: key.kid };
  const claimed = (claims: object): string => forge(key, good, { ...goodClaims(), ...claims });
  const [header, claims] = forge(key).split('.');
  const cases: Record<string, readonly [token: string, reason: string]> = {
    'no token at all': ['x', 'form'],
    'four parts': [`${forge(key)}.x`, 'form'],
    'no JSON': [forge(key, 'x'), 'form'],
    'a key in the header': [forge(key, { ...good, jwk: {} }), 'form'],
    'too long': [claimed({ more: marker.repeat(700) }), 'size'],
    'another type': [forge(key, { ...good, typ: 'logout+jwt' }), 'type'],
    'an algorithm that is not accepted': [forge(key, { ...good, alg: 'HS256' }), 'algorithm'],
    'no algorithm': [forge(key, { kid: key.kid }), 'algorithm'],
    'an unknown key': [forge(key, { ...good, kid: marker }), 'key'],
    "somebody else's signature": [forge({ ...keyPair('ES256'), kid: key.kid }, good), 'signature'],
    'a signature that is none': [`${header}.${claims}.${part(marker)}`, 'signature'],
    "somebody else's signature, and wrong claims": [
      forge(keyPair('ES256'), good, { ...goodClaims(), aud: marker, exp: 1 }),
      'signature',
    ],
    'another issuer': [claimed({ iss: marker }), 'issuer'],
    'no issuer': [claimed({ iss: undefined }), 'issuer'],
    'another audience': [claimed({ aud: marker }), 'audience'],
    'no audience': [claimed({ aud: undefined }), 'audience'],
    'an audience and a number': [claimed({ aud: [audience, 7] }), 'audience'],
    expired: [claimed({ iat: at - 700, exp: at - 60 }), 'expired'],
    'issued later': [claimed({ iat: at + 60 }), 'notYet'],
    'good later': [claimed({ nbf: at + 60 }), 'notYet'],
    'for too long': [claimed({ exp: at + 2 * day }), 'lifetime'],
    'no expiry': [claimed({ exp: undefined }), 'claim:exp'],
    'an expiry as text': [claimed({ exp: String(at) }), 'claim:exp'],
    'no issue time': [claimed({ iat: undefined }), 'claim:iat'],
    'a start as text': [claimed({ nbf: marker }), 'claim:nbf'],
    'no subject': [claimed({ sub: undefined }), 'claim:sub'],
    'a subject that is none': [claimed({ sub: ` ${marker}` }), 'claim:sub'],
    'an ID token': [claimed({ nonce: marker }), 'claim:nonce'],
    'a logout token': [claimed({ events: {} }), 'claim:events'],
    'an ID token by its word': [claimed({ typ: 'ID' }), 'claim:typ'],
  };
  const unnamed = await whoami(vault, undefined);
  test.equal(unnamed.status, 401);
  for (const [what, [token, reason]] of Object.entries(cases)) {
    vault.logs.length = 0;
    const answer = await whoami(vault, `Bearer ${token}`);
    const lines = vault.logs.map((line) => JSON.parse(line) as Record<string, unknown>);
    test.match(
      lines.filter(({ event }) => event === 'tokenRefused'),
      [{ reason, count: 1, action: 'authenticated', requestId: answer.json.requestId }],
      what,
    );
    test.strictSame(
      { ...answer.json, requestId: '' },
      { ...unnamed.json, requestId: '' },
      `${what}: the one answer`,
    );
    test.notOk(vault.logs.join('').includes(marker), `${what}: nothing of it in the log`);
  }
  vault.logs.length = 0;
  await whoami(vault, undefined);
  test.notOk(vault.logs.join('').includes('tokenRefused'), 'without a token none was refused');
  await whoami(vault, 'Basic YTpi');
  test.ok(vault.logs.join('').includes('"reason":"form"'), 'another scheme was');
});
