// Engines and their public keys in SQL.
import { sql } from 'kysely';
import type { Executor, Trx } from '../db/client.ts';
import type { EngineId, SubjectId } from '../shared/ids.ts';
import type { PublicJwk } from './jwk.ts';
import type { GrantMacFields, TeamRef } from '../access/index.ts';
import type { EngineKeyRow, EngineRow, EngineState } from './types.ts';

const engineColumns = sql.raw(`engine.id, engine.subject_id as subject,
    coalesce(person.sub, engine.subject_id::text) as sub, engine.name, engine.state,
    engine.revision, engine.seal,
  engine.created_at as "createdAt", coalesce(creator.sub, engine.created_by::text) as "createdBy",
    engine.updated_at as "updatedAt",
    coalesce(updater.sub, engine.updated_by::text) as "updatedBy"`);
const engineFrom = sql.raw(`engine left join subject person on person.id = engine.subject_id
  left join subject creator on creator.id = engine.created_by left join subject updater
    on updater.id = engine.updated_by`);

type Bare = Omit<EngineRow, 'keys'>;

/** One engine with its keys. */
export async function findEngine(executor: Executor, id: EngineId): Promise<EngineRow | undefined> {
  const { rows } =
    await sql<Bare>`select ${engineColumns} from ${engineFrom} where engine.id = ${id}`.execute(
      executor,
    );
  return (await withKeys(executor, rows))[0];
}

/** Engines by name. */
export async function listEngines(
  executor: Executor,
  page: { limit: number; afterName: string | undefined },
): Promise<EngineRow[]> {
  const { rows } = await sql<Bare>`
    select ${engineColumns} from ${engineFrom}
    where ${page.afterName ?? null}::text is null
      or engine.name collate "C" > ${page.afterName ?? null}
    order by engine.name collate "C" limit ${page.limit}`.execute(executor);
  return withKeys(executor, rows);
}

async function withKeys(executor: Executor, engines: readonly Bare[]): Promise<EngineRow[]> {
  if (engines.length === 0) return [];
  const { rows: keys } = await sql<EngineKeyRow>`
    select engine_key.engine_id as engine, engine_key.kid, engine_key.jwk, engine_key.revision,
      engine_key.seal, engine_key.created_at as "createdAt",
      coalesce(creator.sub, engine_key.created_by::text) as "createdBy"
    from engine_key left join subject creator on creator.id = engine_key.created_by
    where engine_key.engine_id = any(${engines.map(({ id }) => id)}::uuid[])
    order by engine_key.created_at, engine_key.kid`.execute(executor);
  return engines.map((engine) => ({
    ...engine,
    keys: keys.filter((key) => key.engine === engine.id),
  }));
}

/** Locks the engine against other changes of it and of its keys, and against new memberships. */
export async function lockEngine(trx: Trx, id: EngineId): Promise<boolean> {
  return (
    (await trx
      .selectFrom('engine')
      .select('id')
      .where('id', '=', id)
      .forUpdate()
      .executeTakeFirst()) !== undefined
  );
}

/** Whether an engine is registered for the subject. */
export async function hasEngine(executor: Executor, subject: SubjectId): Promise<boolean> {
  const row = await executor
    .selectFrom('engine')
    .select('id')
    .where('subject_id', '=', subject)
    .executeTakeFirst();
  return row !== undefined;
}

/** The engine of a subject, held as it is to the end of the transaction. */
export async function holdEngineOf(
  trx: Trx,
  subject: SubjectId,
): Promise<{ id: EngineId; state: EngineState; revision: number; seal: Buffer } | undefined> {
  return trx
    .selectFrom('engine')
    .select(['id', 'state', 'revision', 'seal'])
    .where('subject_id', '=', subject)
    .forShare()
    .executeTakeFirst();
}

/** Inserts an enabled engine at revision 1. */
export async function insertEngine(
  trx: Trx,
  engine: { id: EngineId; subject: SubjectId; name: string; seal: Buffer; by: SubjectId; at: Date },
): Promise<void> {
  await trx
    .insertInto('engine')
    .values({
      id: engine.id,
      subject_id: engine.subject,
      name: engine.name,
      state: 'enabled',
      revision: 1,
      seal: engine.seal,
      created_at: engine.at,
      created_by: engine.by,
      updated_at: engine.at,
      updated_by: engine.by,
    })
    .execute();
}

/** Writes name, state, revision and row MAC of an engine that this transaction has locked. */
export async function updateEngine(
  trx: Trx,
  engine: {
    id: EngineId;
    name: string;
    state: EngineState;
    revision: number;
    seal: Buffer;
    by: SubjectId;
    at: Date;
  },
): Promise<void> {
  await trx
    .updateTable('engine')
    .set({
      name: engine.name,
      state: engine.state,
      revision: engine.revision,
      seal: engine.seal,
      updated_at: engine.at,
      updated_by: engine.by,
    })
    .where('id', '=', engine.id)
    .execute();
}

/** Deletes an engine with its keys. */
export async function deleteEngine(trx: Trx, id: EngineId): Promise<void> {
  await trx.deleteFrom('engine').where('id', '=', id).execute();
}

/** Inserts a key; a unique violation of engine_key_pkey says that the engine has it. */
export async function insertEngineKey(
  trx: Trx,
  key: {
    engine: EngineId;
    kid: string;
    jwk: PublicJwk;
    revision: number;
    seal: Buffer;
    by: SubjectId;
    at: Date;
  },
): Promise<void> {
  await trx
    .insertInto('engine_key')
    .values({
      engine_id: key.engine,
      kid: key.kid,
      jwk: JSON.stringify(key.jwk),
      revision: key.revision,
      seal: key.seal,
      created_at: key.at,
      created_by: key.by,
    })
    .execute();
}

/** Deletes a key; whether there was one. */
export async function deleteEngineKey(trx: Trx, engine: EngineId, kid: string): Promise<boolean> {
  const result = await trx
    .deleteFrom('engine_key')
    .where('engine_id', '=', engine)
    .where('kid', '=', kid)
    .executeTakeFirst();
  return result.numDeletedRows === 1n;
}

/** The teams in which the subject holds the role engine, and the rows that say so. */
export async function listTeamsOfEngine(
  trx: Trx,
  subject: SubjectId,
): Promise<(TeamRef & { actsForItself: boolean; revision: number; seal: Buffer })[]> {
  return trx
    .selectFrom('membership')
    .innerJoin('team', 'team.id', 'membership.team_id')
    .select([
      'team.id',
      'team.slug',
      'membership.acts_for_itself as actsForItself',
      'membership.revision',
      'membership.seal',
    ])
    .where('membership.subject_id', '=', subject)
    .where('membership.role', '=', 'engine')
    .orderBy('team.id')
    .execute();
}

/**
 * The teams that it serves: where it holds the role engine, and whose credentials were granted to
 * it.
 */
export async function listTeamsServed(trx: Trx, subject: SubjectId): Promise<TeamRef[]> {
  const { rows } = await sql<TeamRef>`
    select team.id, team.slug from team where id in (
      select team_id from membership where subject_id = ${subject} and role = 'engine'
      union select team_id from credential_grant where grantee_subject_id = ${subject}
        and grantee_kind = 'engine') order by team.id`.execute(trx);
  return rows;
}

/** A grant to an engine, as far as its row does not follow from that. */
type GrantToEngine = Pick<
  GrantMacFields,
  'id' | 'team' | 'slug' | 'credential' | 'access' | 'revision'
>;

/** Ends what was granted to the engine itself; what it was. */
export async function deleteGrantsOfEngine(
  trx: Trx,
  subject: SubjectId,
): Promise<{ grant: GrantToEngine; seal: Buffer }[]> {
  const { rows } = await sql<GrantToEngine & { seal: Buffer }>`
    delete from credential_grant held using team where team.id = held.team_id
      and held.grantee_subject_id = ${subject} and held.grantee_kind = 'engine'
    returning held.id, held.credential_id as credential, team.id as team, team.slug, held.access,
      held.revision, held.seal`.execute(trx);
  return rows.map(({ seal, ...grant }) => ({ grant, seal }));
}

/** Ends the memberships of an engine. */
export async function deleteMembershipsOfEngine(trx: Trx, subject: SubjectId): Promise<void> {
  await trx
    .deleteFrom('membership')
    .where('subject_id', '=', subject)
    .where('role', '=', 'engine')
    .execute();
}
