// Where an issuer's keys come from: over TLS with a company's own authority, by discovery, from
// documents that name no key ids; and what is told where they cannot be had.
import type { RequestListener } from 'node:http';
import t from 'tap';
import { type Issuer, Issuers } from '../../src/access/issuers.ts';
import { ConfiguredDocuments } from '../../src/egress/documents.ts';
import { discoverJwks, JwksCache, type JwksNews } from '../../src/http/jwks.ts';
import { tlsUpstream, plainUpstream } from '../helpers/egress.ts';
import { audience, forge, jwkOf, keyPair, startProvider } from '../helpers/identity.ts';
import { issuerWith } from '../helpers/issuers.ts';
import { startVault, type TestVault } from '../helpers/vault.ts';

const key = keyPair('ES256');
const second = (): number => Math.floor(Date.now() / 1000);
const jwksOf =
  (...keys: object[]): RequestListener =>
  (_request, response) => {
    response.end(JSON.stringify({ keys }));
  };

const statusOf = async (vault: TestVault, iss: string): Promise<number> =>
  (
    await vault.call(null, 'GET', '/v1/whoami', undefined, {
      authorization: `Bearer ${forge(
        key,
        { alg: key.alg, kid: key.kid },
        {
          iss,
          aud: audience,
          sub: 'alice',
          iat: second(),
          exp: second() + 600,
        },
      )}`,
    })
  ).status;
/** The step or the rule that a promise is rejected with. */
const faultOf = async (promise: Promise<unknown>): Promise<unknown> => {
  try {
    await promise;
    return 'nothing';
  } catch (error) {
    const { rule, step } = error as { rule?: unknown; step?: unknown };
    return rule ?? step ?? error;
  }
};
const told = (vault: TestVault, event: string): Record<string, unknown>[] =>
  vault.logs
    .map((line) => JSON.parse(line) as Record<string, unknown>)
    .filter((line) => line['event'] === event);

t.test(
  "an authority of the company's counts for the keys: one for all, or an issuer's own",
  async (t) => {
    const upstream = await tlsUpstream(t, 'localhost', jwksOf(jwkOf(key)));
    const entry = (more: Partial<Issuer>): Issuer =>
      issuerWith({
        issuer: 'https://corp.test',
        audiences: [audience],
        keys: { kind: 'jwksUrl', url: `${upstream.url}/jwks` },
        subjectPrefix: 'c:',
        ...more,
      });
    const other = await tlsUpstream(t, 'localhost', jwksOf(jwkOf(key)));
    for (const [what, ca, own, status] of [
      ['nobody vouches for it', undefined, undefined, 503],
      ['the authority of all', upstream.certificate, undefined, 200],
      ["the issuer's own", undefined, upstream.certificate, 200],
      ["another's", other.certificate, undefined, 503],
      ['both', other.certificate, upstream.certificate, 200],
    ] as const) {
      const vault = await startVault(t, {
        moreIssuers: [entry({ ca: own })],
        ...(ca === undefined ? {} : { ca }),
      });
      t.equal(await statusOf(vault, 'https://corp.test'), status, what);
      const [line] = told(vault, 'jwksUnavailable');
      if (status === 503) {
        t.match(line, { issuer: 'https://corp.test', level: 40 }, what);
        t.match(line?.['cause'], /^(?:DEPTH_ZERO_)?SELF_SIGNED_CERT|UNABLE_TO/, 'the log says why');
      } else t.equal(line, undefined, what);
    }
  },
);

t.test("an authority that is one issuer's own vouches for no other's keys", async (t) => {
  const upstream = await tlsUpstream(t, 'localhost', jwksOf(jwkOf(key)));
  const documents = new ConfiguredDocuments(undefined, { timeoutMs: 5_000, bytesMax: 10_000 });
  t.teardown(() => documents.close());
  t.equal((await documents.for(upstream.certificate)(upstream.url)).status, 200);
  t.equal(await faultOf(documents.for(undefined)(upstream.url)), 'tls');
});

t.test(
  'what stands in the configuration is reached wherever it is, by its own certificate',
  async (t) => {
    const documents = (ca?: string): ConfiguredDocuments => {
      const made = new ConfiguredDocuments(ca, { timeoutMs: 5_000, bytesMax: 10_000 });
      t.teardown(() => made.close());
      return made;
    };
    const byAddress = await tlsUpstream(t, '127.0.0.1', jwksOf());
    t.equal((await documents(byAddress.certificate).for(undefined)(byAddress.url)).status, 200);
    const byName = await tlsUpstream(t, '127.0.0.1', jwksOf(), { names: ['localhost'] });
    t.equal(await faultOf(documents(byName.certificate).for(undefined)(byName.url)), 'tls');
    const plain = await plainUpstream(t, '127.0.0.1', jwksOf());
    t.equal((await documents().for(undefined)(plain.url)).status, 200, 'plain on loopback');
    for (const url of [
      'http://169.254.169.254/latest/meta-data',
      'https://169.254.169.254/',
      'https://[fe80::1]/',
      'http://192.0.2.7/',
      'https://user@127.0.0.1/',
      'ftp://127.0.0.1/',
    ])
      t.equal(await faultOf(documents().for(undefined)(url)), 'name', url);
  },
);

t.test('discovery', async (t) => {
  let document: unknown = {};
  let status = 200;
  const asked: string[] = [];
  const server = await plainUpstream(t, '127.0.0.1', (request, response) => {
    asked.push(request.url ?? '');
    if (request.url === '/elsewhere') {
      response.end(JSON.stringify(document));
      return;
    }
    response.writeHead(status, status === 302 ? { location: '/elsewhere' } : {});
    response.end(
      request.url?.endsWith('/jwks') === true
        ? JSON.stringify({ keys: [jwkOf(key)] })
        : typeof document === 'string'
          ? document
          : JSON.stringify(document),
    );
  });
  const documents = new ConfiguredDocuments(undefined, { timeoutMs: 5_000, bytesMax: 256 * 1024 });
  t.teardown(() => documents.close());
  const issuer = `${server.url}/realms/corp`;
  const read = (of = issuer): Promise<string> => discoverJwks(of, documents.for(undefined));
  const good = { issuer, jwks_uri: `${issuer}/jwks` };
  document = good;
  t.equal(await read(), `${issuer}/jwks`);
  t.same(asked, ['/realms/corp/.well-known/openid-configuration']);
  for (const [what, wrong, rule] of [
    ['another issuer', { ...good, issuer: `${issuer}/` }, 'discoveryIssuer'],
    ['an issuer in other letters', { ...good, issuer: issuer.toUpperCase() }, 'discoveryIssuer'],
    ['no issuer', { jwks_uri: good.jwks_uri }, 'discoveryIssuer'],
    ['another host', { ...good, jwks_uri: 'https://evil.test/jwks' }, 'discoveryOrigin'],
    [
      'another port',
      { ...good, jwks_uri: `http://127.0.0.1:${server.port + 1}/jwks` },
      'discoveryOrigin',
    ],
    [
      'another scheme',
      { ...good, jwks_uri: `https://127.0.0.1:${server.port}/jwks` },
      'discoveryOrigin',
    ],
    [
      'a user in front',
      { ...good, jwks_uri: `http://127.0.0.1:${server.port}@evil.test/` },
      'discoveryJwksUri',
    ],
    [
      'a backslash',
      { ...good, jwks_uri: `http://127.0.0.1:${server.port}\\@evil.test/` },
      'discoveryJwksUri',
    ],
    ['a file', { ...good, jwks_uri: 'file:///etc/jwks' }, 'discoveryJwksUri'],
    ['no address', { issuer }, 'discoveryJwksUri'],
    ['addresses in a list', { ...good, jwks_uri: [good.jwks_uri] }, 'discoveryJwksUri'],
    ['a list', [good], 'discoveryIssuer'],
    ['null', null, 'discoveryIssuer'],
    [
      'a member twice',
      `{"issuer":"x","issuer":"${issuer}","jwks_uri":"${issuer}/jwks"}`,
      'duplicateMember',
    ],
    ['no JSON', '<html>', 'json'],
    ['too long', { ...good, more: 'x'.repeat(300_000) }, 'tooLarge'],
  ] as const) {
    document = wrong;
    t.equal(await faultOf(read()), rule, what);
  }
  document = good;
  status = 302;
  t.equal(await faultOf(read()), 'status302', 'a redirect is not followed');
  t.notOk(asked.includes('/elsewhere'));
  status = 200;

  // In a vault: read at the start, and never again once it has been read.
  document = 'not yet';
  const vault = await startVault(t, {
    moreIssuers: [
      issuerWith({
        issuer,
        audiences: [audience],
        keys: { kind: 'discovery' },
        subjectPrefix: 'd:',
      }),
    ],
  });
  t.equal(await statusOf(vault, issuer), 503, 'without its document nothing can be said');
  t.match(told(vault, 'jwksUnavailable'), [{ issuer, cause: 'json' }]);
  document = good;
  vault.clock.ms += 6_000;
  t.equal(await statusOf(vault, issuer), 200);
  document = { ...good, jwks_uri: `${server.url}/evil/jwks` };
  asked.length = 0;
  vault.clock.ms += 51_000;
  t.equal(await statusOf(vault, issuer), 200);
  t.same(asked, ['/realms/corp/jwks'], 'keys are asked for, the document is not');
});

t.test('a token without a key id', async (t) => {
  const provider = await startProvider(t);
  const clock = { ms: 1_800_000_000_000 };
  const news: JwksNews[] = [];
  const documents = new ConfiguredDocuments(undefined, { timeoutMs: 5_000, bytesMax: 100_000 });
  t.teardown(() => documents.close());
  const [ec, ec2, rsa] = [keyPair('ES256'), keyPair('ES256'), keyPair('RS256')];
  const found = async (keys: object[], kid: string | undefined, alg: string): Promise<unknown> => {
    provider.answer(keys as Record<string, unknown>[]);
    const cache = new JwksCache(provider.url, {
      fetchDocument: documents.for(undefined),
      now: () => clock.ms,
      onNews: (each) => news.push(each),
    });
    return cache.find(kid, alg);
  };
  const bare = (of: typeof ec): object => jwkOf(of, { kid: undefined });
  t.equal(await found([jwkOf(ec), jwkOf(rsa)], undefined, 'ES256'), ec.verifier, 'one fits');
  t.equal(await found([jwkOf(ec), jwkOf(rsa)], undefined, 'RS256'), rsa.verifier);
  t.equal(await found([bare(ec)], undefined, 'ES256'), ec.verifier, 'a key without an id');
  t.equal(await found([bare(ec)], 'x', 'ES256'), undefined, 'is none for a token with one');
  t.equal(await found([bare(ec), bare(ec2)], undefined, 'ES256'), undefined, 'two fit');
  t.equal(await found([jwkOf(ec), bare(ec2)], undefined, 'ES256'), undefined);
  t.equal(await found([jwkOf(ec), jwkOf(ec2)], undefined, 'ES256'), undefined);
  t.equal(await found([jwkOf(ec), bare(ec)], undefined, 'ES256'), ec.verifier, 'one key, twice');
  t.equal(await found([jwkOf(ec, { use: 'enc' })], undefined, 'ES256').catch(() => 503), 503);
  t.equal(
    await found([jwkOf(rsa, { alg: 'RS512' }), jwkOf(ec)], undefined, 'RS256'),
    undefined,
    'a key is for the algorithm that it names',
  );
});

t.test('two that could meet do not start', async (t) => {
  const of = (issuer: string, subjectPrefix: string): Issuer =>
    issuerWith({ issuer, audiences: ['a'], keys: { kind: 'discovery' }, subjectPrefix });
  for (const pair of [
    [of('a', 'x:'), of('a', 'y:')],
    [of('a', 'x:'), of('b', 'x:')],
    [of('a', 'x:'), of('b', 'x:y:')],
    [of('a', ''), of('b', '')],
  ])
    t.throws(() => new Issuers(pair), TypeError);
  t.ok(new Issuers([of('a', 'x:'), of('b', 'y:'), of('c', '')]));
});
