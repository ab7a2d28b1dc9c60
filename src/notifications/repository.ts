// Webhooks and the outbox in SQL, but for what a replica does to deliver.
import { sql } from 'kysely';
import type { Executor, Trx } from '../db/client.ts';
import type { CredentialId, SubjectId, TeamId } from '../shared/ids.ts';
import type { DeliveryRow, NotificationMacFields, WebhookRow } from './types.ts';

/** The webhooks of a team whose credential lives, or the one of a credential. */
export async function listWebhooks(
  executor: Executor,
  team: TeamId,
  { credential, limit }: { credential?: CredentialId; limit: number },
): Promise<WebhookRow[]> {
  const { rows } = await sql<WebhookRow>`
    select webhook.credential_id as credential, credential.name, webhook.team_id as team,
      webhook.events, webhook.revision, webhook.seal,
      (select count(*) from notification where notification.webhook_id = webhook.credential_id
        and notification.state = 'pending') as pending,
      webhook.paused_until as "pausedUntil", webhook.failing_since as "failingSince",
        webhook.delivered_at as "deliveredAt", webhook.gone_at as "goneAt",
      webhook.created_at as "createdAt",
        coalesce(creator.sub, webhook.created_by::text) as "createdBy",
        webhook.updated_at as "updatedAt",
        coalesce(updater.sub, webhook.updated_by::text) as "updatedBy"
    from webhook join credential on credential.id = webhook.credential_id
      and credential.team_id = webhook.team_id and credential.state <> 'deleted'
    left join subject creator on creator.id = webhook.created_by left join subject updater
      on updater.id = webhook.updated_by
    where webhook.team_id = ${team}
      and (${credential ?? null}::uuid is null or webhook.credential_id = ${credential ?? null})
    order by webhook.credential_id limit ${limit}`.execute(executor);
  return rows;
}

/** Locks a living team: its webhooks change one after the other. False when it is gone. */
export async function lockTeamOfWebhooks(trx: Trx, team: TeamId): Promise<boolean> {
  const { rows } = await sql`select 1 from team where id = ${team} and deleted_at is null for no key
      update`.execute(trx);
  return rows.length === 1;
}

/**
 * Holds a living credential of the team where it is to the end of the transaction. False when it is
 * gone.
 */
export async function holdCredential(
  trx: Trx,
  team: TeamId,
  credential: CredentialId,
): Promise<boolean> {
  const { rows } = await sql`select 1 from credential where id = ${credential} and team_id = ${team}
      and state <> 'deleted' for key share`.execute(trx);
  return rows.length === 1;
}

export interface WebhookWrite {
  readonly credential: CredentialId;
  readonly team: TeamId;
  readonly events: readonly string[];
  readonly revision: number;
  readonly seal: Buffer;
  readonly by: SubjectId;
  readonly at: Date;
  /** Nothing that the row said before stays. */
  readonly isReplacement: boolean;
}

/** Writes a webhook, made or changed; what stood in the way of deliveries is forgotten. */
export async function writeWebhook(trx: Trx, row: WebhookWrite): Promise<void> {
  await sql`
    insert into webhook (credential_id, team_id, events, revision, seal, created_at, created_by,
      updated_at, updated_by)
    values (${row.credential}, ${row.team}, ${row.events}::text[], ${row.revision}, ${row.seal},
      ${row.at}, ${row.by}, ${row.at}, ${row.by})
    on conflict on constraint webhook_pkey do update set events = excluded.events,
      revision = excluded.revision, seal = excluded.seal,
      updated_at = excluded.updated_at, updated_by = excluded.updated_by, paused_until = null,
        failing_since = null, gone_at = null
      ${
        row.isReplacement
          ? sql`, team_id = excluded.team_id, created_at = excluded.created_at,
        created_by = excluded.created_by, claim_id = null, claimed_until = null, served_at = null,
        delivered_at = null`
          : sql``
      }`.execute(trx);
}

/** Removes a webhook with its messages. */
export async function deleteWebhook(
  trx: Trx,
  team: TeamId,
  credential: CredentialId,
): Promise<void> {
  await trx
    .deleteFrom('webhook')
    .where('team_id', '=', team)
    .where('credential_id', '=', credential)
    .execute();
}

/**
 * Where a team has so many webhooks, those of deleted credentials go with their messages; which
 * they were.
 */
export async function dropDeleted(trx: Trx, team: TeamId, max: number): Promise<CredentialId[]> {
  const { rows } = await sql<{ id: CredentialId }>`
    delete from webhook using credential where webhook.team_id = ${team}
      and credential.id = webhook.credential_id and credential.state = 'deleted'
      and (select count(*) from webhook counted where counted.team_id = ${team}) >= ${max}
        returning webhook.credential_id as id`.execute(trx);
  return rows.map(({ id }) => id);
}

export interface SubscribedRow {
  readonly webhook: CredentialId;
  readonly team: TeamId;
  readonly events: readonly string[];
  readonly pending: number;
}

/**
 * The webhooks of these teams to which something can be sent, with what they ask for and how much
 * waits for them already.
 */
export async function listSubscribed(
  executor: Executor,
  teams: readonly TeamId[],
): Promise<SubscribedRow[]> {
  const { rows } = await sql<SubscribedRow>`
    select webhook.credential_id as webhook, webhook.team_id as team, webhook.events,
      (select count(*) from notification where notification.webhook_id = webhook.credential_id
        and notification.state = 'pending') as pending
    from webhook join credential on credential.id = webhook.credential_id
      and credential.team_id = webhook.team_id and credential.state <> 'deleted'
    where webhook.team_id = any (${teams}::uuid[]) and webhook.gone_at is null
      order by webhook.credential_id`.execute(executor);
  return rows;
}

export type NotificationWrite = NotificationMacFields & {
  readonly seal: Buffer;
  readonly isRefused: boolean;
};

/**
 * Puts messages into the outbox; one that stands there already, in whatever state, is left as it
 * is. `isRefused`: it is only remembered, as failed.
 */
export async function insertNotifications(
  executor: Executor,
  rows: readonly NotificationWrite[],
): Promise<number> {
  const of = <T>(column: (row: NotificationWrite) => T): T[] => rows.map(column);
  const { rows: made } = await sql`
    insert into notification (id, webhook_id, team_id, type, subject_type, subject_id, due_at, at,
      data, seal, state, next_attempt_at, ended_at, outcome)
    select id, webhook_id, team_id, type, subject_type, subject_id, due_at, at, data, seal,
      case when refused then 'failed' else 'pending' end,
      case when not refused then at end, case when refused then at
        end, case when refused then 'queueFull' end
    from unnest(${of(({ id }) => id)}::uuid[], ${of(({ webhook }) => webhook)}::uuid[],
      ${of(({ team }) => team)}::uuid[], ${of(({ type }) => type)}::text[],
      ${of(({ subjectType }) => subjectType)}::text[], ${of(({ subjectId }) => subjectId)}::text[],
        ${of(({ dueAt }) => dueAt)}::timestamptz[], ${of(({ at }) => at)}::timestamptz[],
      ${of(({ data }) => JSON.stringify(data))}::jsonb[], ${of(({ seal }) => seal)}::bytea[],
        ${of(({ isRefused }) => isRefused)}::boolean[])
      as given (id, webhook_id, team_id, type, subject_type, subject_id, due_at, at, data, seal,
        refused)
    on conflict on constraint notification_once do nothing returning 1`.execute(executor);
  return made.length;
}

/** Messages to one webhook, newest first. */
export async function listDeliveries(
  executor: Executor,
  team: TeamId,
  webhook: CredentialId,
  page: { limit: number; before: string | undefined },
): Promise<DeliveryRow[]> {
  const { rows } = await sql<DeliveryRow>`
    select id, type, subject_type as "subjectType", subject_id as "subjectId", state, attempts,
      outcome, at, last_attempt_at as "lastAttemptAt",
      next_attempt_at as "nextAttemptAt", ended_at as "endedAt"
    from notification where webhook_id = ${webhook} and team_id = ${team}
      and (${page.before ?? null}::uuid is null or id < ${page.before ?? null})
    order by id desc limit ${page.limit}`.execute(executor);
  return rows;
}

/** How many tests wait for a webhook. */
export async function countPendingTests(
  executor: Executor,
  webhook: CredentialId,
): Promise<number> {
  const { rows } = await sql<{ count: number }>`
    select count(*) as count from notification where webhook_id = ${webhook} and state = 'pending'
      and type = 'webhook.test'`.execute(executor);
  return rows[0]?.count ?? 0;
}
