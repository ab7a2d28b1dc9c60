// What comes by time: looked for every minute, on every replica, told once. What makes it once is
// the outbox: a message about the same thing and time is there, or it is not.
import { sql, type RawBuilder } from 'kysely';
import type { Keyring } from '../crypto/index.ts';
import type { Db, Executor } from '../db/client.ts';
import type { DataKeyId } from '../shared/ids.ts';
import type { JsonObject } from '../shared/json.ts';
import { isTime } from '../shared/times.ts';
import { type Outbox, pendingMax } from './outbox.ts';
import type { EventType, Notice } from './types.ts';
import { rotateAtSql } from '../db/rotation-due.ts';
import { verifyTeamRowMac, type TeamRef, type TeamSettingsRow } from '../access/index.ts';
import { settingsColumns } from '../access/sql.ts';
import { verifyListedRowMac, type CredentialMacFields } from '../credentials/index.ts';
import { rowMacColumns } from '../credentials/sql.ts';

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

type DueCredential = CredentialMacFields & {
  readonly slug: string;
  readonly seal: Buffer;
  readonly dueAt: Date;
};
type DueKey = TeamSettingsRow & {
  readonly key: DataKeyId;
  readonly version: number;
  readonly dueAt: Date;
};

/** What a look needs besides the database. */
export interface DueParts {
  readonly outbox: Outbox;
  readonly keyring: Keyring;
  /** Told of a row that the vault did not write as it is: nothing is told of it. */
  readonly onTampered: (row: { team: TeamRef; target: { type: string; id: string } }) => void;
}

/**
 * One look. Returns how many messages it made. Throws an AggregateError of what failed, when the
 * rest is done.
 */
export async function notifyWhatIsDue(
  db: Db,
  parts: DueParts,
  at: Date,
  isStopping: () => boolean,
): Promise<number> {
  const failures: unknown[] = [];
  let made = 0;
  for (const look of looks) {
    try {
      for (;;) {
        const found = isStopping() ? [] : await look(db, parts, at);
        const put = await parts.outbox.put(
          db,
          found.filter((each) => each !== undefined),
        );
        made += put;
        if (found.length < batchRows || put === 0) break;
      }
    } catch (error) {
      failures.push(error);
    }
  }
  if (failures.length > 0)
    throw new AggregateError(failures, 'cannot notify of everything that is due');
  return made;
}

/** Undefined in the place of what is not told of. */
type Look = (executor: Executor, parts: DueParts, at: Date) => Promise<(Notice | undefined)[]>;

/** Webhooks that ask for it and have room: what finds none is found again. */
const open = (type: EventType): RawBuilder<unknown> => sql`
  open as materialized (
    select webhook.credential_id, webhook.team_id from webhook
    join credential receiver on receiver.id = webhook.credential_id
      and receiver.team_id = webhook.team_id and receiver.state <> 'deleted'
    where webhook.gone_at is null and webhook.events @> array[${type}]
      and (select count(*) from notification waiting
        where waiting.webhook_id = webhook.credential_id
        and waiting.state = 'pending') < ${pendingMax})`;
const isUntold = (
  type: EventType,
  subject: RawBuilder<unknown>,
  dueAt: RawBuilder<unknown>,
): RawBuilder<unknown> => sql`
  not exists (select 1 from notification told where told.webhook_id = open.credential_id
    and told.type = ${type} and told.subject_id = ${subject}::text and told.due_at = ${dueAt})`;

/**
 * Notices about credentials of which something is due and not told yet: `due` gives them, from
 * `open` on, as `credential` with its team, and the time in question.
 */
async function aboutCredentials(
  executor: Executor,
  parts: DueParts,
  of: {
    type: EventType;
    due: RawBuilder<unknown>;
    dueAt: RawBuilder<unknown>;
    more: (dueAt: Date) => JsonObject;
  },
): Promise<(Notice | undefined)[]> {
  const { rows } = await sql<DueCredential>`
    with ${open(of.type)},
    due as materialized (
      select distinct credential.team_id, credential.id, ${of.dueAt} as due_at ${of.due}
      where ${isUntold(of.type, sql`credential.id`, of.dueAt)} order by due_at limit ${batchRows})
    select ${rowMacColumns}, team.slug, due.due_at as "dueAt"
    from due join team on team.id = due.team_id
    join credential on credential.team_id = due.team_id and credential.id = due.id
    join credential_version current on current.team_id = credential.team_id
      and current.credential_id = credential.id and current.version = credential.current_version
    order by due.due_at`.execute(executor);
  return rows.map((row) => {
    // SECURITY: a message is protected as the vault's own word. What the vault did not write does
    // not go into one.
    if (!verifyListedRowMac(parts.keyring, row, row.seal) || !isTime(row.dueAt)) {
      parts.onTampered({
        team: { id: row.team, slug: row.slug },
        target: { type: 'credential', id: row.id },
      });
      return undefined;
    }
    const { team, slug, id, name, type, dueAt } = row;
    return {
      team: { id: team, slug },
      type: of.type,
      subject: { type: 'credential', id },
      dueAt,
      data: { credential: { id, name, type }, ...of.more(dueAt) },
    };
  });
}

/** Living credentials with a time within the range; `column` says which time. */
const credentialsAt =
  (
    type: EventType,
    column: string,
    timeName: string,
    range: { fromDays: number; toDays: number },
  ): Look =>
  (executor, parts, at) => {
    const time = sql.ref(`credential.${column}`);
    return aboutCredentials(executor, parts, {
      type,
      dueAt: time,
      due: sql`
      from open join team on team.id = open.team_id and team.deleted_at is null
      join credential on credential.team_id = team.id and credential.state <> 'deleted'
        and ${time} > ${at}::timestamptz + make_interval(days => ${range.fromDays})
          and ${time} <= ${at}::timestamptz + make_interval(days => ${range.toDays})`,
      more: (dueAt) => ({ [timeName]: dueAt.toISOString() }),
    });
  };

/**
 * Access tokens that are over and that nothing can make new. What a provider refused was told when
 * it did.
 */
const endedTokens: Look = (executor, parts, at) =>
  aboutCredentials(executor, parts, {
    type: 'credential.refreshFailed',
    dueAt: sql`held.expires_at`,
    due: sql`
      from open join team on team.id = open.team_id and team.deleted_at is null
      join oauth_token held on held.team_id = team.id and not held.is_refreshable
        and held.token is not null and held.failure is null
        and held.expires_at > ${at}::timestamptz - make_interval(days => ${pastDays})
          and held.expires_at <= ${at}
      join credential on credential.team_id = team.id and credential.id = held.credential_id
        and credential.state <> 'deleted'`,
    more: () => ({ reason: 'no_refresh_token' }),
  });

const overdueKeys: Look = async (executor, { keyring, onTampered }, at) => {
  const dueAt = rotateAtSql;
  const { rows } = await sql<DueKey>`
    with ${open('key.overdue')}
    select distinct ${settingsColumns('team')}, key.id as key, key.version, ${dueAt} as "dueAt"
    from open join team on team.id = open.team_id and team.deleted_at is null
    join data_key key on key.team_id = team.id and key.state = 'active'
    where ${dueAt} <= ${at}::timestamptz - make_interval(hours => ${overdueHours})
      and ${isUntold('key.overdue', sql`key.id`, dueAt)}
    order by "dueAt" limit ${batchRows}`.execute(executor);
  return rows.map((row) => {
    const team = { id: row.id, slug: row.slug };
    if (!verifyTeamRowMac(keyring, row) || !isTime(row.dueAt)) {
      onTampered({ team, target: { type: 'team', id: row.id } });
      return undefined;
    }
    const { key: id, version, dueAt: due } = row;
    return {
      team,
      type: 'key.overdue',
      subject: { type: 'key', id },
      dueAt: due,
      data: { key: { id, version }, rotateAt: due.toISOString() },
    };
  });
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
