// Root keys: what stands outside the database and wraps every key inside it, with AES-256-GCM.
//   1 (1 byte) ‖ nonce (12) ‖ ciphertext (as long as the key) ‖ tag (16);
//   associated data = canonical JSON of the context
// A KMS or an HSM can stand behind wrap, unwrap and the fingerprints.
import { createCipheriv, createDecipheriv, createSecretKey, randomBytes } from 'node:crypto';
import type { KeyObject } from 'node:crypto';
import type { TeamId } from '../../shared/ids.ts';
import { canonicalJson } from '../canonical.ts';
import { fromBase64, toBase64 } from '../encoding.ts';
import { DecryptionFailed, KeyUnavailable, RootKeyInvalid } from '../errors.ts';
import { fingerprintOf } from '../fingerprint.ts';
import type { SystemPurpose } from '../purposes.ts';

const algorithm = 'aes-256-gcm';
const rootKeyBytes = 32;
const layoutVersion = 1;
const nonceAt = 1;
const nonceBytes = 12;
const ciphertextAt = nonceAt + nonceBytes;
const tagBytes = 16;
const canaryText = 'credential-vault/canary/v1';

/** What a wrapped key is and whose: the associated data, so that it opens as nothing else. */
export interface KeyContext {
  readonly purpose: 'dataKey' | SystemPurpose | 'canary';
  readonly owner: TeamId | 'system';
  readonly key: string;
  readonly version: number;
  readonly format: string;
  /** Of system keys alone; see SystemKeyEpoch. Absent is 1. */
  readonly epoch?: 2;
}

export interface Wrapped {
  readonly rootFingerprint: string;
  readonly wrapped: Buffer;
}

/** A fresh root key as text: 32 random bytes as 44 characters of padded urlsafe base64. */
export function generateRootKey(): string {
  return toBase64(randomBytes(rootKeyBytes));
}

/**
 * Reads a comma list whose first key is the primary. Throws RootKeyInvalid, which names the
 * position and never the value.
 */
export function parseRootKeys(list: string): RootKeys {
  const keys = list.split(',').map((text, index) => {
    const bytes = fromBase64(text);
    if (bytes?.length !== rootKeyBytes)
      throw new RootKeyInvalid(
        `root key ${index + 1} is not 44 characters of padded urlsafe base64`,
      );
    const key = createSecretKey(bytes);
    bytes.fill(0);
    return key;
  });
  return new RootKeys(keys);
}

/**
 * The configured root keys: the primary wraps, each unwraps what it wrapped. The keys do not come
 * out.
 */
export class RootKeys {
  readonly primary: string;
  readonly fingerprints: readonly string[];
  readonly #keys = new Map<string, KeyObject>();

  constructor(keys: readonly KeyObject[]) {
    keys.forEach((key, index) => {
      const fingerprint = fingerprintOf(key);
      if (this.#keys.has(fingerprint))
        throw new RootKeyInvalid(`root key ${index + 1} is in the list twice`);
      this.#keys.set(fingerprint, key);
    });
    this.fingerprints = Object.freeze([...this.#keys.keys()]);
    const [primary] = this.fingerprints;
    if (primary === undefined) throw new RootKeyInvalid('there is no root key');
    this.primary = primary;
  }

  /** Wraps the bytes under the primary. The bytes stay the caller's, to be zeroed. */
  wrap(context: KeyContext, bytes: Buffer): Wrapped {
    return {
      rootFingerprint: this.primary,
      wrapped: encrypt(this.#key(this.primary), context, bytes),
    };
  }

  /**
   * The bytes, to be zeroed by the caller. Throws KeyUnavailable or, for another context or a
   * changed byte, DecryptionFailed.
   */
  unwrap(context: KeyContext, held: Wrapped): Buffer {
    return decrypt(this.#key(held.rootFingerprint), context, held.wrapped);
  }

  /**
   * What only this root key opens: kept beside the data, it shows at start whether the right key is
   * configured.
   */
  makeCanary(fingerprint: string): Buffer {
    return encrypt(this.#key(fingerprint), canaryContext(fingerprint), Buffer.from(canaryText));
  }

  /** Whether the root key of this fingerprint is configured and opens the canary. */
  checkCanary(fingerprint: string, canary: Buffer): boolean {
    const key = this.#keys.get(fingerprint);
    if (key === undefined) return false;
    try {
      return decrypt(key, canaryContext(fingerprint), canary).toString() === canaryText;
    } catch (error) {
      if (error instanceof DecryptionFailed) return false;
      throw error;
    }
  }

  #key(fingerprint: string): KeyObject {
    const key = this.#keys.get(fingerprint);
    if (key === undefined) throw new KeyUnavailable(fingerprint);
    return key;
  }
}

function canaryContext(fingerprint: string): KeyContext {
  return { purpose: 'canary', owner: 'system', key: fingerprint, version: 1, format: 'text' };
}

/**
 * SECURITY: without the associated data a wrapped key opens as another team's, or for another
 * purpose.
 */
function associatedData({ purpose, owner, key, version, format, epoch }: KeyContext): Buffer {
  return Buffer.from(
    canonicalJson({
      purpose,
      owner,
      key,
      version,
      format,
      ...(epoch === undefined ? {} : { epoch }),
    }),
  );
}

function encrypt(key: KeyObject, context: KeyContext, bytes: Buffer): Buffer {
  const nonce = randomBytes(nonceBytes);
  const cipher = createCipheriv(algorithm, key, nonce, { authTagLength: tagBytes }).setAAD(
    associatedData(context),
  );
  return Buffer.concat([
    Buffer.of(layoutVersion),
    nonce,
    cipher.update(bytes),
    cipher.final(),
    cipher.getAuthTag(),
  ]);
}

function decrypt(key: KeyObject, context: KeyContext, wrapped: Buffer): Buffer {
  const tagAt = wrapped.length - tagBytes;
  if (wrapped[0] !== layoutVersion || tagAt <= ciphertextAt) throw new DecryptionFailed();
  const decipher = createDecipheriv(algorithm, key, wrapped.subarray(nonceAt, ciphertextAt), {
    authTagLength: tagBytes,
  })
    .setAAD(associatedData(context))
    .setAuthTag(wrapped.subarray(tagAt));
  const bytes = decipher.update(wrapped.subarray(ciphertextAt, tagAt));
  try {
    // SECURITY: final() is what checks the tag; GCM is a stream, so it adds no bytes.
    decipher.final();
  } catch {
    bytes.fill(0);
    throw new DecryptionFailed();
  }
  return bytes;
}
