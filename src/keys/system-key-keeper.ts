// Keeps every replica's system keys up to date, and carries a change of them through: rows sealed
// by an older version are sealed anew, and a version that nothing needs any more leaves.
import { type RawBuilder, sql } from 'kysely';
import type { Keyring } from '../crypto/index.ts';
import type { Db } from '../db/client.ts';
import { type DatabaseClock, vaultNow } from '../db/clock.ts';
import { Periodic } from '../shared/periodic.ts';
import { type OnDamaged, reloadSystemKeys } from './system-keys.ts';

export interface SystemKeyKeeperParts {
  readonly db: Db;
  readonly keyring: Keyring;
  /** Asked before a key is let go for good. */
  readonly clock: Pick<DatabaseClock, 'demandAgreement'>;
  readonly onError: (error: Error) => void;
  /** Seals anew every row that an older seal key sealed; returns how many it did. */
  readonly reseal: (isStopping: () => boolean) => Promise<number>;
  /** Told of system keys that do not unwrap; again at each look. */
  readonly onDamaged?: OnDamaged;
  readonly everyMs?: number;
}

const everyMsDefault = 30_000;
/** For so long the signatures of a key that makes none any more are still verified. */
const signatureHours = 24;
/** Every replica has looked often enough in that time to have the next version. */
const sealLooks = 4;

const isFollowed = (ago: RawBuilder<unknown>): RawBuilder<unknown> => sql`exists (
  select 1 from system_key next where next.purpose = old.purpose and next.version > old.version and next.usable_from <= ${vaultNow} - ${ago})`;
const isSignerOver = sql`(old.retired_at is null and old.purpose = 'leaseSigning'
  and ${isFollowed(sql`make_interval(hours => ${signatureHours}::int)`)})`;
const isSealKeyOver = sql`(old.retired_at is null and old.purpose = 'rowSeal'
  and ${isFollowed(sql`make_interval(secs => ${(everyMsDefault * sealLooks) / 1_000}::int)`)}
  and exists (select 1 from root_key where root_key.compromised_at is not null and root_key.fingerprint = any (old.root_history)))`;

/** Looks twice a minute. */
export class SystemKeyKeeper {
  readonly #parts: SystemKeyKeeperParts;
  readonly #periodic: Periodic;
  constructor(parts: SystemKeyKeeperParts) {
    this.#parts = parts;
    this.#periodic = new Periodic({
      run: () => this.run(),
      everyMs: parts.everyMs ?? everyMsDefault,
      isDueAtStart: false,
      onFailure: (cause) => {
        parts.onError(
          new Error('the look after system keys failed; it is tried again in half a minute', {
            cause,
          }),
        );
      },
    });
  }

  start(): void {
    this.#periodic.start();
  }

  /** Waits for a run that is under way. */
  stop(): Promise<void> {
    return this.#periodic.stop();
  }

  /** One look: loads, seals anew, lets go. */
  async run(): Promise<void> {
    const { db, keyring, onDamaged } = this.#parts;
    await reloadSystemKeys(db, keyring, onDamaged);
    if (await this.#hasSeveralSealKeys()) await this.#parts.reseal(() => this.#periodic.isStopping);
    if (!this.#periodic.isStopping && (await this.#retire()) > 0)
      await reloadSystemKeys(db, keyring, onDamaged);
  }

  async #hasSeveralSealKeys(): Promise<boolean> {
    const { rows } = await sql`
      select 1 from system_key where purpose = 'rowSeal' and retired_at is null and usable_from <= ${vaultNow} offset 1 limit 1`.execute(
      this.#parts.db,
    );
    return rows.length > 0;
  }

  /**
   * A lease-signing key leaves the JWKS a day after the next one took over. A seal key that a
   * compromised root key wrapped stops verifying as soon as every row that could be sealed anew is;
   * what is left was not the vault's.
   */
  async #retire(): Promise<number> {
    const { db, clock } = this.#parts;
    const { rows: due } = await sql`
      select 1 from system_key old where ${isSignerOver} or ${isSealKeyOver} limit 1`.execute(db);
    if (due.length === 0) return 0;
    return db.transaction().execute(async (trx) => {
      await clock.demandAgreement(trx);
      const { rows } = await sql`
        update system_key old set retired_at = ${vaultNow} where ${isSignerOver} or ${isSealKeyOver} returning 1`.execute(
        trx,
      );
      return rows.length;
    });
  }
}
