// System keys: random, one purpose each, several versions of which one is active. The active one
// makes, all of them verify.
import {
  createHmac,
  createPrivateKey,
  createPublicKey,
  createSecretKey,
  hash,
  randomBytes,
  timingSafeEqual,
} from 'node:crypto';
import type { KeyObject } from 'node:crypto';
import { Recent } from '../shared/recent.ts';
import { canonicalJson } from './canonical.ts';
import { DecryptionFailed, KeyUnavailable, SystemKeysMissing } from './errors.ts';
import type { KeyContext, RootKeys, Wrapped } from './root-keys/root-keys.ts';
import type { MacPurpose, SystemPurpose } from './purposes.ts';

/**
 * What the vault's own keys say of the database that they lie in, by what their wrapping is bound
 * to. 1: rows of before may stand without a MAC where this release demands one. 2: there are none
 * any more. That cannot be written without a root key, nor taken away without taking the keys
 * along, without which nothing counts at all.
 */
export type SystemKeyEpoch = 1 | 2;

export interface WrappedSystemKey extends Wrapped {
  readonly id: string;
  readonly purpose: SystemPurpose;
  readonly version: number;
  readonly active: boolean;
}

export interface Mac {
  readonly version: number;
  readonly mac: Buffer;
}

export interface LeaseSigner {
  readonly kid: string;
  readonly privateKey: KeyObject;
}

export interface LeaseJwk {
  readonly kty: 'OKP';
  readonly crv: 'Ed25519';
  readonly x: string;
  readonly kid: string;
  readonly alg: 'EdDSA';
  readonly use: 'sig';
}

const systemKeyBytes = 32;
const rowMacVersionBytes = 2;
const rowMacBytes = rowMacVersionBytes + 32;
const rowMacsRememberedMax = 10_000;
// Most rows are half as long; the longest are longer by far, and rare.
const rememberedTextLengthMax = 2_000;
// What stands before the 32 bytes of an Ed25519 private key in PKCS #8 (RFC 8410).
const ed25519Prefix = Buffer.from('302e020100300506032b657004220420', 'hex');

interface Versions<K> {
  readonly byVersion: Map<number, K>;
  active?: { readonly version: number; readonly key: K };
}

interface SigningKey {
  readonly privateKey: KeyObject;
  readonly jwk: LeaseJwk;
}

/**
 * The loaded system keys. It is built whole and never changed, so that a failed load leaves the
 * previous set in use.
 */
export class SystemKeys {
  readonly #mac = new Map<SystemPurpose, Versions<KeyObject>>();
  readonly #signing: Versions<SigningKey> = { byVersion: new Map() };
  /** The latest that any of the keys says; without keys the latest there is. */
  readonly epoch: SystemKeyEpoch;
  /** Whether some key is still of an earlier one. */
  readonly hasEarlierEpoch: boolean;
  // Row MACs that have verified, by the text that they cover: as good as verifying them again for
  // as long as these keys are loaded.
  readonly #verified = new Recent<string, Buffer>(rowMacsRememberedMax);
  /** Rows that do not unwrap any more, whose keys are as they were loaded before. */
  readonly kept: readonly WrappedSystemKey[];

  /**
   * A row that does not unwrap stands for the key that `before` has of its purpose and version.
   * Throws KeyUnavailable or DecryptionFailed when there is none, SystemKeysMissing when no row is
   * left of a set that had some, TypeError when two say the same or two are active.
   */
  constructor(roots: RootKeys, rows: readonly WrappedSystemKey[], before?: SystemKeys) {
    // SECURITY: a set without keys knows nothing: behind it any epoch would be the first.
    if (rows.length === 0 && before?.isEmpty === false) throw new SystemKeysMissing();
    const kept: WrappedSystemKey[] = [];
    this.kept = kept;
    const epochs = new Set<SystemKeyEpoch>();
    for (const row of rows) {
      const unwrapped = tryUnwrap(roots, row);
      if (unwrapped instanceof Error) {
        // SECURITY: a key that was unwrapped once is that key, whatever its row has become; without
        // it everything that it protects would count as changed.
        if (before === undefined || !this.#takeOver(before, row)) throw unwrapped;
        kept.push(row);
        continue;
      }
      const { bytes, epoch } = unwrapped;
      epochs.add(epoch);
      if (row.purpose === 'leaseSigning') add(this.#signing, row, signingKey(bytes));
      else add(this.#versions(row.purpose), row, createSecretKey(bytes));
      bytes.fill(0);
    }
    if (epochs.size === 0) epochs.add(before?.epoch ?? 2);
    this.epoch = epochs.has(2) ? 2 : 1;
    this.hasEarlierEpoch = epochs.has(1);
  }

  get isEmpty(): boolean {
    const versions = [...this.#mac.values(), this.#signing];
    return versions.every(({ byVersion }) => byVersion.size === 0);
  }

  mac(purpose: MacPurpose | 'rowSeal', message: string | Buffer): Mac {
    const { version, key } = activeOf(purpose, this.#versions(purpose));
    return { version, mac: createHmac('sha256', key).update(message).digest() };
  }

  /** False, too, for a version that is not loaded. */
  verifyMac(purpose: MacPurpose | 'rowSeal', message: string | Buffer, held: Mac): boolean {
    const key = this.#versions(purpose).byVersion.get(held.version);
    if (key === undefined) return false;
    const expected = createHmac('sha256', key).update(message).digest();
    return held.mac.length === expected.length && timingSafeEqual(expected, held.mac);
  }

  /** A row MAC: key version (2 bytes, big endian) ‖ MAC of its text. */
  rowMac(text: string): Buffer {
    const { version, mac } = this.mac('rowSeal', text);
    const rowMac = Buffer.alloc(rowMacBytes);
    rowMac.writeUInt16BE(version);
    mac.copy(rowMac, rowMacVersionBytes);
    return rowMac;
  }

  /**
   * Whether the row MAC is one over this text. One of many is not remembered: a list would push out
   * what is used.
   */
  verifyRowMac(text: string, seal: Buffer, isOneOfMany = false): boolean {
    if (seal.length !== rowMacBytes) return false;
    const known = isOneOfMany ? undefined : this.#verified.get(text);
    if (known !== undefined && timingSafeEqual(known, seal)) return true;
    if (
      !this.verifyMac('rowSeal', text, {
        version: seal.readUInt16BE(),
        mac: seal.subarray(rowMacVersionBytes),
      })
    )
      return false;
    if (!isOneOfMany && text.length <= rememberedTextLengthMax)
      this.#verified.set(text, Buffer.from(seal));
    return true;
  }

  /** The version that makes. */
  activeVersion(purpose: MacPurpose | 'rowSeal'): number {
    return activeOf(purpose, this.#versions(purpose)).version;
  }

  signer(): LeaseSigner {
    const { privateKey, jwk } = activeOf('leaseSigning', this.#signing).key;
    return { kid: jwk.kid, privateKey };
  }

  jwks(): { keys: LeaseJwk[] } {
    return { keys: [...this.#signing.byVersion.values()].map(({ jwk }) => jwk) };
  }

  #takeOver(before: SystemKeys, row: WrappedSystemKey): boolean {
    const { purpose, version } = row;
    const signing = purpose === 'leaseSigning' ? before.#signing.byVersion.get(version) : undefined;
    const key =
      purpose === 'leaseSigning' ? undefined : before.#mac.get(purpose)?.byVersion.get(version);
    if (signing !== undefined) add(this.#signing, row, signing);
    else if (key !== undefined) add(this.#versions(purpose), row, key);
    else return false;
    return true;
  }

  #versions(purpose: SystemPurpose): Versions<KeyObject> {
    let versions = this.#mac.get(purpose);
    if (versions === undefined) {
      versions = { byVersion: new Map() };
      this.#mac.set(purpose, versions);
    }
    return versions;
  }
}

interface SystemKeyName {
  readonly id: string;
  readonly purpose: SystemPurpose;
  readonly version: number;
}

/**
 * A fresh system key, wrapped under the primary root key, to be stored as the active one of its
 * purpose.
 */
export function newSystemKey(
  roots: RootKeys,
  { id, purpose, version }: SystemKeyName,
  epoch: SystemKeyEpoch,
): WrappedSystemKey {
  const bytes = randomBytes(systemKeyBytes);
  const wrapped = roots.wrap(systemKeyContext({ id, purpose, version }, epoch), bytes);
  bytes.fill(0);
  return { id, purpose, version, ...wrapped, active: true };
}

/**
 * The same system key under the primary root key, of its own epoch. Throws KeyUnavailable or
 * DecryptionFailed.
 */
export function rewrapSystemKey(roots: RootKeys, held: SystemKeyName & Wrapped): Wrapped {
  const { bytes, epoch } = unwrapSystemKey(roots, held);
  try {
    return roots.wrap(systemKeyContext(held, epoch), bytes);
  } finally {
    bytes.fill(0);
  }
}

/** The same of the latest epoch; undefined for one that is of it. */
export function closeSystemKey(
  roots: RootKeys,
  held: SystemKeyName & Wrapped,
): Wrapped | undefined {
  const { bytes, epoch } = unwrapSystemKey(roots, held);
  try {
    return epoch === 2 ? undefined : roots.wrap(systemKeyContext(held, 2), bytes);
  } finally {
    bytes.fill(0);
  }
}

// No column says of which epoch a key is: one that did could be changed.
function unwrapSystemKey(
  roots: RootKeys,
  held: SystemKeyName & Wrapped,
): { bytes: Buffer; epoch: SystemKeyEpoch } {
  try {
    return { bytes: roots.unwrap(systemKeyContext(held, 2), held), epoch: 2 };
  } catch (error) {
    if (!(error instanceof DecryptionFailed)) throw error;
    return { bytes: roots.unwrap(systemKeyContext(held, 1), held), epoch: 1 };
  }
}

/** What a system key's wrapping is bound to. */
function systemKeyContext(
  { id, purpose, version }: SystemKeyName,
  epoch: SystemKeyEpoch,
): KeyContext {
  return {
    purpose,
    owner: 'system',
    key: id,
    version,
    format: purpose === 'leaseSigning' ? 'ed25519' : 'hmac-sha256',
    ...(epoch === 1 ? {} : { epoch }),
  };
}

function tryUnwrap(
  roots: RootKeys,
  row: WrappedSystemKey,
): ReturnType<typeof unwrapSystemKey> | Error {
  try {
    return unwrapSystemKey(roots, row);
  } catch (error) {
    if (error instanceof DecryptionFailed || error instanceof KeyUnavailable) return error;
    throw error;
  }
}

function add<K>(versions: Versions<K>, row: WrappedSystemKey, key: K): void {
  if (versions.byVersion.has(row.version))
    throw new TypeError(`two system keys are version ${row.version} of ${row.purpose}`);
  versions.byVersion.set(row.version, key);
  if (!row.active) return;
  if (versions.active !== undefined)
    throw new TypeError(`two system keys are active for ${row.purpose}`);
  versions.active = { version: row.version, key };
}

function activeOf<K>(purpose: SystemPurpose, versions: Versions<K>): { version: number; key: K } {
  if (versions.active === undefined) throw new TypeError(`no system key is active for ${purpose}`);
  return versions.active;
}

function signingKey(seed: Buffer): SigningKey {
  const der = Buffer.concat([ed25519Prefix, seed]);
  const privateKey = createPrivateKey({ key: der, format: 'der', type: 'pkcs8' });
  der.fill(0);
  const { x } = createPublicKey(privateKey).export({ format: 'jwk' }) as { x: string };
  // RFC 7638: the thumbprint is over the canonical JSON of the members that make the key.
  const kid = hash('sha256', canonicalJson({ crv: 'Ed25519', kty: 'OKP', x }), 'base64url');
  return { privateKey, jwk: { kty: 'OKP', crv: 'Ed25519', x, kid, alg: 'EdDSA', use: 'sig' } };
}
