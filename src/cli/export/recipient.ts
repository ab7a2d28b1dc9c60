// Who an export is for: a public key in a file, and the pair that it belongs to.
import {
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type JsonWebKey,
  type KeyObject,
} from 'node:crypto';
import { OptionsUnfit } from '../target.ts';
import { type JwkInput, type PublicJwk, readPublicJwk } from '../../engines/index.ts';

export interface ExportRecipient {
  readonly kid: string;
  readonly jwk: PublicJwk;
}

const keyForm = 'a JSON Web Key of the curve X25519 or P-256';

/** The key to seal to. Throws OptionsUnfit for anything else, a private key above all. */
export function readRecipient(text: string): ExportRecipient {
  const given = jwkIn(text, '--to');
  // SECURITY: who sends a private key along has it in one place too many; it is not made use of, so
  // that it shows.
  if ('d' in given)
    throw new OptionsUnfit(
      '--to names a private key; give its public half, and keep that one where nobody else ' +
        'reads it',
    );
  const { kty, crv, x, y } = given as Record<string, unknown>;
  const isForm =
    typeof kty === 'string' &&
    typeof crv === 'string' &&
    typeof x === 'string' &&
    (y === undefined || typeof y === 'string');
  const read = isForm ? readPublicJwk({ kty, crv, x, y } as JwkInput) : { fault: 'form' };
  if ('fault' in read) throw new OptionsUnfit(`--to must name ${keyForm} (${read.fault})`);
  return read;
}

/** The private half, for opening. Throws OptionsUnfit. */
export function readPrivateKey(text: string): { readonly kid: string; readonly key: KeyObject } {
  const given = jwkIn(text, '--key-file');
  try {
    const key = createPrivateKey({ key: given as JsonWebKey, format: 'jwk' });
    return { kid: thumbprint(createPublicKey(key)), key };
  } catch {
    throw new OptionsUnfit(`--key-file must name the private half, ${keyForm}`);
  }
}

/** A fresh pair. */
export function newRecipient(): {
  readonly publicJwk: JsonWebKey;
  readonly privateJwk: JsonWebKey;
} {
  const { publicKey, privateKey } = generateKeyPairSync('x25519');
  return {
    publicJwk: { ...publicKey.export({ format: 'jwk' }), kid: thumbprint(publicKey) },
    privateJwk: privateKey.export({ format: 'jwk' }),
  };
}

/** RFC 7638. */
function thumbprint(key: KeyObject): string {
  const { kty, crv, x, y } = key.export({ format: 'jwk' });
  return createHash('sha256')
    .update(JSON.stringify(y === undefined ? { crv, kty, x } : { crv, kty, x, y }))
    .digest('base64url');
}

function jwkIn(text: string, option: string): object {
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value;
  } catch {
    // SECURITY: the parser's own message would quote the file.
  }
  throw new OptionsUnfit(`${option} must name ${keyForm}`);
}
