// The moving of tokens in SQL. Each table of the list of token tables has its mover here: a table without one does not compile.
import { sql } from 'kysely';
import type { Place, WrappedDataKey } from '../crypto/index.ts';
import type { Executor, Trx } from '../db/client.ts';
import type { DataKeyState, RotationState, TokenFormatColumn } from '../db/tables.ts';
import type { CredentialId, DataKeyId, RotationId, SubjectId, TeamId } from '../shared/ids.ts';
import type { JsonObject } from '../shared/json.ts';
import { type TokenTable, tokenCountBesidesSql } from './token-tables.ts';

/** A rotation as the worker knows it. */
export interface RunningRotation {
  readonly id: RotationId; readonly team: TeamId; readonly slug: string; readonly startedBy: SubjectId | null; readonly isUrgent: boolean;
}

/** A token to be moved, locked, with the keys that open and seal it and the state in which its own key is. */
export interface HeldToken {
  readonly place: Place; readonly token: string; readonly from: WrappedDataKey; readonly fromState: DataKeyState; readonly to: WrappedDataKey;
}
export interface MovedToken extends HeldToken { readonly moved: string }

/** Where among a key's tokens the search for the next ones begins. Rows that were moved lie before it: reading past their remains gets slower and slower. */
export interface Position { readonly key: DataKeyId; readonly credential: CredentialId; readonly version: number }
/** How many tokens are wanted, under which keys not, and from where on. */
export interface Quest { readonly limit: number; readonly passOver: readonly DataKeyId[]; readonly after: Position | undefined }

/** How tokens of one table are found and stored. */
export interface Mover {
  /** Locks tokens that nobody else holds at this moment; none when the rotation does not run any more. */
  readonly hold: (trx: Trx, rotation: RunningRotation, quest: Quest) => Promise<HeldToken[]>;
  /** Stores held tokens under their new key; false, and then nothing must be kept, when that key is active no more. */
  readonly store: (trx: Trx, tokens: readonly MovedToken[]) => Promise<boolean>;
  /** Names a token that did not open as a failure of the rotation; `isUndecryptable` marks the row. */
  readonly fail: (trx: Trx, rotation: RunningRotation, failure: { token: HeldToken; isUndecryptable: boolean; at: Date }) => Promise<void>;
}

interface VersionRow {
  readonly credential: CredentialId; readonly version: number; readonly token: string; readonly public_fields: JsonObject; readonly policy: JsonObject; readonly type: string;
  readonly from_id: DataKeyId; readonly from_version: number; readonly from_format: TokenFormatColumn; readonly from_root: string; readonly from_wrapped: Buffer;
  readonly from_state: DataKeyState;
  readonly to_id: DataKeyId; readonly to_version: number; readonly to_format: TokenFormatColumn; readonly to_root: string; readonly to_wrapped: Buffer;
}

/**
 * For the rest of the transaction every row is found by an index and in its order. What the planner thinks of the tables can be as
 * old as the last vacuum, and a team's rows say nothing of another's: left to itself it may sort all tokens of a key for each batch.
 */
export async function planByIndex(trx: Trx): Promise<void> {
  await sql.raw(['seqscan', 'bitmapscan', 'sort', 'hashjoin', 'mergejoin', 'material'].map((method) => `set local enable_${method} = off`).join('; ')).execute(trx);
}

const smallestId = '00000000-0000-0000-0000-000000000000';

const credentialVersions: Mover = {
  async hold(trx, rotation, { limit, passOver, after }) {
    const { rows } = await sql<VersionRow>`
      select held.credential_id as credential, held.version, held.token, held.public_fields, held.policy, credential.type,
        from_key.id as from_id, from_key.version as from_version, from_key.format as from_format, from_key.root_fingerprint as from_root,
        from_key.wrapped as from_wrapped, from_key.state as from_state,
        to_key.id as to_id, to_key.version as to_version, to_key.format as to_format, to_key.root_fingerprint as to_root, to_key.wrapped as to_wrapped
      from key_rotation rotation
      join data_key to_key on to_key.team_id = rotation.team_id and to_key.state = 'active'
      join data_key from_key on from_key.team_id = rotation.team_id and from_key.id <> to_key.id and from_key.id <> all (${passOver}::uuid[])
      cross join lateral (
        select version.credential_id, version.version, version.token, version.public_fields, version.policy
        from credential_version version
        where version.data_key_id = from_key.id and version.team_id = from_key.team_id
          and (version.credential_id, version.version) > (
            case when from_key.id = ${after?.key ?? null} then ${after?.credential ?? null}::uuid else ${smallestId}::uuid end,
            case when from_key.id = ${after?.key ?? null} then ${after?.version ?? null}::int else 0 end)
          and not exists (
            select 1 from key_rotation_failure failure
            where failure.rotation_id = rotation.id and failure.credential_id = version.credential_id and failure.version = version.version)
        order by version.credential_id, version.version
        limit ${limit} for update of version skip locked
      ) held
      join credential on credential.id = held.credential_id and credential.team_id = rotation.team_id
      where rotation.id = ${rotation.id} and rotation.team_id = ${rotation.team} and rotation.state = 'running'
      limit ${limit}`.execute(trx);
    return rows.map((row) => ({
      place: { team: rotation.team, credential: row.credential, version: row.version, type: row.type, publicFields: row.public_fields, policy: row.policy },
      token: row.token,
      from: { id: row.from_id, team: rotation.team, version: row.from_version, format: row.from_format, rootFingerprint: row.from_root, wrapped: row.from_wrapped },
      fromState: row.from_state,
      to: { id: row.to_id, team: rotation.team, version: row.to_version, format: row.to_format, rootFingerprint: row.to_root, wrapped: row.to_wrapped },
    }));
  },

  // A value that opened is not undecryptable, whatever was thought of it before.
  async store(trx, tokens) {
    const column = <T>(of: (token: MovedToken) => T): T[] => tokens.map(of);
    const { rows } = await sql`
      update credential_version held set token = moved.token, data_key_id = to_key.id, undecryptable_at = null
      from unnest(${column((t) => t.place.credential)}::uuid[], ${column((t) => t.place.version)}::int[], ${column((t) => t.from.id)}::uuid[],
          ${column((t) => t.to.id)}::uuid[], ${column((t) => t.moved)}::text[]) as moved (credential_id, version, from_id, to_id, token)
      join data_key to_key on to_key.id = moved.to_id and to_key.state = 'active'
      where held.credential_id = moved.credential_id and held.version = moved.version and held.data_key_id = moved.from_id and held.team_id = to_key.team_id
      returning 1`.execute(trx);
    // The rows are locked, so nothing but a key that is active no more can be in the way.
    return rows.length === tokens.length;
  },

  async fail(trx, rotation, { token: { place }, isUndecryptable, at }) {
    await trx.insertInto('key_rotation_failure')
      .values({ rotation_id: rotation.id, credential_id: place.credential, version: place.version, at }).execute();
    if (!isUndecryptable) return;
    await trx.updateTable('credential_version').set({ undecryptable_at: at })
      .where('team_id', '=', place.team).where('credential_id', '=', place.credential).where('version', '=', place.version)
      .where('undecryptable_at', 'is', null).execute();
  },
};

export const movers: Readonly<Record<TokenTable, Mover>> = { credential_version: credentialVersions };

/** Every rotation that runs, in any team, oldest first. */
export async function listRunningRotations(executor: Executor): Promise<RunningRotation[]> {
  const { rows } = await sql<RunningRotation>`
    select rotation.id, rotation.team_id as team, team.slug, rotation.created_by as "startedBy", rotation.cause in ('compromise', 'rootCompromise') as "isUrgent"
    from key_rotation rotation join team on team.id = rotation.team_id
    where rotation.state = 'running' order by rotation.id`.execute(executor);
  return rows;
}

/** Counts a batch; false when the rotation does not run any more, and then the batch must not be kept. Serialises the batches' ends. */
export async function countBatch(trx: Trx, rotation: RunningRotation, batch: { done: number; at: Date }): Promise<boolean> {
  const result = await trx.updateTable('key_rotation').set((set) => ({ done: set('done', '+', batch.done), progressed_at: batch.at }))
    .where('id', '=', rotation.id).where('state', '=', 'running').executeTakeFirst();
  return result.numUpdatedRows === 1n;
}

/**
 * Locks a running rotation against batches that end, and against cancelling; false when it does not run any more. No stronger than
 * they are: a batch that names failures holds the row for key share, and a wait for that could end in a deadlock.
 */
export async function lockRunning(trx: Trx, rotation: RunningRotation): Promise<boolean> {
  const row = await trx.selectFrom('key_rotation').select('id').where('id', '=', rotation.id).where('state', '=', 'running').forNoKeyUpdate().executeTakeFirst();
  return row !== undefined;
}

/** What is not under the active key, tokens that others hold included, and how many of these are failures of the rotation. */
export async function countLeft(trx: Trx, rotation: RunningRotation): Promise<{ left: number; failed: number }> {
  const { rows } = await sql<{ left: number; failed: number }>`
    select ${tokenCountBesidesSql(sql.ref('rotation.team_id'), sql.ref('to_key.id'))} as left,
      (select count(*) from key_rotation_failure failure where failure.rotation_id = rotation.id) as failed
    from key_rotation rotation join data_key to_key on to_key.team_id = rotation.team_id and to_key.state = 'active'
    where rotation.id = ${rotation.id}`.execute(trx);
  const row = rows[0];
  if (row === undefined) throw new Error('a team without an active key');
  return row;
}

/** Ends a locked rotation. */
export async function endRotation(
  trx: Trx, rotation: RunningRotation, end: { state: RotationState; at: Date },
): Promise<{ total: number; done: number; toKey: DataKeyId }> {
  return trx.updateTable('key_rotation').set({ state: end.state, ended_at: end.at })
    .where('id', '=', rotation.id).where('state', '=', 'running').returning(['total', 'done', 'to_key_id as toKey']).executeTakeFirstOrThrow();
}
