// The public keys that leases are encrypted to: which there are, what makes one good, and how it is
// named (RFC 7638).
import {
  createPublicKey,
  diffieHellman,
  generateKeyPairSync,
  hash,
  type KeyObject,
} from 'node:crypto';
import { canonicalJson } from '../crypto/index.ts';

/** A public key as the vault keeps and shows it: only the members that make the key. */
export type PublicJwk =
  | { readonly kty: 'OKP'; readonly crv: 'X25519'; readonly x: string }
  | { readonly kty: 'EC'; readonly crv: 'P-256'; readonly x: string; readonly y: string };

/** A key as an operator sends it; the schema has checked the form of each member. */
export interface JwkInput {
  readonly kty: 'OKP' | 'EC';
  readonly crv: 'X25519' | 'P-256';
  readonly x: string;
  readonly y?: string | undefined;
  readonly kid?: string | undefined;
}

/** Which rule a key breaks. */
export type JwkFault = 'curve' | 'point' | 'weakKey' | 'thumbprint';

/** The key with its name, or the rule that it breaks. */
export function readPublicJwk(
  input: JwkInput,
): { readonly kid: string; readonly jwk: PublicJwk } | { readonly fault: JwkFault } {
  const jwk = membersOf(input);
  if (jwk === undefined) return { fault: 'curve' };
  const key = imported(jwk);
  if (key === undefined) return { fault: 'point' };
  if (!canAgree(key)) return { fault: 'weakKey' };
  const kid = thumbprintOf(jwk);
  if (input.kid !== undefined && input.kid !== kid) return { fault: 'thumbprint' };
  return { kid, jwk };
}

/** SHA-256 over the canonical JSON of the members that make the key. */
export function thumbprintOf(jwk: PublicJwk): string {
  return hash('sha256', canonicalJson({ ...jwk }), 'base64url');
}

function membersOf({ kty, crv, x, y }: JwkInput): PublicJwk | undefined {
  if (kty === 'OKP' && crv === 'X25519' && y === undefined) return { kty, crv, x };
  if (kty === 'EC' && crv === 'P-256' && y !== undefined) return { kty, crv, x, y };
  return undefined;
}

/** OpenSSL refuses a point that is not on the curve. */
function imported(jwk: PublicJwk): KeyObject | undefined {
  try {
    return createPublicKey({ key: { ...jwk }, format: 'jwk' });
  } catch {
    return undefined;
  }
}

/**
 * SECURITY: with a point of small order (all zeros among them) everybody knows the secret that is
 * agreed; OpenSSL refuses to agree on it.
 */
function canAgree(publicKey: KeyObject): boolean {
  const ours =
    publicKey.asymmetricKeyType === 'x25519'
      ? generateKeyPairSync('x25519')
      : generateKeyPairSync('ec', { namedCurve: 'P-256' });
  try {
    diffieHellman({ privateKey: ours.privateKey, publicKey });
    return true;
  } catch {
    return false;
  }
}
