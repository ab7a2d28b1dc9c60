// The identity provider at its worst: rotating, slow, silent, lying. A real server on loopback
// answers.
import { generateKeyPairSync } from 'node:crypto';
import t from 'tap';
import { ConfiguredDocuments } from '../../src/egress/documents.ts';
import {
  documentBytesMax,
  documentTimeoutMs,
  JwksCache,
  type JwksNews,
} from '../../src/http/jwks.ts';
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
import { until } from '../helpers/processes.ts';
import { startVault } from '../helpers/vault.ts';

const [first, second] = [keyPair('ES256'), keyPair('EdDSA')];
const minute = 60_000;

/** A cache over a provider, and its clock. */
async function cacheOver(
  test: { teardown(action: () => unknown): unknown },
  keys: readonly Record<string, unknown>[] = [jwkOf(first)],
  timeoutMs?: number,
) {
  const provider = await startProvider(test, keys);
  const clock = { ms: 1_800_000_000_000 };
  const news: JwksNews[] = [];
  const documents = new ConfiguredDocuments(undefined, {
    timeoutMs: timeoutMs ?? documentTimeoutMs,
    bytesMax: documentBytesMax,
  });
  test.teardown(() => documents.close());
  const cache = new JwksCache(provider.url, {
    fetchDocument: documents.for(undefined),
    now: () => clock.ms,
    onNews: (each) => {
      news.push(each);
    },
  });
  const knows = async (key: Signer): Promise<boolean | string> => {
    try {
      return (await cache.find(key.kid, key.alg)) === key.verifier;
    } catch (error) {
      return (error as { code: string }).code;
    }
  };
  return { provider, clock, cache, knows, news };
}

t.test('a vault with a provider', async (test) => {
  const provider = await startProvider(test, [jwkOf(first)]);
  const vault = await startVault(test, {
    verification: { issuer, audience, source: { jwksUrl: provider.url } },
  });
  const call = (key: Signer): ReturnType<typeof vault.call> =>
    vault.call(null, 'GET', '/v1/whoami', undefined, {
      authorization: `Bearer ${forge(key, { alg: key.alg, kid: key.kid }, goodClaims(Date.now() + vault.clock.ms))}`,
    });

  test.equal((await call(first)).status, 200, 'a published key is good');
  test.equal((await call(second)).status, 401, 'another one is not');
  provider.answer([jwkOf(second)]);
  vault.clock.ms += 31_000;
  test.equal((await call(second)).status, 200, 'a key that is published later is found');
  test.equal((await call(first)).status, 401, 'a key that is published no longer is refused');

  await provider.stop();
  vault.clock.ms += minute;
  test.equal((await call(second)).status, 200, 'known keys outlive an outage');
  const unknown = await call(first);
  test.match(
    unknown,
    {
      status: 503,
      headers: { 'content-type': 'application/problem+json', 'retry-after': /^[1-5]$/ },
      json: { code: 'identityProviderUnavailable' },
    },
    'of an unknown key nothing can be said',
  );
  test.equal(unknown.headers['www-authenticate'], undefined, '503 is no challenge');
  const noToken = await vault.call(null, 'GET', '/v1/whoami');
  test.equal(noToken.status, 401, 'no token is 401 whatever the provider does');
  const line = JSON.parse(
    vault.logs.find((each) => each.includes('requestFailed')) ?? '{}',
  ) as object;
  test.match(line, { code: 'identityProviderUnavailable' }, 'the log says why');
});

for (const [what, later] of [
  ['withdrawn', jwkOf(second)],
  ['replaced under its id', { ...jwkOf(keyPair('ES256')), kid: first.kid }],
] as const) {
  t.test(`a token that was good is refused when its key is ${what}`, async (test) => {
    const provider = await startProvider(test, [jwkOf(first)]);
    const vault = await startVault(test, {
      verification: { issuer, audience, source: { jwksUrl: provider.url } },
    });
    const token = forge(
      first,
      { alg: first.alg, kid: first.kid },
      { ...goodClaims(), exp: Math.floor(Date.now() / 1000) + 3600 },
    );
    const call = async (sent = token): Promise<number> =>
      (await vault.call(null, 'GET', '/v1/whoami', undefined, { authorization: `Bearer ${sent}` }))
        .status;

    test.strictSame([await call(), await call()], [200, 200]);
    const [header, claims, signature = ''] = token.split('.');
    test.equal(
      await call(
        `${header}.${claims}.${signature.startsWith('A') ? 'B' : 'A'}${signature.slice(1)}`,
      ),
      401,
      'the same claims with another signature',
    );
    vault.clock.ms += 11 * minute;
    test.equal(await call(), 200, 'its key is published still');
    provider.answer([later]);
    vault.clock.ms += 11 * minute;
    test.equal(await call(), 401);
  });
}

t.test('two hundred tokens under unknown keys make one fetch', async (test) => {
  for (const isUp of [true, false]) {
    const { provider, clock, cache } = await cacheOver(test);
    if (!isUp)
      provider.answer((_request, response) => {
        response.destroy();
      });
    const ask = async (): Promise<PromiseSettledResult<unknown>[]> =>
      Promise.allSettled(
        Array.from({ length: 200 }, (_, n) => cache.find(`unknown-${n}`, 'ES256')),
      );
    const answers = await ask();
    test.ok(
      answers.every(({ status }) => status === (isUp ? 'fulfilled' : 'rejected')),
      isUp ? 'they are unknown' : 'nothing can be said of them',
    );
    await ask();
    test.equal(provider.requests(), 1, 'one while they wait, none for those that come after');
    clock.ms += isUp ? 29_000 : 4_000;
    await ask();
    test.equal(provider.requests(), 1);
    clock.ms += 2_000;
    await ask();
    await ask();
    test.equal(provider.requests(), 2, 'and one more when the cool-down is over');
    clock.ms -= 3_600_000;
    await ask();
    test.equal(provider.requests(), 3, 'a clock that is set back does not lengthen it');
  }
});

t.test(
  'a key that left the document verifies for less than a minute, however often it is asked for',
  async (test) => {
    for (const stepMs of [1_000, 7_000, 59_000]) {
      const { provider, clock, knows, news } = await cacheOver(test);
      test.equal(await knows(first), true);
      provider.answer([jwkOf(second)]);
      let goodMs = 0;
      for (let ms = 0; ms <= 60_000; ms += stepMs) {
        clock.ms += stepMs;
        if ((await knows(first)) === true) goodMs = ms + stepMs;
      }
      test.ok(goodMs < 60_000, `asked every ${stepMs} ms, good for ${goodMs} ms`);
      test.equal(await knows(first), false);
      test.equal(await knows(second), true);
      test.ok(provider.requests() <= 4, 'and not at the price of a fetch for each token');
      test.strictSame(news, [{ kind: 'left', ids: [first.kid] }]);
    }
  },
);

t.test('tokens wait for a provider whose last failure is long ago', async (test) => {
  const { provider, clock, knows, news } = await cacheOver(test);
  test.equal(await knows(first), true);
  provider.answer((_request, response) => {
    response.statusCode = 500;
    response.end();
  });
  clock.ms += 2 * minute;
  test.equal(await knows(first), true, 'known keys outlive a failure');
  provider.answer([jwkOf(second)]);
  clock.ms += 60 * minute;
  test.equal(await knows(first), false, 'nobody asked for an hour, and the provider answers');
  test.strictSame(news, [
    { kind: 'unavailable', cause: 'status500' },
    { kind: 'left', ids: [first.kid] },
    { kind: 'available', keys: 1 },
  ]);
});

t.test('keys are kept while the provider does not answer, for a day', async (test) => {
  const { provider, clock, knows, news } = await cacheOver(test);
  test.equal(await knows(first), true);
  await provider.stop();
  for (let hours = 1; hours < 24; hours += 1) {
    clock.ms += 60 * minute;
    test.equal(await knows(first), true, `an outage of ${hours} h`);
  }
  clock.ms += 61 * minute;
  test.equal(
    await knows(first),
    'identityProviderUnavailable',
    'which does not keep a key alive for ever',
  );
  test.strictSame(news, [{ kind: 'unavailable', cause: 'ECONNREFUSED' }], 'told once');
});

t.test('a document without a key of use is 503, whatever was known before', async (test) => {
  const encrypting = jwkOf(keyPair('ES256'), { use: 'enc' });
  for (const [what, keys] of [
    ['empty', []],
    ['keys for something else only', [encrypting]],
  ] as const) {
    const provider = await startProvider(test, keys);
    const vault = await startVault(test, {
      verification: { issuer, audience, source: { jwksUrl: provider.url } },
    });
    const token = forge(
      first,
      { alg: first.alg, kid: first.kid },
      { ...goodClaims(), exp: Math.floor(Date.now() / 1000) + 3600 },
    );
    const status = async (): Promise<number> =>
      (
        await vault.call(null, 'GET', '/v1/whoami', undefined, {
          authorization: `Bearer ${token}`,
        })
      ).status;
    const logged = (event: string): unknown[] =>
      vault.logs.map((line) => JSON.parse(line)).filter((line) => line.event === event);

    test.equal(await status(), 503, `${what}: from the start`);
    provider.answer([jwkOf(first)]);
    vault.clock.ms += 6_000;
    test.equal(await status(), 200, `${what}: over as soon as there is one`);
    provider.answer(keys);
    vault.clock.ms += minute;
    test.equal(await status(), 503, `${what}: a remembered token is good no longer`);
    test.match(
      logged('jwksUnavailable'),
      [
        { level: 40, cause: 'empty' },
        { level: 40, cause: 'empty' },
      ],
      what,
    );
    test.match(logged('jwksAvailable'), [{ keys: 1 }], what);
    test.match(logged('jwksLeft'), [{ ids: [first.kid] }], what);
  }
});

t.test('keys that are published and not taken are told of, once', async (test) => {
  const keys = Array.from({ length: 130 }, (_, n) => keyPair('EdDSA', { kid: `k-${n}` }));
  const { provider, clock, knows, news } = await cacheOver(test, [
    ...keys.map((key) => jwkOf(key)),
    jwkOf(keyPair('ES256'), { kid: 'k-0' }),
  ]);
  test.equal(await knows(keys[99]!), true, 'a hundred are taken');
  test.equal(await knows(keys[100]!), false, 'and no more');
  clock.ms += minute;
  await knows(keys[0]!);
  const cutOff = Array.from({ length: 20 }, (_, n) => `k-${100 + n}`);
  test.strictSame(news, [{ kind: 'cutOff', keys: 31, ids: cutOff }], 'by number, and some by id');
  provider.answer([...keys.slice(0, 50).map((key) => jwkOf(key)), jwkOf(first, { use: 'enc' })]);
  clock.ms += minute;
  await knows(keys[0]!);
  test.match(news.slice(1), [
    { kind: 'left', ids: cutOff.map((_, n) => `k-${50 + n}`) },
    { kind: 'cutOff', keys: 1, ids: [first.kid] },
  ]);
});

t.test('one key for two algorithms may stand there twice', async (test) => {
  const rsa = keyPair('RS256');
  const { cache, news } = await cacheOver(test, [
    jwkOf(rsa, { alg: 'RS256' }),
    jwkOf(rsa, { alg: 'PS256' }),
    jwkOf(rsa, { alg: 'RS256' }),
  ]);
  test.equal(await cache.find(rsa.kid, 'RS256'), rsa.verifier);
  test.equal(await cache.find(rsa.kid, 'PS256'), rsa.verifier);
  test.strictSame(news, [{ kind: 'cutOff', keys: 1, ids: [rsa.kid] }]);
});

t.test(
  'a provider that has failed holds up no token that can be verified without it',
  async (test) => {
    const { provider, clock, knows } = await cacheOver(test, undefined, 30_000);
    test.equal(await knows(first), true);
    provider.answer((_request, response) => {
      response.statusCode = 500;
      response.end();
    });
    clock.ms += 11 * minute;
    test.equal(await knows(first), true);
    let isAsked = false;
    provider.answer(() => {
      isAsked = true;
    }); // and never answers
    clock.ms += minute;
    test.equal(await knows(first), true, 'answered while the provider is silent');
    await until(() => isAsked);
  },
);

t.test('an answer that is none', async (test) => {
  const elsewhere = await startProvider(test, [jwkOf(first)]);
  const answers: Record<string, Parameters<typeof elsewhere.answer>[0]> = {
    'an error': (_request, response) => {
      response.statusCode = 500;
      response.end(JSON.stringify({ keys: [jwkOf(first)] }));
    },
    'a redirect': (_request, response) => {
      response.writeHead(302, { location: elsewhere.url }).end();
    },
    'no JSON': (_request, response) => {
      response.end('<html>');
    },
    'an empty body': (_request, response) => {
      response.end();
    },
    'no content': (_request, response) => {
      response.writeHead(204).end();
    },
    'a list': (_request, response) => {
      response.end(JSON.stringify([jwkOf(first)]));
    },
    null: (_request, response) => {
      response.end('null');
    },
    'no keys': (_request, response) => {
      response.end('{}');
    },
    'keys by name': (_request, response) => {
      response.end(JSON.stringify({ keys: { [first.kid]: jwkOf(first) } }));
    },
    'two lists of keys': (_request, response) => {
      response.end(
        `{"keys":[${JSON.stringify(jwkOf(second))}],"keys":[${JSON.stringify(jwkOf(first))}]}`,
      );
    },
    'a document that does not end': (_request, response) => {
      const more = (): void => {
        if (!response.destroyed) response.write(' '.repeat(64 * 1024), more);
      };
      more();
    },
    'a document of 300 KiB': (_request, response) => {
      response.end(JSON.stringify({ keys: [jwkOf(first)], more: 'm'.repeat(300 * 1024) }));
    },
    silence: () => {
      /* no answer */
    },
    'half an answer': (_request, response) => {
      response.writeHead(200, { 'content-length': '1000' });
      response.write('{"keys":');
    },
    'a connection that is cut': (request) => {
      request.socket.destroy();
    },
  };
  for (const [what, answer] of Object.entries(answers)) {
    const { provider, clock, knows } = await cacheOver(test, [], 300);
    provider.answer(answer);
    test.equal(await knows(first), 'identityProviderUnavailable', `${what}: nothing is known`);
    provider.answer([jwkOf(first)]);
    clock.ms += 6_000;
    test.equal(await knows(first), true, `${what}: over after the cool-down`);
    provider.answer(answer);
    clock.ms += 11 * minute;
    test.equal(await knows(first), true, `${what}: what was known stays`);
  }
  test.equal(elsewhere.requests(), 0, 'a redirect is not followed');
});

t.test('a key that is not for our signatures is none', async (test) => {
  const rsa = keyPair('RS256');
  const published = generateKeyPairSync('ec', { namedCurve: 'prime256v1' });
  const odd = (key: Signer, more: object): [Signer, Record<string, unknown>] => [
    key,
    jwkOf(key, more),
  ];
  const { publicKey: k1 } = generateKeyPairSync('ec', { namedCurve: 'secp256k1' });
  const { publicKey: x25519 } = generateKeyPairSync('x25519');
  const cases: Record<string, [Signer, Record<string, unknown>]> = {
    'for encryption': odd(keyPair('ES256'), { use: 'enc' }),
    'a use that is no text': odd(keyPair('ES256'), { use: ['sig'] }),
    'for other operations': odd(keyPair('ES256'), { key_ops: ['encrypt'] }),
    'for another algorithm': odd(keyPair('RS256'), { alg: 'RS512' }),
    'for PS256 only': odd(keyPair('RS256'), { alg: 'PS256' }),
    'an algorithm that is no text': odd(keyPair('ES256'), { alg: ['ES256'] }),
    'a shared secret': odd(sharedSecret('s'.repeat(40)), {
      kty: 'oct',
      k: Buffer.from('s'.repeat(40)).toString('base64url'),
    }),
    'too small': odd(keyPair('RS256', { bits: 1024 }), {}),
    'a private key': odd(
      {
        ...keyPair('ES256'),
        publicKey: published.publicKey,
        verifier: published.publicKey.export({ type: 'spki', format: 'pem' }) as string,
      },
      published.privateKey.export({ format: 'jwk' }),
    ),
    'another kind than it says': odd(keyPair('ES256'), { kty: 'RSA' }),
    'another curve than it says': odd(keyPair('ES256'), { crv: 'P-384' }),
    'a point that is not on the curve': odd(keyPair('ES256'), {
      y: Buffer.alloc(32, 7).toString('base64url'),
    }),
    'without an id': odd(keyPair('ES256'), { kid: undefined }),
    'an id that is a number': odd(keyPair('ES256'), { kid: 7 }),
    'on a curve of no use': odd(
      { ...keyPair('ES256'), publicKey: k1 },
      { ...k1.export({ format: 'jwk' }) },
    ),
    'for agreement': odd(
      { ...keyPair('EdDSA'), publicKey: x25519 },
      { ...x25519.export({ format: 'jwk' }) },
    ),
  };
  const strangers = [null, 7, 'key', [], {}] as unknown as Record<string, unknown>[];
  const { knows, cache } = await cacheOver(test, [
    ...strangers,
    ...Object.values(cases).map(([, jwk]) => jwk),
    jwkOf(rsa, { alg: undefined, use: undefined, key_ops: ['verify'] }),
  ]);
  for (const [what, [key]] of Object.entries(cases)) test.equal(await knows(key), false, what);
  test.equal(await knows(rsa), true, 'a good one among them is found');
  test.ok(await cache.find(rsa.kid, 'PS256'), 'for each algorithm of its kind');
  test.equal(await cache.find(rsa.kid, 'ES256'), undefined, 'and for no other');
  test.equal(await cache.find('__proto__', 'ES256'), undefined);
});
