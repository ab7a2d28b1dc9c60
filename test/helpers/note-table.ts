// A table with ciphertexts that the vault does not have, and its descriptor: what somebody writes
// who adds one.
import { sql } from 'kysely';
import type { Db } from '../../src/db/client.ts';
import type { CiphertextTable } from '../../src/keys/tables/table.ts';

/** A note that goes with a credential. */
export const notes: CiphertextTable = {
  name: 'credential_note',
  rows: 'one',
  number: 'edition',
  binding: {
    publicFields: 'shown',
    policy: 'policy',
    secretFields: undefined,
    typeSuffix: '/note',
  },
  undecryptable: {
    set: (at) => sql`undecryptable_at = ${at}`,
    isUnset: sql`held.undecryptable_at is null`,
    clear: sql`undecryptable_at = null`,
  },
  failures: 'key_rotation_note_failure',
  credentialTypes: 'every',
  storedBytes: sql<number>`octet_length(token)::bigint`,
  transfer: {
    busyUntil: { column: 'locked_until', refusal: 'The note is being written; try again.' },
    tooLarge: 'The note is too large to be moved.',
    undecryptable: 'The note does not open: delete it first.',
  },
  exported: {
    spelled: undefined,
    kind: 'note',
    schema: 'ExportNote',
    description: 'A note without its text.',
    members: { undecryptableAt: { column: 'undecryptable_at', form: 'timeOrNull' } },
  },
};

/** What its migration would be. */
export async function createNotes(db: Db): Promise<void> {
  await sql`
    create table credential_note (
      team_id uuid not null,
      credential_id uuid not null,
      edition integer not null,
      data_key_id uuid not null,
      token text not null,
      shown jsonb not null,
      policy jsonb not null,
      key_history uuid[] not null default '{}',
      undecryptable_at timestamptz,
      locked_until timestamptz,
      constraint credential_note_pkey primary key (credential_id),
      constraint credential_note_credential_fkey foreign key (team_id, credential_id)
        references credential (team_id, id) on delete cascade deferrable,
      constraint credential_note_data_key_fkey foreign key (team_id, data_key_id)
        references data_key (team_id, id),
      constraint credential_note_token_form check (token ~ '^(gAAAA|QQAAA)'))`.execute(db);
  await sql`
    create index credential_note_data_key on credential_note (data_key_id, credential_id)`.execute(
    db,
  );
  await sql`
    create trigger token_needs_active_key before insert or update of token, data_key_id
      on credential_note for each row execute function token_needs_active_key()`.execute(db);
  await sql`
    create trigger credential_note_key_history before insert or update of data_key_id, key_history
      on credential_note for each row execute function credential_version_key_history()`.execute(
    db,
  );
  await sql`
    create table key_rotation_note_failure (
      rotation_id uuid not null references key_rotation (id) on delete cascade,
      credential_id uuid not null references credential_note (credential_id) on delete cascade,
      at timestamptz not null,
      primary key (rotation_id, credential_id))`.execute(db);
  const {
    rows: [row],
  } = await sql<{ source: string }>`
    select pg_get_functiondef(oid) as source from pg_proc
    where prosrc like '%data_key_in_use%' and pronamespace = 'public'::regnamespace`.execute(db);
  const oauth = 'exists (select 1 from oauth_token where data_key_id = new.id)';
  if (row === undefined || !row.source.includes(oauth)) throw new Error('no trigger to widen');
  const note = oauth.replace('oauth_token', 'credential_note');
  await sql.raw(row.source.replace(oauth, `${oauth} or ${note}`)).execute(db);
}
