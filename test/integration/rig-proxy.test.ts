// The rig's line to a database cuts where it says: before a commit reaches the server, and after it
// did. On a real server; what is there afterwards is asked past the line.
import pg from 'pg';
import t from 'tap';
import { parseDatabaseUrl } from '../../src/db/url.ts';
import { command, testDatabase } from '../helpers/database.ts';
import { until } from '../helpers/processes.ts';
import { type CutPoint, Line } from '../rig/postgres/proxy.ts';

t.test('a line cuts where it is told to, once', async (t) => {
  const { url } = await testDatabase(t, { empty: true });
  const { hosts, user, database } = parseDatabaseUrl(url);
  const [{ host, port } = { host: '', port: 0 }] = hosts;
  const line = await new Line('line', () => `${host}/.s.PGSQL.${port}`).listen();
  t.teardown(() => line.close());
  const connect = async (through: boolean): Promise<pg.Client> => {
    const client = through
      ? new pg.Client({ host: '127.0.0.1', port: line.port, user, database })
      : new pg.Client({ connectionString: url });
    client.on('error', () => undefined);
    await client.connect();
    return client;
  };
  const direct = await connect(false);
  t.teardown(() => direct.end());
  await direct.query('create table note (what text)');
  const count = async (what: string): Promise<number> =>
    (await direct.query('select 1 from note where what = $1', [what])).rowCount ?? 0;

  /** Writes one note through the line, in a transaction or by a statement alone. */
  const write = async (what: string, isAlone: boolean): Promise<void> => {
    const client = await connect(true);
    const insert = () => client.query('insert into note values ($1)', [what]);
    try {
      if (isAlone) await insert();
      else {
        await client.query('begin');
        await insert();
        await client.query('commit');
      }
    } finally {
      void client.end().catch(() => undefined);
    }
  };

  await write('whole', false);
  await write('alone', true);
  t.same([await count('whole'), await count('alone')], [1, 1], 'an open line changes nothing');

  const points: readonly (readonly [CutPoint, isAlone: boolean, isThere: boolean])[] = [
    ['commit', false, false],
    ['commitAnswer', false, true],
    ['commitInFlight', false, true],
    ['statement', true, false],
    ['statementAnswer', true, true],
    ['statementInFlight', true, true],
    ['inTransaction', false, false],
  ];
  for (const [point, isAlone, isThere] of points) {
    line.arm(point);
    await t.rejects(write(point, isAlone), `${point}: nobody is told how it ended`);
    if (isThere) await until(async () => (await count(point)) === 1);
    else t.equal(await count(point), 0, `${point}: it did not happen`);
    await write(`${point} again`, isAlone);
    t.equal(await count(`${point} again`), 1, `${point}: the next one goes through`);
  }
});

t.test('a line that is silent loses what it was sent, one that is stalled does not', async (t) => {
  const { url } = await testDatabase(t, { empty: true });
  const { hosts, user, database } = parseDatabaseUrl(url);
  const [{ host, port } = { host: '', port: 0 }] = hosts;
  const line = await new Line('line', () => `${host}/.s.PGSQL.${port}`).listen();
  t.teardown(() => line.close());
  const open = async (): Promise<pg.Client> => {
    const client = new pg.Client({ host: '127.0.0.1', port: line.port, user, database });
    client.on('error', () => undefined);
    await client.connect();
    t.teardown(() => client.end().catch(() => undefined));
    return client;
  };
  const stalled = await open();
  line.setMode('stalled');
  let isAnswered = false;
  const later = stalled.query('select 1 as one').finally(() => {
    isAnswered = true;
  });
  await command(url, 'select 1'); // past the line it would have come meanwhile
  t.equal(isAnswered, false);
  line.setMode('open');
  t.equal((await later).rows[0].one, 1, 'it comes late');

  const silent = await open();
  line.setMode('silent');
  const never = silent.query('select 1 as one');
  line.setMode('open');
  await t.rejects(never, 'it never comes, and the connection is gone');

  line.setMode('refusing');
  await t.rejects(open(), 'nobody gets in');
  line.setMode('open');
  t.equal(
    (await (await open()).query('select 1 as one')).rows[0].one,
    1,
    'everything is as before',
  );
});
