// Tokens of other systems, which are bound to nothing: only the import opens them.
import { createHash } from 'node:crypto';
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
  for (const key of keys) {
    try {
      return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(
        decrypt(importKey('fernet', key), token).plaintext,
      );
    } catch {
      // The next one may open it; why this one does not is nobody's business.
    }
  }
  throw new DecryptionFailed();
}
