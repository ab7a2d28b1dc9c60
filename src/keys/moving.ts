// A rotation in SQL, but for the tokens themselves: which ones run, how far they are, their end.
import { sql } from 'kysely';
import type { Executor, Trx } from '../db/client.ts';
import { statement } from '../db/statement.ts';
import type { RotationState } from '../db/tables.ts';
import type { DataKeyId, RotationId } from '../shared/ids.ts';
import type { RunningRotation } from './mover.ts';
import { rotationFailureCountSql, tokenCountBesidesSql } from './tables/counts.ts';

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
