// Re-encryption of OAuth tokens stored beside the versions. A refresh may replace a token at any
// time: it is re-encrypted only as it was locked, and what was replaced meanwhile is under the
// active key already.
import { sql } from 'kysely';
import { withinBytes } from '../db/bytes.ts';
import type { DataKeyState, TokenFormatColumn } from '../db/tables.ts';
import type { CredentialId, DataKeyId } from '../shared/ids.ts';
import type { JsonObject } from '../shared/json.ts';
import { batchBytesMax, type ReencryptedToken, type Reencryptor } from './mover.ts';
import { tokenSetBinding } from '../oauth/index.ts';

interface Row {
  readonly credential: CredentialId;
  readonly sequence: number;
  readonly token: string;
  readonly client: JsonObject;
  readonly policy: JsonObject;
  readonly type: string;
  readonly from_id: DataKeyId;
  readonly from_version: number;
  readonly from_format: TokenFormatColumn;
  readonly from_root: string;
  readonly from_wrapped: Buffer;
  readonly from_state: DataKeyState;
  readonly to_id: DataKeyId;
  readonly to_version: number;
  readonly to_format: TokenFormatColumn;
  readonly to_root: string;
  readonly to_wrapped: Buffer;
  readonly bytes: number;
}

/**
 * Looks from the beginning each time: there is one row for a credential at most, and few
 * credentials have one.
 */
export const oauthTokens: Reencryptor = {
  async hold(trx, rotation, { limit, passOver }) {
    const { rows } = await sql<Row>`${withinBytes(
      sql`
      select held.credential_id as credential, held.sequence, held.token, held.client, held.policy,
        credential.type,
        from_key.id as from_id, from_key.version as from_version, from_key.format as from_format,
          from_key.root_fingerprint as from_root,
        from_key.wrapped as from_wrapped, from_key.state as from_state,
        to_key.id as to_id, to_key.version as to_version, to_key.format as to_format,
          to_key.root_fingerprint as to_root, to_key.wrapped as to_wrapped,
        octet_length(held.token) + octet_length(held.client::text) + octet_length(held.policy::text)
          as bytes
      from key_rotation rotation
      join data_key to_key on to_key.team_id = rotation.team_id and to_key.state = 'active'
      join data_key from_key on from_key.team_id = rotation.team_id and from_key.id <> to_key.id
        and from_key.id <> all (${passOver}::uuid[])
      cross join lateral (
        select row.credential_id, row.sequence, row.token, row.client, row.policy
        from oauth_token row
        where row.data_key_id = from_key.id and row.team_id = from_key.team_id
          and not exists (select 1 from key_rotation_oauth_failure failure
            where failure.rotation_id = rotation.id and failure.credential_id = row.credential_id)
        order by row.credential_id limit ${limit} for update of row skip locked
      ) held
      join credential on credential.id = held.credential_id
        and credential.team_id = rotation.team_id
      where rotation.id = ${rotation.id} and rotation.team_id = ${rotation.team}
        and rotation.state = 'running'
      limit ${limit}`,
      batchBytesMax,
    )}`.execute(trx);
    return rows.map((row) => ({
      binding: tokenSetBinding({
        team: rotation.team,
        credential: row.credential,
        sequence: row.sequence,
        type: row.type,
        client: row.client,
        policy: row.policy,
      }),
      token: row.token,
      bytes: row.bytes,
      from: {
        id: row.from_id,
        team: rotation.team,
        version: row.from_version,
        format: row.from_format,
        rootFingerprint: row.from_root,
        wrapped: row.from_wrapped,
      },
      fromState: row.from_state,
      to: {
        id: row.to_id,
        team: rotation.team,
        version: row.to_version,
        format: row.to_format,
        rootFingerprint: row.to_root,
        wrapped: row.to_wrapped,
      },
    }));
  },

  // What opened is not undecryptable, whatever was thought of it before.
  async store(trx, tokens) {
    const column = <T>(of: (token: ReencryptedToken) => T): T[] => tokens.map(of);
    const { rows } = await sql`
      update oauth_token held set token = moved.token, data_key_id = to_key.id,
        failed_at = case when held.failure <> 'undecryptable' then held.failed_at
          end, failure = nullif(held.failure, 'undecryptable')
      from unnest(${column((t) => t.binding.credential)}::uuid[],
        ${column((t) => t.binding.version)}::int[], ${column((t) => t.from.id)}::uuid[],
          ${column((t) => t.to.id)}::uuid[], ${column((t) => t.moved)}::text[]) as moved
            (credential_id, sequence, from_id, to_id, token)
      join data_key to_key on to_key.id = moved.to_id and to_key.state = 'active'
      where held.credential_id = moved.credential_id and held.sequence = moved.sequence
        and held.data_key_id = moved.from_id and held.team_id = to_key.team_id
      returning 1`.execute(trx);
    return rows.length === tokens.length;
  },

  async fail(trx, rotation, { token: { binding }, isUndecryptable, at }) {
    await trx
      .insertInto('key_rotation_oauth_failure')
      .values({ rotation_id: rotation.id, credential_id: binding.credential, at })
      .execute();
    if (!isUndecryptable) return;
    await trx
      .updateTable('oauth_token')
      .set({ failure: 'undecryptable', failed_at: at })
      .where('team_id', '=', binding.team)
      .where('credential_id', '=', binding.credential)
      .where('failure', 'is', null)
      .execute();
  },
};
