// What keeps the published time limits: deleted credentials and teams are destroyed, old months of
// the trail dropped, new months made ahead. Runs on every replica; rows that another replica works
// on are skipped.
import { sql } from 'kysely';
import type { AuditLog } from '../audit/record.ts';
import { credentialTarget } from '../audit/event.ts';
import type { Db } from '../db/client.ts';
import type { CredentialId, TeamId } from '../shared/ids.ts';
import { Periodic } from '../shared/periodic.ts';

export interface RetentionParts {
  readonly db: Db;
  readonly audit: AuditLog;
  readonly now: () => number;
  readonly onError: (error: Error) => void;
  /** How many rows one transaction destroys. */
  readonly batchRows?: number;
}

const everyMs = 60 * 60_000;
const auditMonthsKept = 12;
const monthsAhead = 3;
const deletedCredentialDays = 30;
const deletedTeamDays = 7;
const notificationDays = 35;
const idempotencyHours = 24;
const batchRowsDefault = 500;
const dayMs = 86_400_000;

/** The hourly housekeeping. */
export class Retention {
  readonly #parts: RetentionParts;
  readonly #batchRows: number;
  readonly #periodic: Periodic;

  constructor(parts: RetentionParts) {
    this.#parts = parts;
    this.#batchRows = parts.batchRows ?? batchRowsDefault;
    this.#periodic = new Periodic({
      run: () => this.run(),
      everyMs,
      onFailure: (cause) => {
        parts.onError(new Error('housekeeping failed; it is tried again in an hour', { cause }));
      },
    });
  }

  /** Runs once now and then every hour. */
  start(): void {
    this.#periodic.start();
  }

  /** Waits for the batch that is under way. */
  stop(): Promise<void> {
    return this.#periodic.stop();
  }

  /**
   * One run of every step, whatever becomes of the others; throws an AggregateError of what failed,
   * which the next run tries again.
   */
  async run(): Promise<void> {
    const { db } = this.#parts;
    const steps = [
      () => sql`select audit_make_months(${monthsAhead})`.execute(db),
      () => sql`select audit_drop_months(${auditMonthsKept})`.execute(db),
      () => this.#untilDone(() => this.#purgeIdempotency()),
      () => this.#untilDone(() => this.#purgeTickets()),
      () => this.#untilDone(() => this.#purgeAuthorizations()),
      () => this.#untilDone(() => this.#purgeNotifications()),
      () => this.#untilDone(() => this.#purgeTransfers()),
      () => this.#untilDone(() => this.#purgeCredentials()),
      () => this.#untilDone(() => this.#purgeTeam()),
    ];
    const failures: unknown[] = [];
    for (const step of steps)
      await step().catch((error: unknown) => {
        failures.push(error);
      });
    if (failures.length > 0) throw new AggregateError(failures, 'housekeeping failed');
  }

  async #untilDone(step: () => Promise<boolean>): Promise<void> {
    while (!this.#periodic.isStopping && (await step())) {
      /* the next batch */
    }
  }

  async #purgeIdempotency(): Promise<boolean> {
    const { rows } = await sql`
      delete from idempotency_record where ctid = any(array(
        select ctid from idempotency_record where created_at < ${this.#before(idempotencyHours * 3_600_000)} limit ${this.#batchRows}))
      returning 1`.execute(this.#parts.db);
    return rows.length === this.#batchRows;
  }

  async #purgeTickets(): Promise<boolean> {
    const { rows } = await sql`
      delete from broker_ticket where ctid = any(array(
        select ctid from broker_ticket where expires_at < ${this.#before(0)} limit ${this.#batchRows}))
      returning 1`.execute(this.#parts.db);
    return rows.length === this.#batchRows;
  }

  /** Begun and never answered. */
  async #purgeAuthorizations(): Promise<boolean> {
    const { rows } = await sql`
      delete from oauth_authorization where id = any(array(select id from oauth_authorization where expires_at < ${this.#before(0)} limit ${this.#batchRows} for update skip locked))
      returning 1`.execute(this.#parts.db);
    return rows.length === this.#batchRows;
  }

  /** Delivered, or given up. For so long nothing that is told once is told again. */
  async #purgeNotifications(): Promise<boolean> {
    const { rows } = await sql`
      delete from notification where id = any(array(
        select id from notification where state <> 'pending' and ended_at < ${this.#before(notificationDays * dayMs)} limit ${this.#batchRows} for update skip locked))
      returning 1`.execute(this.#parts.db);
    return rows.length === this.#batchRows;
  }

  /** Offered and never answered. */
  async #purgeTransfers(): Promise<boolean> {
    const { rows } = await sql`
      delete from credential_transfer where id = any(array(select id from credential_transfer where expires_at < ${this.#before(0)} limit ${this.#batchRows} for update skip locked))
      returning 1`.execute(this.#parts.db);
    return rows.length === this.#batchRows;
  }

  async #purgeCredentials(): Promise<boolean> {
    return this.#parts.db.transaction().execute(async (trx) => {
      const { rows } = await sql<{ id: CredentialId; team: TeamId; slug: string }>`
        delete from credential using team where team.id = credential.team_id and credential.id in (
          select id from credential where state = 'deleted' and deleted_at < ${this.#before(deletedCredentialDays * dayMs)}
          order by deleted_at limit ${this.#batchRows} for update skip locked)
        returning credential.id, credential.team_id as team, team.slug`.execute(trx);
      await this.#parts.audit.record(
        trx,
        ...rows.map((row) => ({
          caller,
          team: { id: row.team, slug: row.slug },
          action: 'credential.purge',
          target: credentialTarget(row.id),
          reason: 'retention',
        })),
      );
      return rows.length === this.#batchRows;
    });
  }

  /**
   * Destroys what a deleted team left, in batches, its wrapped keys last; the team's row stays, so
   * that its slug is never given again.
   */
  async #purgeTeam(): Promise<boolean> {
    return this.#parts.db
      .transaction()
      .setIsolationLevel('read committed')
      .execute(async (trx) => {
        const { rows } = await sql<{ id: TeamId; slug: string }>`
        select id, slug from team where deleted_at < ${this.#before(deletedTeamDays * dayMs)} and exists (select 1 from data_key where team_id = team.id and state <> 'destroyed')
        limit 1 for update skip locked`.execute(trx);
        const team = rows[0];
        if (team === undefined) return false;
        const { rows: credentials } = await sql`
        delete from credential where id in (select id from credential where team_id = ${team.id} limit ${this.#batchRows} for update) returning 1`.execute(
          trx,
        );
        if (credentials.length > 0) return true; // the team goes when nothing of it is left
        await trx.deleteFrom('key_rotation').where('team_id', '=', team.id).execute();
        await trx.deleteFrom('credential_grant').where('grantee_team_id', '=', team.id).execute();
        await trx.deleteFrom('credential_transfer').where('to_team_id', '=', team.id).execute();
        await trx.deleteFrom('membership').where('team_id', '=', team.id).execute();
        // The material goes; ids and fingerprints stay, so that a backup can be matched to the root
        // keys that still open it.
        await sql`update data_key set state = 'destroyed', wrapped = null, destroyed_at = ${new Date(this.#parts.now())} where team_id = ${team.id} and state <> 'destroyed'`.execute(
          trx,
        );
        await this.#parts.audit.record(trx, {
          caller,
          team,
          action: 'team.purge',
          target: { type: 'team', id: team.id },
          reason: 'retention',
        });
        return true;
      });
  }

  #before(ms: number): Date {
    return new Date(this.#parts.now() - ms);
  }
}

const caller = { subject: null, requestId: 'retention', address: null };
