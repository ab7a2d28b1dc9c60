// The tables that the floor writes to, in a schema of their own: the columns of the vault's, with
// primary keys and the unique name, without triggers, foreign keys or further indexes. The audit
// insert is the one that the design asks for: an event with the hash of the address, the address in
// a row beside it, both in tables by month. What it reads besides are the vault's own rows.
import type pg from 'pg';
import { encrypt, type FernetKey } from '../src/crypto/fernet.ts';
import { movingTable } from './bare-loop.ts';
import { teams } from './setting.ts';

const tables = `
create schema floor;
create table floor.credential (
  id uuid primary key, team_id uuid not null, name text not null, type text not null, description text, labels jsonb not null, state text not null,
  current_version integer not null, expires_at timestamptz, revision integer not null, created_at timestamptz not null, created_by uuid not null,
  updated_at timestamptz not null, updated_by uuid not null, unique (team_id, name));
create table floor.credential_version (
  team_id uuid not null, credential_id uuid not null, version integer not null, data_key_id uuid not null, token text not null, secret_field_names text[] not null,
  public_fields jsonb not null, policy jsonb not null, created_at timestamptz not null, created_by uuid not null, primary key (credential_id, version));
create table floor.audit_event (
  id uuid not null, at timestamptz not null, actor_id uuid, team_id uuid, action text not null, target_type text not null, target_id text not null, decision text not null,
  request_id text not null, key_id uuid, credential_version integer, address_hash bytea, details jsonb not null, mac_version integer not null, mac bytea not null, primary key (at, id)
) partition by range (at);
create table floor.audit_event_all partition of floor.audit_event default;
create table floor.audit_address (event_id uuid not null, at timestamptz not null, address text not null, salt bytea not null, primary key (at, event_id)) partition by range (at);
create table floor.audit_address_all partition of floor.audit_address default;
create table floor.token (credential_id uuid primary key, data_key_id uuid not null, token text not null);
${movingTable}`;

/**
 * Makes the tables where there are none, and gives each stored credential a token under the floor's
 * key.
 */
export async function prepareFloor(
  pool: pg.Pool,
  key: FernetKey,
  plaintextOf: (credential: string) => Buffer,
): Promise<void> {
  await pool.query('drop schema if exists floor cascade');
  await pool.query(tables);
  for (const [table, team] of [
    ['token', teams.read],
    ['moving', teams.rotate],
  ] as const) {
    const { rows } = await pool.query<{ id: string }>(
      'select credential.id from credential join team on team.id = team_id where slug = $1',
      [team],
    );
    const time = BigInt(Math.floor(Date.now() / 1000));
    const ids = rows.map(({ id }) => id);
    await pool.query(
      `insert into floor.${table} select id, ${table === 'token' ? 'gen_random_uuid()' : '1'}, token from unnest($1::uuid[], $2::text[]) as made (id, token)`,
      [ids, ids.map((id) => encrypt(key, plaintextOf(id), time))],
    );
  }
  await pool.query('vacuum analyze');
}
