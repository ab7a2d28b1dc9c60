// Reading the audit log of one team.
import { type RawBuilder, sql } from 'kysely';
import type { Executor } from '../db/client.ts';
import type { TeamId } from '../shared/ids.ts';
import type { AuditEvent } from '../audit/index.ts';

/** An event with the names behind its internal ids; null where a subject was erased. */
export type EventRow = AuditEvent & {
  readonly actorSub: string | null;
  readonly address: string | null;
  readonly salt: Buffer | null;
  readonly people: Readonly<Record<string, string>>;
};

export interface EventFilters {
  readonly action?: string | undefined;
  readonly target?: string | undefined;
  readonly decision?: 'allow' | 'deny' | undefined;
  readonly from?: Date | undefined;
  readonly until?: Date | undefined;
}

/** Where a page begins, and how far it looks. */
export interface EventPage {
  readonly limit: number;
  readonly before: { readonly at: Date; readonly id: string } | undefined;
  /**
   * How many events are looked at, where more is asked of them than when they were; without it as
   * many as there are.
   */
  readonly walkedMax?: number;
}

/** Whether events are looked at that do not stand in the list. */
export const hasEventFilters = ({ action, target, decision }: EventFilters): boolean =>
  action !== undefined || target !== undefined || decision !== undefined;

/** Events of the team in the order of its index, newest first. */
function walk(
  team: TeamId,
  { from, until }: EventFilters,
  before: EventPage['before'],
  tail: RawBuilder<unknown>,
): RawBuilder<unknown> {
  return sql`
    select * from audit_event event
    where event.team_id = ${team}
      and ${
        before === undefined
          ? sql`true`
          : sql`(event.at, event.id) < (${before.at},
      ${before.id}::uuid)`
      }
      ${from === undefined ? sql`` : sql`and event.at >= ${from}`}
        ${until === undefined ? sql`` : sql`and event.at < ${until}`}
    order by event.at desc, event.id desc ${tail}`;
}

/** An id that stands as text among other texts; null for these. */
const idIn = (text: RawBuilder<unknown>): RawBuilder<unknown> =>
  sql`case when ${text} ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' then (${text})::uuid end`;

/** Events of the team, newest first. */
export async function listEvents(
  executor: Executor,
  team: TeamId,
  filters: EventFilters,
  page: EventPage,
): Promise<EventRow[]> {
  const { action, target, decision } = filters;
  const walked = hasEventFilters(filters) ? (page.walkedMax ?? null) : page.limit;
  // Ids become uuids, and not the other way round: who is meant is found by the primary key.
  const { rows } = await sql<EventRow>`
    select event.id, event.at, event.actor_id as actor, event.team_id as team, event.action,
      event.target_type as "targetType", event.target_id as "targetId",
      event.decision, event.reason, event.request_id as "requestId", event.key_id as key,
        event.credential_version as "credentialVersion",
      event.address_hash as "addressHash", event.details, event.mac_version as "macVersion",
        event.mac,
      actor.sub as "actorSub", side.address, side.salt,
      coalesce((select jsonb_object_agg(subject.id, subject.sub) from subject where subject.id in (
        ${idIn(sql`event.target_id`)}, ${idIn(sql`event.details ->> 'onBehalfOf'`)},
          ${idIn(sql`event.details ->> 'grantee'`)})), '{}') as people
    from (${walk(team, filters, page.before, walked === null ? sql`` : sql`limit ${walked}`)}) event
    left join subject actor on actor.id = event.actor_id
    left join audit_address side on side.at = event.at and side.event_id = event.id
    where true ${action === undefined ? sql`` : sql`and event.action = ${action}`}
      ${target === undefined ? sql`` : sql`and event.target_id = ${target}`}
      ${decision === undefined ? sql`` : sql`and event.decision = ${decision}`}
    order by event.at desc, event.id desc limit ${page.limit}`.execute(executor);
  return rows;
}

/** The last event that a page looks at; undefined where it looks at all that there are. */
export async function findEndOfEvents(
  executor: Executor,
  team: TeamId,
  filters: EventFilters,
  { before, walkedMax }: { before: EventPage['before']; walkedMax: number },
): Promise<{ at: Date; id: string } | undefined> {
  const { rows } = await sql<{ at: Date; id: string }>`
    select event.at, event.id
      from (${walk(team, filters, before, sql`offset ${walkedMax - 1} limit 1`)}) event`.execute(
    executor,
  );
  return rows[0];
}
