// The keyring: everything that the vault does with a key is a method here, and no key comes out.
// It knows nothing of permission: whoever calls has read the key's state in the statement that
// reads or writes the token.
import { randomBytes } from 'node:crypto';
import type { JsonObject } from '../shared/json.ts';
import { canonicalJson, findCanonicalJson } from './canonical.ts';
import { findBindingDigest, packEnvelope, unpackEnvelope } from './envelope.ts';
import type { Binding, SecretFields } from './envelope.ts';
import { DecryptionFailed, EpochReturned, KeyUnavailable } from './errors.ts';
import { decrypt, encrypt, importKey, keyBytesOf } from './fernet.ts';
import type { FernetKey } from './fernet.ts';
import { fingerprintOf } from './fingerprint.ts';
import { KeyCache } from './key-cache.ts';
import type { WrappedDataKey } from './key-cache.ts';
import { type RecipientKey, signAndEncrypt } from './nested-jwt.ts';
import type { KeyContext, RootKeys, Wrapped } from './root-keys/root-keys.ts';
import { closeSystemKey, newSystemKey, rewrapSystemKey, SystemKeys } from './system-keys.ts';
import type { LeaseJwk, Mac, WrappedSystemKey } from './system-keys.ts';
import type { MacPurpose, SystemPurpose } from './purposes.ts';

const cacheEntriesMaxDefault = 1000;

export type RowMacTableName =
  | 'team'
  | 'membership'
  | 'engine'
  | 'engine_key'
  | 'credential'
  | 'credential_type'
  | 'broker_ticket'
  | 'credential_grant'
  | 'credential_transfer'
  | 'webhook'
  | 'notification';

type DataKeyName = Pick<WrappedDataKey, 'id' | 'team' | 'version' | 'format'>;

export class Keyring {
  readonly #roots: RootKeys;
  readonly #now: () => number;
  readonly #cache: KeyCache;
  #system: SystemKeys;

  /** `now` gives milliseconds since 1970. */
  constructor(deps: { roots: RootKeys; now: () => number; cacheEntriesMax?: number }) {
    this.#roots = deps.roots;
    this.#now = deps.now;
    this.#cache = new KeyCache(deps.cacheEntriesMax ?? cacheEntriesMaxDefault, deps.now);
    this.#system = new SystemKeys(deps.roots, []);
  }

  // Data keys: a team's, for its tokens.

  /** A fresh data key, wrapped under the primary root key. */
  newDataKey(of: DataKeyName): WrappedDataKey & { readonly fingerprint: string } {
    const bytes = randomBytes(keyBytesOf(of.format));
    const fingerprint = fingerprintOf(bytes);
    const wrapped = this.#roots.wrap(dataKeyContext(of), bytes);
    bytes.fill(0);
    const { id, team, version, format } = of;
    return { id, team, version, format, ...wrapped, fingerprint };
  }

  /**
   * A Fernet token of the fields, which opens under this binding only. Throws KeyUnavailable when
   * the key does not unwrap.
   */
  seal(key: WrappedDataKey, binding: Binding, fields: SecretFields): string {
    return this.#seal(key, binding, fields, BigInt(Math.floor(this.#now() / 1000)));
  }

  /**
   * The fields of a token that was sealed with this binding under this key. Throws
   * DecryptionFailed, or KeyUnavailable when the key does not unwrap.
   */
  open(key: WrappedDataKey, binding: Binding, token: string): SecretFields {
    return this.#open(key, binding, token).fields;
  }

  /**
   * The token under another key of its team, with the same binding and its own timestamp. Throws as
   * `open` and `seal` do.
   */
  reseal(from: WrappedDataKey, to: WrappedDataKey, binding: Binding, token: string): string {
    const digest = findBindingDigest(binding);
    // SECOND LINE: `open` refuses a binding that has no digest.
    if (digest === undefined) throw new DecryptionFailed();
    const { fields, time } = this.#open(from, binding, token, digest);
    return this.#seal(to, binding, fields, time, digest);
  }

  /**
   * The token under a key of another team, with the same binding there and its own timestamp.
   * Throws as `open` and `seal` do.
   */
  rehome(from: WrappedDataKey, to: WrappedDataKey, binding: Binding, token: string): string {
    const digest = findBindingDigest(binding);
    // SECOND LINE: `open` refuses a binding that has no digest.
    if (digest === undefined) throw new DecryptionFailed();
    const { fields, time } = this.#open(from, binding, token, digest);
    return this.#seal(to, { ...binding, team: to.team }, fields, time, digest);
  }

  /** The same data key under the primary root key. Throws KeyUnavailable. */
  rewrapDataKey(held: WrappedDataKey): Wrapped {
    return this.#rewrap(dataKeyContext(held), held);
  }

  /** The same system key under the primary root key. Throws KeyUnavailable or DecryptionFailed. */
  rewrapSystemKey(held: Omit<WrappedSystemKey, 'active'>): Wrapped {
    return rewrapSystemKey(this.#roots, held);
  }

  /**
   * The same, saying from now on that no row of before is left; undefined for one that says so.
   * Throws KeyUnavailable or DecryptionFailed.
   */
  closeSystemKey(held: Omit<WrappedSystemKey, 'active'>): Wrapped | undefined {
    return closeSystemKey(this.#roots, held);
  }

  /** Empties the cache of data keys. */
  forget(): void {
    this.#cache.clear();
  }

  // System keys: the vault's own.

  /** A fresh system key, wrapped under the primary root key; it serves only when it was loaded. */
  newSystemKey(of: { id: string; purpose: SystemPurpose; version: number }): WrappedSystemKey {
    return newSystemKey(this.#roots, of, this.#system.epoch);
  }

  /**
   * Replaces the whole set, or throws and leaves the set as it was. A row that does not unwrap any
   * more stands for the key that was loaded for it before; which these are. Throws KeyUnavailable,
   * DecryptionFailed, EpochReturned, SystemKeysMissing.
   */
  loadSystemKeys(rows: readonly WrappedSystemKey[]): readonly WrappedSystemKey[] {
    const next = new SystemKeys(this.#roots, rows, this.#system);
    // SECURITY: rows of these keys from before the take-over, put back whole, would open its door
    // once more.
    if (!this.#system.isEmpty && next.epoch < this.#system.epoch) throw new EpochReturned();
    this.#system = next;
    return next.kept;
  }

  /**
   * Whether every row that this release demands a MAC on has been taken over: a row without one is
   * tampered from then on.
   */
  get isTakenOver(): boolean {
    return this.#system.epoch === 2;
  }

  /** Whether there are system keys that do not say yet what the others say. */
  get hasUnclosedKeys(): boolean {
    return this.#system.hasEarlierEpoch;
  }

  /** HMAC-SHA256 under the active key of the purpose, and that key's version. */
  mac(purpose: MacPurpose, message: string | Buffer): Mac {
    return this.#system.mac(purpose, message);
  }

  /** Whether the MAC is right, in constant time; false for a version that is not loaded. */
  verifyMac(purpose: MacPurpose, message: string | Buffer, held: Mac): boolean {
    return this.#system.verifyMac(purpose, message, held);
  }

  /**
   * The MAC of a row that grants: key version (2 bytes, big endian) ‖ HMAC-SHA256 over canonical
   * JSON of [table, row].
   */
  rowMac(table: RowMacTableName, row: JsonObject): Buffer {
    return this.#system.rowMac(canonicalJson([table, row]));
  }

  /** Whether the vault wrote this very row, which may be one of many that are read at once. */
  verifyRowMac(
    table: RowMacTableName,
    row: JsonObject,
    seal: Buffer | null,
    isOneOfMany = false,
  ): boolean {
    if (seal === null) return false;
    const text = findCanonicalJson([table, row]);
    return text !== undefined && this.#system.verifyRowMac(text, seal, isOneOfMany);
  }

  /** The version of the key that makes row MACs now. */
  rowMacVersion(): number {
    return this.#system.activeVersion('rowSeal');
  }

  /**
   * Signs the claims of a lease and encrypts them to an engine's key; a compact JWE with a JWT in
   * it.
   */
  sealLease(claims: Buffer, recipient: RecipientKey): string {
    return signAndEncrypt(claims, this.#system.signer(), recipient);
  }

  /** The name of the key that signs leases now. */
  leaseKeyId(): string {
    return this.#system.signer().kid;
  }

  /** The public halves of all lease-signing keys, as a JWK set. */
  leaseJwks(): { keys: LeaseJwk[] } {
    return this.#system.jwks();
  }

  #rewrap(context: KeyContext, held: Wrapped): Wrapped {
    const bytes = this.#roots.unwrap(context, held);
    try {
      return this.#roots.wrap(context, bytes);
    } finally {
      bytes.fill(0);
    }
  }

  #seal(
    key: WrappedDataKey,
    binding: Binding,
    fields: SecretFields,
    time: bigint,
    digest?: string,
  ): string {
    // SECURITY: a token under another team's key would leave with that team.
    if (key.team !== binding.team)
      throw new TypeError('a token is sealed under a key of its own team');
    const plaintext = packEnvelope(key.id, binding, fields, digest);
    try {
      return encrypt(this.#dataKey(key), plaintext, time);
    } finally {
      plaintext.fill(0);
    }
  }

  #open(
    key: WrappedDataKey,
    binding: Binding,
    token: string,
    digest?: string,
  ): { fields: SecretFields; time: bigint } {
    if (key.team !== binding.team) throw new DecryptionFailed();
    const { plaintext, time } = decrypt(this.#dataKey(key), token);
    try {
      return { fields: unpackEnvelope(key.id, binding, plaintext, digest), time };
    } finally {
      plaintext.fill(0);
    }
  }

  #dataKey(held: WrappedDataKey): FernetKey {
    const cached = this.#cache.find(held);
    if (cached !== undefined) return cached;
    const bytes = this.#unwrap(held);
    const key = importKey(held.format, bytes);
    bytes.fill(0);
    this.#cache.add(held, key);
    return key;
  }

  // A key that does not unwrap says nothing about the tokens under it: only a token that its own
  // key did not open is undecryptable.
  #unwrap(held: WrappedDataKey): Buffer {
    try {
      return this.#roots.unwrap(dataKeyContext(held), held);
    } catch (error) {
      throw error instanceof DecryptionFailed ? new KeyUnavailable(held.rootFingerprint) : error;
    }
  }
}

function dataKeyContext({ id, team, version, format }: DataKeyName): KeyContext {
  return { purpose: 'dataKey', owner: team, key: id, version, format };
}
