// Credentials as they would be after years: put straight into the tables, with the row MACs of the
// vault, any times and any problems.
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { sql } from 'kysely';
import { credentialRowMac } from '../../src/credentials/row-mac.ts';
import { type CredentialId, newId, type TeamId } from '../../src/shared/ids.ts';
import { intrude } from './intruder.ts';
import type { TestVault } from './vault.ts';

export interface Filled {
  readonly id: CredentialId;
  readonly team: string;
  readonly name: string;
  readonly type: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly state: 'enabled' | 'disabled' | 'deleted';
  /** Times as microseconds since 1970: finer than a Date. */
  readonly expiresAt: number | null;
  readonly rotateAfter: number | null;
  readonly createdAt: number;
  readonly updatedAt: number;
  readonly usedAt: number | null;
  readonly isUndecryptable: boolean;
  readonly isExposed: boolean;
  readonly isRefreshFailed: boolean;
  readonly isRejected: boolean;
  /** Of a type with a provider: what is written out is of an earlier revision. */
  readonly isOutdated: boolean;
}

/** What a plain one is like. */
export const plain = (team: string, name: string, atMs = Date.now()): Filled => ({
  id: newId<CredentialId>(),
  team,
  name,
  type: 'bearer',
  labels: {},
  state: 'enabled',
  expiresAt: null,
  rotateAfter: null,
  createdAt: atMs * 1000,
  updatedAt: atMs * 1000,
  usedAt: null,
  isUndecryptable: false,
  isExposed: false,
  isRefreshFailed: false,
  isRejected: false,
  isOutdated: false,
});

const timeOf = (microseconds: number | null): string =>
  microseconds === null
    ? 'null'
    : `(timestamptz 'epoch' + ${microseconds} * interval '1 microsecond')`;
const quoted = (text: string): string => `'${text.replaceAll("'", "''")}'`;

// The migration's own statement, for what was there before it.
const notesReceivers = /^update team set has_received [^;]*;/m.exec(
  readFileSync(join(import.meta.dirname, '../../migrations/0019_gather_lists.sql'), 'utf8'),
)![0];

/**
 * Stores them, made by alice; nothing of theirs can be opened. Those that are exposed were once
 * under a key that is marked: of their team, or else of another, from which they came then.
 */
export async function fillCredentials(vault: TestVault, filled: readonly Filled[]): Promise<void> {
  const { db, keyring } = vault;
  const { rows: teams } = await sql<{
    slug: string;
    id: TeamId;
    key: string;
    by: string;
    marked: string | null;
  }>`
    select team.slug, team.id, data_key.id as key, subject.id as by, (select id from data_key marked where compromised_at is not null order by marked.team_id <> team.id limit 1) as marked from team join data_key on data_key.team_id = team.id and data_key.state = 'active', subject where sub = 'alice'`.execute(
    db,
  );
  const publicFieldsOf = ({ isOutdated }: Filled): Record<string, string | number> =>
    isOutdated ? { provider: 'google', providerRevision: 0 } : {};
  const policy = { delivery: [], allowedHosts: [] };
  const token = `gAAAA${randomBytes(90).toString('base64url')}`;
  for (let at = 0; at < filled.length; at += 1_000) {
    const part = filled
      .slice(at, at + 1_000)
      .map((row) => ({ row, of: teams.find(({ slug }) => slug === row.team)! }));
    const seal = ({ row, of }: (typeof part)[number]): string =>
      credentialRowMac(keyring, {
        id: row.id,
        team: of.id,
        name: row.name,
        type: row.type,
        state: row.state,
        stateBefore: null,
        version: 1,
        expiresAt: row.expiresAt === null ? null : new Date(Math.floor(row.expiresAt / 1000)),
        revision: 1,
        publicFields: publicFieldsOf(row),
        policy,
        secretFieldNames: ['token'],
      }).toString('hex');
    const values = (render: (each: (typeof part)[number]) => string): string =>
      part.map((each) => `(${render(each)})`).join(',');
    const failing = part.filter(({ row }) => row.isRefreshFailed || row.isRejected);
    await intrude(
      db,
      `insert into credential (id, team_id, name, type, labels, state, current_version, expires_at, rotate_after, revision, seal, created_at, created_by, updated_at, updated_by, deleted_at) values ${values(
        (each) => {
          const { row, of } = each;
          return `'${row.id}', '${of.id}', ${quoted(row.name)}, '${row.type}', ${quoted(JSON.stringify(row.labels))}, '${row.state}', 1, ${timeOf(row.expiresAt)}, ${timeOf(row.rotateAfter)}, 1, '\\x${seal(each)}', ${timeOf(row.createdAt)}, '${of.by}', ${timeOf(row.updatedAt)}, '${of.by}', ${row.state === 'deleted' ? 'now()' : 'null'}`;
        },
      )}`,
      `insert into credential_usage (credential_id, team_id, made_at, use_count, last_used_at) values ${values(({ row, of }) => `'${row.id}', '${of.id}', ${timeOf(row.createdAt)}, 0, ${timeOf(row.usedAt)}`)}`,
      `insert into credential_version (team_id, credential_id, version, data_key_id, token, secret_field_names, public_fields, policy, undecryptable_at, created_at, created_by, key_history) values ${values(
        ({ row, of }) =>
          `'${of.id}', '${row.id}', 1, '${of.key}', '${token}', '{token}', '${JSON.stringify(publicFieldsOf(row))}', '${JSON.stringify(policy)}', ${row.isUndecryptable ? 'now()' : 'null'}, ${timeOf(row.createdAt)}, '${of.by}', array['${of.key}'${row.isExposed ? `, '${of.marked}'` : ''}]::uuid[]`,
      )}`,
      ...(failing.length === 0
        ? []
        : [
            `insert into oauth_token (credential_id, team_id, sequence, client, policy, failure, failed_at, is_refreshable, rejected_at) values ${failing
              .map(
                ({ row, of }) =>
                  `('${row.id}', '${of.id}', 1, '{}', '{}', ${row.isRefreshFailed ? `'invalid_grant', now()` : 'null, null'}, true, ${row.isRejected ? 'now()' : 'null'})`,
              )
              .join(',')}`,
          ]),
    );
  }
  await intrude(db, notesReceivers);
}
