// What comes by time: looked for every minute, on every replica, told once. What makes it once is
// the outbox: a message about the same thing and time is there, or it is not.
import { sql, type RawBuilder } from 'kysely';
import type { Db, Executor } from '../db/client.ts';
import type { CredentialId, DataKeyId, TeamId } from '../shared/ids.ts';
import { type Outbox, pendingMax } from './outbox.ts';
import type { EventType, Notice } from './types.ts';

const batchRows = 500;
const expiringDays = 14;
/**
 * What was over longer ago when somebody asks to be told is told no more. Less than messages that
 * were sent are remembered for.
 */
const pastDays = 30;
/**
 * The vault rotates by itself when a policy asks for it: a key is overdue when that has not
 * happened for so long.
 */
const overdueHours = 1;

type DueCredential = {
  readonly team: TeamId;
  readonly slug: string;
  readonly id: CredentialId;
  readonly name: string;
  readonly type: string;
  readonly dueAt: Date;
};
type DueKey = {
  readonly team: TeamId;
  readonly slug: string;
  readonly id: DataKeyId;
  readonly version: number;
  readonly dueAt: Date;
};

/**
 * One look. Returns how many messages it made. Throws an AggregateError of what failed, when the
 * rest is done.
 */
export async function tellWhatIsDue(
  db: Db,
  outbox: Outbox,
  at: Date,
  isStopping: () => boolean,
): Promise<number> {
  const failures: unknown[] = [];
  let made = 0;
  for (const look of looks) {
    try {
      while (!isStopping()) {
        const { seen, notices, unreadable } = await look(db, at);
        const put = await outbox.put(db, notices);
        made += put;
        if (seen === batchRows && put > 0) continue;
        failures.push(...unreadable);
        break;
      }
    } catch (error) {
      failures.push(error);
    }
  }
  if (failures.length > 0)
    throw new AggregateError(failures, 'some of what is due could not be told');
  return made;
}

type Look = (executor: Executor, at: Date) => Promise<Seen>;

interface Seen {
  readonly seen: number;
  readonly notices: readonly Notice[];
  /** What reading a row threw: it is passed over, and keeps no other from being told of. */
  readonly unreadable: readonly unknown[];
}

function noticesOf<Row>(rows: readonly Row[], read: (row: Row) => Notice): Seen {
  const notices: Notice[] = [];
  const unreadable: unknown[] = [];
  for (const row of rows) {
    try {
      notices.push(read(row));
    } catch (error) {
      unreadable.push(error);
    }
  }
  return { seen: rows.length, notices, unreadable };
}

/** Webhooks that ask for it and have room: what finds none is found again. */
const open = (type: EventType): RawBuilder<unknown> => sql`
  open as materialized (
    select webhook.credential_id, webhook.team_id from webhook
    join credential receiver on receiver.id = webhook.credential_id and receiver.team_id = webhook.team_id and receiver.state <> 'deleted'
    where webhook.gone_at is null and webhook.events @> array[${type}]
      and (select count(*) from notification waiting where waiting.webhook_id = webhook.credential_id and waiting.state = 'pending') < ${pendingMax})`;
const isUntold = (
  type: EventType,
  subject: RawBuilder<unknown>,
  dueAt: RawBuilder<unknown>,
): RawBuilder<unknown> => sql`
  not exists (select 1 from notification told where told.webhook_id = open.credential_id and told.type = ${type} and told.subject_id = ${subject}::text and told.due_at = ${dueAt})`;

/** Living credentials with a time within the range; `column` says which time. */
const credentialsAt =
  (
    type: EventType,
    column: string,
    timeName: string,
    range: { fromDays: number; toDays: number },
  ): Look =>
  async (executor, at) => {
    const time = sql.ref(`credential.${column}`);
    const { rows } = await sql<DueCredential>`
    with ${open(type)}
    select distinct team.id as team, team.slug, credential.id, credential.name, credential.type, ${time} as "dueAt"
    from open join team on team.id = open.team_id and team.deleted_at is null
    join credential on credential.team_id = team.id and credential.state <> 'deleted'
      and ${time} > ${at}::timestamptz + make_interval(days => ${range.fromDays}) and ${time} <= ${at}::timestamptz + make_interval(days => ${range.toDays})
    where ${isUntold(type, sql`credential.id`, time)} order by "dueAt" limit ${batchRows}`.execute(
      executor,
    );
    return noticesOf(rows, ({ team, slug, id, name, type: of, dueAt }) => ({
      team: { id: team, slug },
      type,
      subject: { type: 'credential', id },
      dueAt,
      data: { credential: { id, name, type: of }, [timeName]: dueAt.toISOString() },
    }));
  };

/**
 * Access tokens that are over and that nothing can make new. What a provider refused was told when
 * it did.
 */
const endedTokens: Look = async (executor, at) => {
  const type = 'credential.refreshFailed';
  const { rows } = await sql<DueCredential>`
    with ${open(type)}
    select distinct team.id as team, team.slug, credential.id, credential.name, credential.type, held.expires_at as "dueAt"
    from open join team on team.id = open.team_id and team.deleted_at is null
    join oauth_token held on held.team_id = team.id and not held.is_refreshable and held.token is not null and held.failure is null
      and held.expires_at > ${at}::timestamptz - make_interval(days => ${pastDays}) and held.expires_at <= ${at}
    join credential on credential.team_id = team.id and credential.id = held.credential_id and credential.state <> 'deleted'
    where ${isUntold(type, sql`credential.id`, sql`held.expires_at`)} order by "dueAt" limit ${batchRows}`.execute(
    executor,
  );
  return noticesOf(rows, ({ team, slug, id, name, type: of, dueAt }) => ({
    team: { id: team, slug },
    type,
    subject: { type: 'credential', id },
    dueAt,
    data: { credential: { id, name, type: of }, reason: 'no_refresh_token' },
  }));
};

const overdueKeys: Look = async (executor, at) => {
  const dueAt = sql`key.created_at + make_interval(days => team.rotate_every_days)`;
  const { rows } = await sql<DueKey>`
    with ${open('key.overdue')}
    select distinct team.id as team, team.slug, key.id, key.version, ${dueAt} as "dueAt"
    from open join team on team.id = open.team_id and team.deleted_at is null
    join data_key key on key.team_id = team.id and key.state = 'active'
    where ${dueAt} <= ${at}::timestamptz - make_interval(hours => ${overdueHours}) and ${isUntold('key.overdue', sql`key.id`, dueAt)}
    order by "dueAt" limit ${batchRows}`.execute(executor);
  return noticesOf(rows, ({ team, slug, id, version, dueAt: due }) => ({
    team: { id: team, slug },
    type: 'key.overdue',
    subject: { type: 'key', id },
    dueAt: due,
    data: { key: { id, version }, rotateAt: due.toISOString() },
  }));
};

const looks: readonly Look[] = [
  credentialsAt('credential.expiring', 'expires_at', 'expiresAt', {
    fromDays: 0,
    toDays: expiringDays,
  }),
  credentialsAt('credential.expired', 'expires_at', 'expiresAt', {
    fromDays: -pastDays,
    toDays: 0,
  }),
  credentialsAt('credential.rotationDue', 'rotate_after', 'rotateAfter', {
    fromDays: -pastDays,
    toDays: 0,
  }),
  endedTokens,
  overdueKeys,
];
