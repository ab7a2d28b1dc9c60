// An engine's key pairs: made at the engine, where the private half stays.
import {
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type JsonWebKey,
  KeyObject,
} from 'node:crypto';

/** The two kinds that the vault seals leases to. */
export type EngineKeyCurve = 'X25519' | 'P-256';

/** A private key as an engine holds it. */
export type EnginePrivateKey = JsonWebKey | KeyObject;

/** A pair: the public half goes to the operator who registers the engine. */
export function generateEngineKey(curve: EngineKeyCurve = 'X25519'): {
  readonly publicJwk: JsonWebKey;
  readonly privateJwk: JsonWebKey;
} {
  const { publicKey, privateKey } =
    curve === 'X25519'
      ? generateKeyPairSync('x25519')
      : generateKeyPairSync('ec', { namedCurve: 'P-256' });
  return {
    publicJwk: publicKey.export({ format: 'jwk' }),
    privateJwk: privateKey.export({ format: 'jwk' }),
  };
}

/** The key as an object with its RFC 7638 thumbprint, by which leases name it. */
export function readEngineKey(key: EnginePrivateKey): {
  readonly kid: string;
  readonly privateKey: KeyObject;
} {
  const privateKey = key instanceof KeyObject ? key : createPrivateKey({ key, format: 'jwk' });
  const { kty, crv, x, y } = createPublicKey(privateKey).export({ format: 'jwk' });
  const members = y === undefined ? { crv, kty, x } : { crv, kty, x, y };
  return {
    kid: createHash('sha256').update(JSON.stringify(members)).digest('base64url'),
    privateKey,
  };
}
