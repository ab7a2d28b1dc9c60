// Root keys: which there are, moving everything under the primary one, and what to do when one is
// known to somebody else.
import type { AuditLog } from '../audit/record.ts';
import type { Keyring } from '../crypto/index.ts';
import type { Db, Trx } from '../db/client.ts';
import type { Caller } from '../http/access.ts';
import { AppError, notFound } from '../shared/errors.ts';
import * as repository from './repository.ts';
import type { RootKeyRow, StatusRow } from './repository.ts';

export type { StatusRow } from './repository.ts';

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
}

/** A root key as the operator sees it; `createdAt` is when this database first met it. */
export type RootKey = RootKeyRow & { readonly isConfigured: boolean; readonly isPrimary: boolean };
export interface Rewrapped {
  readonly primary: string;
  readonly dataKeys: number;
  readonly systemKeys: number;
}

const batchKeys = 500;
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
   * Rewraps every data key and system key under the primary root key. As many rows as keys; no
   * token is touched. Throws keyUnavailable.
   */
  async rewrap(caller: Caller): Promise<Rewrapped> {
    const { db, keyring, audit } = this.#parts;
    const primary = this.#primary();
    let dataKeys = 0;
    for (;;) {
      const count = await db.transaction().execute(async (trx) => {
        const held = await repository.holdDataKeys(trx, primary, batchKeys);
        await repository.storeWrapped(
          trx,
          'data_key',
          held.map((key) => ({ id: key.id, ...keyring.rewrapDataKey(key) })),
        );
        return held.length;
      });
      dataKeys += count;
      if (count < batchKeys) break;
    }
    return db.transaction().execute(async (trx) => {
      const held = await repository.holdSystemKeys(trx, primary);
      await repository.storeWrapped(
        trx,
        'system_key',
        held.map((key) => ({ id: key.id, ...keyring.rewrapSystemKey(key) })),
      );
      const rewrapped = { primary, dataKeys, systemKeys: held.length };
      await audit.record(trx, {
        caller,
        action: 'rootKey.rotate',
        target: { type: 'rootKey', id: primary },
        details: { ...rewrapped },
      });
      return rewrapped;
    });
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
