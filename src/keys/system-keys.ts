// What happens with keys at the start: the root keys are checked against the database, and the vault's own keys are made once and
// loaded. Nothing is written unless everything that is needed is there.
import { sql } from 'kysely';
import { DecryptionFailed, Keyring, type RootKeys, type SystemPurpose, type WrappedSystemKey } from '../crypto/index.ts';
import type { Db, Executor, Trx } from '../db/client.ts';
import { newId, type SystemKeyId } from '../shared/ids.ts';

/** The root keys and the database do not belong together. The message is for the operator and names fingerprints. */
export class KeyringRefused extends Error {
  override name = 'KeyringRefused';
}

/** Keys in the database are wrapped by root keys that are not configured. */
export class RootKeyMissing extends KeyringRefused {
  override name = 'RootKeyMissing';
  readonly fingerprints: readonly string[];
  constructor(fingerprints: readonly string[]) {
    super(`keys in the database are wrapped by root keys that are not configured: ${fingerprints.join(', ')}`);
    this.fingerprints = fingerprints;
  }
}

/** A configured root key does not open the canary that was stored for it. */
export class CanaryWrong extends KeyringRefused {
  override name = 'CanaryWrong';
  readonly fingerprint: string;
  constructor(fingerprint: string) {
    super(`root key ${fingerprint} does not open its canary: the stored canary was changed`);
    this.fingerprint = fingerprint;
  }
}

const purposes = ['rowSeal', 'auditMac', 'cursor', 'idempotency', 'leaseSigning'] as const satisfies readonly SystemPurpose[];

/**
 * A keyring with the system keys loaded. The first start on an empty database makes them; replicas that start at once make one
 * set. Throws KeyringRefused (RootKeyMissing, CanaryWrong) and has then written nothing.
 */
export async function openKeyring({ db, roots, now }: { db: Db; roots: RootKeys; now: () => number }): Promise<Keyring> {
  return db.transaction().setIsolationLevel('read committed').execute(async (trx) => {
    // A statement of its own: what follows sees what the replica before has committed.
    await sql`select pg_advisory_xact_lock(hashtext('credential-vault system keys'))`.execute(trx);
    const canaries = await listCanaries(trx);
    for (const fingerprint of roots.fingerprints) {
      const canary = canaries.get(fingerprint);
      if (canary !== undefined && !roots.checkCanary(fingerprint, canary)) throw new CanaryWrong(fingerprint);
    }
    const missing = (await listNeededRootKeys(trx)).filter((fingerprint) => !roots.fingerprints.includes(fingerprint));
    if (missing.length > 0) throw new RootKeyMissing(missing);

    const keyring = new Keyring({ roots, now });
    const held = await listSystemKeys(trx);
    if (held.length === 0 && await holdsData(trx)) {
      throw new KeyringRefused('the database holds data but no system keys: they were deleted, and new ones would not verify what is there');
    }
    const made = held.length > 0 ? [] : purposes.map((purpose) => keyring.newSystemKey({ id: newId<SystemKeyId>(), purpose, version: 1 }));
    load(keyring, [...held, ...made]);
    await insertCanaries(trx, roots, roots.fingerprints.filter((fingerprint) => !canaries.has(fingerprint)));
    await insertSystemKeys(trx, made);
    return keyring;
  });
}

/** Whether every configured root key still opens its stored canary; one small query, for readiness. */
export async function checkCanaries(db: Executor, roots: RootKeys): Promise<boolean> {
  const canaries = await listCanaries(db);
  return roots.fingerprints.every((fingerprint) => {
    const canary = canaries.get(fingerprint);
    return canary !== undefined && roots.checkCanary(fingerprint, canary);
  });
}

function load(keyring: Keyring, rows: readonly WrappedSystemKey[]): void {
  const absent = purposes.filter((purpose) => !rows.some((row) => row.active && row.purpose === purpose));
  if (absent.length > 0) throw new KeyringRefused(`system keys are missing from the database: ${absent.join(', ')}`);
  try {
    keyring.loadSystemKeys(rows);
  } catch (error) {
    if (!(error instanceof DecryptionFailed)) throw error;
    const wrappedBy = [...new Set(rows.map((row) => row.rootFingerprint))].join(', ');
    throw new KeyringRefused(`a system key wrapped by root key ${wrappedBy} does not unwrap: its row was changed`, { cause: error });
  }
}

async function listCanaries(executor: Executor): Promise<Map<string, Buffer>> {
  const rows = await executor.selectFrom('root_key').select(['fingerprint', 'canary']).execute();
  return new Map(rows.map(({ fingerprint, canary }) => [fingerprint, canary]));
}

async function listNeededRootKeys(trx: Trx): Promise<string[]> {
  const { rows } = await sql<{ fingerprint: string }>`
    select root_fingerprint as fingerprint from data_key union select root_fingerprint from system_key order by 1`.execute(trx);
  return rows.map(({ fingerprint }) => fingerprint);
}

async function listSystemKeys(trx: Trx): Promise<WrappedSystemKey[]> {
  return trx.selectFrom('system_key')
    .select(['id', 'purpose', 'version', 'active', 'root_fingerprint as rootFingerprint', 'wrapped'])
    .orderBy('purpose').orderBy('version').execute();
}

/** Whether anything was ever sealed or MACed here. */
async function holdsData(trx: Trx): Promise<boolean> {
  const { rows } = await sql<{ holds: boolean }>`
    select exists (select 1 from team) or exists (select 1 from engine) or exists (select 1 from audit_event) as holds`.execute(trx);
  return rows[0]?.holds !== false;
}

async function insertCanaries(trx: Trx, roots: RootKeys, fingerprints: readonly string[]): Promise<void> {
  if (fingerprints.length === 0) return;
  await trx.insertInto('root_key').values(fingerprints.map((fingerprint) => ({ fingerprint, canary: roots.makeCanary(fingerprint) }))).execute();
}

async function insertSystemKeys(trx: Trx, keys: readonly WrappedSystemKey[]): Promise<void> {
  if (keys.length === 0) return;
  await trx.insertInto('system_key').values(keys.map((key) => ({
    id: key.id, purpose: key.purpose, version: key.version, active: key.active, root_fingerprint: key.rootFingerprint, wrapped: key.wrapped,
  }))).execute();
}
