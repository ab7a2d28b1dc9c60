// The public name of a key: it tells keys apart, and tells nothing about them.
import { createHmac } from 'node:crypto';
import type { KeyObject } from 'node:crypto';

const message = 'credential-vault/fingerprint/v1';

/** The first 16 hex digits of HMAC-SHA256(key, message). */
export function fingerprintOf(key: KeyObject | Buffer): string {
  return createHmac('sha256', key).update(message).digest('hex').slice(0, 16);
}
