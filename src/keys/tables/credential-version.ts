// The secret fields of each version of a credential.
import { sql } from 'kysely';
import type { CiphertextTable } from './table.ts';

export const credentialVersions: CiphertextTable = {
  name: 'credential_version',
  rows: 'versions',
  number: 'version',
  binding: {
    publicFields: 'public_fields',
    policy: 'policy',
    secretFields: 'secret_field_names',
    typeSuffix: '',
  },
  undecryptable: {
    set: (at) => sql`undecryptable_at = ${at}`,
    isUnset: sql`held.undecryptable_at is null`,
    clear: sql`undecryptable_at = null`,
  },
  failures: 'key_rotation_failure',
  credentialTypes: 'every',
  storedBytes: sql<number>`octet_length(token)::bigint + pg_column_size(public_fields)`,
  transfer: {
    busyUntil: undefined,
    tooLarge:
      'Its versions are too large together to be moved at once: its team has to destroy ' +
      'earlier ones first.',
    undecryptable: 'A version does not open: its team has to repair or destroy it first.',
  },
  exported: { spelled: 'version' },
};
