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
import type { TeamRef, GrantPath } from '../access/index.ts';
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
  readonly ticket_bundle: TicketId | null;
  readonly ticket_hash: Buffer;
  readonly ticket_credential: CredentialId;
  readonly ticket_engine: EngineId;
  readonly ticket_behalf: SubjectId | null;
  readonly ticket_host: string | null;
  readonly ticket_expires_at: Date;
  readonly ticket_revision: number;
  readonly ticket_created_at: Date;
  readonly ticket_mac: Buffer;
  readonly caller_subject: SubjectId;
  readonly caller_sub: string;
  readonly caller_state: 'enabled' | 'disabled';
  readonly caller_revision: number;
  readonly caller_mac: Buffer;
  readonly behalf_sub: string | null;
};

const ticketColumns = sql`ticket.id as ticket_id, ticket.bundle_id as ticket_bundle,
  ticket.ticket_hash,
    ticket.credential_id as ticket_credential, ticket.engine_id as ticket_engine,
    ticket.behalf_subject_id as ticket_behalf, ticket.host as ticket_host,
    ticket.expires_at as ticket_expires_at, ticket.revision as ticket_revision,
    ticket.created_at as ticket_created_at, ticket.seal as ticket_mac`;
const ticketSql = (hash: RawBuilder<unknown>): RawBuilder<Row> => sql`
  select ${ticketColumns},
    caller.subject_id as caller_subject, caller_subject.sub as caller_sub,
      caller.state as caller_state, caller.revision as caller_revision, caller.seal as caller_mac,
    behalf.sub as behalf_sub, ${useColumns}
  from broker_ticket ticket
  join engine caller on caller.id = ticket.engine_id
  join subject caller_subject on caller_subject.id = caller.subject_id
  join credential on credential.id = ticket.credential_id
  ${useJoins(sql.raw('caller.subject_id'), sql.raw('behalf.id = ticket.behalf_subject_id'))}
  where ticket.ticket_hash = ${hash}`;
const ticketByHash = statement<{ hash: Buffer }, Row>((parameter) => ticketSql(parameter('hash')));

/** The ticket behind this hash, expired or not. */
export async function findTicket(executor: Executor, hash: Buffer): Promise<TicketRow | undefined> {
  return ticketRowOf((await ticketByHash(executor, { hash }))[0]);
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
  with found as materialized (${ticketSql(parameter('hash'))}),
  basis as materialized (select exists (
    select 1 from found where ticket_id = ${parameter('ticket')}
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
    ticket: sealedOf(row),
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

const sealedOf = (row: Pick<Row, Extract<keyof Row, `ticket_${string}`>>): TicketMacFields => ({
  id: row.ticket_id,
  bundle: row.ticket_bundle,
  hash: row.ticket_hash,
  credential: row.ticket_credential,
  engine: row.ticket_engine,
  onBehalfOf: row.ticket_behalf,
  host: row.ticket_host,
  expiresAt: row.ticket_expires_at,
  revision: row.ticket_revision,
  createdAt: row.ticket_created_at,
});

/** One of the tickets of a bundle, with nothing of its credential's content. */
export interface BundledTicket {
  readonly ticket: TicketMacFields;
  readonly seal: Buffer;
  /** Whose it is. */
  readonly subject: SubjectId;
  readonly behalfSub: string | undefined;
  /** The credential's team; undefined where that is gone. */
  readonly team: TeamRef | undefined;
}

/** The tickets of a bundle in the order in which they were made. */
export async function findBundle(db: Db, id: TicketId): Promise<BundledTicket[]> {
  const { rows } = await sql<
    Row & { readonly team_id: TeamId | null; readonly team_slug: string | null }
  >`
    select ${ticketColumns}, caller.subject_id as caller_subject, behalf.sub as behalf_sub,
      team.id as team_id, team.slug as team_slug
    from broker_ticket ticket
    join engine caller on caller.id = ticket.engine_id
    join credential on credential.id = ticket.credential_id
    left join team on team.id = credential.team_id and team.deleted_at is null
    left join subject behalf on behalf.id = ticket.behalf_subject_id
    where ticket.bundle_id = ${id} or (ticket.id = ${id} and ticket.bundle_id is null)
    order by ticket.id`.execute(db);
  return rows.map((row) => ({
    ticket: sealedOf(row),
    seal: row.ticket_mac,
    subject: row.caller_subject,
    behalfSub: row.ticket_behalf === null ? undefined : (row.behalf_sub ?? ''),
    team:
      row.team_id === null || row.team_slug === null
        ? undefined
        : { id: row.team_id, slug: row.team_slug },
  }));
}

/** A ticket's row with its row MAC, as it is to be written. */
export interface WrittenTicket {
  readonly ticket: TicketMacFields;
  readonly seal: Buffer;
}

/**
 * `insert into broker_ticket … select …`, as one part of a larger statement; `onlyIf` is a
 * condition in SQL. The tickets are those of one bundle.
 */
export const insertTicketsSql = (
  written: readonly WrittenTicket[],
  onlyIf: RawBuilder<unknown>,
): RawBuilder<unknown> => {
  const column = (of: (ticket: TicketMacFields) => unknown): RawBuilder<unknown> =>
    sql`${written.map(({ ticket }) => of(ticket))}`;
  return sql`
  insert into broker_ticket (id, bundle_id, ticket_hash, credential_id, engine_id,
    behalf_subject_id, host,
    expires_at, revision, seal, created_at)
  select made.*
    from unnest(${column(({ id }) => id)}::uuid[], ${column(({ bundle }) => bundle)}::uuid[],
    ${column(({ hash }) => hash)}::bytea[], ${column(({ credential }) => credential)}::uuid[],
    ${column(({ engine }) => engine)}::uuid[], ${column(({ onBehalfOf }) => onBehalfOf)}::uuid[],
    ${column(({ host }) => host)}::text[], ${column(({ expiresAt }) => expiresAt)}::timestamptz[],
    ${column(({ revision }) => revision)}::int[], ${written.map(({ seal }) => seal)}::bytea[],
    ${column(({ createdAt }) => createdAt)}::timestamptz[]) as made where ${onlyIf}`;
};

/** `update broker_ticket …` in the same way: when tickets expire. They are locked. */
export const extendTicketsSql = (
  written: readonly WrittenTicket[],
  onlyIf: RawBuilder<unknown>,
): RawBuilder<unknown> => sql`
  update broker_ticket set expires_at = made.expires_at, revision = made.revision, seal = made.seal
  from unnest(${written.map(({ ticket }) => ticket.id)}::uuid[],
    ${written.map(({ ticket }) => ticket.expiresAt)}::timestamptz[],
    ${written.map(({ ticket }) => ticket.revision)}::int[],
      ${written.map(({ seal }) => seal)}::bytea[])
    as made (id, expires_at, revision, seal)
  where broker_ticket.id = made.id and ${onlyIf}`;

/** Locks tickets until the end, those that are as they were; how many that are. */
export async function lockTickets(
  trx: Trx,
  tickets: readonly Pick<TicketMacFields, 'id' | 'revision'>[],
): Promise<number> {
  const { rows } = await sql`
    select 1 from broker_ticket ticket
    join unnest(${tickets.map(({ id }) => id)}::uuid[],
      ${tickets.map(({ revision }) => revision)}::int[])
      as known (id, revision) on known.id = ticket.id and known.revision = ticket.revision
    order by ticket.id for update of ticket`.execute(trx);
  return rows.length;
}

/** Deletes tickets; those that were still there. */
export async function deleteTickets(trx: Trx, ids: readonly TicketId[]): Promise<TicketId[]> {
  const rows = await trx
    .deleteFrom('broker_ticket')
    .where('id', 'in', ids)
    .returning('id')
    .execute();
  return rows.map(({ id }) => id);
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
