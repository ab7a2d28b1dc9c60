// What is stored of a credential, opened with the keyring as the vault would: the only way for a
// test to see a secret again.
import type { Binding } from '../../src/crypto/index.ts';
import type { CredentialId } from '../../src/shared/ids.ts';
import type { JsonObject } from '../../src/shared/json.ts';
import type { TestVault } from './vault.ts';

export interface StoredVersion {
  readonly binding: Binding;
  readonly token: string;
  readonly fields: Readonly<Record<string, string>>;
}

/**
 * The versions of a credential, oldest first, each opened under its own binding under its own key.
 * Throws where one does not open.
 */
export async function openVersions(
  { db, keyring }: Pick<TestVault, 'db' | 'keyring'>,
  id: string,
): Promise<StoredVersion[]> {
  const rows = await db
    .selectFrom('credential_version as held')
    .innerJoin('data_key as key', 'key.id', 'held.data_key_id')
    .innerJoin('credential', 'credential.id', 'held.credential_id')
    .select([
      'held.team_id as team',
      'held.credential_id as credential',
      'held.version',
      'held.token',
      'held.public_fields as publicFields',
      'held.policy',
      'credential.type',
      'key.id',
      'key.version as keyVersion',
      'key.format',
      'key.root_fingerprint as rootFingerprint',
      'key.wrapped',
    ])
    .where('held.credential_id', '=', id as CredentialId)
    .orderBy('held.version')
    .execute();
  return rows.map(
    ({
      team,
      credential,
      version,
      token,
      publicFields,
      policy,
      type,
      keyVersion,
      wrapped,
      ...key
    }) => {
      if (wrapped === null) throw new Error('a token under a destroyed key');
      const binding = {
        team,
        credential,
        version,
        type,
        publicFields: publicFields as JsonObject,
        policy: policy as JsonObject,
      };
      return {
        binding,
        token,
        fields: keyring
          .open({ ...key, wrapped, team, version: keyVersion }, binding, token)
          .expose(),
      };
    },
  );
}

/** The secret fields of the newest version. */
export async function openSecrets(
  vault: Pick<TestVault, 'db' | 'keyring'>,
  id: string,
): Promise<Readonly<Record<string, string>>> {
  const versions = await openVersions(vault, id);
  return versions.at(-1)?.fields ?? {};
}
