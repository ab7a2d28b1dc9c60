// What the vault sends to its database does not take longer because others use the vault too. Every
// statement of every operation and of what runs in the background is sent once, and its plan is
// looked at in a database with ten thousand rows a table and in one with ten times as many.
import { sql } from 'kysely';
import pg from 'pg';
import t from 'tap';
import { folded } from '../helpers/folded.ts';
import {
  isPlanned,
  nodesOf,
  type PlanNode,
  planOf,
  type SentStatement,
  watchStatements,
} from '../../bench/plans.ts';
import { testDatabase } from '../helpers/database.ts';
import { doEverything } from '../helpers/everything.ts';
import { until } from '../helpers/processes.ts';
import { grow, tablesThatGrow, tablesThatStay } from '../helpers/grown.ts';

const sizes = [10_000, 100_000] as const;
/** From so many rows on a table is not read from end to end. */
const smallRows = 1_000;
/** What a plan may cost more in the large database: more levels of an index, other estimates. */
const allowance = { factor: 2, cost: 250 };

/** Statements that grow with the vault, and why they may. A pattern that fits nothing is stale. */
const growing: readonly (readonly [pattern: RegExp, reason: string])[] = [
  [
    /^select \(select count\(\*\) from team where deleted_at is null\) as teams/,
    "the operator's status counts everything, index by index where there is one",
  ],
  [
    /^select fingerprint, created_at as "createdAt".* from root_key/,
    'the operator asks how many keys each root key wraps',
  ],
  [
    /^with held as \( select id from data_key where state <> 'destroyed' and compromised_at is null and \$1 = any \(root_history\)/,
    'marking a root key looks at what ever wrapped each data key',
  ],
  [
    /^select exists \(select 1 from team\) or exists/,
    'at the start; each table is read up to its first row',
  ],
  [
    /^select fingerprint from root_key where exists/,
    'at the start; of each root key the first data key that it wraps is looked for',
  ],
  [
    /^select team\.id as "id", .* from team join data_key key .* team\.rotate_every_days is not null/,
    'once a minute: teams with a policy; when a key is due depends on two tables',
  ],
  [
    /^with open as materialized \( select webhook\.credential_id/,
    'once a minute: the webhooks that ask for what comes by time, ten a team at the most',
  ],
  [
    /^select \* from \( select given\.\*, .* from \( select held\.credential_id as credential, held\.token, .* skip locked/,
    'walks the index of one key up to a limit; the planner takes the range for a third of the table',
  ],
  [/^select "id" from "team" limit \$1$/, 'the readiness check of test vaults'],
];

t.setTimeout(600_000);

t.test(
  'no statement grows with the vault',
  folded(async (t) => {
    const database = await testDatabase(t);
    const sent = new Map<string, SentStatement>();
    const end = watchStatements((statement) => {
      const text = statement.text.replaceAll(/\s+/g, ' ').trim();
      if (isPlanned(text) && !sent.has(text)) sent.set(text, statement);
    });
    const { vault, succeeded } = await doEverything(t, database);
    end();

    t.strictSame(
      vault.app.operations
        .map(({ operationId }) => operationId)
        .filter((operation) => !succeeded.has(operation)),
      [],
      'every operation was carried out',
    );
    t.ok(sent.size > 400, `${sent.size} statements`);

    const client = new pg.Client({ connectionString: database.url });
    await client.connect();
    t.teardown(() => client.end());
    // A snapshot that is older than the rows would keep their pages from being known as visible to
    // all, and the planner from reading indexes alone.
    await until(async () => {
      const { rows: open } = await client.query(
        `select from pg_stat_activity
        where datname = current_database() and pid <> pg_backend_pid() and xact_start is not null`,
      );
      return open.length === 0;
    });
    const costs = new Map<string, number>();
    const stale = new Set(growing.map(([pattern]) => pattern));
    for (const size of sizes) {
      await grow(client, size);
      const large = await largeTables(client);
      for (const [text, statement] of sent) {
        const plan = await planOf(client, statement);
        const before = costs.get(text);
        costs.set(text, plan['Total Cost']);
        if (before === undefined) continue;
        const whole = nodesOf(plan)
          .filter(isWholeRead)
          .flatMap((node) => node['Relation Name'] ?? [])
          .filter((table) => large.has(table));
        const isDearer =
          plan['Total Cost'] > before * allowance.factor &&
          plan['Total Cost'] > before + allowance.cost;
        const reason = growing.find(([pattern]) => pattern.test(text));
        if (reason !== undefined && (isDearer || whole.length > 0)) stale.delete(reason[0]);
        if (reason !== undefined) continue;
        t.strictSame(whole, [], `reads a table from end to end: ${text.slice(0, 300)}`);
        t.notOk(isDearer, `cost ${before} and then ${plan['Total Cost']}: ${text.slice(0, 300)}`);
      }
    }
    t.strictSame([...stale], [], 'every exception is one');
  }),
);

t.test('every table grows in this test, or is one that does not in life', async (t) => {
  const { db } = await testDatabase(t);
  const { rows } = await sql<{ name: string }>`
    select relname as name from pg_class
    where relnamespace = current_schema()::regnamespace and relkind in ('r', 'p') and not relispartition order by relname`.execute(
    db,
  );
  t.strictSame(
    rows.map(({ name }) => name),
    [...tablesThatGrow, ...Object.keys(tablesThatStay)].sort(),
  );
});

/** Rows of these go, or change what others refer to; all others stay for good. */
const tablesThatLoseRows = [
  'broker_ticket',
  'credential',
  'credential_grant',
  'credential_transfer',
  'credential_version',
  'engine',
  'engine_key',
  'key_rotation',
  'membership',
  'notification',
  'oauth_authorization',
  'oauth_token',
  'webhook',
];

t.test('what refers to rows that go is found by an index', async (t) => {
  const { db } = await testDatabase(t);
  // An index that begins with a column of the key, the team alone not being enough where there are
  // others.
  const { rows } = await sql<{ name: string; to: string; isServed: boolean }>`
    select conname as name, confrelid::regclass::text as to, exists (
      select 1 from pg_index join pg_attribute first on first.attrelid = indrelid and first.attnum = indkey[0]
      where indrelid = conrelid and indpred is null and indkey[0] = any (conkey)
        and (cardinality(conkey) = 1 or first.attname <> 'team_id' or indkey[1] = any (conkey))
    ) as "isServed"
    from pg_constraint where contype = 'f' order by conname`.execute(db);
  t.ok(rows.length > 30);
  for (const { name, to, isServed } of rows)
    if (tablesThatLoseRows.includes(to)) t.ok(isServed, `${name}, which refers to ${to}`);
});

const isWholeRead = (node: PlanNode): boolean => node['Node Type'] === 'Seq Scan';

async function largeTables(client: pg.Client): Promise<ReadonlySet<string>> {
  const { rows } = await client.query<{ name: string }>(
    `select relname as name from pg_class where relkind = 'r' and relnamespace = current_schema()::regnamespace and reltuples > ${smallRows}`,
  );
  return new Set(rows.map(({ name }) => name));
}
