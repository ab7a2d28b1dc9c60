// Authorizations that somebody has begun, in SQL. A secret of the caller's names the row.
import { sql } from 'kysely';
import type { Executor, Trx } from '../db/client.ts';
import type { AuthorizationId, CredentialId, SubjectId, TeamId } from '../shared/ids.ts';
import type { JsonObject } from '../shared/json.ts';

export interface AuthorizationRow {
  readonly id: AuthorizationId;
  readonly team: TeamId;
  readonly slug: string;
  readonly credential: CredentialId;
  readonly subject: SubjectId;
  readonly client: JsonObject;
  readonly redirectUri: string;
  readonly stateHash: Buffer;
  readonly salt: Buffer;
  readonly expiresAt: Date;
}

/**
 * How many authorizations of the team are open, counted up to `max`, and until when the next of
 * them is. The caller holds a lock on the team, so that others who begin one wait.
 */
export async function countOpen(
  trx: Trx,
  team: TeamId,
  max: number,
  now: Date,
): Promise<{ count: number; until: Date | null }> {
  await sql`select 1 from team where id = ${team} for no key update`.execute(trx);
  const { rows } = await sql<{ count: number; until: Date | null }>`
    select count(*) as count, min(expires_at) as until
    from (select expires_at from oauth_authorization where team_id = ${team} and expires_at > ${now}
      limit ${max}) open`.execute(trx);
  return rows[0] ?? { count: 0, until: null };
}

/** Remembers an authorization that somebody has begun. */
export async function insertAuthorization(
  trx: Trx,
  row: Omit<AuthorizationRow, 'slug'> & { readonly at: Date },
): Promise<void> {
  await trx
    .insertInto('oauth_authorization')
    .values({
      id: row.id,
      team_id: row.team,
      credential_id: row.credential,
      subject_id: row.subject,
      client: JSON.stringify(row.client),
      redirect_uri: row.redirectUri,
      state_hash: row.stateHash,
      salt: row.salt,
      created_at: row.at,
      expires_at: row.expiresAt,
    })
    .execute();
}

/** An authorization that was begun. */
export async function findAuthorization(
  executor: Executor,
  id: AuthorizationId,
): Promise<AuthorizationRow | undefined> {
  return executor
    .selectFrom('oauth_authorization as begun')
    .innerJoin('team', 'team.id', 'begun.team_id')
    .select([
      'begun.id',
      'begun.team_id as team',
      'team.slug',
      'credential_id as credential',
      'subject_id as subject',
      'client',
      'redirect_uri as redirectUri',
      'state_hash as stateHash',
      'salt',
      'expires_at as expiresAt',
    ])
    .where('begun.id', '=', id)
    .executeTakeFirst();
}

/** Takes it away, once: false when somebody was faster. */
export async function deleteAuthorization(
  executor: Executor,
  id: AuthorizationId,
): Promise<boolean> {
  return (
    (await executor.deleteFrom('oauth_authorization').where('id', '=', id).executeTakeFirst())
      .numDeletedRows === 1n
  );
}
