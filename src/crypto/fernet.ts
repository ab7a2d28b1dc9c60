// Fernet tokens: the public specification (version 0x80, AES-128) and its proposed AES-256 form
// (version 0x41).
//   version (1) ‖ seconds since 1970 (8) ‖ iv (16) ‖ AES-CBC ciphertext (n × 16) ‖ HMAC-SHA256 of all before (32)
// No options, no expiry. Everything that can be checked without a key is checked before a key is
// used, the MAC before the cipher.
import {
  createCipheriv,
  createDecipheriv,
  createHmac,
  createSecretKey,
  randomBytes,
  timingSafeEqual,
} from 'node:crypto';
import type { KeyObject } from 'node:crypto';
import { fromBase64, toBase64 } from './encoding.ts';
import { DecryptionFailed } from './errors.ts';

export type TokenFormat = 'fernet' | 'fernet-256';

const formats = {
  fernet: { versionByte: 0x80, keyBytes: 32, cipher: 'aes-128-cbc' },
  'fernet-256': { versionByte: 0x41, keyBytes: 64, cipher: 'aes-256-cbc' },
} as const;

const timeAt = 1;
const ivAt = 9;
const ciphertextAt = 25;
const blockBytes = 16;
const macBytes = 32;
const tokenBytesMin = ciphertextAt + blockBytes + macBytes;

export interface FernetKey {
  readonly format: TokenFormat;
  readonly signing: KeyObject;
  readonly encryption: KeyObject;
}

export interface OpenedToken {
  /** Seconds since 1970, as the token says. */
  readonly time: bigint;
  readonly plaintext: Buffer;
}

/** How many bytes a key of this format has. */
export function keyBytesOf(format: TokenFormat): number {
  return formats[format].keyBytes;
}

/**
 * The key in these bytes: the first half signs, the second encrypts. The bytes stay the caller's,
 * to be zeroed.
 */
export function importKey(format: TokenFormat, bytes: Buffer): FernetKey {
  const { keyBytes } = formats[format];
  if (bytes.length !== keyBytes) throw new TypeError(`a ${format} key has ${keyBytes} bytes`);
  const half = keyBytes / 2;
  return {
    format,
    signing: createSecretKey(bytes.subarray(0, half)),
    encryption: createSecretKey(bytes.subarray(half)),
  };
}

/** A token over the plaintext, stamped with the time (seconds since 1970). */
export function encrypt(key: FernetKey, plaintext: Buffer, time: bigint): string {
  return encryptWithIv(key, plaintext, time, randomBytes(blockBytes));
}

/**
 * SECURITY: for vectors only. An iv that is used twice under one key shows which plaintexts begin
 * alike.
 */
export function encryptWithIv(key: FernetKey, plaintext: Buffer, time: bigint, iv: Buffer): string {
  const { versionByte, cipher: algorithm } = formats[key.format];
  const ciphertextEnd =
    ciphertextAt + plaintext.length + blockBytes - (plaintext.length % blockBytes);
  const token = Buffer.allocUnsafe(ciphertextEnd + macBytes);
  token[0] = versionByte;
  token.writeBigUInt64BE(time, timeAt);
  iv.copy(token, ivAt);
  const cipher = createCipheriv(algorithm, key.encryption, iv);
  const body = cipher.update(plaintext);
  body.copy(token, ciphertextAt);
  cipher.final().copy(token, ciphertextAt + body.length);
  macOf(key, token.subarray(0, ciphertextEnd)).copy(token, ciphertextEnd);
  return toBase64(token);
}

/** What the token holds, if this key made it and nothing was changed; else DecryptionFailed. */
export function decrypt(key: FernetKey, text: string): OpenedToken {
  const token = fromBase64(text);
  if (token === undefined || !isShaped(key.format, token)) throw new DecryptionFailed();
  const macAt = token.length - macBytes;
  // SECURITY: the MAC is compared in constant time, and before the cipher is used, so that padding
  // tells nothing.
  if (!timingSafeEqual(macOf(key, token.subarray(0, macAt)), token.subarray(macAt)))
    throw new DecryptionFailed();
  const decipher = createDecipheriv(
    formats[key.format].cipher,
    key.encryption,
    token.subarray(ivAt, ciphertextAt),
  );
  const body = decipher.update(token.subarray(ciphertextAt, macAt));
  return {
    time: token.readBigUInt64BE(timeAt),
    plaintext: Buffer.concat([body, lastBlock(decipher)]),
  };
}

/**
 * SECURITY: a token of one format must never reach the cipher of the other, and no length may that
 * a token cannot have.
 */
function isShaped(format: TokenFormat, token: Buffer): boolean {
  return (
    token.length >= tokenBytesMin &&
    (token.length - ciphertextAt - macBytes) % blockBytes === 0 &&
    token[0] === formats[format].versionByte
  );
}

function macOf(key: FernetKey, message: Buffer): Buffer {
  return createHmac('sha256', key.signing).update(message).digest();
}

function lastBlock(decipher: { final(): Buffer }): Buffer {
  try {
    return decipher.final();
  } catch {
    // The cause says that the padding was wrong: a reason, and so not passed on.
    throw new DecryptionFailed();
  }
}
