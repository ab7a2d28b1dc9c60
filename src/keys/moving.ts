// Re-encryption of tokens in SQL. Each table of the list of token tables has its functions here: a
// table without one does not compile.
import { sql } from 'kysely';
import type { WrappedDataKey } from '../crypto/index.ts';
import { contentBytes, withinBytes } from '../db/bytes.ts';
import type { Executor, Trx } from '../db/client.ts';
import { statement } from '../db/statement.ts';
import type { DataKeyState, RotationState } from '../db/tables.ts';
import type { CredentialId, DataKeyId, RotationId, TeamId } from '../shared/ids.ts';
import type { JsonObject } from '../shared/json.ts';
import { oauthTokens } from './moving-oauth.ts';
import {
  rotationFailureCountSql,
  tokenCountBesidesSql,
  type TokenTable,
} from '../db/token-tables.ts';
import { batchBytesMax, type Reencryptor, type RunningRotation } from './mover.ts';

const smallestId = sql.raw(`'00000000-0000-0000-0000-000000000000'::uuid`);

interface VersionRow {
  readonly credential: CredentialId;
  readonly version: number;
  readonly token: string;
  readonly public_fields: JsonObject;
  readonly policy: JsonObject;
  readonly secret_field_names: readonly string[];
  readonly type: string;
  readonly from_id: DataKeyId;
  readonly from_state: DataKeyState;
  readonly to_id: DataKeyId;
  readonly bytes: number;
}

/**
 * For the rest of the transaction every row is found by an index and in its order. What the planner
 * thinks of the tables can be as old as the last vacuum, and a team's rows say nothing of
 * another's: left to itself it may sort all tokens of a key for each batch.
 */
export async function planByIndex(trx: Trx): Promise<void> {
  await sql
    .raw(
      ['seqscan', 'bitmapscan', 'sort', 'hashjoin', 'mergejoin', 'material']
        .map((method) => `set local enable_${method} = off`)
        .join('; '),
    )
    .execute(trx);
}

// A range of one key, and not an equality, so that only credential_version_data_key has this order:
// the primary key would lead past the rows of every other team. Keys are walked in their order too:
// what was found exhausted is not looked at again in this pass.
const hold = statement<
  {
    rotation: RotationId;
    team: TeamId;
    passOver: readonly DataKeyId[];
    key: DataKeyId | null;
    credential: CredentialId | null;
    version: number | null;
    limit: number;
  },
  VersionRow
>(
  (of) =>
    sql`${withinBytes(
      sql`
  select held.credential_id as credential, held.version, held.token, held.public_fields,
    held.policy, held.secret_field_names, credential.type,
    from_key.id as from_id, from_key.state as from_state, to_key.id as to_id,
    octet_length(held.token) + ${contentBytes('held')} as bytes
  from key_rotation rotation
  join data_key to_key on to_key.team_id = rotation.team_id and to_key.state = 'active'
  cross join lateral (
    select id, team_id, state from data_key
    where team_id = rotation.team_id and id <> to_key.id and id <> all (${of('passOver')}::uuid[])
      and id >= coalesce(${of('key')}::uuid, ${smallestId})
    order by team_id, id
  ) from_key
  cross join lateral (
    select version.credential_id, version.version, version.token, version.public_fields,
      version.policy, version.secret_field_names
    from credential_version version
    where version.data_key_id <= from_key.id and version.team_id = from_key.team_id
      and (version.data_key_id, version.credential_id, version.version) > (from_key.id,
        case when from_key.id = ${of('key')}::uuid then ${of('credential')}::uuid else ${smallestId}
          end,
        case when from_key.id = ${of('key')}::uuid then ${of('version')}::int else 0 end)
      and not exists (
        select 1 from key_rotation_failure failure
        where failure.rotation_id = rotation.id and failure.credential_id = version.credential_id
          and failure.version = version.version)
    order by version.data_key_id, version.credential_id, version.version
    limit ${of('limit')}::int for update of version skip locked
  ) held
  join credential on credential.id = held.credential_id and credential.team_id = rotation.team_id
  where rotation.id = ${of('rotation')}::uuid and rotation.team_id = ${of('team')}::uuid
    and rotation.state = 'running'
  limit ${of('limit')}::int`,
      batchBytesMax,
    )}`,
);

/** The wrapped material of a batch's keys; their states were read with the tokens. */
async function keysById(
  trx: Trx,
  team: TeamId,
  ids: readonly DataKeyId[],
): Promise<ReadonlyMap<DataKeyId, WrappedDataKey>> {
  const { rows } = await sql<WrappedDataKey>`
    select id, team_id as team, version, format, root_fingerprint as "rootFingerprint", wrapped
      from data_key where team_id = ${team} and id = any (${ids}::uuid[])`.execute(trx);
  return new Map(rows.map((row) => [row.id, row]));
}

interface Columns {
  credentials: readonly CredentialId[];
  versions: readonly number[];
  from: readonly DataKeyId[];
  tokens: readonly string[];
  team: TeamId;
  to: DataKeyId;
}

// A value that opened is not undecryptable, whatever was thought of it before.
const store = statement<Columns, object>(
  (of) => sql`
  update credential_version held set token = moved.token, data_key_id = to_key.id,
    undecryptable_at = null
  from unnest(${of('credentials')}::uuid[], ${of('versions')}::int[], ${of('from')}::uuid[],
    ${of('tokens')}::text[]) as moved (credential_id, version, from_id, token)
  join data_key to_key on to_key.id = ${of('to')}::uuid and to_key.team_id = ${of('team')}::uuid
    and to_key.state = 'active'
  where held.credential_id = moved.credential_id and held.version = moved.version
    and held.data_key_id = moved.from_id and held.team_id = to_key.team_id
  returning 1`,
);

const credentialVersions: Reencryptor = {
  async hold(trx, { id: rotation, team }, { limit, passOver, after }) {
    const rows = await hold(trx, {
      rotation,
      team,
      passOver,
      key: after?.key ?? null,
      credential: after?.credential ?? null,
      version: after?.version ?? null,
      limit,
    });
    if (rows.length === 0) return [];
    const keys = await keysById(trx, team, [
      ...new Set(rows.flatMap(({ from_id, to_id }) => [from_id, to_id])),
    ]);
    return rows.map(
      ({
        credential,
        version,
        token,
        public_fields: publicFields,
        policy,
        secret_field_names: secretFields,
        type,
        from_id: from,
        from_state: fromState,
        to_id: to,
        bytes,
      }) => ({
        binding: { team, credential, version, type, publicFields, policy, secretFields },
        token,
        bytes,
        from: keyOf(keys, from),
        fromState,
        to: keyOf(keys, to),
      }),
    );
  },

  async store(trx, tokens) {
    const [first] = tokens;
    if (first === undefined) return true;
    const rows = await store(trx, {
      credentials: tokens.map(({ binding }) => binding.credential),
      versions: tokens.map(({ binding }) => binding.version),
      from: tokens.map(({ from }) => from.id),
      tokens: tokens.map(({ moved }) => moved),
      team: first.binding.team,
      to: first.to.id,
    });
    // The rows are locked, so nothing but a key that is active no more can be in the way.
    return rows.length === tokens.length;
  },

  async fail(trx, rotation, { token: { binding }, isUndecryptable, at }) {
    await trx
      .insertInto('key_rotation_failure')
      .values({
        rotation_id: rotation.id,
        team_id: binding.team,
        credential_id: binding.credential,
        version: binding.version,
        at,
      })
      .execute();
    if (!isUndecryptable) return;
    await trx
      .updateTable('credential_version')
      .set({ undecryptable_at: at })
      .where('team_id', '=', binding.team)
      .where('credential_id', '=', binding.credential)
      .where('version', '=', binding.version)
      .where('undecryptable_at', 'is', null)
      .execute();
  },
};

/** Keys are never deleted while their team lives. */
function keyOf(keys: ReadonlyMap<DataKeyId, WrappedDataKey>, id: DataKeyId): WrappedDataKey {
  const key = keys.get(id);
  if (key === undefined) throw new Error('a token under a key that is not there');
  return key;
}

export const reencryptors: Readonly<Record<TokenTable, Reencryptor>> = {
  credential_version: credentialVersions,
  oauth_token: oauthTokens,
};

/** Every rotation that runs, in any team, oldest first. */
export async function listRunningRotations(executor: Executor): Promise<RunningRotation[]> {
  const { rows } = await sql<RunningRotation>`
    select rotation.id, rotation.team_id as team, team.slug, rotation.created_by as "startedBy",
      rotation.cause in ('compromise', 'rootCompromise') as "isUrgent", rotation.total,
      rotation.created_at as "createdAt"
    from key_rotation rotation join team on team.id = rotation.team_id
    where rotation.state = 'running' order by rotation.id`.execute(executor);
  return rows;
}

/** More is no count; and what somebody wrote there keeps no rotation from going on. */
const countMax = sql.lit(Number.MAX_SAFE_INTEGER);

const count = statement<{ rotation: RotationId; done: number; at: Date }, object>(
  (of) => sql`
  update key_rotation
    set done = least(done, ${countMax} - ${of('done')}::bigint) + ${of('done')}::bigint,
    progressed_at = ${of('at')}::timestamptz
  where id = ${of('rotation')}::uuid and state = 'running' returning 1`,
);

/**
 * Counts what a rotation has to move, where nobody has: what it moved already and what is left, as
 * one statement sees them, so it does not matter when. Waits for nobody while it counts.
 */
export async function settleTotal(executor: Executor, rotation: RotationId): Promise<void> {
  await sql`
    with seen as materialized (
      select rotation.done +
        ${tokenCountBesidesSql(sql.ref('rotation.team_id'), sql.ref('to_key.id'))} as total
      from key_rotation rotation join data_key to_key on to_key.team_id = rotation.team_id
        and to_key.state = 'active'
      where rotation.id = ${rotation} and rotation.total = 0)
    update key_rotation set total = seen.total from seen where key_rotation.id = ${rotation}
      and key_rotation.total = 0`.execute(executor);
}

/**
 * Counts a batch; false when the rotation does not run any more, and then the batch must not be
 * kept. Serialises the batches' ends.
 */
export async function countBatch(
  trx: Trx,
  rotation: RunningRotation,
  batch: { done: number; at: Date },
): Promise<boolean> {
  return (await count(trx, { rotation: rotation.id, ...batch })).length === 1;
}

/**
 * Locks a running rotation against batches that end, and against cancelling; false when it does not
 * run any more. No stronger than they are: a batch that names failures holds the row for key share,
 * and a wait for that could end in a deadlock.
 */
export async function lockRunning(trx: Trx, rotation: RunningRotation): Promise<boolean> {
  const row = await trx
    .selectFrom('key_rotation')
    .select('id')
    .where('id', '=', rotation.id)
    .where('state', '=', 'running')
    .forNoKeyUpdate()
    .executeTakeFirst();
  return row !== undefined;
}

/**
 * What is not under the active key, tokens that others hold included, and how many of these are
 * failures of the rotation.
 */
export async function countLeft(
  executor: Executor,
  rotation: RunningRotation,
): Promise<{ left: number; failed: number }> {
  const { rows } = await sql<{ left: number; failed: number }>`
    select ${tokenCountBesidesSql(sql.ref('rotation.team_id'), sql.ref('to_key.id'))} as left,
      ${rotationFailureCountSql} as failed
    from key_rotation rotation join data_key to_key on to_key.team_id = rotation.team_id
      and to_key.state = 'active'
    where rotation.id = ${rotation.id} and rotation.state = 'running'`.execute(executor);
  const row = rows[0];
  if (row === undefined) return { left: 0, failed: 0 };
  return row;
}

/** Ends a locked rotation. */
export async function endRotation(
  trx: Trx,
  rotation: RunningRotation,
  end: { state: RotationState; at: Date; failed: number },
): Promise<{ total: number; done: number; toKey: DataKeyId }> {
  return trx
    .updateTable('key_rotation')
    .set({
      state: end.state,
      ended_at: end.at,
      total: sql<number>`greatest(least(total, ${countMax}),
        least(done, ${countMax} - ${end.failed}::bigint) + ${end.failed}::bigint)`,
      done: sql<number>`least(done, ${countMax})`,
    })
    .where('id', '=', rotation.id)
    .where('state', '=', 'running')
    .returning(['total', 'done', 'to_key_id as toKey'])
    .executeTakeFirstOrThrow();
}
