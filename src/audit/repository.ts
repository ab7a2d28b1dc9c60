// Reading the trail of one team.
import { sql } from 'kysely';
import type { Executor } from '../db/client.ts';
import type { TeamId } from '../shared/ids.ts';
import type { AuditEvent } from './event.ts';

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

/** Events of the team, newest first. */
export async function listEvents(
  executor: Executor,
  team: TeamId,
  filters: EventFilters,
  page: { limit: number; before: { at: Date; id: string } | undefined },
): Promise<EventRow[]> {
  const before =
    page.before === undefined
      ? sql`true`
      : sql`(event.at, event.id) < (${page.before.at}, ${page.before.id}::uuid)`;
  const { rows } = await sql<EventRow>`
    select event.id, event.at, event.actor_id as actor, event.team_id as team, event.action, event.target_type as "targetType", event.target_id as "targetId",
      event.decision, event.reason, event.request_id as "requestId", event.key_id as key, event.credential_version as "credentialVersion",
      event.address_hash as "addressHash", event.details, event.mac_version as "macVersion", event.mac,
      actor.sub as "actorSub", side.address, side.salt,
      coalesce((select jsonb_object_agg(subject.id, subject.sub) from subject where subject.id::text in (
        event.target_id, event.details ->> 'onBehalfOf', event.details ->> 'grantee')), '{}') as people
    from audit_event event
    left join subject actor on actor.id = event.actor_id
    left join audit_address side on side.at = event.at and side.event_id = event.id
    where event.team_id = ${team} and ${before}
      and (${filters.action ?? null}::text is null or event.action = ${filters.action ?? null})
      and (${filters.target ?? null}::text is null or event.target_id = ${filters.target ?? null})
      and (${filters.decision ?? null}::text is null or event.decision = ${filters.decision ?? null})
      and (${filters.from ?? null}::timestamptz is null or event.at >= ${filters.from ?? null})
      and (${filters.until ?? null}::timestamptz is null or event.at < ${filters.until ?? null})
    order by event.at desc, event.id desc limit ${page.limit}`.execute(executor);
  return rows;
}
