// Offers in SQL, and what moves with a credential.
import { sql } from 'kysely';
import type { Executor, Trx } from '../db/client.ts';
import type { CredentialState, GrantAccess, GranteeKind, LivingState } from '../db/tables.ts';
import type { CredentialId, GrantId, SubjectId, TeamId, TransferId } from '../shared/ids.ts';
import { lockTokens, releaseTokens } from '../keys/index.ts';
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
 * Locks a credential against everything, its offer and its tokens; whether the first two are there.
 * What is to move is read by later statements: a row that a rotation held until then would come
 * with the key that it had before.
 */
export async function lockToMove(
  trx: Trx,
  { id, team, credential }: Pick<TransferMacFields, 'id' | 'team' | 'credential'>,
): Promise<boolean> {
  const { rows } = await sql`select 1 from credential where id = ${credential} and team_id = ${team}
      for update`.execute(trx);
  const { rows: offers } =
    await sql`select 1 from credential_transfer where id = ${id} for update`.execute(trx);
  await lockTokens(trx, credential);
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
  // What rotations of the former team could not open is theirs no more.
  await releaseTokens(trx, { team: row.from, credential: row.id });
  await sql`
    update credential set team_id = ${row.to}, revision = ${row.revision}, seal = ${row.seal},
      updated_at = ${row.at}, updated_by = ${row.by}
    where id = ${row.id} and team_id = ${row.from}`.execute(trx);
}

/** Asks now what the end of the transaction would ask: that everything has followed. */
export async function settleMove(trx: Trx): Promise<void> {
  await sql`set constraints all immediate`.execute(trx);
}
