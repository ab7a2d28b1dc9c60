// A token that is handed over in a body is verified like the caller's own, beside it, whatever the
// source of keys.
import fastify from 'fastify';
import t from 'tap';
import type { FastifyInstance } from 'fastify';
import { ConfiguredDocuments } from '../../src/egress/documents.ts';
import { type Authenticator, registerAuthentication } from '../../src/http/authentication.ts';
import { Issuers } from '../../src/access/issuers.ts';
import { oneIssuer, type Verification } from '../helpers/issuers.ts';
import {
  audience,
  forge,
  goodClaims,
  issuer,
  jwkOf,
  keyPair,
  sharedSecret,
  type Signer,
  startProvider,
} from '../helpers/identity.ts';

const documents = new ConfiguredDocuments(undefined, { timeoutMs: 5_000, bytesMax: 100_000 });
t.teardown(() => documents.close());
const authenticatorOver = (
  app: FastifyInstance,
  verification: Verification,
): Promise<Authenticator> =>
  registerAuthentication(app, {
    issuers: new Issuers([oneIssuer(verification)]),
    now: Date.now,
    fetchDocumentFor: () => documents.for(undefined),
  });

const provider = await startProvider(t);
const sources: [string, Signer, (key: Signer) => Verification['source']][] = [
  ['a shared secret', sharedSecret(), (key) => ({ secret: key.verifier })],
  ['a public key', keyPair('ES256'), (key) => ({ publicKey: key.verifier })],
  [
    'a provider',
    keyPair('EdDSA'),
    (key) => {
      provider.answer([jwkOf(key)]);
      return { jwksUrl: provider.url };
    },
  ],
];

for (const [name, key, sourceOf] of sources) {
  t.test(`with ${name}`, async (test) => {
    const app = fastify();
    test.teardown(() => app.close());
    const authenticator = await authenticatorOver(app, { issuer, audience, source: sourceOf(key) });
    app.post('/', async (request) => {
      const settled = await Promise.allSettled([
        authenticator.authenticate(request),
        authenticator.verifySubjectToken(request, (request.body as { token: string }).token),
      ]);
      return settled.map((each) =>
        each.status === 'fulfilled' ? each.value.sub : (each.reason as { code: string }).code,
      );
    });
    const token = (claims: object = {}, signer: Signer = key): string =>
      forge(signer, { alg: signer.alg, kid: key.kid }, { ...goodClaims(), ...claims });
    const ask = async (own: string, handed: string): Promise<unknown> =>
      (
        await app.inject({
          method: 'POST',
          url: '/',
          headers: { authorization: `Bearer ${own}` },
          payload: { token: handed },
        })
      ).json();

    test.same(
      await ask(token(), token({ sub: 'bob' })),
      ['alice', 'bob'],
      'each speaks of its own subject',
    );
    const bad = {
      'out of time': token({ sub: 'bob', exp: 1 }),
      'for others': token({ sub: 'bob', aud: 'x' }),
      'without a subject': token({ sub: undefined }),
      'of another key': token(
        { sub: 'bob' },
        key.publicKey === undefined ? sharedSecret() : keyPair('ES256'),
      ),
      unsigned: `${token().split('.').slice(0, 2).join('.')}.`,
      'no token': 'x',
      empty: '',
      'with a scheme': `Bearer ${token()}`,
      'of 17 KB': token({ more: 'x'.repeat(13_000) }),
    };
    for (const [what, handed] of Object.entries(bad))
      test.same(await ask(token(), handed), ['alice', 'subjectTokenInvalid'], what);
    test.same(
      await ask('x', token({ sub: 'bob' })),
      ['unauthenticated', 'bob'],
      'and neither vouches for the other',
    );
  });
}

t.test('while the provider is away nothing can be said of it', async (test) => {
  const away = await startProvider(test);
  await away.stop();
  const app = fastify();
  test.teardown(() => app.close());
  const authenticator = await authenticatorOver(app, {
    issuer,
    audience,
    source: { jwksUrl: away.url },
  });
  app.post('/', async (request) =>
    authenticator
      .verifySubjectToken(request, forge(keyPair('ES256')))
      .catch((error: { code: string }) => [error.code]),
  );
  test.same((await app.inject({ method: 'POST', url: '/' })).json(), [
    'identityProviderUnavailable',
  ]);
});

t.test('a public key of a kind that verifies nothing here stops the start', async (test) => {
  for (const key of [keyPair('RS256', { bits: 1024 })]) {
    await test.rejects(
      authenticatorOver(fastify(), { issuer, audience, source: { publicKey: key.verifier } }),
      TypeError,
    );
  }
});
