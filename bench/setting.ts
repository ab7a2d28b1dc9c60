// What is fixed for the whole run: names, keys and tokens that the vault, the floor and the load
// share.
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { SignJWT } from 'jose';
import { generateRootKey } from '../src/crypto/index.ts';

export const issuer = 'https://issuer.bench';
export const audience = 'credential-vault';
/** The admin of every team, and the one for whom the engine leases. */
export const person = 'alice';
export const engine = 'engine';
export const operator = 'operator';
/** Read, listed and leased from; written to; rotated. */
export const teams = { read: 'readings', write: 'writings', rotate: 'rotations' } as const;

export const purpose = 'bench run';
export const ttlSeconds = 60;
/**
 * How long the broker's upstream takes for an answer where it does not answer at once: less than
 * any that is reached over the internet.
 */
export const thinkingMs = 20;
/** How much later than its first event a stream of the broker's upstream ends. */
export const laterMs = 200;

export interface Setting {
  readonly databaseUrl: string;
  readonly jwtSecret: string;
  readonly rootKeys: string;
  /** The engine's public key. */
  readonly recipient: { readonly kty: string; readonly crv: string; readonly x: string };
  readonly tokens: Readonly<Record<'person' | 'engine' | 'operator', string>>;
}

export async function makeSetting(databaseUrl: string): Promise<Setting> {
  const jwtSecret = randomBytes(48).toString('base64url');
  const { kty, crv, x } = generateKeyPairSync('x25519').publicKey.export({ format: 'jwk' }) as {
    kty: string;
    crv: string;
    x: string;
  };
  const token = (sub: string): Promise<string> => tokenOf({ jwtSecret }, sub);
  return {
    databaseUrl,
    jwtSecret,
    rootKeys: generateRootKey(),
    recipient: { kty, crv, x },
    tokens: {
      person: await token(person),
      engine: await token(engine),
      operator: await token(operator),
    },
  };
}

/** A token of the setting's issuer. */
export const tokenOf = ({ jwtSecret }: Pick<Setting, 'jwtSecret'>, sub: string): Promise<string> =>
  new SignJWT()
    .setProtectedHeader({ alg: 'HS256', typ: 'JWT' })
    .setSubject(sub)
    .setIssuer(issuer)
    .setAudience(audience)
    .setIssuedAt()
    .setExpirationTime('2h')
    .sign(new TextEncoder().encode(jwtSecret));

/** The body that makes a credential: what a team would send, an API key of 51 characters in it. */
export const newCredential = (name: string): object => ({
  name,
  type: 'openai',
  description: 'made by the bench',
  labels: { env: 'bench' },
  fields: { apiKey: `sk-${randomBytes(24).toString('hex')}` },
});
