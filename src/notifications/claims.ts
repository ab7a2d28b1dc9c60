// What a replica does in SQL to deliver: take a webhook, read what is due, write what became of it.
// One replica at a time sends to a webhook; its claim ends by itself when the replica dies. No
// transaction is open while something is sent.
import { sql } from 'kysely';
import type { Db, Executor, Trx } from '../db/client.ts';
import type { CredentialId, NotificationId, TeamId } from '../shared/ids.ts';
import { attemptsMax } from './retries.ts';
import type { DeliveryState, Outcome, NotificationMacFields, WebhookMacFields } from './types.ts';
import type { SettingsJson } from '../access/index.ts';
import { settingsJson } from '../access/sql.ts';

/** A webhook that this replica may send to until its claim ends. */
export interface Claimed extends WebhookMacFields {
  readonly slug: string;
  readonly seal: Buffer;
  readonly claim: string;
  readonly settings: SettingsJson;
}

/**
 * Claims webhooks for which something is due: at most one of each team, and none of the teams
 * named, those first that waited longest.
 */
export async function claimWebhooks(
  db: Db,
  of: { claim: string; limit: number; busyTeams: readonly TeamId[]; at: Date; until: Date },
): Promise<Claimed[]> {
  const { claim, limit, busyTeams, at, until } = of;
  const { rows } = await sql<Claimed>`
    with free as materialized (
      select distinct on (webhook.team_id) webhook.credential_id, webhook.served_at
      from webhook
      where webhook.gone_at is null
        and (webhook.paused_until is null or webhook.paused_until <= ${at})
        and (webhook.claimed_until is null or webhook.claimed_until <= ${at})
        and webhook.team_id <> all (${busyTeams}::uuid[])
        and exists (select 1 from notification where notification.webhook_id = webhook.credential_id
          and notification.state = 'pending' and notification.next_attempt_at <= ${at})
      order by webhook.team_id, webhook.served_at nulls first),
    chosen as (
      select webhook.credential_id from webhook
        join free on free.credential_id = webhook.credential_id
      where webhook.claimed_until is null or webhook.claimed_until <= ${at}
      order by free.served_at nulls first limit ${limit} for update of webhook skip locked)
    update webhook set claim_id = ${claim}, claimed_until = ${until}, served_at = ${at}
    from chosen, team where webhook.credential_id = chosen.credential_id
      and team.id = webhook.team_id
    returning webhook.credential_id as credential, webhook.team_id as team, webhook.events,
      webhook.revision, webhook.seal, team.slug,
      webhook.claim_id as claim, ${settingsJson('team')} as settings`.execute(db);
  return rows;
}

export interface DueRow extends NotificationMacFields {
  readonly seal: Buffer;
  readonly attempts: number;
}

/**
 * What waits longest for a webhook. The count of its attempts is anybody's word: one that no
 * attempt can have left counts as the last but one.
 */
export async function findDue(
  executor: Executor,
  webhook: CredentialId,
  at: Date,
): Promise<DueRow | undefined> {
  const { rows } = await sql<DueRow>`
    select id, webhook_id as webhook, team_id as team, type, subject_type as "subjectType",
      subject_id as "subjectId", due_at as "dueAt", at, data, seal,
      least(greatest(attempts, 0), ${attemptsMax - 1}::int) as attempts
    from notification where webhook_id = ${webhook} and state = 'pending'
      and next_attempt_at <= ${at} order by next_attempt_at, id limit 1`.execute(executor);
  return rows[0];
}

/**
 * Lets a webhook go; `change` is what its deliveries say about it. False when the claim was
 * another's already.
 */
export async function releaseWebhook(
  executor: Executor,
  { credential, claim }: Claimed,
  change: { pausedUntil: Date | null; failedAt?: Date; deliveredAt?: Date; goneAt?: Date },
): Promise<boolean> {
  const { rows } = await sql`
    update webhook set claim_id = null, claimed_until = null, paused_until = ${change.pausedUntil},
      failing_since = ${
        change.deliveredAt === undefined
          ? sql`coalesce(failing_since,
        ${change.failedAt ?? null}::timestamptz)`
          : sql`null`
      },
      delivered_at = coalesce(${change.deliveredAt ?? null}::timestamptz, delivered_at),
        gone_at = coalesce(${change.goneAt ?? null}::timestamptz, gone_at)
    where credential_id = ${credential} and claim_id = ${claim} returning 1`.execute(executor);
  return rows.length === 1;
}

export interface Ending {
  readonly state: DeliveryState;
  readonly outcome: Outcome;
  readonly attempts: number;
  readonly at: Date;
  readonly next: Date | null;
}

/** Writes what became of an attempt, unless the message has ended meanwhile. */
export async function writeOutcome(
  trx: Trx,
  id: NotificationId,
  { state, outcome, attempts, at, next }: Ending,
): Promise<void> {
  await sql`
    update notification set state = ${state}, outcome = ${outcome}, attempts = ${attempts},
      last_attempt_at = ${at}, next_attempt_at = ${next},
      ended_at = ${state === 'pending' ? null : at}
    where id = ${id} and state = 'pending'`.execute(trx);
}

/** Ends what else waits for a webhook that is gone for good. */
export async function failPending(
  trx: Trx,
  webhook: CredentialId,
  outcome: Outcome,
  at: Date,
): Promise<void> {
  await sql`
    update notification set state = 'failed', outcome = ${outcome}, next_attempt_at = null,
      ended_at = ${at}
    where webhook_id = ${webhook} and state = 'pending'`.execute(trx);
}
