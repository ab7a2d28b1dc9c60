// Several replicas on one database, each with a pool, a keyring and services of its own, as
// processes would have. They share a clock.
import type { KyselyPlugin, QueryResult, UnknownRow } from 'kysely';
import { AuditLog } from '../../src/audit/record.ts';
import { CredentialsService } from '../../src/credentials/service.ts';
import { type Keyring, parseRootKeys } from '../../src/crypto/index.ts';
import { type Db, openDatabase } from '../../src/db/client.ts';
import { KeyLifeService } from '../../src/keys/life.ts';
import {
  endIfDone,
  listRunningRotations,
  reencryptBatch,
  type RotationParts,
} from '../../src/keys/rotation.ts';
import { KeyScheduler } from '../../src/keys/scheduler.ts';
import { KeysService } from '../../src/keys/service.ts';
import { openKeyring } from '../../src/keys/system-keys.ts';
import type { TeamId } from '../../src/shared/ids.ts';
import { unbounded } from '../../src/access/issuers.ts';
import { clockOf, type MovedTime } from './clock.ts';
import type { TokenVault } from './tokens.ts';

export interface Replica {
  readonly db: Db;
  readonly keyring: Keyring;
  readonly parts: RotationParts;
  readonly keys: KeysService;
  readonly life: KeyLifeService;
  readonly scheduler: KeyScheduler;
  readonly credentials: CredentialsService;
  /** What a worker does in one turn for the rotation of the team; false where none runs. */
  step(team: TeamId, rows: number): Promise<boolean>;
}
interface Teardown {
  teardown(action: () => unknown): unknown;
}

/**
 * A replica on the vault's database, whose time it keeps to. A stale one learns which key is active
 * one question too late; `skew` is what its own clock is ahead.
 */
export async function replicaOf(
  t: Teardown,
  vault: TokenVault,
  { skew = { ms: 0 }, isStale = false }: { skew?: MovedTime; isStale?: boolean } = {},
): Promise<Replica> {
  const { db, close } = openDatabase({ url: vault.url, poolMax: 6, onError: () => undefined });
  t.teardown(close);
  const { clock } = await clockOf(db, { skew });
  const { now } = clock;
  const keyring = await openKeyring({ db, roots: parseRootKeys(vault.rootKeys), now });
  const audit = new AuditLog({ db, keyring, now, onError: raise, onAlarm: () => undefined });
  const parts = { db, keyring, audit, now };
  const wake = (): void => undefined;
  const life = new KeyLifeService({ ...parts, clock, wake });
  return {
    db,
    keyring,
    parts,
    life,
    keys: new KeysService({ ...parts, wake }),
    scheduler: new KeyScheduler({ ...parts, clock, wake, life, onError: raise }),
    credentials: new CredentialsService({
      subjectBounds: unbounded,
      ...parts,
      db: isStale ? db.withPlugin(new LateActiveKey()) : db,
      canShow: () => true,
    }),
    step: async (team, limit) => {
      const rotation = (await listRunningRotations(db)).find((each) => each.team === team);
      if (rotation === undefined) return false;
      const { moved, failed } = await reencryptBatch(parts, rotation, {
        limit,
        passOver: [],
        after: undefined,
      });
      if (moved + failed === 0) await endIfDone(parts, rotation);
      return true;
    },
  };
}

/** Three of them. */
export const threeReplicas = async (t: Teardown, vault: TokenVault): Promise<Replica[]> =>
  Promise.all([replicaOf(t, vault), replicaOf(t, vault), replicaOf(t, vault)]);

/** Answers the question for a team's active key with what the answer was the time before. */
class LateActiveKey implements KyselyPlugin {
  readonly #asked = new WeakSet<object>();
  readonly #before = new Map<unknown, UnknownRow>();

  transformQuery({
    node,
    queryId,
  }: Parameters<KyselyPlugin['transformQuery']>[0]): ReturnType<KyselyPlugin['transformQuery']> {
    if (node.kind === 'RawNode') {
      const text = node.sqlFragments.join(' ');
      if (
        text.includes('from data_key where team_id') &&
        text.includes("state = 'active'") &&
        !text.includes('for key share')
      )
        this.#asked.add(queryId);
    }
    return node;
  }

  async transformResult({
    result,
    queryId,
  }: Parameters<KyselyPlugin['transformResult']>[0]): Promise<QueryResult<UnknownRow>> {
    const [row] = result.rows;
    if (!this.#asked.has(queryId) || row === undefined) return result;
    const late = this.#before.get(row['team']) ?? row;
    this.#before.set(row['team'], row);
    return { ...result, rows: [late] };
  }
}

function raise(error: Error): never {
  throw error;
}
