// Stored tokens and begun authorizations in SQL. Every function takes the team, but where a secret
// of the caller's names the row.
import { sql } from 'kysely';
import type { WrappedDataKey } from '../crypto/index.ts';
import type { Db, Executor, Trx } from '../db/client.ts';
import type { CredentialId, DataKeyId, SubjectId, TeamId } from '../shared/ids.ts';
import type { JsonObject } from '../shared/json.ts';
import { type Failure, failureColumns } from './failures.ts';
import type { Forced } from './types.ts';

export interface StoredTokensRow {
  readonly sequence: number;
  readonly client: JsonObject;
  readonly policy: JsonObject;
  readonly takesVersion: boolean;
  readonly expiresAt: Date | null;
  readonly isRefreshable: boolean;
  readonly obtainedAt: Date | null;
  readonly connectedAt: Date | null;
  readonly connectedBy: string | null;
  readonly claimedUntil: Date | null;
  readonly attempts: number;
  readonly retryAt: Date | null;
  readonly failure: Failure | null;
  /** Since when the provider gives no usable answer; null where the last one was. */
  readonly unavailableSince: Date | null;
  readonly instanceUrl: string | null;
  /** Refreshes in a row that a refused token forced, and until when there is no other one. */
  readonly forcedCount: number;
  readonly forceAfter: Date | null;
  readonly rejectedAt: Date | null;
  /** Undefined where none is held, or its key is in no state to open it. */
  readonly sealed: { readonly token: string; readonly key: WrappedDataKey } | undefined;
  /** There is a token, whatever its key. */
  readonly hasToken: boolean;
}
type Row = Omit<StoredTokensRow, 'sealed' | 'hasToken'> & {
  readonly token: string | null;
  readonly hasToken: boolean;
} & Partial<WrappedDataKey>;

/** Why a row's refreshes have ended, in the vault's words; of the alias `held`. */
export const storedTokensFailure = sql<Failure | null>`
  case when held.failure = 'refused' then coalesce(held.failure_detail, held.failure)
    else held.failure end`;

/**
 * The OAuth tokens stored for a credential, with the key that it is under, in one statement; a
 * retired key opens nothing.
 */
export async function findStoredTokens(
  executor: Executor,
  team: TeamId,
  credential: CredentialId,
): Promise<StoredTokensRow | undefined> {
  const { rows } = await sql<Row>`
    select held.sequence, held.client, held.policy, held.takes_version as "takesVersion",
      held.expires_at as "expiresAt", held.is_refreshable as "isRefreshable",
      held.obtained_at as "obtainedAt", held.connected_at as "connectedAt",
        coalesce(connector.sub, held.connected_by::text) as "connectedBy",
        held.claimed_until as "claimedUntil", held.attempts,
      held.retry_at as "retryAt", ${storedTokensFailure} as failure,
        held.token is not null as "hasToken",
      case when held.attempts > 0 and held.failure is null then held.unavailable_since
        end as "unavailableSince", held.instance_url as "instanceUrl",
      held.forced_count as "forcedCount", held.force_after as "forceAfter",
        held.rejected_at as "rejectedAt",
      case when data_key.id is not null then held.token end as token, data_key.id,
        data_key.team_id as team, data_key.version, data_key.format,
      data_key.root_fingerprint as "rootFingerprint", data_key.wrapped
    from oauth_token held left join data_key on data_key.id = held.data_key_id
      and data_key.team_id = held.team_id and data_key.state in ('active', 'decryptOnly')
    left join subject connector on connector.id = held.connected_by
    where held.credential_id = ${credential} and held.team_id = ${team}`.execute(executor);
  const [row] = rows;
  if (row === undefined) return undefined;
  const { token, id, team: owner, version, format, rootFingerprint, wrapped, ...held } = row;
  const isOpenable =
    token !== null &&
    id !== undefined &&
    owner !== undefined &&
    version !== undefined &&
    format !== undefined &&
    rootFingerprint !== undefined &&
    wrapped !== undefined;
  return {
    ...held,
    sealed: isOpenable
      ? { token, key: { id, team: owner, version, format, rootFingerprint, wrapped } }
      : undefined,
  };
}

/** The replica that refreshes: the one that writes its claim into an unclaimed row. */
export interface RefreshClaim {
  readonly id: string;
  readonly team: TeamId;
  readonly credential: CredentialId;
  readonly sequence: number;
  readonly client: JsonObject;
  readonly policy: JsonObject;
  readonly at: Date;
  readonly until: Date;
  /** Set where a refused token is the reason. */
  readonly forced: Forced | undefined;
}

/**
 * Claims the row at its sequence, making it where there is none; false when it moved on, or
 * somebody else holds a claim.
 */
export async function claimRefresh(db: Db, claim: RefreshClaim): Promise<boolean> {
  const { id, team, credential, sequence, client, policy, at, until, forced } = claim;
  const { rows } = await sql`
    insert into oauth_token (credential_id, team_id, sequence, client, policy, takes_version,
      claim_id, claimed_until, forced_count, force_after)
    select ${credential}, ${team}, 0, ${JSON.stringify(client)}::jsonb,
      ${JSON.stringify(policy)}::jsonb, true, ${id}, ${until},
      ${forced?.count ?? 0}, ${forced?.after ?? null}::timestamptz
    where ${sequence} = 0
    on conflict on constraint oauth_token_pkey do nothing returning 1`.execute(db);
  if (rows.length > 0) return true;
  const claimed = await sql`
    update oauth_token set claim_id = ${id}, claimed_until = ${until}
      ${
        forced === undefined
          ? sql``
          : sql`, forced_count = ${forced.count},
        force_after = ${forced.after}`
      }
    where credential_id = ${credential} and team_id = ${team} and sequence = ${sequence}
      and (claimed_until is null or claimed_until <= ${at})
      and failure is null and (retry_at is null or retry_at <= ${at}) returning 1`.execute(db);
  return claimed.rows.length > 0;
}

/** The credential is another team's by now. */
export class CredentialMoved extends Error {
  override name = 'CredentialMoved';
}

/** Whose the credential is; undefined when it is gone. */
export async function findOwner(
  db: Db,
  credential: CredentialId,
): Promise<{ team: TeamId; slug: string } | undefined> {
  return db
    .selectFrom('credential')
    .innerJoin('team', 'team.id', 'credential.team_id')
    .select(['team.id as team', 'team.slug'])
    .where('credential.id', '=', credential)
    .executeTakeFirst();
}

/**
 * The sequence of the row, locked; made where there is none. Before the team's key is locked, as
 * everybody who writes both does. Throws CredentialMoved; a foreign key violation where the
 * credential is gone, or moved and never had such a row.
 */
export async function lockStoredTokens(
  trx: Trx,
  of: { team: TeamId; credential: CredentialId; client: JsonObject; policy: JsonObject },
): Promise<number> {
  await insertStoredTokens(trx, of);
  const row = await trx
    .selectFrom('oauth_token')
    .select('sequence')
    .where('credential_id', '=', of.credential)
    .where('team_id', '=', of.team)
    .forUpdate()
    .executeTakeFirst();
  if (row === undefined) throw new CredentialMoved('the account is stored for another team');
  if (row.sequence >= 0 && row.sequence < sequenceMax) return row.sequence;
  // No account was ever refreshed so often: somebody else wrote that, and it could not go on.
  await trx
    .deleteFrom('oauth_token')
    .where('credential_id', '=', of.credential)
    .where('team_id', '=', of.team)
    .execute();
  await insertStoredTokens(trx, of);
  return 0;
}

/** The last one that an integer holds. */
const sequenceMax = 2_147_483_647;

async function insertStoredTokens(
  trx: Trx,
  of: { team: TeamId; credential: CredentialId; client: JsonObject; policy: JsonObject },
): Promise<void> {
  await sql`
    insert into oauth_token (credential_id, team_id, sequence, client, policy, takes_version)
    values (${of.credential}, ${of.team}, 0, ${JSON.stringify(of.client)}::jsonb,
      ${JSON.stringify(of.policy)}::jsonb, true)
    on conflict on constraint oauth_token_pkey do nothing`.execute(trx);
}

/** How long the token is that a locked row holds. */
export async function findHeldBytes(
  trx: Trx,
  team: TeamId,
  credential: CredentialId,
): Promise<number> {
  const { rows } = await sql<{ bytes: number | null }>`
    select octet_length(token) as bytes from oauth_token where credential_id = ${credential}
      and team_id = ${team}`.execute(trx);
  return rows[0]?.bytes ?? 0;
}

/**
 * The keys that a value which is kept was ever under; to be read under the lock of the active key,
 * from when on no rotation starts.
 */
export async function findKeptKeyHistory(
  trx: Trx,
  of: { team: TeamId; id: CredentialId; version: number },
  { isOfVersion }: { isOfVersion: boolean },
): Promise<DataKeyId[]> {
  const { rows } = await sql<{ keys: DataKeyId[] }>`
    select key_history as keys
      from ${
        isOfVersion
          ? sql`credential_version where version = ${of.version}
      and`
          : sql`oauth_token where`
      } credential_id = ${of.id} and team_id = ${of.team}`.execute(trx);
  return rows[0]?.keys ?? [];
}

export interface StoredTokensWrite {
  readonly team: TeamId;
  readonly credential: CredentialId;
  readonly sequence: number;
  readonly key: DataKeyId;
  readonly token: string;
  readonly client: JsonObject;
  readonly policy: JsonObject;
  /** Keys under which a value that is kept was; the present one comes by itself. */
  readonly keyHistory: readonly DataKeyId[];
  readonly expiresAt: Date | null;
  readonly isRefreshable: boolean;
  readonly at: Date;
  /** What of the answer that brought it could not be used. */
  readonly failure: Failure | undefined;
  readonly instanceUrl: string | undefined;
  /** Set by a connection, kept by a refresh. */
  readonly connectedBy?: SubjectId;
}

/** Replaces the token set in a locked row; every claim and failure of before is void. */
export async function writeStoredTokens(trx: Trx, row: StoredTokensWrite): Promise<void> {
  const { failure, detail } = failureColumns(row.failure);
  await sql`
    update oauth_token set sequence = ${row.sequence}, data_key_id = ${row.key},
      token = ${row.token}, client = ${JSON.stringify(row.client)}::jsonb,
      policy = ${JSON.stringify(row.policy)}::jsonb, key_history = ${row.keyHistory}::uuid[],
        takes_version = false, expires_at = ${row.expiresAt},
      is_refreshable = ${row.isRefreshable}, obtained_at = ${row.at},
      ${
        row.connectedBy === undefined
          ? sql``
          : sql`connected_at = ${row.at},
        connected_by = ${row.connectedBy}, forced_count = 0, force_after = null,`
      }
      instance_url = ${row.instanceUrl === undefined ? sql`instance_url` : row.instanceUrl},
      claim_id = null, claimed_until = null, attempts = 0, retry_at = null,
        unavailable_since = null, rejected_at = null,
      failure = ${failure}, failure_detail = ${detail},
        failed_at = ${failure === null ? null : row.at}
    where credential_id = ${row.credential} and team_id = ${row.team}`.execute(trx);
}

/** Ends a claim without new tokens; false when the row moved on or the claim is another's. */
export async function failRefresh(
  trx: Trx,
  of: {
    team: TeamId;
    credential: CredentialId;
    sequence: number;
    claim: string;
    failure: Failure | undefined;
    retryAt: Date | null;
    at: Date;
  },
): Promise<boolean> {
  const { failure, detail } = failureColumns(of.failure);
  const { rows } = await sql`
    update oauth_token set claim_id = null, claimed_until = null,
      attempts = least(attempts, 1000000) + 1, retry_at = ${of.retryAt},
      unavailable_since = ${
        failure === null
          ? sql`case when attempts = 0 then ${of.at}::timestamptz
        else coalesce(unavailable_since, ${of.at}) end`
          : null
      },
      failure = ${failure}, failure_detail = ${detail},
        failed_at = ${failure === null ? null : of.at}
    where credential_id = ${of.credential} and team_id = ${of.team} and sequence = ${of.sequence}
      and claim_id = ${of.claim} returning 1`.execute(trx);
  return rows.length > 0;
}

/**
 * Remembers that fresh tokens were refused in a row; false when that is known or the row moved on.
 */
export async function markRejected(
  trx: Trx,
  of: { team: TeamId; credential: CredentialId; sequence: number; at: Date },
): Promise<boolean> {
  const result = await trx
    .updateTable('oauth_token')
    .set({ rejected_at: of.at })
    .where('credential_id', '=', of.credential)
    .where('team_id', '=', of.team)
    .where('sequence', '=', of.sequence)
    .where('rejected_at', 'is', null)
    .executeTakeFirst();
  return result.numUpdatedRows === 1n;
}

/**
 * Remembers that a stored token did not open though its key did; false when that is known or the
 * row moved on.
 */
export async function failOpening(
  trx: Trx,
  of: { team: TeamId; credential: CredentialId; sequence: number; key: DataKeyId; at: Date },
): Promise<boolean> {
  const result = await trx
    .updateTable('oauth_token')
    .set({ failure: 'undecryptable', failed_at: of.at })
    .where('credential_id', '=', of.credential)
    .where('team_id', '=', of.team)
    .where('sequence', '=', of.sequence)
    .where('data_key_id', '=', of.key)
    .where('failure', 'is', null)
    .executeTakeFirst();
  return result.numUpdatedRows === 1n;
}
