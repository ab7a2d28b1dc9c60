// Keeps every replica's system keys up to date, and carries a change of them through: row MACs of
// an older version are computed anew, and a version that nothing needs any more leaves. Rows from
// before a release that demands a MAC on them are taken over, and then the door is closed.
import { type RawBuilder, sql } from 'kysely';
import type { Keyring } from '../crypto/index.ts';
import type { Db } from '../db/client.ts';
import { type DatabaseClock, vaultAgo, vaultNow } from '../db/clock.ts';
import { Periodic } from '../shared/periodic.ts';
import { closeSystemKeys, type OnDamaged, reloadSystemKeys } from './system-keys.ts';
import type { AuditLog } from '../audit/index.ts';

export interface SystemKeyKeeperParts {
  readonly db: Db;
  readonly keyring: Keyring;
  readonly audit: AuditLog;
  /** Asked before a key is let go for good. */
  readonly clock: Pick<DatabaseClock, 'now' | 'demandAgreement'>;
  readonly onError: (error: Error) => void;
  /** Computes anew every row MAC that an older key made; returns how many it did. */
  readonly reseal: (isStopping: () => boolean) => Promise<number>;
  /** Gives every row of before its MAC; returns how many it did. */
  readonly takeOver: (isStopping: () => boolean) => Promise<number>;
  /** Told of system keys that do not unwrap; again at each look. */
  readonly onDamaged?: OnDamaged;
  readonly everyMs?: number;
}

const everyMsDefault = 30_000;
/** For so long the signatures of a key that makes none any more are still verified. */
const signatureHours = 24;
/** Every replica has looked often enough in that time to have the next version. */
const rowMacLooks = 4;

const isFollowed = (ago: RawBuilder<unknown>): RawBuilder<unknown> => sql`exists (
  select 1 from system_key next where next.purpose = old.purpose and next.version > old.version
    and next.usable_from <= ${vaultNow} - ${ago})`;
const isSignerOver = sql`(old.retired_at is null and old.purpose = 'leaseSigning'
  and ${isFollowed(sql`make_interval(hours => ${signatureHours}::int)`)})`;
const isRowMacKeyOver = sql`(old.retired_at is null and old.purpose = 'rowSeal'
  and ${isFollowed(sql`make_interval(secs => ${(everyMsDefault * rowMacLooks) / 1_000}::int)`)}
  and exists (select 1 from root_key where root_key.compromised_at is not null
    and root_key.fingerprint = any (old.root_history)))`;
/**
 * So long after the schema was migrated rows of before come in: while replicas of the release
 * before are replaced, and as long as somebody may want to go back to it. Afterwards it does not
 * start.
 */
export const takeOverOpenMs = 24 * 3_600_000;
/** How the name of the migration ends that brought the MAC of settings. */
const settingsMigration = '_protect_settings.sql';
/** So long each replica lets them in, however early the schema was migrated. */
const takeOverOpenMsMin = 3_600_000;

/** Looks twice a minute. */
export class SystemKeyKeeper {
  readonly #parts: SystemKeyKeeperParts;
  readonly #periodic: Periodic;
  readonly #since: number;
  constructor(parts: SystemKeyKeeperParts) {
    this.#parts = parts;
    this.#since = parts.clock.now();
    this.#periodic = new Periodic({
      run: () => this.run(),
      everyMs: parts.everyMs ?? everyMsDefault,
      isDueAtStart: false,
      onFailure: (cause) => {
        parts.onError(
          new Error('the care for system keys failed; it is tried again in half a minute', {
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

  /** One look: loads, takes over, computes row MACs anew, lets go. */
  async run(): Promise<void> {
    const { db, keyring, onDamaged } = this.#parts;
    await reloadSystemKeys(db, keyring, onDamaged);
    if (!keyring.isTakenOver || keyring.hasUnclosedKeys) await this.#takeOver();
    if (await this.#hasSeveralRowMacKeys())
      await this.#parts.reseal(() => this.#periodic.isStopping);
    if (!this.#periodic.isStopping && (await this.#retire()) > 0)
      await reloadSystemKeys(db, keyring, onDamaged);
  }

  /**
   * Takes over what is there, and closes the door once nothing more has come and the time is over.
   * Keys that a replica of the release before made since say what the others say.
   */
  async #takeOver(): Promise<void> {
    const { db, keyring, audit, onDamaged, takeOver } = this.#parts;
    const isClosed = keyring.isTakenOver;
    const taken = isClosed ? 0 : await takeOver(() => this.#periodic.isStopping);
    const isOver = isClosed || (taken === 0 && (await this.#isTakeOverDue()));
    if (!isOver || this.#periodic.isStopping) return;
    await db.transaction().execute(async (trx) => {
      const closed = await closeSystemKeys(trx, keyring);
      if (closed > 0 && !isClosed)
        await audit.record(trx, {
          caller: { subject: null, requestId: 'takeOver', address: null },
          action: 'team.takeOverEnd',
          target: { type: 'vault', id: 'vault' },
        });
    });
    await reloadSystemKeys(db, keyring, onDamaged);
  }

  /**
   * SECURITY: when the schema was migrated is a column, and a column can be changed; by that the
   * door closes earlier, and never later than by the time that this replica runs.
   */
  async #isTakeOverDue(): Promise<boolean> {
    const upMs = this.#parts.clock.now() - this.#since;
    if (upMs >= takeOverOpenMs) return true;
    if (upMs < takeOverOpenMsMin) return false;
    const { rows } = await sql`
      select 1 from schema_migration
        where right(name, ${settingsMigration.length}) = ${settingsMigration}
        and applied_at <= ${vaultAgo({ hours: takeOverOpenMs / 3_600_000 })}`.execute(
      this.#parts.db,
    );
    return rows.length > 0;
  }

  async #hasSeveralRowMacKeys(): Promise<boolean> {
    const { rows } = await sql`
      select 1 from system_key where purpose = 'rowSeal' and retired_at is null
        and usable_from <= ${vaultNow} offset 1 limit 1`.execute(this.#parts.db);
    return rows.length > 0;
  }

  /**
   * A lease-signing key leaves the JWKS a day after the next one took over. A row MAC key that a
   * compromised root key wrapped stops verifying as soon as every row MAC that could be computed
   * anew is; what is left was not the vault's.
   */
  async #retire(): Promise<number> {
    const { db, clock } = this.#parts;
    const { rows: due } = await sql`
      select 1 from system_key old where ${isSignerOver} or ${isRowMacKeyOver} limit 1`.execute(db);
    if (due.length === 0) return 0;
    return db.transaction().execute(async (trx) => {
      await clock.demandAgreement(trx);
      const { rows } = await sql`
        update system_key old set retired_at = ${vaultNow} where ${isSignerOver}
          or ${isRowMacKeyOver} returning 1`.execute(trx);
      return rows.length;
    });
  }
}
