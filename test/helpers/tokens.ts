// A vault without its HTTP face: a database, a keyring, teams, and credentials with real tokens,
// written past the credentials' service.
import { sql } from 'kysely';
import { AuditLog } from '../../src/audit/record.ts';
import { credentialRowMac } from '../../src/credentials/row-mac.ts';
import {
  generateRootKey,
  type Keyring,
  parseRootKeys,
  type Binding,
  Secret,
  type WrappedDataKey,
} from '../../src/crypto/index.ts';
import type { Db, Executor, Trx } from '../../src/db/client.ts';
import { Subjects } from '../../src/db/subjects.ts';
import { KeyLifeService } from '../../src/keys/life.ts';
import { KeysService } from '../../src/keys/service.ts';
import { openKeyring } from '../../src/keys/system-keys.ts';
import { RotationWorker, type RotationWorkerParts } from '../../src/keys/worker.ts';
import {
  type CredentialId,
  type DataKeyId,
  newId,
  type RotationId,
  type SubjectId,
  type TeamId,
} from '../../src/shared/ids.ts';
import type { JsonObject } from '../../src/shared/json.ts';
import { membershipRowMac } from '../../src/access/rights.ts';
import { clockOf, type MovedTime } from './clock.ts';
import { findSettings, type MacedTeam, writeMac } from '../../src/access/team-settings.ts';
import { testDatabase } from './database.ts';
import { until } from './processes.ts';
import type { Caller, TeamRef } from '../../src/access/caller.ts';
import type { Claim } from '../../src/db/claims.ts';

interface Teardown {
  teardown(action: () => unknown): unknown;
}

export interface TokenVault {
  readonly url: string;
  readonly db: Db;
  /** The database's time. */
  readonly time: MovedTime;
  readonly rootKeys: string;
  readonly keyring: Keyring;
  readonly audit: AuditLog;
  readonly keys: KeysService;
  readonly life: KeyLifeService;
  /** A worker on this vault; stopped at teardown. */
  worker(options?: Partial<RotationWorkerParts>): RotationWorker;
}
export interface TeamOfTest {
  readonly team: TeamRef;
  readonly admin: Caller;
}
export interface StoredToken {
  readonly credential: CredentialId;
  readonly version: number;
  readonly data_key_id: DataKeyId;
  readonly token: string;
  readonly undecryptable_at: Date | null;
}

export const noClaim: Claim = async () => {
  /* no idempotency key */
};
export const fieldsOf = (credential: CredentialId): Record<string, string> => ({
  apiKey: `sk-${credential}`,
});
const publicFields = { baseUrl: 'https://api.openai.com' };
const policy = { delivery: ['lease'], allowedHosts: [] };

/** A vault with a database of its own. */
export async function tokenVault(t: Teardown): Promise<TokenVault> {
  const { url, db } = await testDatabase(t);
  const { clock, time } = await clockOf(db);
  const rootKeys = generateRootKey();
  const keyring = await openKeyring({ db, roots: parseRootKeys(rootKeys), now: Date.now });
  const audit = new AuditLog({
    db,
    keyring,
    now: Date.now,
    onError: raise,
    onAlarm: () => undefined,
  });
  const keys = new KeysService({ db, keyring, audit, now: Date.now, wake: () => undefined });
  const life = new KeyLifeService({
    db,
    keyring,
    audit,
    now: clock.now,
    clock,
    wake: () => undefined,
  });
  const worker = (options: Partial<RotationWorkerParts> = {}): RotationWorker => {
    const made = new RotationWorker({
      db,
      keyring,
      audit,
      now: Date.now,
      onError: raise,
      pollMs: 20,
      ...options,
    });
    t.teardown(() => made.stop());
    return made;
  };
  return { url, db, time, rootKeys, keyring, audit, keys, life, worker };
}

/** A team with its first key and one admin. */
export async function makeTeam(
  { db, keyring, keys }: TokenVault,
  slug: string,
  format: 'fernet' | 'fernet-256' = 'fernet',
): Promise<TeamOfTest> {
  const team: TeamRef = { id: newId<TeamId>(), slug };
  const sub = `admin-of-${slug}`;
  const subject = await new Subjects().ensure(db, sub);
  const stamps = {
    created_at: new Date(),
    created_by: subject,
    updated_at: new Date(),
    updated_by: subject,
  };
  await db.transaction().execute(async (trx) => {
    await trx
      .insertInto('team')
      .values({
        id: team.id,
        slug,
        name: slug,
        token_format: format,
        revision: 1,
        deleted_at: null,
        ...stamps,
      })
      .execute();
    await writeMac(trx, keyring, {
      ...team,
      tokenFormat: format,
      rotateEveryDays: null,
      refuseExposedLeases: false,
      defaultDelivery: ['lease'],
      versionsKept: 10,
      revision: 1,
    });
    await keys.insertFirstKey(trx, { team: team.id, format, by: subject, at: new Date() });
    const row = {
      team: team.id,
      slug,
      subject,
      sub,
      role: 'admin',
      actsForItself: false,
      revision: 1,
    } as const;
    await trx
      .insertInto('membership')
      .values({
        team_id: team.id,
        subject_id: subject,
        role: 'admin',
        acts_for_itself: false,
        revision: 1,
        seal: membershipRowMac(keyring, row),
        ...stamps,
      })
      .execute();
  });
  return {
    team,
    admin: { sub, subject, isOperator: false, requestId: newId(), address: '127.0.0.1' },
  };
}

/** Sets the format of the team's next key, as its admin would. */
export const setFormat = (
  vault: TokenVault,
  team: TeamOfTest,
  format: 'fernet' | 'fernet-256',
): Promise<void> => changeSettings(vault, team, { tokenFormat: format });

/** Sets how old the team's keys get, as its admin would. */
export const setRotateEveryDays = (
  vault: TokenVault,
  team: TeamOfTest,
  days: number,
): Promise<void> => changeSettings(vault, team, { rotateEveryDays: days });

async function changeSettings(
  { db, keyring }: TokenVault,
  { team }: TeamOfTest,
  change: Partial<Pick<MacedTeam, 'tokenFormat' | 'rotateEveryDays'>>,
): Promise<void> {
  await db.transaction().execute(async (trx) => {
    const settings = await findSettings(trx, keyring, team.id);
    if (settings === undefined) throw new Error('the team has settings');
    const next = { ...settings, ...change };
    await trx
      .updateTable('team')
      .set({ token_format: next.tokenFormat, rotate_every_days: next.rotateEveryDays })
      .where('id', '=', team.id)
      .execute();
    await writeMac(trx, keyring, next);
  });
}

/** The team's active key, as a writer of tokens finds it. */
export async function activeKey(executor: Executor, team: TeamId): Promise<WrappedDataKey> {
  return executor
    .selectFrom('data_key')
    .select([
      'id',
      'team_id as team',
      'version',
      'format',
      'root_fingerprint as rootFingerprint',
      'wrapped',
    ])
    .where('team_id', '=', team)
    .where('state', '=', 'active')
    .$narrowType<{ wrapped: Buffer }>()
    .executeTakeFirstOrThrow();
}

export const placeOf = (team: TeamId, credential: CredentialId): Binding => ({
  team,
  credential,
  version: 1,
  type: 'openai',
  publicFields,
  policy,
});

/**
 * Inserts credentials of one version each, in one transaction; their ids. `sealedAt` is the time
 * that their tokens carry.
 */
export async function addCredentials(
  vault: TokenVault,
  of: TeamOfTest,
  n: number,
): Promise<CredentialId[]> {
  return vault.db
    .transaction()
    .execute(async (trx) =>
      insertCredentials(trx, vault.keyring, of, { n, key: await activeKey(trx, of.team.id) }),
    );
}

/** The same inside a transaction of the caller's, under the key that they give. */
export async function insertCredentials(
  trx: Trx,
  keyring: Keyring,
  { team, admin }: TeamOfTest,
  { n, key }: { n: number; key: WrappedDataKey },
): Promise<CredentialId[]> {
  const at = new Date();
  const rows = Array.from({ length: n }, () => {
    const id = newId<CredentialId>();
    const sealed = {
      id,
      team: team.id,
      name: id,
      type: 'openai',
      state: 'enabled',
      stateBefore: null,
      version: 1,
      expiresAt: null,
      revision: 1,
      publicFields,
      policy: { delivery: ['lease'], allowedHosts: [] },
      secretFieldNames: ['apiKey'],
    } as const;
    return {
      id,
      seal: credentialRowMac(keyring, sealed),
      token: keyring.seal(key, placeOf(team.id, id), new Secret(fieldsOf(id))),
    };
  });
  const column = <T>(of: (row: (typeof rows)[number]) => T): T[] => rows.map(of);
  await sql`insert into credential (id, team_id, name, type, description, labels, state, current_version, revision, seal, created_at, created_by, updated_at, updated_by)
    select id, ${team.id}, id::text, 'openai', null, '{}', 'enabled', 1, 1, seal, ${at}, ${admin.subject}, ${at}, ${admin.subject}
    from unnest(${column((row) => row.id)}::uuid[], ${column((row) => row.seal)}::bytea[]) as made (id, seal)`.execute(
    trx,
  );
  await sql`insert into credential_version (team_id, credential_id, version, data_key_id, token, secret_field_names, public_fields, policy, created_at, created_by)
    select ${team.id}, id, 1, ${key.id}, token, '{apiKey}', ${JSON.stringify(publicFields)}::jsonb, ${JSON.stringify(policy)}::jsonb, ${at}, ${admin.subject}
    from unnest(${column((row) => row.id)}::uuid[], ${column((row) => row.token)}::text[]) as made (id, token)`.execute(
    trx,
  );
  return rows.map(({ id }) => id);
}

/** Every token of the team. */
export async function tokensOf(db: Executor, team: TeamId): Promise<StoredToken[]> {
  return db
    .selectFrom('credential_version')
    .select(['credential_id as credential', 'version', 'data_key_id', 'token', 'undecryptable_at'])
    .where('team_id', '=', team)
    .orderBy('credential_id')
    .execute();
}

/** Whether each token opens at its place under the team's active key and holds what was stored. */
export async function allOpenUnderActiveKey(
  { db, keyring }: TokenVault,
  team: TeamId,
): Promise<boolean> {
  const key = await activeKey(db, team);
  return (await tokensOf(db, team)).every(
    ({ credential, data_key_id, token }) =>
      data_key_id === key.id &&
      keyring.open(key, placeOf(team, credential), token).expose()['apiKey'] ===
        fieldsOf(credential)['apiKey'],
  );
}

/** The rotation, once it does not run any more. */
export async function ended(
  { keys }: TokenVault,
  team: TeamRef,
  id: RotationId,
): ReturnType<KeysService['getRotation']> {
  return until(async () => {
    const rotation = await keys.getRotation(team, id);
    return rotation.state !== 'running' && rotation;
  });
}

/**
 * The audit events of the team's actions of that name, oldest first, those of one moment by target.
 */
export async function eventsOf(
  db: Executor,
  team: TeamId,
  action: string,
): Promise<
  {
    target: string;
    details: JsonObject;
    request: string;
    actor: SubjectId | null;
    version: number | null;
    key: DataKeyId | null;
  }[]
> {
  return db
    .selectFrom('audit_event')
    .select([
      'target_id as target',
      'details',
      'request_id as request',
      'actor_id as actor',
      'credential_version as version',
      'key_id as key',
    ])
    .where('team_id', '=', team)
    .where('action', '=', action)
    .orderBy('at')
    .orderBy('target_id')
    .execute();
}

/** How many of this database wait for a lock; with an object, for that advisory lock. */
export async function countWaiting(
  db: Executor,
  { object }: { object?: number } = {},
): Promise<number> {
  // A transaction sees the connections that there were when it first asked, unless it asks anew.
  await sql`select pg_stat_clear_snapshot()`.execute(db);
  const { rows } = await sql<{ n: number }>`
    select count(*) as n from pg_locks join pg_stat_activity using (pid)
    where datname = current_database() and not granted and (${object ?? null}::oid is null or (locktype = 'advisory' and objid = ${object ?? null}))`.execute(
    db,
  );
  return rows[0]?.n ?? 0;
}

function raise(error: Error): never {
  throw error;
}
