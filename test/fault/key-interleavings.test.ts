// The guard of a key, played through: every interleaving of somebody who writes a token and
// somebody who takes its key away. The ways to do it that look right and are not are played too, to
// show that they let a row land under a retired key, and that the database's triggers stop them.
import { sql } from 'kysely';
import t from 'tap';
import {
  findActiveKey,
  insertVersion,
  lockActiveKey as shareActiveKey,
} from '../../src/credentials/repository.ts';
import { type Keyring, Secret, type WrappedDataKey } from '../../src/crypto/index.ts';
import type { Db, Trx } from '../../src/db/client.ts';
import { isCheckViolation } from '../../src/db/errors.ts';
import { countBatch, listRunningRotations } from '../../src/keys/moving.ts';
import { reencryptors } from '../../src/keys/tables/moving.ts';
import {
  demoteKey,
  insertActiveKey,
  lockActiveKeyAlone,
  lockKey,
  updateKey,
} from '../../src/keys/repository.ts';
import { cancelRotation } from '../../src/keys/rotation-repository.ts';
import { countTokensByTable } from '../../src/keys/tables/counts.ts';
import { type CredentialId, type DataKeyId, newId } from '../../src/shared/ids.ts';
import { type Played, playEvery, type Side } from '../helpers/interleavings.ts';
import {
  activeKey,
  addCredentials,
  insertCredentials,
  makeTeam,
  noClaim,
  placeOf,
  type TeamOfTest,
  type TokenVault,
  tokenVault,
} from '../helpers/tokens.ts';
import type { TokenToMove, RunningRotation } from '../../src/keys/mover.ts';

class InUse extends Error {}
class Stopped extends Error {}

/**
 * A team with a token under its first key, a second key that is active, and the rotation that runs.
 */
interface Stage {
  readonly of: TeamOfTest;
  readonly key: WrappedDataKey;
  readonly credential: CredentialId;
  readonly rotation: RunningRotation;
}

async function setStage(vault: TokenVault): Promise<Stage> {
  const of = await makeTeam(vault, newId());
  const [credential] = await addCredentials(vault, of, 1);
  const { id } = await vault.keys.startRotation(of.admin, of.team, noClaim);
  const rotation = (await listRunningRotations(vault.db)).find((each) => each.id === id);
  return {
    of,
    key: await activeKey(vault.db, of.team.id),
    credential: credential!,
    rotation: rotation!,
  };
}

type Writer = (vault: TokenVault, stage: Stage) => Side;
/** Creating: the key was read at some time before, without a lock; the write is one statement. */
const creating = ({ keyring }: TokenVault, { of }: Bare): Side => {
  let key: WrappedDataKey | undefined;
  return {
    transactions: [
      {
        steps: [
          async (trx) => {
            key = await findActiveKey(trx, of.team.id);
          },
          async (trx) => {
            await insertCredentials(trx, keyring, of, { n: 1, key: key! });
          },
        ],
      },
    ],
  };
};
/** Changing a credential: the key is read for key share first, then a version is written. */
const changing: Writer = ({ keyring }, { of, credential }) => {
  let key: WrappedDataKey | undefined;
  return {
    transactions: [
      {
        steps: [
          async (trx) => {
            await sql`select 1 from credential where id = ${credential} for no key update`.execute(
              trx,
            );
          },
          async (trx) => {
            key = (await shareActiveKey(trx, of.team.id)) ?? stop();
          },
          async (trx) => insertVersion(trx, versionUnder(keyring, { of, credential }, key!)),
        ],
      },
    ],
  };
};
/** Moving: a batch of the rotation that runs. */
const moving: Writer = ({ keyring }, { rotation }) => {
  let held: TokenToMove[] = [];
  const reencryptor = reencryptors.find(({ table }) => table.name === 'credential_version')!;
  return {
    transactions: [
      {
        steps: [
          async (trx) => {
            held = await reencryptor.hold(trx, rotation, {
              limit: 10,
              passOver: [],
              after: undefined,
            });
            if (held.length === 0) stop();
          },
          async (trx) => {
            const moved = held.map((token) => ({
              ...token,
              moved: keyring.reseal(token.from, token.to, token.binding, token.token),
            }));
            if (!(await reencryptor.store(trx, moved))) stop();
          },
          async (trx) => {
            if (!(await countBatch(trx, rotation, { done: held.length, at: new Date() }))) stop();
          },
        ],
      },
    ],
  };
};
const writers = { creating, changing, moving };

/**
 * The vault's own way: a rotation begins, which demotes the key; then the key is retired if nothing
 * is under it.
 */
const rotatingAndRetiring = (vault: TokenVault, { of, key, rotation }: Stage): Side => ({
  transactions: [
    {
      steps: [
        async (trx) => {
          if ((await lockActiveKeyAlone(trx, of.team.id))?.id !== key.id) stop();
        },
        async (trx) => {
          await cancelRotation(trx, of.team.id, rotation.id, new Date());
          await demoteKey(trx, of.team.id, key.id, new Date());
          const next = vault.keyring.newDataKey({
            id: newId<DataKeyId>(),
            team: of.team.id,
            version: key.version + 1,
            format: 'fernet',
          });
          await insertActiveKey(trx, next, { by: of.admin.subject, at: new Date() });
        },
      ],
    },
    {
      steps: [
        async (trx) => lockKey(trx, of.team.id, key.id),
        async (trx) => refuseInUse(trx, of, key),
        async (trx) =>
          updateKey(trx, of.team.id, key.id, { state: 'retired', retired_at: new Date() }),
      ],
    },
  ],
});

for (const [name, writer] of Object.entries(writers))
  t.test(
    `${name}, against a rotation and a retirement: in no interleaving does a row land under a key that has left`,
    async (t) => {
      const vault = await tokenVault(t);
      const seen = { blocked: 0, written: 0, refused: 0, retired: 0, inUse: 0 };
      const count = await playEvery(vault.db, async () => {
        const stage = await setStage(vault);
        return {
          sides: [writer(vault, stage), rotatingAndRetiring(vault, stage)],
          judge: async ({ order, wasBlocked, errors: [ofWriter, ofAdmin] }) => {
            const isRefused =
              ofWriter instanceof Stopped || isCheckViolation(ofWriter, 'token_needs_active_key');
            if (ofWriter !== undefined && !isRefused) throw ofWriter;
            if (ofAdmin !== undefined && !(ofAdmin instanceof InUse)) throw ofAdmin;
            if ((await countLanded(vault.db, stage.of)) > 0) t.fail(`a row landed: ${order}`);
            const { state, rows } = await vault.keys.getKey(stage.of.team, stage.key.id);
            if ((rows === 1) !== (state === 'decryptOnly'))
              t.fail(
                `a row under the key keeps it from being retired, and nothing else does: ${order}`,
              );
            seen.blocked += Number(wasBlocked);
            seen.written += Number(ofWriter === undefined);
            seen.refused += Number(isRefused);
            seen.retired += Number(state === 'retired');
            seen.inUse += Number(ofAdmin instanceof InUse);
          },
        };
      });
      t.ok(count > 20, `${count} interleavings`);
      for (const [what, times] of Object.entries(seen))
        t.ok(times > 0, `${what}: ${times} of them`);
    },
  );

type Bare = Pick<Stage, 'of' | 'key'>;
type Admin = (stage: Bare) => Side;
const takeAway = async (trx: Trx, { key }: Bare): Promise<void> => {
  for (const state of ['decryptOnly', 'retired'] as const)
    await sql`update data_key set state = ${state} where id = ${key.id}`.execute(trx);
};
/** Lock, count, take away, in one transaction of its own. */
const inSteps =
  (lock: string, isolation: 'read committed' | 'repeatable read' = 'read committed'): Admin =>
  (stage) => ({
    transactions: [
      {
        isolation,
        steps: [
          ...(lock === ''
            ? []
            : [
                async (trx: Trx) =>
                  sql`select 1 from data_key where id = ${stage.key.id} ${sql.raw(lock)}`.execute(
                    trx,
                  ),
              ]),
          async (trx) => refuseInUse(trx, stage.of, stage.key),
          async (trx) => takeAway(trx, stage),
        ],
      },
    ],
  });
const inOneStatement: Admin = ({ key }) => ({
  transactions: [
    {
      steps: [
        async (trx) => {
          const { rows } = await sql`
      with held as (select id from data_key where id = ${key.id} for update),
      used as (select count(*) as n from credential_version, held where data_key_id = held.id)
      update data_key set state = 'decryptOnly' from held, used where data_key.id = held.id and used.n = 0 returning 1`.execute(
            trx,
          );
          if (rows.length === 0) throw new InUse();
        },
        async (trx) => sql`update data_key set state = 'retired' where id = ${key.id}`.execute(trx),
      ],
    },
  ],
});

const admins: Record<string, Admin> = {
  'counting and then retiring without the lock': inSteps(''),
  "`for no key update`, which does not meet the writer's `for key share`":
    inSteps('for no key update'),
  'lock, count and change in one statement with CTEs': inOneStatement,
  'the lock at REPEATABLE READ': inSteps('for update', 'repeatable read'),
};

/**
 * Without the trigger that repeats the check: the writer's own key share, or the foreign key, is
 * all there is.
 */
const dropStateMachine = (db: Db): Promise<unknown> =>
  sql`drop trigger data_key_state_machine on data_key`.execute(db);
const dropWritersCheck = (db: Db): Promise<unknown> =>
  sql`drop trigger token_needs_active_key on credential_version`.execute(db);
/** The writers' trigger with the key's row lock alone: the queue only decides who comes first. */
const dropQueue = (db: Db): Promise<unknown> =>
  sql`create or replace function data_key_queue(key uuid) returns bigint language sql volatile as 'select (random() * 1e15)::bigint'`.execute(
    db,
  );

/** Plays a creator against the admin; in which interleavings a row landed under a retired key. */
async function playVariant(
  vault: TokenVault,
  admin: Admin,
): Promise<{ count: number; landed: string[]; played: Played[] }> {
  const landed: string[] = [];
  const all: Played[] = [];
  const count = await playEvery(vault.db, async () => {
    const of = await makeTeam(vault, newId());
    const stage = { of, key: await activeKey(vault.db, of.team.id) };
    return {
      sides: [creating(vault, stage), admin(stage)],
      judge: async (played) => {
        all.push(played);
        if ((await countLanded(vault.db, stage.of)) > 0) landed.push(played.order);
      },
    };
  });
  return { count, landed, played: all };
}

for (const [name, admin] of Object.entries(admins))
  t.test(`not enough: ${name}`, async (t) => {
    const bare = await tokenVault(t);
    await dropStateMachine(bare.db);
    await dropQueue(bare.db);
    const { count, landed } = await playVariant(bare, admin);
    t.ok(
      landed.length > 0,
      `a row lands in ${landed.length} of ${count} interleavings, e.g. ${landed[0]}`,
    );
    const guarded = await tokenVault(t);
    t.strictSame(
      (await playVariant(guarded, admin)).landed,
      [],
      "the database's own check of the key's state lets none land",
    );
  });

t.test('not enough: a foreign key alone', async (t) => {
  const vault = await tokenVault(t);
  await dropWritersCheck(vault.db);
  await dropStateMachine(vault.db);
  const { count, landed } = await playVariant(vault, inSteps('for update'));
  t.ok(
    landed.length > 0,
    `a row lands in ${landed.length} of ${count} interleavings, e.g. ${landed[0]}`,
  );
});

t.test(
  'enough: `for update` in a statement of its own at READ COMMITTED, with no trigger on the key and no queue',
  async (t) => {
    const vault = await tokenVault(t);
    await dropStateMachine(vault.db);
    await dropQueue(vault.db);
    const { count, landed, played } = await playVariant(vault, inSteps('for update'));
    t.strictSame(landed, [], `none of ${count}`);
    t.ok(
      played.some(({ errors: [, ofAdmin] }) => ofAdmin instanceof InUse) &&
        played.some(({ errors: [ofWriter] }) =>
          isCheckViolation(ofWriter, 'token_needs_active_key'),
        ),
      'each side was refused in some',
    );
  },
);

async function refuseInUse(trx: Trx, { team }: TeamOfTest, key: WrappedDataKey): Promise<void> {
  if (
    Object.values(await countTokensByTable(trx, { team: team.id, id: key.id })).some(
      (count) => count > 0,
    )
  )
    throw new InUse();
}

/** Rows of the team under a key that is neither active nor decryptOnly. */
async function countLanded(db: Db, { team }: TeamOfTest): Promise<number> {
  const { rows } = await sql`
    select 1 from credential_version version join data_key key on key.id = version.data_key_id
    where version.team_id = ${team.id} and key.state not in ('active', 'decryptOnly')`.execute(db);
  return rows.length;
}

function versionUnder(
  keyring: Keyring,
  { of, credential }: { of: TeamOfTest; credential: CredentialId },
  key: WrappedDataKey,
): Parameters<typeof insertVersion>[1] {
  const binding = { ...placeOf(of.team.id, credential), version: 2 };
  return {
    team: of.team.id,
    credential,
    version: 2,
    key: key.id,
    token: keyring.seal(key, binding, new Secret({ apiKey: 'another' })),
    secretFieldNames: ['apiKey'],
    publicFields: binding.publicFields as Record<string, string>,
    policy: binding.policy as never,
    by: of.admin.subject,
    at: new Date(),
    keyHistory: [],
  };
}

function stop(): never {
  throw new Stopped();
}
