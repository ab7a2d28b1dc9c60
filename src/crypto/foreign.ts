// Tokens of other systems, which are bound to nothing: only the import opens them.
import { createDecipheriv, createHash } from 'node:crypto';
import { DecryptionFailed } from './errors.ts';
import { decrypt, importKey } from './fernet.ts';
import { fromBase64 } from './encoding.ts';

/** The Fernet key that a system makes of a passphrase by SHA-256. */
export const keyOfPassphrase = (passphrase: string): Buffer =>
  createHash('sha256').update(passphrase, 'utf8').digest();

/**
 * A Fernet key as the specification writes it: 32 bytes in urlsafe base64; undefined for anything
 * else.
 */
export function fernetKey(text: string): Buffer | undefined {
  const bytes = fromBase64(text);
  return bytes?.length === 32 ? bytes : undefined;
}

/**
 * The text in a Fernet token of another system, by the first key that opens it. Throws
 * DecryptionFailed.
 */
export function openForeignToken(keys: readonly Buffer[], token: string): string {
  // Python's reader takes wrapped tokens and the standard alphabet, too.
  const plain = token.replace(/\s+/g, '').replaceAll('+', '-').replaceAll('/', '_');
  for (const key of keys) {
    try {
      return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(
        decrypt(importKey('fernet', key), plain).plaintext,
      );
    } catch {
      // The next one may open it; the reason why this one does not is never shown.
    }
  }
  throw new DecryptionFailed();
}

/** Whether a text has the form of a Fernet token, in either alphabet, wrapped or not. */
export const looksLikeToken = (text: string): boolean =>
  /^gAAAA[A-Za-z0-9_+/-]{90,}={0,2}$/.test(text.replace(/\s+/g, ''));

const saltedMark = Buffer.from('Salted__');
const blockBytes = 16;

/**
 * The text in what OpenSSL and CryptoJS make of a passphrase: AES-256-CBC, key and IV by MD5, no
 * MAC. Whether the key is the right one shows only in what comes out. Throws DecryptionFailed.
 */
export function openSaltedText(passphrase: string, text: string): string {
  const bytes = Buffer.from(text, 'base64');
  const salt = bytes.subarray(saltedMark.length, blockBytes);
  if (!bytes.subarray(0, saltedMark.length).equals(saltedMark)) throw new DecryptionFailed();
  const secret = Buffer.concat([Buffer.from(passphrase, 'latin1'), salt]);
  const derived: Buffer[] = [];
  for (let last = Buffer.alloc(0); derived.length < 3; derived.push(last))
    last = createHash('md5')
      .update(Buffer.concat([last, secret]))
      .digest();
  const [key, iv] = [Buffer.concat(derived.slice(0, 2)), derived[2]!];
  try {
    const cipher = createDecipheriv('aes-256-cbc', key, iv);
    const plaintext = Buffer.concat([cipher.update(bytes.subarray(blockBytes)), cipher.final()]);
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(plaintext);
  } catch {
    throw new DecryptionFailed();
  }
}
