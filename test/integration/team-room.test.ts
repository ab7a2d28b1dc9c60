// How teams are counted: in memory, by the write, and by recounts beside it.
import { sql } from 'kysely';
import t, { type Test } from 'tap';
import { settleCount } from '../../src/credentials/room-repository.ts';
import type { Db } from '../../src/db/client.ts';
import type { TeamId } from '../../src/shared/ids.ts';
import { storeOpenai } from '../helpers/leases.ts';
import { until } from '../helpers/processes.ts';
import { startVault, type TestVault } from '../helpers/vault.ts';
import { TeamRoom } from '../../src/credentials/room.ts';

const one = { living: 1, stored: 1, bytes: 100 };
const usual = { credentials: 1_000_000, ciphertextBytes: 4 * 1024 ** 3 };

interface Stage {
  readonly vault: TestVault;
  readonly db: Db;
  readonly team: TeamId;
  recorded(): Promise<{ living: number; stored: number; bytes: number; isCounted: boolean }>;
  /** A room of its own, as another replica would have. */
  room(options?: Partial<ConstructorParameters<typeof TeamRoom>[0]>): TeamRoom;
}

/** A team of three credentials, of which one is deleted. */
async function stageOf(t: Test): Promise<Stage> {
  const vault = await startVault(t);
  await vault.team('payments');
  for (const name of ['one', 'two', 'three'])
    await storeOpenai(vault, 'payments', name, 'sk-test-00000000');
  await sql`update credential set state = 'deleted', deleted_at = now() where name = 'three'`.execute(
    vault.db,
  );
  await vault.stop();
  const { db } = vault;
  const { id: team } = await db
    .selectFrom('team')
    .select('id')
    .where('slug', '=', 'payments')
    .executeTakeFirstOrThrow();
  return {
    vault,
    db,
    team,
    recorded: async () => {
      const { rows } = await sql<any>`
        select living_credentials as living, stored_credentials as stored, bytes, counted_at is not null as "isCounted"
        from team_size where team_id = ${team}`.execute(db);
      return rows[0];
    },
    room: (options = {}) => {
      const room = new TeamRoom({
        db,
        now: Date.now,
        onError: (error) => {
          throw error;
        },
        ...options,
      });
      t.teardown(() => room.stop());
      return room;
    },
  };
}
const bytes = async (db: Db): Promise<number> => {
  const { rows } = await sql<{ bytes: number }>`
    select sum(octet_length(token) + pg_column_size(public_fields))::bigint as bytes from credential_version`.execute(
    db,
  );
  return rows[0]!.bytes;
};
const record = (
  { db, team }: Stage,
  size: { living: number; stored: number; bytes: number },
  countedAt: Date | null,
): Promise<unknown> =>
  sql`
    update team_size set living_credentials = ${size.living}, stored_credentials = ${size.stored}, bytes = ${size.bytes}, counted_at = ${countedAt}
    where team_id = ${team}`.execute(db);

t.test('a small team is counted by the first write', async (t) => {
  const stage = await stageOf(t);
  await sql`delete from team_size`.execute(stage.db);
  const room = stage.room();
  t.equal(room.take(stage.team, one), false, 'nothing is known of it');
  await room.transaction(stage.team, (_trx, stay) => stay.grow(one));
  const size = { living: 3, stored: 4, bytes: (await bytes(stage.db)) + 100, isCounted: true };
  t.match(await stage.recorded(), size);
  t.equal(room.take(stage.team, one), true, 'and known from then on');
  t.equal(room.take(stage.team, { living: 999_990 }), false, 'as far as it is far from its bounds');
});

t.test('a large one beside it, and without a bound until then', async (t) => {
  const stage = await stageOf(t);
  await sql`delete from team_size`.execute(stage.db);
  const room = stage.room({
    countedAtOnceMax: 1,
    limits: { ...usual, credentials: 1 },
  });
  await room.transaction(stage.team, (_trx, stay) => stay.grow(one));
  await until(async () => (await stage.recorded()).isCounted);
  t.match(await stage.recorded(), { living: 2, stored: 3 });
  await t.rejects(
    room.transaction(stage.team, (_trx, stay) => stay.grow(one)),
    { code: 'limitReached', details: { limit: 'credentials', max: 1 } },
  );
});

t.test('what is recorded too much is found, without a write that waits', async (t) => {
  for (const [what, atOnce, ageMs] of [
    ['by the write that is refused', 1_000, 0],
    ['beside it', 1, 11 * 60_000],
  ] as const) {
    const stage = await stageOf(t);
    await record(stage, { living: 50, stored: 50, bytes: 1 }, new Date(Date.now() - ageMs));
    const room = stage.room({ countedAtOnceMax: atOnce, limits: { ...usual, credentials: 10 } });
    const grow = (): Promise<unknown> =>
      room.transaction(stage.team, (_trx, stay) => stay.grow(one));
    if (atOnce === 1) {
      await t.rejects(grow(), { code: 'limitReached' }, what);
      await until(async () => (await stage.recorded()).living === 2);
    }
    await grow();
    t.match(await stage.recorded(), { living: 3, stored: 4 }, what);
  }
});

t.test('a count is kept though the write was refused, and is not made again at once', async (t) => {
  const stage = await stageOf(t);
  await record(stage, { living: 50, stored: 50, bytes: 1 }, new Date());
  const room = stage.room({ limits: { ...usual, credentials: 2 } });
  const grow = (growth: object): Promise<unknown> =>
    room.transaction(stage.team, (_trx, stay) => stay.grow(growth));
  await t.rejects(grow(one), { code: 'limitReached' });
  t.match(await stage.recorded(), { living: 2, stored: 3 });
  await grow({ living: -1 });
  await grow(one);
  t.match(await stage.recorded(), { living: 2, stored: 4 }, 'what was freed is there at once');
});

t.test('what was counted long ago is counted again, once', async (t) => {
  const stage = await stageOf(t);
  const before = new Date(Date.now() - 25 * 3_600_000);
  await record(stage, { living: 500, stored: 500, bytes: 500 }, before);
  const { db } = stage;
  await sql`
    insert into credential_version (team_id, credential_id, version, data_key_id, token, secret_field_names, public_fields, policy, created_at, created_by)
    select team_id, credential_id, n, data_key_id, token, secret_field_names, public_fields, policy, created_at, created_by
    from credential_version cross join generate_series(2, 4) n`.execute(db);
  const rooms = [stage.room({ pieceRows: 1 }), stage.room({ pieceRows: 5 })];
  for (const room of rooms) await room.transaction(stage.team, (_trx, stay) => stay.enter());
  await until(async () => (await stage.recorded()).living === 2);
  await Promise.all(rooms.map((room) => room.stop()));
  t.match(await stage.recorded(), { living: 2, stored: 3, bytes: await bytes(stage.db) });
});

t.test('of two counts of the same time one is recorded', async (t) => {
  const stage = await stageOf(t);
  const counted = { living: 2, stored: 3, bytes: 1_000 };
  const before = { living: 20, stored: 30, bytes: 10_000, countedAt: new Date(0) };
  const settle = (): Promise<unknown> =>
    settleCount(stage.db, stage.team, before, counted, new Date());
  await record(stage, { ...before, living: 21 }, before.countedAt);
  t.match(await settle(), { living: 3, stored: 3, bytes: 1_000 }, 'with what has grown since');
  t.equal(await settle(), undefined);
  t.match(await stage.recorded(), { living: 3, stored: 3, bytes: 1_000 });
});

t.test('replicas add up what they have counted; what was taken back is not counted', async (t) => {
  const stage = await stageOf(t);
  const rooms = [stage.room(), stage.room()];
  for (const room of rooms) {
    await room.transaction(stage.team, (_trx, stay) => stay.grow(one));
    t.equal(room.take(stage.team, one), true);
    t.equal(room.take(stage.team, one), true);
    room.give(stage.team, one);
    await t.rejects(
      room.transaction(stage.team, async (_trx, stay) => {
        await stay.grow({ living: 100 });
        await stay.grow({ living: -200 });
        throw new Error('taken back');
      }),
      { message: 'taken back' },
    );
  }
  await Promise.all(rooms.flatMap((room) => [room.flush(), room.flush()]));
  t.match(await stage.recorded(), { living: 3 + 4, stored: 3 + 4 });
});

t.test('what cannot be written waits, and is written later', async (t) => {
  const stage = await stageOf(t);
  const told: string[] = [];
  const room = stage.room({ onError: ({ message }) => told.push(message) });
  await room.transaction(stage.team, (_trx, stay) => stay.grow(one));
  await sql`alter table team_size rename to team_size_away`.execute(stage.db);
  await room.flush();
  t.same(told, ['sizes are waiting (1)']);
  await sql`alter table team_size_away rename to team_size`.execute(stage.db);
  await room.flush();
  t.match(await stage.recorded(), { living: 4 });
});
