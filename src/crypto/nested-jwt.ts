// The form of a sealed lease: a JWS (RFC 7515, EdDSA) in a compact JWE (RFC 7516, ECDH-ES and
// A256GCM), made on node:crypto. jose hands each of its eight steps to another thread, which costs
// four times as much as doing them; engines open it with any library.
import {
  createCipheriv,
  createPublicKey,
  diffieHellman,
  generateKeyPairSync,
  hash,
  type KeyObject,
  randomBytes,
  sign,
} from 'node:crypto';
import type { LeaseSigner } from './system-keys.ts';

/** A key of an engine, ready to be encrypted to. */
export interface RecipientKey {
  readonly kid: string;
  readonly curve: 'X25519' | 'P-256';
  readonly publicKey: KeyObject;
}

/** Imports a registered key, which the registration has looked at. */
export const recipientKey = (
  kid: string,
  jwk: {
    readonly kty: string;
    readonly crv: RecipientKey['curve'];
    readonly x: string;
    readonly y?: string;
  },
): RecipientKey => ({
  kid,
  curve: jwk.crv,
  publicKey: createPublicKey({ key: { ...jwk }, format: 'jwk' }),
});

const ivBytes = 12;
const algorithm = 'A256GCM';

/** Signs the claims and encrypts what was signed to the recipient; the compact JWE. */
export function signAndEncrypt(
  claims: Buffer,
  signer: LeaseSigner,
  recipient: RecipientKey,
): string {
  const signed = signedJwt(claims, signer);
  try {
    return encryptedTo(recipient, signed);
  } finally {
    signed.fill(0);
  }
}

/** The compact JWS, in bytes that can be overwritten. */
function signedJwt(claims: Buffer, { kid, privateKey }: LeaseSigner): Buffer {
  const message = Buffer.from(
    `${segment({ alg: 'EdDSA', typ: 'JWT', kid })}.${claims.toString('base64url')}`,
  );
  const signed = Buffer.concat([
    message,
    Buffer.from(`.${sign(null, message, privateKey).toString('base64url')}`),
  ]);
  message.fill(0);
  return signed;
}

function encryptedTo({ kid, curve, publicKey }: RecipientKey, plaintext: Buffer): string {
  // SECURITY: a pair of its own for every lease: the same one twice would be the same content key
  // twice.
  const ephemeral =
    curve === 'X25519'
      ? generateKeyPairSync('x25519')
      : generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const header = segment({
    alg: 'ECDH-ES',
    enc: algorithm,
    typ: 'JWT',
    cty: 'JWT',
    kid,
    epk: ephemeral.publicKey.export({ format: 'jwk' }),
  });
  const agreed = diffieHellman({ privateKey: ephemeral.privateKey, publicKey });
  const contentKey = contentKeyOf(agreed);
  agreed.fill(0);
  const iv = randomBytes(ivBytes);
  const cipher = createCipheriv('aes-256-gcm', contentKey, iv);
  contentKey.fill(0);
  cipher.setAAD(Buffer.from(header));
  const ciphertext = cipher.update(plaintext, undefined, 'base64url') + cipher.final('base64url');
  return (
    `${header}..${iv.toString('base64url')}.${ciphertext}.` +
    `${cipher.getAuthTag().toString('base64url')}`
  );
}

/**
 * Concat KDF (RFC 7518, section 4.6.2) for the 256 bits that direct agreement on A256GCM asks for:
 * one round of SHA-256.
 */
export function contentKeyOf(agreed: Buffer): Buffer {
  const input = Buffer.concat([roundOne, agreed, otherInfo]);
  try {
    return hash('sha256', input, 'buffer');
  } finally {
    input.fill(0);
  }
}

const uint32 = (value: number): Buffer => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
};
const roundOne = uint32(1);
// AlgorithmID, then no PartyUInfo, no PartyVInfo, and the key's length in bits.
const otherInfo = Buffer.concat([
  uint32(algorithm.length),
  Buffer.from(algorithm),
  uint32(0),
  uint32(0),
  uint32(256),
]);

const segment = (header: object): string =>
  Buffer.from(JSON.stringify(header)).toString('base64url');
