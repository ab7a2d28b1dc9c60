// Tickets in SQL: one statement that reads all that a call rests on, and the writes of a ticket's
// short life.
import { type RawBuilder, sql } from 'kysely';
import type { Db, Executor, Trx } from '../db/client.ts';
import { type Statement, statement } from '../db/statement.ts';
import type {
  CredentialId,
  DataKeyId,
  EngineId,
  GrantId,
  SubjectId,
  TeamId,
  TicketId,
} from '../shared/ids.ts';
import type { TicketMacFields } from './tickets.ts';
import type { GrantPath } from '../access/index.ts';
import { grantsStandSql } from '../access/sql.ts';
import type { RecordedValues } from '../audit/index.ts';
import { recordedSql } from '../audit/sql.ts';
import { foundOf, type FoundRow, type RecipientRow, type UseRow } from '../leases/index.ts';
import { isUsedThoughExposed, useColumns, useJoins } from '../leases/sql.ts';

/** A ticket with everything that its use rests on, of one moment. */
export interface TicketRow {
  readonly ticket: TicketMacFields;
  readonly seal: Buffer;
  /** Whose ticket it is, with the registration. */
  readonly engine: NonNullable<RecipientRow['engine']> & {
    readonly subject: SubjectId;
    readonly sub: string;
  };
  /** For whom; undefined where for nobody. */
  readonly behalfSub: string | undefined;
  /** Undefined where the credential's team is gone. */
  readonly found: FoundRow | undefined;
}

type Row = UseRow & {
  readonly ticket_id: TicketId;
  readonly ticket_hash: Buffer;
  readonly ticket_credential: CredentialId;
  readonly ticket_engine: EngineId;
  readonly ticket_behalf: SubjectId | null;
  readonly ticket_host: string | null;
  readonly ticket_expires_at: Date;
  readonly ticket_revision: number;
  readonly ticket_mac: Buffer;
  readonly caller_subject: SubjectId;
  readonly caller_sub: string;
  readonly caller_state: 'enabled' | 'disabled';
  readonly caller_revision: number;
  readonly caller_mac: Buffer;
  readonly behalf_sub: string | null;
};

const ticketSql = (id: RawBuilder<unknown>): RawBuilder<Row> => sql`
  select ticket.id as ticket_id, ticket.ticket_hash, ticket.credential_id as ticket_credential,
    ticket.engine_id as ticket_engine, ticket.behalf_subject_id as ticket_behalf,
    ticket.host as ticket_host, ticket.expires_at as ticket_expires_at,
      ticket.revision as ticket_revision, ticket.seal as ticket_mac,
    caller.subject_id as caller_subject, caller_subject.sub as caller_sub,
      caller.state as caller_state, caller.revision as caller_revision, caller.seal as caller_mac,
    behalf.sub as behalf_sub, ${useColumns}
  from broker_ticket ticket
  join engine caller on caller.id = ticket.engine_id
  join subject caller_subject on caller_subject.id = caller.subject_id
  join credential on credential.id = ticket.credential_id
  ${useJoins(sql.raw('caller.subject_id'), sql.raw('behalf.id = ticket.behalf_subject_id'))}
  where ticket.id = ${id}`;
const ticketById = statement<{ id: TicketId }, Row>((parameter) => ticketSql(parameter('id')));

/** The ticket of this id, expired or not. */
export async function findTicket(executor: Executor, id: TicketId): Promise<TicketRow | undefined> {
  return ticketRowOf((await ticketById(executor, { id }))[0]);
}

type ExpectedCall = CallBasis & {
  readonly hash: Buffer;
  readonly credential: CredentialId;
  readonly onBehalfOf: SubjectId | null;
  readonly now: Date;
};

// The same, and the record of the call if what is found is what was expected and can be used: then
// nothing that the decision rests on has changed since it was taken the last time. It is taken
// again all the same, over this row.
const ticketAndRecord = statement<
  ExpectedCall & RecordedValues,
  Row & { readonly is_recorded: boolean }
>(
  (parameter) => sql`
  with found as materialized (${ticketSql(parameter('ticket'))}),
  basis as materialized (select exists (
    select 1 from found where ticket_hash = ${parameter('hash')}
      and ticket_revision = ${parameter('ticketRevision')}
      and ticket_expires_at > ${parameter('now')}
      and caller_state = 'enabled' and caller_revision = ${parameter('engineRevision')}
      and id = ${parameter('credential')} and team = ${parameter('team')}
        and revision = ${parameter('credentialRevision')}
        and current_version = ${parameter('version')}
      and data_key_id = ${parameter('dataKey')}
        and member_revision is not distinct from ${parameter('memberRevision')}::int
      and behalf_subject is not distinct from ${parameter('onBehalfOf')}::uuid
        and behalf_revision is not distinct from ${parameter('behalfRevision')}::int
      and state = 'enabled' and data_key_state in ('active', 'decryptOnly')
        and undecryptable_at is null and ${isUsedThoughExposed('found')}
      and (expires_at is null or expires_at > ${parameter('now')})
  ) as stands),
  ${recordedSql(parameter, { isOne: true, onlyIf: sql`(select stands from basis)` })}
  select found.*, basis.stands as is_recorded from found cross join basis`,
);

/** The same, having recorded one event if what was found is what was expected. */
export async function findTicketAndRecord(
  db: Db,
  expected: ExpectedCall,
  recorded: RecordedValues,
): Promise<{ readonly row: TicketRow | undefined; readonly isRecorded: boolean }> {
  const [row] = await ticketAndRecord(db, { ...expected, ...recorded });
  return { row: ticketRowOf(row), isRecorded: row?.is_recorded === true };
}

function ticketRowOf(row: Row | undefined): TicketRow | undefined {
  if (row === undefined) return undefined;
  return {
    ticket: {
      id: row.ticket_id,
      hash: row.ticket_hash,
      credential: row.ticket_credential,
      engine: row.ticket_engine,
      onBehalfOf: row.ticket_behalf,
      host: row.ticket_host,
      expiresAt: row.ticket_expires_at,
      revision: row.ticket_revision,
    },
    seal: row.ticket_mac,
    engine: {
      id: row.ticket_engine,
      state: row.caller_state,
      revision: row.caller_revision,
      seal: row.caller_mac,
      subject: row.caller_subject,
      sub: row.caller_sub,
    },
    // SECURITY: a ticket for somebody never becomes one for nobody.
    behalfSub: row.ticket_behalf === null ? undefined : (row.behalf_sub ?? ''),
    found: foundOf(row),
  };
}

/**
 * `insert into broker_ticket … select …`, as one part of a larger statement; `onlyIf` is a
 * condition in SQL.
 */
export const insertTicketSql = (
  ticket: TicketMacFields,
  seal: Buffer,
  at: Date,
  onlyIf: RawBuilder<unknown>,
): RawBuilder<unknown> => sql`
  insert into broker_ticket (id, ticket_hash, credential_id, engine_id, behalf_subject_id, host,
    expires_at, revision, seal, created_at)
  select ${ticket.id}::uuid, ${ticket.hash}::bytea, ${ticket.credential}::uuid,
    ${ticket.engine}::uuid, ${ticket.onBehalfOf}::uuid, ${ticket.host}::text,
    ${ticket.expiresAt}::timestamptz, ${ticket.revision}::int, ${seal}::bytea, ${at}::timestamptz
      where ${onlyIf}`;

/** Deletes a ticket; whether there was one. */
export async function deleteTicket(trx: Trx, id: TicketId): Promise<boolean> {
  const result = await trx.deleteFrom('broker_ticket').where('id', '=', id).executeTakeFirst();
  return result.numDeletedRows === 1n;
}

/** What a call rested on when it was decided. */
export interface CallBasis {
  readonly ticket: TicketId;
  readonly ticketRevision: number;
  readonly engineRevision: number;
  readonly team: TeamId;
  readonly memberRevision: number | null;
  readonly behalfRevision: number | null;
  readonly credentialRevision: number;
  readonly version: number;
  readonly dataKey: DataKeyId;
}

interface GrantBasis {
  readonly grants: readonly GrantId[];
  readonly grantRevisions: readonly number[];
  readonly grantTeams: readonly TeamId[];
  readonly grantSubjects: readonly SubjectId[];
  readonly grantMembers: readonly number[];
}

// Where grants are in it: each as it was, and the membership in which it is used.
const callRecord = ({
  isShared,
  isOne,
}: {
  isShared: boolean;
  isOne: boolean;
}): Statement<CallBasis & GrantBasis & RecordedValues, unknown> =>
  statement(
    (parameter) => sql`
  with basis as (select exists (
    select 1 from broker_ticket ticket
    join engine on engine.id = ticket.engine_id and engine.revision = ${parameter('engineRevision')}
      and engine.state = 'enabled'
    join credential on credential.id = ticket.credential_id
      and credential.team_id = ${parameter('team')}
      and credential.revision = ${parameter('credentialRevision')}
      and credential.current_version = ${parameter('version')} and credential.state = 'enabled'
    join credential_version version on version.team_id = credential.team_id
      and version.credential_id = credential.id and version.version = credential.current_version
      and version.data_key_id = ${parameter('dataKey')}
    left join membership on membership.team_id = credential.team_id
      and membership.subject_id = engine.subject_id
    left join membership behalf on behalf.team_id = credential.team_id
      and behalf.subject_id = ticket.behalf_subject_id
    where ticket.id = ${parameter('ticket')} and ticket.revision = ${parameter('ticketRevision')}
      and behalf.revision is not distinct from ${parameter('behalfRevision')}::int
      and membership.revision is not distinct from ${parameter('memberRevision')}::int
  ) ${
    isShared
      ? sql`and ${grantsStandSql(
          sql`(select ${parameter('grants')})`,
          sql`(select
        ${parameter('grantRevisions')})`,
        )}
    and not exists (select 1
      from unnest((select ${parameter('grantTeams')}::uuid[]),
      (select ${parameter('grantSubjects')}::uuid[]), (select ${parameter('grantMembers')}::int[]))
      as held (team, subject, revision)
      left join membership holder on holder.team_id = held.team and holder.subject_id = held.subject
        and holder.revision = held.revision where holder.team_id is null)`
      : sql``
  } as stands),
  ${recordedSql(parameter, { isOne, onlyIf: sql`(select stands from basis)` })}
  select 1 from recorded limit 1`,
  );
const callRecordOwn = callRecord({ isShared: false, isOne: true });
const callRecordShared = callRecord({ isShared: true, isOne: true });
const callRecordInLogs = callRecord({ isShared: true, isOne: false });

/**
 * Records the events of a call if everything in the basis, and the grants that it took, are as they
 * were; whether it did.
 */
export async function recordCallIfUnchanged(
  db: Db,
  basis: CallBasis,
  grantPaths: readonly GrantPath[],
  { events, recorded }: { events: number; recorded: RecordedValues },
): Promise<boolean> {
  const members = grantPaths.flatMap(({ subject, team }) =>
    team === undefined ? [] : [{ subject, team: team.id, revision: team.memberRevision }],
  );
  const run =
    grantPaths.length === 0 ? callRecordOwn : events === 1 ? callRecordShared : callRecordInLogs;
  return (
    (
      await run(db, {
        ...basis,
        ...recorded,
        grants: grantPaths.map(({ grant }) => grant),
        grantRevisions: grantPaths.map(({ revision }) => revision),
        grantTeams: members.map(({ team }) => team),
        grantSubjects: members.map(({ subject }) => subject),
        grantMembers: members.map(({ revision }) => revision),
      })
    ).length === 1
  );
}
