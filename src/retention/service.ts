// What keeps the published time limits: deleted credentials and teams are destroyed, old months of
// the audit log dropped, new months made ahead. Runs on every replica; rows that another replica
// works on are skipped. The database's clock says whose time is over, and a replica that does not
// agree with it takes nothing away.
import { type RawBuilder, sql } from 'kysely';
import { writeApart } from '../db/batches.ts';
import type { Db, Trx } from '../db/client.ts';
import { type DatabaseClock, vaultAgo, vaultNow } from '../db/clock.ts';
import { isDatabaseDown } from '../db/errors.ts';
import type { CredentialId, TeamId } from '../shared/ids.ts';
import { Periodic } from '../shared/periodic.ts';
import { type AuditLog, credentialTarget } from '../audit/index.ts';

export interface RetentionParts {
  readonly db: Db;
  readonly audit: AuditLog;
  readonly clock: Pick<DatabaseClock, 'demandAgreement'>;
  readonly onError: (error: Error) => void;
  /** How many rows one transaction destroys. */
  readonly batchRows?: number;
}

const everyMs = 60 * 60_000;
const auditMonthsKept = 12;
const deletedCredentialDays = 30;
const deletedTeamDays = 7;
const notificationDays = 35;
const idempotencyHours = 24;
const batchRowsDefault = 500;

const isCredentialOver = sql`credential.state = 'deleted'
  and credential.deleted_at < ${vaultAgo({ days: deletedCredentialDays })}`;
const isTeamOver = sql`team.deleted_at < ${vaultAgo({ days: deletedTeamDays })}
  and exists (select 1 from data_key where data_key.team_id = team.id
    and data_key.state <> 'destroyed')`;

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
   * which the next run tries again. Where the clocks differ, months are made and nothing else.
   */
  async run(): Promise<void> {
    const { audit, clock } = this.#parts;
    const failures: unknown[] = [];
    const attempt = async (step: () => Promise<unknown>): Promise<boolean> =>
      step().then(
        () => true,
        (error: unknown) => {
          failures.push(...(error instanceof AggregateError ? error.errors : [error]));
          return false;
        },
      );
    await attempt(() => audit.makeMonths());
    if (await attempt(() => clock.demandAgreement()))
      for (const step of this.#steps) await attempt(step);
    if (failures.length > 0) throw new AggregateError(failures, 'housekeeping failed');
  }

  readonly #steps: readonly (() => Promise<unknown>)[] = [
    () => this.#destroying((trx) => sql`select audit_drop_months(${auditMonthsKept})`.execute(trx)),
    () =>
      this.#purge(
        'idempotency_record',
        'ctid',
        sql`created_at < ${vaultAgo({ hours: idempotencyHours })}`,
      ),
    () => this.#purge('broker_ticket', 'ctid', sql`expires_at < ${vaultNow}`),
    // Begun and never answered.
    () => this.#purge('oauth_authorization', 'id', sql`expires_at < ${vaultNow}`),
    // Delivered, or given up. For so long nothing that is told once is told again.
    () =>
      this.#purge(
        'notification',
        'id',
        sql`state <> 'pending' and ended_at < ${vaultAgo({ days: notificationDays })}`,
      ),
    // Offered and never answered.
    () => this.#purge('credential_transfer', 'id', sql`expires_at < ${vaultNow}`),
    () => this.#purgeCredentials(),
    () => this.#purgeTeams(),
  ];

  /**
   * A transaction that takes something away. The clocks are compared in it, with the server that
   * carries it out: another may have become the primary since the last look.
   */
  #destroying<T>(act: (trx: Trx) => Promise<T>): Promise<T> {
    const { db, clock } = this.#parts;
    return db
      .transaction()
      .setIsolationLevel('read committed')
      .execute(async (trx) => {
        await clock.demandAgreement(trx);
        return act(trx);
      });
  }

  /** Rows of a table that are over, in batches; those that another replica has in hand are its. */
  async #purge(table: string, id: 'id' | 'ctid', isOver: RawBuilder<unknown>): Promise<void> {
    const limit = this.#batchRows;
    const [name, key] = [sql.table(table), sql.raw(id)];
    const lock = id === 'id' ? sql`for update skip locked` : sql``;
    for (let gone = limit; gone === limit && !this.#periodic.isStopping; ) {
      const { rows } = await this.#destroying((trx) =>
        sql`delete from ${name}
          where ${key} = any(array(select ${key} from ${name} where ${isOver}
          limit ${limit} ${lock})) returning 1`.execute(trx),
      );
      gone = rows.length;
    }
  }

  /** One that cannot be destroyed holds up no other. */
  async #purgeCredentials(): Promise<void> {
    const passedOver: CredentialId[] = [];
    let because: unknown;
    for (let isMore = true; isMore && !this.#periodic.isStopping; ) {
      let gone = 0;
      const { rows } = await sql<{ id: CredentialId }>`
        select id from credential where ${isCredentialOver} and id <> all (${passedOver}::uuid[])
        order by deleted_at limit ${this.#batchRows}`.execute(this.#parts.db);
      const { lost, left, cause } = await writeApart(
        rows.map(({ id }) => id),
        async (ids) => {
          gone += await this.#destroyCredentials(ids);
        },
      );
      if (left.length > 0) throw cause;
      // Of a batch that another replica has in hand nothing goes here: it goes on with it.
      isMore = rows.length === this.#batchRows && gone + lost.length > 0;
      passedOver.push(...lost);
      because ??= cause;
    }
    if (passedOver.length > 0)
      throw new Error(`${passedOver.length} deleted credentials cannot be destroyed`, {
        cause: because,
      });
  }

  #destroyCredentials(ids: readonly CredentialId[]): Promise<number> {
    return this.#destroying(async (trx) => {
      const { rows } = await sql<{ id: CredentialId; team: TeamId; slug: string }>`
        delete from credential using team where team.id = credential.team_id and credential.id in (
          select id from credential where id = any (${ids}::uuid[]) and ${isCredentialOver}
            for update skip locked)
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
      return rows.length;
    });
  }

  /** One that cannot be destroyed holds up no other. */
  async #purgeTeams(): Promise<void> {
    const passedOver: TeamId[] = [];
    const failures: unknown[] = [];
    while (!this.#periodic.isStopping) {
      const { rows } = await sql<{ id: TeamId; slug: string }>`
        select id, slug from team where ${isTeamOver} and id <> all (${passedOver}::uuid[])
          limit 1`.execute(this.#parts.db);
      const team = rows[0];
      if (team === undefined) break;
      try {
        if (!(await this.#destroyTeam(team))) passedOver.push(team.id);
      } catch (error) {
        if (isDatabaseDown(error)) throw error;
        failures.push(
          new Error(`the deleted team ${team.slug} cannot be destroyed`, { cause: error }),
        );
        passedOver.push(team.id);
      }
    }
    if (failures.length > 0) throw new AggregateError(failures, 'deleted teams remain');
  }

  /**
   * Destroys what a deleted team left, in batches, its wrapped keys last; the team's row stays, so
   * that its slug is never given again. False when another replica has it in hand.
   */
  #destroyTeam(team: { id: TeamId; slug: string }): Promise<boolean> {
    return this.#destroying(async (trx) => {
      const { rows } = await sql`
        select 1 from team where id = ${team.id} and ${isTeamOver} for update skip locked`.execute(
        trx,
      );
      if (rows.length === 0) return false;
      const { rows: credentials } = await sql`
        delete from credential where id in (select id from credential where team_id = ${team.id}
          limit ${this.#batchRows} for update) returning 1`.execute(trx);
      if (credentials.length > 0) return true; // the team goes when nothing of it is left
      await trx.deleteFrom('key_rotation').where('team_id', '=', team.id).execute();
      await trx.deleteFrom('credential_grant').where('grantee_team_id', '=', team.id).execute();
      await trx.deleteFrom('credential_transfer').where('to_team_id', '=', team.id).execute();
      await trx.deleteFrom('membership').where('team_id', '=', team.id).execute();
      await sql`delete from team_size where team_id = ${team.id}`.execute(trx);
      // The material goes; ids and fingerprints stay, so that a backup can be matched to the root
      // keys that still open it.
      await sql`update data_key set state = 'destroyed', wrapped = null, destroyed_at = ${vaultNow}
        where team_id = ${team.id} and state <> 'destroyed'`.execute(trx);
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
}

const caller = { subject: null, requestId: 'retention', address: null };
