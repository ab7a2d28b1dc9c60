// Root keys: which there are, moving everything under the primary one, and what to do when one is
// known to somebody else.
import { DecryptionFailed, type Keyring, KeyUnavailable, type Wrapped } from '../crypto/index.ts';
import type { Db, Trx } from '../db/client.ts';
import { AppError, notFound } from '../shared/errors.ts';
import type { DataKeyId } from '../shared/ids.ts';
import * as repository from './repository.ts';
import type { RootKeyRow, StatusRow } from './repository.ts';
import type { Caller } from '../access/index.ts';
import type { AuditLog, EventInput } from '../audit/index.ts';

export interface RootKeysParts {
  readonly db: Db;
  readonly keyring: Keyring;
  readonly audit: AuditLog;
  readonly now: () => number;
  /** The fingerprints that are configured, the primary one first. */
  readonly configured: readonly string[];
  /** Makes the next version of every system key; from the keys' service. */
  readonly insertNextSystemKeys: (
    trx: Trx,
    usableFrom: { leaseSigning: Date; others: Date },
  ) => Promise<void>;
  /**
   * Called when keys were marked, so that this replica starts the rotations that are due at once.
   */
  readonly onMarked: () => void;
  /** Told of each key that could not be rewrapped. */
  readonly onUnwrapped: (failure: UnwrappedKey) => void;
  /** How many keys one transaction rewraps. */
  readonly batchKeys?: number;
}

/** A root key as the operator sees it; `createdAt` is when this database first met it. */
export type RootKey = RootKeyRow & { readonly isConfigured: boolean; readonly isPrimary: boolean };
/** Why a key stays as it is: its row was changed, or its root key is not configured. */
export type RewrapFailure = 'damaged' | 'rootKeyMissing';

/** A key that could not be rewrapped. */
export interface UnwrappedKey {
  readonly kind: 'dataKey' | 'systemKey';
  readonly id: string;
  /** The slug of the team whose key it is; null of the vault's own. */
  readonly team: string | null;
  /** The root key that its row names. */
  readonly rootKey: string;
  readonly reason: RewrapFailure;
}
export interface Rewrapped {
  readonly primary: string;
  readonly dataKeys: number;
  readonly systemKeys: number;
  /** How many could not be rewrapped, and the first of them by name. */
  readonly failed: number;
  readonly failures: readonly UnwrappedKey[];
}

const batchKeysDefault = 500;
/** So many keys that could not be rewrapped are named in the answer; events and log name all. */
export const failuresNamedMax = 100;
/** Every replica loads system keys twice a minute; engines keep a JWKS for five. */
const systemKeyLeadMs = 2 * 60_000;
const compromisedSignerLeadMs = 10 * 60_000;

/** What is asked of root keys. */
export class RootKeysService {
  readonly #parts: RootKeysParts;
  constructor(parts: RootKeysParts) {
    this.#parts = parts;
  }

  /** Every root key that the database has seen, with what it wraps. */
  async listRootKeys(): Promise<RootKey[]> {
    const { configured } = this.#parts;
    return (await repository.listRootKeys(this.#parts.db)).map((row) => ({
      ...row,
      isConfigured: configured.includes(row.fingerprint),
      isPrimary: row.fingerprint === configured[0],
    }));
  }

  /**
   * Rewraps every data key and system key under the primary root key, in batches, each with its
   * event. As many rows as keys; no token is touched. One that does not unwrap is passed over and
   * named, in the answer, the log and the team's own events.
   */
  async rewrap(caller: Caller): Promise<Rewrapped> {
    const { db } = this.#parts;
    const primary = this.#primary();
    const failures: UnwrappedKey[] = [];
    let dataKeys = 0;
    for (const root of await repository.listOtherRootKeys(db, primary)) {
      for (let after: DataKeyId | undefined; ; ) {
        const batch = await this.#rewrapBatch(caller, root, after);
        dataKeys += batch.rewrapped;
        failures.push(...batch.failures);
        after = batch.last;
        if (after === undefined) break;
      }
    }
    const system = await this.#rewrapSystemKeys(caller);
    failures.push(...system.failures);
    return {
      primary,
      dataKeys,
      systemKeys: system.rewrapped,
      failed: failures.length,
      failures: failures.slice(0, failuresNamedMax),
    };
  }

  /**
   * Data keys under one root key; `last` is the last one that was looked at, where more may follow.
   */
  async #rewrapBatch(
    caller: Caller,
    root: string,
    after: DataKeyId | undefined,
  ): Promise<{ rewrapped: number; failures: UnwrappedKey[]; last: DataKeyId | undefined }> {
    const { db, keyring, audit, batchKeys = batchKeysDefault } = this.#parts;
    const batch = await db.transaction().execute(async (trx) => {
      const held = await repository.holdDataKeys(trx, root, { limit: batchKeys, after });
      const { done, failed } = rewrapEach(held, (key) => keyring.rewrapDataKey(key));
      await repository.storeWrapped(trx, 'data_key', done);
      if (held.length > 0)
        await audit.record(
          trx,
          this.#event(caller, { dataKeys: done.length, systemKeys: 0, failed: failed.length }),
          ...failed.map(({ key, reason }) => ({
            caller,
            team: { id: key.team, slug: key.slug },
            action: 'key.rewrap',
            target: { type: 'key', id: key.id },
            decision: 'deny' as const,
            reason,
            key: key.id,
            details: { rootKey: key.rootFingerprint },
          })),
        );
      return { held, done, failed };
    });
    const failures = batch.failed.map(({ key, reason }) =>
      unwrapped('dataKey', key, key.slug, reason),
    );
    this.#tell(failures);
    return {
      rewrapped: batch.done.length,
      failures,
      last: batch.held.length < batchKeys ? undefined : batch.held.at(-1)?.id,
    };
  }

  async #rewrapSystemKeys(
    caller: Caller,
  ): Promise<{ rewrapped: number; failures: UnwrappedKey[] }> {
    const { db, keyring, audit } = this.#parts;
    const { done, failed } = await db.transaction().execute(async (trx) => {
      const held = await repository.holdSystemKeys(trx, this.#primary());
      const all = rewrapEach(held, (key) => keyring.rewrapSystemKey(key));
      await repository.storeWrapped(trx, 'system_key', all.done);
      await audit.record(
        trx,
        this.#event(caller, {
          dataKeys: 0,
          systemKeys: all.done.length,
          failed: all.failed.length,
        }),
        ...all.failed.map(({ key, reason }) => ({
          caller,
          action: 'systemKey.rewrap',
          target: { type: 'systemKey', id: key.id },
          decision: 'deny' as const,
          reason,
          details: { rootKey: key.rootFingerprint, purpose: key.purpose, version: key.version },
        })),
      );
      return all;
    });
    const failures = failed.map(({ key, reason }) => unwrapped('systemKey', key, null, reason));
    this.#tell(failures);
    return { rewrapped: done.length, failures };
  }

  /** The event of one batch. */
  #event(
    caller: Caller,
    counts: { dataKeys: number; systemKeys: number; failed: number },
  ): EventInput {
    const primary = this.#primary();
    return {
      caller,
      action: 'rootKey.rotate',
      target: { type: 'rootKey', id: primary },
      details: { primary, ...counts },
    };
  }

  #tell(failures: readonly UnwrappedKey[]): void {
    for (const failure of failures) this.#parts.onUnwrapped(failure);
  }

  /**
   * Marks a root key compromised: with it every data key that it ever wrapped; every team then
   * rotates, with priority; new system keys take over. Throws notFound, and stateConflict for the
   * primary one: put a new one first and restart before.
   */
  async markCompromised(
    caller: Caller,
    fingerprint: string,
    reason: string,
  ): Promise<{ keys: number; teams: number }> {
    const { db, audit } = this.#parts;
    if (fingerprint === this.#primary())
      throw new AppError(
        'stateConflict',
        'It is the primary root key: put a new one first in the configuration, and restart.',
      );
    const at = new Date(this.#parts.now());
    const mark = { reason, by: caller.subject, at };
    const marked = await db.transaction().execute(async (trx) => {
      const known = (await repository.listRootKeys(trx)).find(
        (row) => row.fingerprint === fingerprint,
      );
      if (known === undefined) throw notFound();
      if (!(await repository.markRootKey(trx, fingerprint, mark)))
        throw new AppError('stateConflict', 'The root key is marked already.');
      const keys = await repository.markWrappedKeys(trx, fingerprint, mark);
      await this.#parts.insertNextSystemKeys(trx, {
        leaseSigning: new Date(at.getTime() + compromisedSignerLeadMs),
        others: new Date(at.getTime() + systemKeyLeadMs),
      });
      await audit.record(
        trx,
        ...keys.map(({ id, team, slug }) => ({
          caller,
          team: { id: team, slug },
          action: 'key.markCompromised',
          target: { type: 'key', id },
          key: id,
          details: { rootKey: fingerprint, reason },
        })),
      );
      await audit.record(trx, {
        caller,
        action: 'rootKey.markCompromised',
        target: { type: 'rootKey', id: fingerprint },
        details: { reason, keys: keys.length },
      });
      return keys;
    });
    this.#parts.onMarked();
    return { keys: marked.length, teams: new Set(marked.map(({ team }) => team)).size };
  }

  /** Counts for the operator. */
  status(): Promise<StatusRow> {
    return repository.findStatus(this.#parts.db, new Date(this.#parts.now()));
  }

  #primary(): string {
    const primary = this.#parts.configured[0];
    if (primary === undefined) throw new TypeError('a vault runs with a root key');
    return primary;
  }
}

/** Each key under its new wrapping, or why it stays as it is: one keeps no other from it. */
function rewrapEach<K extends { readonly id: string }>(
  held: readonly K[],
  rewrap: (key: K) => Wrapped,
): {
  readonly done: readonly ({ readonly id: string } & Wrapped)[];
  readonly failed: readonly { readonly key: K; readonly reason: RewrapFailure }[];
} {
  const done: ({ readonly id: string } & Wrapped)[] = [];
  const failed: { readonly key: K; readonly reason: RewrapFailure }[] = [];
  for (const key of held) {
    try {
      done.push({ id: key.id, ...rewrap(key) });
    } catch (error) {
      if (error instanceof KeyUnavailable) failed.push({ key, reason: 'rootKeyMissing' });
      else if (error instanceof DecryptionFailed) failed.push({ key, reason: 'damaged' });
      else throw error;
    }
  }
  return { done, failed };
}

const unwrapped = (
  kind: UnwrappedKey['kind'],
  { id, rootFingerprint }: { id: string; rootFingerprint: string },
  team: string | null,
  reason: RewrapFailure,
): UnwrappedKey => ({ kind, id, team, rootKey: rootFingerprint, reason });
