// An identity provider that can do everything wrong: keys of every kind, tokens put together by
// hand, and a real server for its JWKS.
import { createHmac, generateKeyPairSync, type KeyObject, randomBytes, sign } from 'node:crypto';
import { createServer, type RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';

export const issuer = 'https://issuer.test';
export const audience = 'credential-vault';

/** A key with which tokens are signed. */
export interface Signer {
  readonly alg: string;
  readonly kid: string;
  /** As PEM; the secret itself where it is shared. */
  readonly verifier: string;
  readonly publicKey: KeyObject | undefined;
  sign(input: string): Buffer;
}

export function sharedSecret(
  secret = randomBytes(48).toString('base64url'),
  alg: 'HS256' | 'HS384' | 'HS512' = 'HS256',
): Signer {
  return {
    alg,
    kid: 'shared',
    verifier: secret,
    publicKey: undefined,
    sign: (input) =>
      createHmac(`sha${alg.slice(2)}`, secret)
        .update(input)
        .digest(),
  };
}

const curves = {
  ES256: ['prime256v1', 'sha256'],
  ES384: ['secp384r1', 'sha384'],
  ES512: ['secp521r1', 'sha512'],
} as const;

export function keyPair(
  alg: 'RS256' | 'PS256' | 'ES256' | 'ES384' | 'ES512' | 'EdDSA',
  { kid = `key-${randomBytes(4).toString('hex')}`, bits = 2048 } = {},
): Signer {
  if (alg === 'EdDSA') {
    const { publicKey, privateKey } = generateKeyPairSync('ed25519');
    return signer(alg, kid, publicKey, (input) => sign(null, Buffer.from(input), privateKey));
  }
  if (alg === 'RS256' || alg === 'PS256') {
    const { publicKey, privateKey } = generateKeyPairSync('rsa', { modulusLength: bits });
    const padding = alg === 'PS256' ? { padding: 6, saltLength: 32 } : {};
    return signer(alg, kid, publicKey, (input) =>
      sign('sha256', Buffer.from(input), { key: privateKey, ...padding }),
    );
  }
  const [namedCurve, hash] = curves[alg];
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve });
  return signer(alg, kid, publicKey, (input) =>
    sign(hash, Buffer.from(input), { key: privateKey, dsaEncoding: 'ieee-p1363' }),
  );
}

const signer = (
  alg: string,
  kid: string,
  publicKey: KeyObject,
  signInput: (input: string) => Buffer,
): Signer => ({
  alg,
  kid,
  publicKey,
  verifier: publicKey.export({ type: 'spki', format: 'pem' }) as string,
  sign: signInput,
});

/** The public key as its provider publishes it. */
export const jwkOf = (
  { kid, alg, publicKey }: Signer,
  more: object = {},
): Record<string, unknown> => ({
  ...publicKey?.export({ format: 'jwk' }),
  kid,
  alg,
  use: 'sig',
  ...more,
});

/** Base64url of a JSON value, or of a text or bytes as they are. */
export const part = (value: unknown): string =>
  (Buffer.isBuffer(value)
    ? value
    : Buffer.from(typeof value === 'string' ? value : JSON.stringify(value))
  ).toString('base64url');

/** Claims that are good at this time. */
export const goodClaims = (atMs: number = Date.now()): Record<string, unknown> => {
  const at = Math.floor(atMs / 1000);
  return { iss: issuer, aud: audience, sub: 'alice', iat: at, exp: at + 600 };
};

/** A token with a true signature over whatever header and claims it is given. */
export function forge(
  key: Signer,
  header: unknown = { alg: key.alg, kid: key.kid },
  claims: unknown = goodClaims(),
): string {
  const input = `${part(header)}.${part(claims)}`;
  return `${input}.${part(key.sign(input))}`;
}

export interface Provider {
  readonly url: string;
  /** How many requests have come. */
  readonly requests: () => number;
  /** What is answered from now on: a JWKS of these keys, or anything at all. */
  answer(with_: readonly Record<string, unknown>[] | RequestListener): void;
  stop(): Promise<void>;
}

/** A server on loopback. */
export async function startProvider(
  t: { teardown(action: () => unknown): unknown },
  keys: readonly Record<string, unknown>[] = [],
): Promise<Provider> {
  const ofKeys =
    (list: readonly Record<string, unknown>[]): RequestListener =>
    (_request, response) => {
      response.setHeader('content-type', 'application/json').end(JSON.stringify({ keys: list }));
    };
  let requests = 0;
  let listener = ofKeys(keys);
  const server = createServer((request, response) => {
    requests += 1;
    listener(request, response);
  });
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve);
  });
  const stop = async (): Promise<void> => {
    server.closeAllConnections();
    await new Promise<void>((resolve) => {
      server.close(() => {
        resolve();
      });
    });
  };
  t.teardown(stop);
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/jwks.json`,
    requests: () => requests,
    stop,
    answer: (with_) => {
      listener = typeof with_ === 'function' ? with_ : ofKeys(with_);
    },
  };
}
