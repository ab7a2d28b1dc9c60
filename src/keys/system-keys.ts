// What happens with keys at the start: the root keys are checked against the database, and the
// vault's own keys are made once and loaded. Nothing is written unless everything that is needed is
// there.
import { sql } from 'kysely';
import {
  DecryptionFailed,
  EpochReturned,
  Keyring,
  KeyUnavailable,
  type RootKeys,
  type SystemPurpose,
  type Wrapped,
  type WrappedSystemKey,
} from '../crypto/index.ts';
import type { Db, Executor, Trx } from '../db/client.ts';
import { vaultNow } from '../db/clock.ts';
import { newId, type SystemKeyId } from '../shared/ids.ts';
import { ShownError } from '../shared/shown-error.ts';

/**
 * The root keys and the database do not belong together. The message is for the operator and names
 * fingerprints.
 */
export class KeyringRefused extends ShownError {
  override name = 'KeyringRefused';
}

/** Keys in the database are wrapped by root keys that are not configured. */
export class RootKeyMissing extends KeyringRefused {
  override name = 'RootKeyMissing';
  readonly fingerprints: readonly string[];
  constructor(fingerprints: readonly string[]) {
    super(
      `keys in the database are wrapped by root keys that are not configured: ` +
        `${fingerprints.join(', ')}`,
    );
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

/** A system key whose row was changed, or names a root key that is not configured. */
export type DamagedSystemKey = Pick<
  WrappedSystemKey,
  'id' | 'purpose' | 'version' | 'rootFingerprint'
>;
/** Told of those that the vault goes on without, or with as they were loaded before. */
export type OnDamaged = (keys: readonly DamagedSystemKey[]) => void;

const purposes = [
  'rowSeal',
  'auditMac',
  'cursor',
  'idempotency',
  'leaseSigning',
] as const satisfies readonly SystemPurpose[];

/**
 * A keyring with the system keys loaded. The first start on an empty database makes them; replicas
 * that start at once make one set. Throws KeyringRefused (RootKeyMissing, CanaryWrong) and has then
 * written nothing.
 */
export async function openKeyring({
  db,
  roots,
  now,
  onDamaged,
}: {
  db: Db;
  roots: RootKeys;
  now: () => number;
  onDamaged?: OnDamaged;
}): Promise<Keyring> {
  return db
    .transaction()
    .setIsolationLevel('read committed')
    .execute(async (trx) => {
      // A statement of its own: what follows sees what the replica before has committed.
      await sql`select pg_advisory_xact_lock(hashtext('credential-vault system keys'))`.execute(
        trx,
      );
      const canaries = await checkRoots(trx, roots);
      const keyring = new Keyring({ roots, now });
      const held = await listSystemKeys(trx);
      if (held.length === 0 && (await holdsData(trx))) {
        throw new KeyringRefused(
          'the database holds data but no system keys: they were deleted, and new ones would ' +
            'not verify what is there',
        );
      }
      const made =
        held.length > 0
          ? []
          : purposes.map((purpose) =>
              keyring.newSystemKey({ id: newId<SystemKeyId>(), purpose, version: 1 }),
            );
      load(keyring, [...held, ...made], onDamaged);
      await insertCanaries(
        trx,
        roots,
        roots.fingerprints.filter((fingerprint) => !canaries.has(fingerprint)),
      );
      await insertSystemKeys(trx, made, new Date(0));
      return keyring;
    });
}

/**
 * The same for a command that only reads: nothing is written, and nothing is made. Data keys whose
 * root key is not configured are its caller's to name; without the system keys it throws
 * RootKeyMissing.
 */
export async function loadKeyring({
  db,
  roots,
  now,
}: {
  db: Executor;
  roots: RootKeys;
  now: () => number;
}): Promise<Keyring> {
  await checkCanariesOf(db, roots);
  refuseMissing(roots, await listNeededRootKeys(db, { isForSystemKeysOnly: true }));
  const keyring = new Keyring({ roots, now });
  load(keyring, await listSystemKeys(db));
  return keyring;
}

/** The stored canaries, when every configured root key opens its own and none is missing. */
async function checkRoots(executor: Executor, roots: RootKeys): Promise<Map<string, Buffer>> {
  const canaries = await checkCanariesOf(executor, roots);
  refuseMissing(roots, await listNeededRootKeys(executor, { isForSystemKeysOnly: false }));
  return canaries;
}

async function checkCanariesOf(executor: Executor, roots: RootKeys): Promise<Map<string, Buffer>> {
  const canaries = await listCanaries(executor);
  for (const fingerprint of roots.fingerprints) {
    const canary = canaries.get(fingerprint);
    if (canary !== undefined && !roots.checkCanary(fingerprint, canary))
      throw new CanaryWrong(fingerprint);
  }
  return canaries;
}

function refuseMissing(roots: RootKeys, needed: readonly string[]): void {
  const missing = needed.filter((fingerprint) => !roots.fingerprints.includes(fingerprint));
  if (missing.length > 0) throw new RootKeyMissing(missing);
}

/**
 * Whether every configured root key still opens its stored canary; one small query, for readiness.
 */
export async function checkCanaries(db: Executor, roots: RootKeys): Promise<boolean> {
  const canaries = await listCanaries(db);
  return roots.fingerprints.every((fingerprint) => {
    const canary = canaries.get(fingerprint);
    return canary !== undefined && roots.checkCanary(fingerprint, canary);
  });
}

function load(
  keyring: Keyring,
  rows: readonly WrappedSystemKey[],
  onDamaged: OnDamaged = () => undefined,
): void {
  const absent = purposes.filter(
    (purpose) => !rows.some((row) => row.active && row.purpose === purpose),
  );
  if (absent.length > 0)
    throw new KeyringRefused(`system keys are missing from the database: ${absent.join(', ')}`);
  try {
    const kept = keyring.loadSystemKeys(rows);
    if (kept.length > 0) onDamaged(kept);
  } catch (error) {
    if (error instanceof EpochReturned) throw new KeyringRefused(error.message, { cause: error });
    if (!(error instanceof DecryptionFailed)) throw error;
    const damaged = rows.filter((row) => !opens(keyring, row));
    onDamaged(damaged);
    // One that nothing is made with any more is missed where something is still under it, which
    // then counts for nothing: the same as if its row were gone. The one that makes cannot be
    // missed.
    if (damaged.some(({ active }) => active)) {
      const names = damaged.map(
        ({ id, purpose, version, rootFingerprint }) =>
          `system key ${id} (${purpose}, version ${version}) wrapped by root key ` +
          `${rootFingerprint} does not unwrap`,
      );
      throw new KeyringRefused(`${names.join(', ')}: its row was changed`, { cause: error });
    }
    keyring.loadSystemKeys(rows.filter((row) => !damaged.includes(row)));
  }
}

function opens(keyring: Keyring, row: WrappedSystemKey): boolean {
  try {
    keyring.rewrapSystemKey(row);
    return true;
  } catch (error) {
    if (error instanceof DecryptionFailed) return false;
    throw error;
  }
}

async function listCanaries(executor: Executor): Promise<Map<string, Buffer>> {
  const rows = await executor.selectFrom('root_key').select(['fingerprint', 'canary']).execute();
  return new Map(rows.map(({ fingerprint, canary }) => [fingerprint, canary]));
}

async function listNeededRootKeys(
  executor: Executor,
  { isForSystemKeysOnly }: { isForSystemKeysOnly: boolean },
): Promise<string[]> {
  const { rows } = await sql<{ fingerprint: string }>`
    select fingerprint from root_key
    where exists (select 1 from system_key where root_fingerprint = root_key.fingerprint)
      or not ${isForSystemKeysOnly} and (select true from data_key
        where root_fingerprint = root_key.fingerprint and state <> 'destroyed' limit 1)
    order by fingerprint`.execute(executor);
  return rows.map(({ fingerprint }) => fingerprint);
}

async function listSystemKeys(executor: Executor): Promise<WrappedSystemKey[]> {
  const rows = await executor
    .selectFrom('system_key')
    .select([
      'id',
      'purpose',
      'version',
      'root_fingerprint as rootFingerprint',
      'wrapped',
      sql<boolean>`usable_from <= ${vaultNow}`.as('isUsable'),
    ])
    .where('retired_at', 'is', null)
    .orderBy('purpose')
    .orderBy('version', 'desc')
    .execute();
  // The newest usable version of a purpose makes; those to come and those before it verify.
  const signing = new Set<SystemPurpose>();
  return rows.map(({ isUsable, ...row }) => {
    const active = isUsable && !signing.has(row.purpose);
    if (active) signing.add(row.purpose);
    return { ...row, active };
  });
}

/**
 * Loads the system keys as they are now: versions that others made, and the turn of a version whose
 * time has come.
 */
export async function reloadSystemKeys(
  executor: Executor,
  keyring: Keyring,
  onDamaged?: OnDamaged,
): Promise<void> {
  load(keyring, await listSystemKeys(executor), onDamaged);
}

/** The last that a row MAC has room for; a row that says more was not made by the vault. */
const versionMax = 65_535;

/**
 * Makes the next version of every purpose, wrapped under the primary root key. Each is used only
 * from `usableFrom` on, when every replica has loaded it; for lease signing also every engine.
 */
export async function insertNextSystemKeys(
  trx: Trx,
  keyring: Keyring,
  usableFrom: { leaseSigning: Date; others: Date },
): Promise<void> {
  await sql`select pg_advisory_xact_lock(hashtext('credential-vault system keys'))`.execute(trx);
  const { rows } = await sql<{ purpose: SystemPurpose; version: number }>`
    select purpose, coalesce(max(version) filter (where version between 1 and ${versionMax - 1}),
      0) as version
    from system_key group by purpose order by purpose`.execute(trx);
  for (const { purpose, version } of rows) {
    const key = keyring.newSystemKey({ id: newId<SystemKeyId>(), purpose, version: version + 1 });
    await insertSystemKeys(
      trx,
      [key],
      purpose === 'leaseSigning' ? usableFrom.leaseSigning : usableFrom.others,
    );
  }
}

/**
 * Wraps every system key anew that does not say yet that no row of before is left; how many. One
 * whose root key is not here stays as it is. To be loaded afterwards.
 */
export async function closeSystemKeys(trx: Trx, keyring: Keyring): Promise<number> {
  await sql`select pg_advisory_xact_lock(hashtext('credential-vault system keys'))`.execute(trx);
  const { rows } = await sql<Omit<WrappedSystemKey, 'active'>>`
    select id, purpose, version, root_fingerprint as "rootFingerprint", wrapped from system_key
      order by id for no key update`.execute(trx);
  let closed = 0;
  for (const key of rows) {
    const next = closedOrNot(keyring, key);
    if (next === undefined) continue;
    await trx
      .updateTable('system_key')
      .set({ root_fingerprint: next.rootFingerprint, wrapped: next.wrapped })
      .where('id', '=', key.id)
      .execute();
    closed += 1;
  }
  return closed;
}

function closedOrNot(keyring: Keyring, key: Omit<WrappedSystemKey, 'active'>): Wrapped | undefined {
  try {
    return keyring.closeSystemKey(key);
  } catch (error) {
    if (error instanceof KeyUnavailable || error instanceof DecryptionFailed) return undefined;
    throw error;
  }
}

/** Whether anything has a MAC of any kind here. */
async function holdsData(trx: Trx): Promise<boolean> {
  const { rows } = await sql<{ holds: boolean }>`
    select exists (select 1 from team) or exists (select 1 from engine)
      or exists (select 1 from audit_event) as holds`.execute(trx);
  return rows[0]?.holds !== false;
}

async function insertCanaries(
  trx: Trx,
  roots: RootKeys,
  fingerprints: readonly string[],
): Promise<void> {
  if (fingerprints.length === 0) return;
  await trx
    .insertInto('root_key')
    .values(
      fingerprints.map((fingerprint) => ({ fingerprint, canary: roots.makeCanary(fingerprint) })),
    )
    .execute();
}

async function insertSystemKeys(
  trx: Trx,
  keys: readonly WrappedSystemKey[],
  usableFrom: Date,
): Promise<void> {
  if (keys.length === 0) return;
  await trx
    .insertInto('system_key')
    .values(
      keys.map((key) => ({
        id: key.id,
        purpose: key.purpose,
        version: key.version,
        root_fingerprint: key.rootFingerprint,
        wrapped: key.wrapped,
        usable_from: usableFrom,
      })),
    )
    .execute();
}
