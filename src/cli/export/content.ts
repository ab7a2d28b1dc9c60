// What an export with secrets holds of a team: its living credentials, each opened under its own
// binding. One that does not open, or whose row is not as the vault wrote it, is named and left
// out.
import { sql } from 'kysely';
import {
  DecryptionFailed,
  type Keyring,
  KeyUnavailable,
  Secret,
  type SecretFields,
  type WrappedDataKey,
} from '../../crypto/index.ts';
import type { Trx } from '../../db/client.ts';
import type { JsonObject } from '../../shared/json.ts';
import type { DataKeyId, TeamId } from '../../shared/ids.ts';
import type { ExportedCredential, UnopenedCredential } from './container.ts';
import {
  verifyCredentialRowMac,
  findType,
  isDeclared,
  type CredentialMacFields,
  shownType,
} from '../../credentials/index.ts';
import { findStoredTokens, situationOf } from '../../oauth/index.ts';

export type OpenedCredential = {
  readonly id: CredentialMacFields['id'];
  readonly version: number;
  readonly key: DataKeyId;
  readonly content: Secret<ExportedCredential>;
};

interface Row extends CredentialMacFields {
  readonly slug: string;
  readonly description: string | null;
  readonly labels: Record<string, string>;
  readonly rotateAfter: Date | null;
  readonly seal: Buffer;
  readonly token: string;
  readonly keyId: DataKeyId;
  readonly keyVersion: number;
  readonly keyState: string;
  readonly format: WrappedDataKey['format'];
  readonly root: string;
  readonly wrapped: Buffer;
}

// A token is up to some hundred KiB long.
const batchRows = 50;

/** The team's living credentials in batches, by id. */
export async function* openCredentials(
  trx: Trx,
  keyring: Keyring,
  team: TeamId,
): AsyncGenerator<readonly (OpenedCredential | UnopenedCredential)[], void, undefined> {
  for (let last: Row | undefined; ; ) {
    const rows = await listRows(trx, team, last);
    if (rows.length > 0) yield await Promise.all(rows.map((row) => open(trx, keyring, row)));
    last = rows.at(-1);
    if (rows.length < batchRows) return;
  }
}

async function listRows(trx: Trx, team: TeamId, last: Row | undefined): Promise<readonly Row[]> {
  const { rows } = await sql<Row>`
    select held.id, held.team_id as team, team.slug, held.name, held.type, held.description,
      held.labels, held.state, held.state_before as "stateBefore", held.current_version as version,
      held.expires_at as "expiresAt", held.rotate_after as "rotateAfter", held.revision, held.seal,
        current.public_fields as "publicFields", current.policy,
        current.secret_field_names as "secretFieldNames",
      current.token, key.id as "keyId", key.version as "keyVersion", key.state as "keyState",
        key.format, key.root_fingerprint as root, key.wrapped
    from credential held join team on team.id = held.team_id
    join credential_version current on current.team_id = held.team_id
      and current.credential_id = held.id and current.version = held.current_version
    join data_key key on key.id = current.data_key_id and key.team_id = held.team_id
    where held.team_id = ${team} and held.state <> 'deleted'
      and ${last === undefined ? sql`true` : sql`held.id > ${last.id}`}
    order by held.id limit ${batchRows}`.execute(trx);
  return rows;
}

async function open(
  trx: Trx,
  keyring: Keyring,
  row: Row,
): Promise<OpenedCredential | UnopenedCredential> {
  const { id, team, name, type, version } = row;
  const unopened = (reason: UnopenedCredential['reason']): UnopenedCredential => ({
    id,
    name,
    reason,
  });
  // SECURITY: name, state and destination count only as the vault wrote them, here as everywhere.
  if (!verifyCredentialRowMac(keyring, row, row.seal)) return unopened('sealBroken');
  if (row.keyState !== 'active' && row.keyState !== 'decryptOnly') return unopened('keyNotUsable');
  try {
    const place = {
      team,
      credential: id,
      version,
      type,
      publicFields: row.publicFields,
      policy: row.policy as unknown as JsonObject,
      secretFields: row.secretFieldNames,
    };
    const key = {
      id: row.keyId,
      team,
      version: row.keyVersion,
      format: row.format,
      rootFingerprint: row.root,
      wrapped: row.wrapped,
    };
    const secrets = keyring.open(key, place, row.token);
    return {
      id,
      version,
      key: row.keyId,
      content: contentOf(row, await withStoredTokens(trx, keyring, row, secrets)),
    };
  } catch (error) {
    if (error instanceof KeyUnavailable) return unopened('rootKeyMissing');
    if (error instanceof DecryptionFailed) return unopened('undecryptable');
    throw error;
  }
}

/**
 * All fields; of a type for which tokens are stored, those that are stored now in place of those
 * that it started with.
 */
async function withStoredTokens(
  trx: Trx,
  keyring: Keyring,
  row: Row,
  secrets: SecretFields,
): Promise<Secret<ExportedCredential['fields']>> {
  const oauth = findType(row.type)?.oauth;
  // SECURITY: exposed to be put together; what comes out is a Secret again.
  const fields = { ...row.publicFields, ...secrets.expose() };
  if (oauth === undefined) return new Secret(fields);
  const situation = situationOf(
    keyring,
    { ...row },
    await findStoredTokens(trx, row.team, row.id),
    secrets,
  );
  if (situation.tokens === undefined || situation.isOfVersion) return new Secret(fields);
  const { accessToken, refreshToken } = situation.tokens.expose();
  const {
    accessToken: _,
    refreshToken: __,
    [oauth.expiryField]: ___,
    ...rest
  } = fields as Record<string, string | number | boolean>;
  return new Secret({
    ...rest,
    ...(accessToken === undefined ? {} : { accessToken }),
    ...(refreshToken === undefined ? {} : { refreshToken }),
    ...(situation.expiresAt === undefined
      ? {}
      : { [oauth.expiryField]: situation.expiresAt.toISOString() }),
  });
}

function contentOf(
  row: Row,
  fields: Secret<ExportedCredential['fields']>,
): Secret<ExportedCredential> {
  return new Secret({
    kind: 'credential',
    id: row.id,
    name: row.name,
    type: shownType(row.type),
    description: row.description,
    labels: row.labels,
    state: row.state === 'disabled' ? 'disabled' : 'enabled',
    expiresAt: row.expiresAt?.toISOString() ?? null,
    rotateAfter: row.rotateAfter?.toISOString() ?? null,
    policy: row.policy,
    publicFieldNames:
      isDeclared(row.type) || findType(row.type)?.isOpen === true
        ? Object.keys(row.publicFields)
        : [],
    // SECURITY: the same.
    fields: fields.expose(),
    version: row.version,
  });
}
