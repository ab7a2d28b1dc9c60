// Three replicas at once: starts, writers beside rotations, the policy.
import { sql } from 'kysely';
import t from 'tap';
import { generateRootKey } from '../../src/crypto/index.ts';
import { openDatabase } from '../../src/db/client.ts';
import { testDatabase } from '../helpers/database.ts';
import { until } from '../helpers/processes.ts';
import { type Replica, replicaOf, threeReplicas } from '../helpers/replicas.ts';
import { openVersions } from '../helpers/stored.ts';
import {
  addCredentials,
  ended,
  eventsOf,
  makeTeam,
  noClaim,
  setRotateEveryDays,
  type TeamOfTest,
  type TokenVault,
  tokenVault,
} from '../helpers/tokens.ts';
import { type Answer, startVault, type TestVault } from '../helpers/vault.ts';
import type { CredentialRow } from '../../src/credentials/rows.ts';

const dayMs = 86_400_000;
t.test(
  'of 100 starts at once on three replicas one is answered 202, and 99 with 409 and its id',
  async (t) => {
    const { url } = await testDatabase(t);
    const rootKey = generateRootKey();
    const replica = async (): Promise<TestVault> => {
      const { db, close } = openDatabase({
        url,
        connectTimeoutMs: 60_000,
        statementTimeoutMs: 60_000,
        onError: () => undefined,
      }); // the machine may be a slow one
      t.teardown(close);
      return startVault(t, { database: { url, db }, rootKey });
    };
    const first = await replica();
    const replicas = [first, await replica(), await replica()];
    await first.team('payments');
    const answers: Answer[] = await Promise.all(
      Array.from({ length: 100 }, (_, index) =>
        replicas[index % 3]!.call('alice', 'POST', '/v1/teams/payments/key-rotations'),
      ),
    );
    const started = answers.filter(({ status }) => status === 202);
    t.strictSame([...new Set(answers.map(({ status }) => status))].toSorted(), [202, 409]);
    t.equal(started.length, 1);
    const id = started[0]?.json.id;
    const refused = answers.filter(({ status }) => status === 409);
    t.equal(refused.length, 99);
    t.ok(
      refused.every(({ json }) => json.code === 'rotationRunning' && json.rotationId === id),
      'each of them is told which one runs',
    );
    t.equal(
      (await first.call('alice', 'GET', '/v1/teams/payments/keys')).json.items.length,
      2,
      'no key is left behind',
    );
  },
);

t.test(
  'writers on three replicas beside rotations that never pause: nothing acknowledged is lost, nothing deleted comes back',
  async (t) => {
    const vault = await tokenVault(t);
    const of = await makeTeam(vault, 'payments');
    const replicas = await threeReplicas(t, vault);
    for (const { parts } of replicas) vault.worker({ ...parts, batchRows: 20 }).start();
    await addCredentials(vault, of, 300);
    let isOver = false;
    let changes = 0;
    const writers = await Promise.all(
      Array.from({ length: 6 }, async (_, index) => Writer.open(replicas, of, `writer-${index}`)),
    );
    const writing = writers.map(async (writer) => {
      while (!isOver) {
        await writer.turn();
        changes += 1;
      }
    });
    for (let times = 0; times < 4; times += 1) {
      const before = changes;
      const rotation = await replicas[times % 3]!.keys.startRotation(of.admin, of.team, noClaim);
      t.match(await ended(vault, of.team, rotation.id), { state: 'completed', failed: 0 });
      await until(() => changes >= before + 30);
    }
    isOver = true;
    await Promise.all(writing);
    const last = await replicas[0]!.keys.startRotation(of.admin, of.team, noClaim);
    t.match(await ended(vault, of.team, last.id), { state: 'completed', failed: 0 });
    for (const writer of writers) t.strictSame(await writer.stored(vault), writer.acknowledged());
    const [, ...old] = await vault.keys.listKeys(of.team, { limit: 10, after: undefined });
    t.equal(old.length, 5);
    for (const key of old)
      t.match(await vault.life.retireKey(of.admin, of.team, key.id), { state: 'retired', rows: 0 });
  },
);

/** Changes its own credentials through any replica and remembers what was acknowledged. */
class Writer {
  readonly #replicas: readonly Replica[];
  readonly #of: TeamOfTest;
  readonly #name: string;
  readonly #held: { row: CredentialRow; value: string; state: string }[] = [];
  #turns = 0;
  private constructor(replicas: readonly Replica[], of: TeamOfTest, name: string) {
    this.#replicas = replicas;
    this.#of = of;
    this.#name = name;
  }

  static async open(replicas: readonly Replica[], of: TeamOfTest, name: string): Promise<Writer> {
    const writer = new Writer(replicas, of, name);
    await writer.#create();
    return writer;
  }

  async turn(): Promise<void> {
    this.#turns += 1;
    const { credentials } = this.#replicas[this.#turns % this.#replicas.length]!;
    const living = this.#held.filter(({ state }) => state !== 'deleted');
    const each = living[this.#turns % Math.max(1, living.length)];
    if (each === undefined || this.#turns % 5 === 0) return this.#create();
    if (this.#turns % 5 === 1 && living.length > 3) {
      await credentials.deleteCredential(this.#of.admin, each.row, 'any');
      each.state = 'deleted';
    } else if (this.#turns % 5 === 2) {
      const state = each.state === 'enabled' ? 'disabled' : 'enabled';
      each.row = await credentials.setState(this.#of.admin, each.row, state, noClaim);
      each.state = state;
    } else {
      const value = `${this.#name} ${this.#turns}`;
      each.row = await credentials.updateCredential(
        this.#of.admin,
        each.row,
        'admin',
        { fields: { first: value } },
        'any',
      );
      each.value = value;
    }
  }

  acknowledged(): unknown[] {
    return this.#held.map(({ row, value, state }) => ({ id: row.id, value, kept: 'kept', state }));
  }

  async stored(vault: TokenVault): Promise<unknown[]> {
    return Promise.all(
      this.#held.map(async ({ row: { id } }) => {
        const fields = (await openVersions(vault, id)).at(-1)?.fields;
        const { state } = await vault.db
          .selectFrom('credential')
          .select('state')
          .where('id', '=', id)
          .executeTakeFirstOrThrow();
        return { id, value: fields?.['first'], kept: fields?.['kept'], state };
      }),
    );
  }

  async #create(): Promise<void> {
    const value = `${this.#name} ${this.#turns}`;
    const { credentials } = this.#replicas[this.#turns % this.#replicas.length]!;
    const row = await credentials.createCredential(
      this.#of.admin,
      { ...this.#of.team, defaultDelivery: ['lease'], intact: true },
      { name: value, type: 'custom', fields: { first: value, kept: 'kept' } },
      noClaim,
    );
    this.#held.push({ row, value, state: 'enabled' });
  }
}

t.test('a rotation policy is carried out once, though three replicas look at once', async (t) => {
  const vault = await tokenVault(t);
  const teams = [
    await makeTeam(vault, 'team-a'),
    await makeTeam(vault, 'team-b'),
    await makeTeam(vault, 'team-c'),
  ];
  for (const each of teams) await setRotateEveryDays(vault, each, 30);
  const clock = vault.time;
  const replicas = await threeReplicas(t, vault);
  const look = async (): Promise<number> =>
    (await Promise.all(replicas.map(({ scheduler }) => scheduler.run()))).reduce(
      (sum, { rotations }) => sum + rotations,
      0,
    );
  clock.ms = 29 * dayMs;
  t.equal(await look(), 0, 'not before its time');
  clock.ms = 31 * dayMs;
  t.equal(await look(), 3, 'each team once');
  t.equal(await look(), 0, 'and not again, while it runs');
  for (const { team } of teams) {
    while (await replicas[0]!.step(team.id, 10)) {
      /* until it has ended */
    }
    t.match(await vault.keys.listRotations(team, { limit: 10, after: undefined }), [
      { cause: 'policy', createdBy: null, state: 'completed' },
    ]);
    t.equal((await eventsOf(vault.db, team.id, 'key.rotate')).length, 1);
  }
  t.equal(await look(), 0, 'nor when it is done');
});

t.test(
  'more teams than a page are looked after in one look, and a team whose turn fails keeps no other from its own',
  async (t) => {
    const vault = await tokenVault(t);
    for (let n = 0; n < 60; n += 1)
      await setRotateEveryDays(vault, await makeTeam(vault, `team-${n}`), 30);
    const broken = await vault.db
      .selectFrom('team')
      .select('id')
      .where('slug', '=', 'team-7')
      .executeTakeFirstOrThrow();
    await sql`create function refuse() returns trigger language plpgsql as $$ begin raise exception 'no' using errcode = '53100'; end $$`.execute(
      vault.db,
    );
    await sql
      .raw(
        `create trigger refuse before insert on key_rotation for each row when (new.team_id = '${broken.id}') execute function refuse()`,
      )
      .execute(vault.db);
    vault.time.ms = 31 * dayMs;
    const { scheduler } = await replicaOf(t, vault);
    await t.rejects(scheduler.run(), AggregateError);
    const { n } = await vault.db
      .selectFrom('key_rotation')
      .select((eb) => eb.fn.countAll<number>().as('n'))
      .executeTakeFirstOrThrow();
    t.equal(n, 59);
  },
);
