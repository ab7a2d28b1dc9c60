// Declared types in SQL.
import { sql } from 'kysely';
import type { Executor, Trx } from '../../db/client.ts';
import type { SubjectId } from '../../shared/ids.ts';
import type { DeclaredRow, ProtectedType } from './rows.ts';
import { declarationJson } from './declaration.ts';

const columns =
  sql.raw(`declared.name, declared.id, declared.stored_name as "storedName", declared.declaration,
    declared.revision, declared.row_mac as "rowMac",
  declared.created_at as "createdAt",
    coalesce(creator.sub, declared.created_by::text) as "createdBy",
  declared.updated_at as "updatedAt",
    coalesce(updater.sub, declared.updated_by::text) as "updatedBy"`);
const from =
  sql.raw(`credential_type declared left join subject creator on creator.id = declared.created_by
  left join subject updater on updater.id = declared.updated_by`);

/** One declared type. */
export async function findDeclared(
  executor: Executor,
  name: string,
): Promise<DeclaredRow | undefined> {
  const { rows } = await sql<DeclaredRow>`
    select ${columns} from ${from} where declared.name = ${name}`.execute(executor);
  return rows[0];
}

/** All of them, by name. */
export async function listDeclared(executor: Executor, limit: number): Promise<DeclaredRow[]> {
  const { rows } = await sql<DeclaredRow>`
    select ${columns} from ${from} order by declared.name limit ${limit}`.execute(executor);
  return rows;
}

/** Waits for whoever declares a type: two at once would not see each other's row. */
export async function lockAllDeclared(trx: Trx): Promise<void> {
  await sql`select pg_advisory_xact_lock(hashtext('credential-vault declared types'))`.execute(trx);
}

/** Whether there are so many. Called under the lock of all. */
export async function areDeclared(trx: Trx, count: number): Promise<boolean> {
  const { rows } = await sql`
    select name from credential_type order by name limit ${count}`.execute(trx);
  return rows.length >= count;
}

/**
 * Locks a declared type against other changes, and against credentials that would begin to use it.
 */
export async function lockDeclared(trx: Trx, name: string): Promise<boolean> {
  const { rows } =
    await sql`select name from credential_type where name = ${name} for update`.execute(trx);
  return rows.length > 0;
}

/** Holds a declared type as it is until the end of the transaction; what credentials name it. */
export async function holdDeclared(trx: Trx, name: string): Promise<string | undefined> {
  const { rows } = await sql<{ storedName: string }>`
    select stored_name as "storedName" from credential_type where name = ${name} for share`.execute(
    trx,
  );
  return rows[0]?.storedName;
}

/**
 * Whether any credential is of the type, under whatever declaration of it: with each of its
 * versions, deleted ones and those that are offered among them.
 */
export async function isDeclaredInUse(trx: Trx, name: string): Promise<boolean> {
  const { rows } = await sql`
    select 1 from credential
    where strpos(type, '#') > 0 and split_part(type, '#', 1) = ${name} limit 1`.execute(trx);
  return rows.length > 0;
}

export interface DeclaredWrite extends ProtectedType {
  readonly rowMac: Buffer;
  readonly by: SubjectId;
  readonly at: Date;
}

/** Adds one, or takes the place of the one of its name. */
export async function writeDeclared(trx: Trx, row: DeclaredWrite): Promise<void> {
  await sql`
    insert into credential_type
      (name, id, stored_name, declaration, revision, row_mac, created_at, created_by, updated_at,
        updated_by)
    values (${row.name}, ${row.id}, ${row.storedName},
      ${JSON.stringify(declarationJson(row.declaration))}::jsonb,
      ${row.revision}, ${row.rowMac}, ${row.at}, ${row.by}, ${row.at}, ${row.by})
    on conflict (name) do update set id = excluded.id, stored_name = excluded.stored_name,
      declaration = excluded.declaration, revision = excluded.revision, row_mac = excluded.row_mac,
      updated_at = excluded.updated_at, updated_by = excluded.updated_by`.execute(trx);
}

/** Removes one. */
export async function deleteDeclared(trx: Trx, name: string): Promise<void> {
  await sql`delete from credential_type where name = ${name}`.execute(trx);
}
