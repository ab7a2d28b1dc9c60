// Offers in SQL, and what moves with a credential.
import { sql } from 'kysely';
import type { WrappedDataKey } from '../crypto/index.ts';
import { contentBytes, upToBytes } from '../db/bytes.ts';
import type { Executor, Trx } from '../db/client.ts';
import type { CredentialState, GrantAccess, GranteeKind, LivingState } from '../db/tables.ts';
import type {
  CredentialId,
  DataKeyId,
  GrantId,
  SubjectId,
  TeamId,
  TransferId,
} from '../shared/ids.ts';
import type { JsonObject } from '../shared/json.ts';
import type { TransferMacFields } from './transfer-row-mac.ts';
import type { Policy, PublicFields } from '../credentials/index.ts';
import type { TransferRow } from './types.ts';

type Row = Omit<TransferRow, 'offered'> & {
  readonly name: string;
  readonly type: string;
  readonly state: CredentialState;
  readonly stateBefore: LivingState | null;
  readonly version: number;
  readonly credentialExpiresAt: Date | null;
  readonly credentialRevision: number;
  readonly publicFields: PublicFields;
  readonly policy: Policy;
  readonly secretFieldNames: string[];
};

const columns =
  sql.raw(`held.id, held.team_id as team, source.slug, held.credential_id as credential,
    held.to_team_id as "to", target.slug as "toSlug", held.expires_at as "expiresAt",
  held.revision, held.seal, held.created_at as "createdAt",
    coalesce(creator.sub, held.created_by::text) as "createdBy",
  credential.name, credential.type, credential.state, credential.state_before as "stateBefore",
    credential.current_version as version, credential.expires_at as "credentialExpiresAt",
  credential.revision as "credentialRevision", credential.seal as "credentialMac",
    current.public_fields as "publicFields", current.policy,
    current.secret_field_names as "secretFieldNames"
  from credential_transfer held
  cross join lateral (select slug from team where team.id = held.team_id
    and team.deleted_at is null offset 0) source
  cross join lateral (select slug from team where team.id = held.to_team_id
    and team.deleted_at is null offset 0) target
  join credential on credential.id = held.credential_id and credential.team_id = held.team_id
    and credential.state <> 'deleted'
  join credential_version current on current.team_id = credential.team_id
    and current.credential_id = credential.id and current.version = credential.current_version
  left join subject creator on creator.id = held.created_by`);

const transferOf = ({
  name,
  type,
  state,
  stateBefore,
  version,
  credentialExpiresAt,
  credentialRevision,
  publicFields,
  policy,
  secretFieldNames,
  ...row
}: Row): TransferRow => ({
  ...row,
  offered: {
    id: row.credential,
    team: row.team,
    name,
    type,
    state,
    stateBefore,
    version,
    expiresAt: credentialExpiresAt,
    revision: credentialRevision,
    publicFields,
    policy,
    secretFieldNames,
  },
});

/** One offer of a living credential between living teams, expired or not. */
export async function findTransfer(
  executor: Executor,
  id: TransferId,
): Promise<TransferRow | undefined> {
  const { rows } = await sql<Row>`select ${columns} where held.id = ${id}`.execute(executor);
  return rows[0] === undefined ? undefined : transferOf(rows[0]);
}

/** Whether there is an offer of the credential, whatever it is worth. */
export async function findTransferOf(
  trx: Trx,
  credential: CredentialId,
): Promise<TransferId | undefined> {
  return (
    await trx
      .selectFrom('credential_transfer')
      .select('id')
      .where('credential_id', '=', credential)
      .executeTakeFirst()
  )?.id;
}

/** Open offers of a team and to it, in the order in which they were made. */
export async function listTransfers(
  executor: Executor,
  team: TeamId,
  page: { limit: number; after: string | undefined; now: Date },
): Promise<TransferRow[]> {
  const { rows } = await sql<Row>`
    select ${columns} where (held.team_id = ${team} or held.to_team_id = ${team})
      and held.expires_at > ${page.now}
      and ${page.after === undefined ? sql`true` : sql`held.id > ${page.after}::uuid`}
    order by held.id limit ${page.limit}`.execute(executor);
  return rows.map(transferOf);
}

/** Inserts an offer. */
export async function insertTransfer(
  trx: Trx,
  row: TransferMacFields & { readonly seal: Buffer; readonly by: SubjectId; readonly at: Date },
): Promise<void> {
  await trx
    .insertInto('credential_transfer')
    .values({
      id: row.id,
      team_id: row.team,
      credential_id: row.credential,
      to_team_id: row.to,
      expires_at: row.expiresAt,
      revision: row.revision,
      seal: row.seal,
      created_at: row.at,
      created_by: row.by,
    })
    .execute();
}

/** Ends an offer; whether there was one. */
export async function deleteTransfer(trx: Trx, id: TransferId): Promise<boolean> {
  return (
    (await trx.deleteFrom('credential_transfer').where('id', '=', id).executeTakeFirst())
      .numDeletedRows === 1n
  );
}

/**
 * Locks a credential against everything, its offer and its stored tokens; whether the first two are
 * there. What is to move is read by later statements: a row that a rotation held until then would
 * come with the key that it had before. Versions need no lock: whoever makes or destroys one locks
 * the credential, and a rotation changes no value.
 */
export async function lockToMove(
  trx: Trx,
  { id, team, credential }: Pick<TransferMacFields, 'id' | 'team' | 'credential'>,
): Promise<boolean> {
  const { rows } = await sql`select 1 from credential where id = ${credential} and team_id = ${team}
      for update`.execute(trx);
  const { rows: offers } =
    await sql`select 1 from credential_transfer where id = ${id} for update`.execute(trx);
  await sql`select 1 from oauth_token where credential_id = ${credential} for update`.execute(trx);
  return rows.length === 1 && offers.length === 1;
}

export interface EndedGrant {
  readonly id: GrantId;
  readonly kind: GranteeKind;
  readonly grantee: TeamId | SubjectId;
  readonly name: string;
  readonly access: GrantAccess;
  readonly revision: number;
  readonly seal: Buffer;
}

/**
 * Ends what hung on the former team: grants, tickets, connections that were begun, being the team's
 * webhook.
 */
export async function endUses(
  trx: Trx,
  credential: CredentialId,
): Promise<{ grants: EndedGrant[]; tickets: number }> {
  const { rows: grants } = await sql<EndedGrant>`
    with gone as (delete from credential_grant where credential_id = ${credential}
      returning id, grantee_kind, grantee_team_id, grantee_subject_id, access, revision, seal)
    select gone.id, gone.grantee_kind as kind,
      coalesce(gone.grantee_team_id, gone.grantee_subject_id) as grantee,
      coalesce(team.slug, subject.sub) as name, gone.access, gone.revision, gone.seal
    from gone left join team on team.id = gone.grantee_team_id
      left join subject on subject.id = gone.grantee_subject_id order by gone.id`.execute(trx);
  const { numDeletedRows } = await trx
    .deleteFrom('broker_ticket')
    .where('credential_id', '=', credential)
    .executeTakeFirst();
  await trx.deleteFrom('oauth_authorization').where('credential_id', '=', credential).execute();
  await trx.deleteFrom('webhook').where('credential_id', '=', credential).execute();
  return { grants, tickets: Number(numDeletedRows) };
}

/**
 * Writes a locked credential's new team. What hangs on it follows in this transaction, or none of
 * it happens.
 */
export async function moveCredential(
  trx: Trx,
  row: {
    id: CredentialId;
    from: TeamId;
    to: TeamId;
    revision: number;
    seal: Buffer;
    by: SubjectId;
    at: Date;
  },
): Promise<void> {
  await sql`set constraints credential_version_credential_fkey,
    oauth_token_credential_fkey deferred`.execute(trx);
  // What rotations of the former team could not open is theirs no more.
  await sql`delete from key_rotation_failure where team_id = ${row.from}
    and credential_id = ${row.id}`.execute(trx);
  await sql`delete from key_rotation_oauth_failure where credential_id = ${row.id}`.execute(trx);
  await sql`
    update credential set team_id = ${row.to}, revision = ${row.revision}, seal = ${row.seal},
      updated_at = ${row.at}, updated_by = ${row.by}
    where id = ${row.id} and team_id = ${row.from}`.execute(trx);
}

/** Asks now what the end of the transaction would ask: that everything has followed. */
export async function settleMove(trx: Trx): Promise<void> {
  await sql`set constraints all immediate`.execute(trx);
}

type KeyColumns = {
  readonly id: DataKeyId | null;
  readonly keyVersion: number;
  readonly format: WrappedDataKey['format'];
  readonly rootFingerprint: string;
  readonly wrapped: Buffer;
};
const keyColumns = sql.raw(
  'data_key.id, data_key.version as "keyVersion", data_key.format, data_key.root_fingerprint ' +
    'as "rootFingerprint", data_key.wrapped',
);
const keyOf = (
  { id, keyVersion, format, rootFingerprint, wrapped }: KeyColumns,
  team: TeamId,
): WrappedDataKey | undefined =>
  id === null ? undefined : { id, team, version: keyVersion, format, rootFingerprint, wrapped };

/** A version's token with the key that it is under; no key where that is in no state to open it. */
export interface HeldVersion {
  readonly version: number;
  readonly token: string;
  readonly publicFields: JsonObject;
  readonly policy: JsonObject;
  readonly secretFields: readonly string[];
  /** How much of it is read and written. */
  readonly bytes: number;
  readonly key: WrappedDataKey | undefined;
}

/** How much there is to move with a credential: its tokens, and what they are bound to. */
export async function findHeldBytes(
  trx: Trx,
  of: { team: TeamId; credential: CredentialId },
): Promise<number> {
  const { rows } = await sql<{ bytes: number }>`
    select coalesce(sum(octet_length(held.token) + ${contentBytes('held')}), 0)::bigint as bytes
    from credential_version held where held.team_id = ${of.team}
      and held.credential_id = ${of.credential}`.execute(trx);
  return rows[0]?.bytes ?? 0;
}

/**
 * The next versions of a locked credential, as its former team has them: up to `limit`, and no more
 * than may be in memory at once; one at the least, as long as there is one.
 */
export async function listHeldVersions(
  trx: Trx,
  of: { team: TeamId; credential: CredentialId; after: number; limit: number; bytesMax: number },
): Promise<HeldVersion[]> {
  const next = sql`
    select held.version, held.token, held.public_fields as "publicFields", held.policy,
      held.secret_field_names as "secretFields", ${keyColumns},
      octet_length(held.token) + ${contentBytes('held')} as bytes
    from credential_version held left join data_key on data_key.id = held.data_key_id
      and data_key.team_id = held.team_id and data_key.state in ('active', 'decryptOnly')
    where held.team_id = ${of.team} and held.credential_id = ${of.credential}
      and held.version > ${of.after} order by held.version limit ${of.limit}`;
  const { rows } = await sql<
    Omit<HeldVersion, 'key'> & KeyColumns
  >`${upToBytes(next, sql`version`, of.bytesMax)}`.execute(trx);
  return rows.map((row) => ({
    version: row.version,
    token: row.token,
    publicFields: row.publicFields,
    policy: row.policy,
    bytes: row.bytes,
    secretFields: row.secretFields,
    key: keyOf(row, of.team),
  }));
}

/** Stores versions under the key of their new team. */
export async function storeVersions(
  trx: Trx,
  of: {
    from: TeamId;
    to: TeamId;
    credential: CredentialId;
    key: DataKeyId;
    versions: readonly number[];
    tokens: readonly string[];
  },
): Promise<void> {
  await sql`
    update credential_version held set team_id = ${of.to}, token = moved.token,
      data_key_id = ${of.key}, undecryptable_at = null
    from unnest(${of.versions}::int[], ${of.tokens}::text[]) as moved (version, token)
    where held.team_id = ${of.from} and held.credential_id = ${of.credential}
      and held.version = moved.version`.execute(trx);
}

/** The OAuth tokens stored beside the versions; no token where an account was never connected. */
export interface HeldAccount {
  readonly sequence: number;
  readonly token: string | null;
  readonly client: JsonObject;
  readonly policy: JsonObject;
  readonly claimedUntil: Date | null;
  readonly key: WrappedDataKey | undefined;
}

/** The OAuth tokens stored for a locked credential. */
export async function findAccount(
  trx: Trx,
  of: { team: TeamId; credential: CredentialId },
): Promise<HeldAccount | undefined> {
  const {
    rows: [row],
  } = await sql<Omit<HeldAccount, 'key'> & KeyColumns>`
    select held.sequence, held.token, held.client, held.policy,
      held.claimed_until as "claimedUntil", ${keyColumns}
    from oauth_token held left join data_key on data_key.id = held.data_key_id
      and data_key.team_id = held.team_id and data_key.state in ('active', 'decryptOnly')
    where held.team_id = ${of.team} and held.credential_id = ${of.credential}`.execute(trx);
  if (row === undefined) return undefined;
  return {
    sequence: row.sequence,
    token: row.token,
    client: row.client,
    policy: row.policy,
    claimedUntil: row.claimedUntil,
    key: keyOf(row, of.team),
  };
}

/** Stores tokens under the key of their new team; a row without tokens only changes its team. */
export async function storeAccount(
  trx: Trx,
  of: {
    from: TeamId;
    to: TeamId;
    credential: CredentialId;
    key: DataKeyId;
    token: string | undefined;
  },
): Promise<void> {
  await sql`
    update oauth_token
      set team_id = ${of.to} ${
        of.token === undefined
          ? sql``
          : sql`, token = ${of.token},
      data_key_id = ${of.key}`
      }
    where credential_id = ${of.credential} and team_id = ${of.from}`.execute(trx);
}
