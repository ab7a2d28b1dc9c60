// Failures in the middle of a request: what the caller is told, what the log is told, and what
// neither of them learns.
import { randomBytes } from 'node:crypto';
import { sql } from 'kysely';
import pg from 'pg';
import t from 'tap';
import { intrude } from '../helpers/intruder.ts';
import { until } from '../helpers/processes.ts';
import { type Answer, startVault, type TestVault } from '../helpers/vault.ts';

const marker = `marker${randomBytes(8).toString('hex')}`;
const url = '/v1/teams/payments/credentials';
const body = {
  name: marker,
  type: 'openai',
  fields: { apiKey: `sk-${marker}` },
  description: marker,
  labels: { env: marker },
};

async function setUp(
  test: { teardown(action: () => unknown): unknown },
  settings: readonly string[] = [],
): Promise<TestVault> {
  const vault = await startVault(test);
  await vault.team('payments');
  // Settings of the database hold for connections that are made from then on.
  for (const setting of settings)
    await sql
      .raw(
        `do $$ begin execute format('alter database %I set ${setting}', current_database()); end $$`,
      )
      .execute(vault.db);
  if (settings.length > 0) {
    await endConnections(vault);
    await until(async () => (await vault.call('alice', 'GET', '/v1/whoami')).status === 200);
  }
  vault.logs.length = 0;
  return vault;
}

/** A connection of somebody else's, outside the pool. */
async function outside(
  test: { teardown(action: () => unknown): unknown },
  vault: TestVault,
): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: vault.databaseUrl });
  client.on('error', () => {
    /* ended with the database */
  });
  await client.connect();
  test.teardown(() => client.end());
  return client;
}

/** Ends the connections of the vault for which the condition holds; how many. */
async function endConnections(vault: TestVault, condition = 'true'): Promise<number> {
  const client = new pg.Client({ connectionString: vault.databaseUrl });
  await client.connect();
  const { rowCount } = await client.query(
    `select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid() and ${condition}`,
  );
  await client.end();
  return rowCount ?? 0;
}

type Assertions = Pick<typeof t, 'match' | 'equal' | 'notOk' | 'same'>;

function isOneFailure(
  test: Assertions,
  vault: TestVault,
  answer: Answer,
  failure: { status: number; code: string; cause?: object; causes?: readonly object[] },
  what: string,
): void {
  const { status, code, causes = [failure.cause] } = failure;
  test.match(
    answer,
    { status, headers: { 'content-type': 'application/problem+json' }, json: { code } },
    what,
  );
  test.equal(
    answer.headers['retry-after'] === undefined,
    status === 500,
    `${what}: 503 says when to come back`,
  );
  const failures = vault.logs
    .map((line) => JSON.parse(line) as Record<string, unknown>)
    .filter((line) => Number(line['level']) >= 50);
  test.equal(failures.length, 1, `${what}: one line`);
  test.match(
    failures[0],
    { event: 'requestFailed', code, requestId: answer.json.requestId, causes },
    what,
  );
  test.notOk(answer.text.includes(marker), `${what}: nothing of it in the answer`);
  test.notOk(vault.logs.join('').includes(marker), `${what}: nothing of it in the log`);
  vault.logs.length = 0;
}

t.test('a connection that is lost while the request waits', async (test) => {
  const vault = await setUp(test);
  // A team whose size is known: storing is one statement then, which commits by itself.
  await vault.call('alice', 'POST', url, { ...(body as object), name: 'before' });
  const holder = await outside(test, vault);
  const ended = { name: 'error', code: '57P01' };
  for (const [method, path, sent, code, causes] of [
    ['GET', url, undefined, 'databaseUnavailable', [ended]],
    ['POST', url, body, 'commitUnknown', [{ name: 'CommitUnknown' }, ended]],
  ] as const) {
    await holder.query('begin; lock table credential in access exclusive mode');
    const asked = vault.call('alice', method, path, sent);
    // Asked outside the holder's transaction, which would see its first snapshot of this view again
    // and again.
    await until(async () => (await endConnections(vault, `wait_event_type = 'Lock'`)) > 0);
    isOneFailure(test, vault, await asked, { status: 503, code, causes }, method);
    await holder.query('rollback');
  }
  test.same(
    (await vault.call('alice', 'GET', url)).json.items.map(({ name }: { name: string }) => name),
    ['before'],
    'nothing was stored, and the next request is served',
  );
});

t.test('a lock that is not granted, a statement that takes too long', async (test) => {
  for (const [setting, code] of [
    ['lock_timeout = 150', '55P03'],
    ['statement_timeout = 150', '57014'],
  ] as const) {
    const vault = await setUp(test, [setting]);
    const holder = await outside(test, vault);
    await holder.query(
      'set statement_timeout = 0; begin; lock table credential in access exclusive mode',
    );
    isOneFailure(
      test,
      vault,
      await vault.call('alice', 'GET', url),
      { status: 503, code: 'databaseUnavailable', cause: { code } },
      setting,
    );
    await holder.query('rollback');
    test.equal((await vault.call('alice', 'GET', url)).status, 200, 'over when the lock is');
  }
});

t.test('what the database refuses for reasons of its own', async (test) => {
  const vault = await setUp(test);
  const fail = async (code: string): Promise<void> => {
    await sql
      .raw(`create or replace function fail() returns trigger language plpgsql as $$ begin
      raise exception 'the row % failed', new using errcode = '${code}', detail = new::text, hint = new::text, column = new.name; end $$`)
      .execute(vault.db);
  };
  await fail('40001');
  await sql
    .raw('create trigger fail before insert on credential for each row execute function fail()')
    .execute(vault.db);
  for (const [code, status, name] of [
    ['40001', 503, 'databaseUnavailable'],
    ['40P01', 503, 'databaseUnavailable'],
    ['53100', 503, 'databaseUnavailable'],
    ['23502', 500, 'internal'],
    ['22P02', 500, 'internal'],
    ['XX000', 500, 'internal'],
  ] as const) {
    await fail(code);
    isOneFailure(
      test,
      vault,
      await vault.call('alice', 'POST', url, body, { 'idempotency-key': marker }),
      { status, code: name, cause: { name: 'error', code } },
      code,
    );
  }
  await sql.raw('drop trigger fail on credential').execute(vault.db);
  test.equal(
    (
      await vault.call(
        'alice',
        'POST',
        url,
        { ...body, name: 'fine' },
        { 'idempotency-key': marker },
      )
    ).status,
    201,
    'no failure has used up the idempotency key',
  );
});

t.test('a table that is not there', async (test) => {
  const vault = await setUp(test);
  await sql.raw('alter table credential_version rename to elsewhere').execute(vault.db);
  isOneFailure(
    test,
    vault,
    await vault.call('alice', 'POST', url, body),
    { status: 500, code: 'internal', cause: { name: 'error', code: '42P01' } },
    'a write',
  );
});

t.test('an answer that does not fit its schema does not leave', async (test) => {
  const vault = await setUp(test);
  const { keyring } = vault;
  const { leaseJwks } = keyring;
  keyring.leaseJwks = () => Object.assign(leaseJwks.call(keyring), { more: marker });
  isOneFailure(
    test,
    vault,
    await vault.call(null, 'GET', '/.well-known/jwks.json'),
    {
      status: 500,
      code: 'internal',
      cause: { name: 'ResponseDoesNotFit', code: ' unrecognized_keys' },
    },
    'a member that nobody knows',
  );
  keyring.leaseJwks = leaseJwks;
  await intrude(vault.db, `update team set name = U&'\\0001${marker}'`);
  const before = vault.logs.length;
  const answer = await vault.call('alice', 'GET', '/v1/teams/payments');
  test.match(
    answer,
    { status: 404, json: { code: 'notFound' } },
    'a row that was changed past the vault',
  );
  test.notMatch(answer.text, marker);
  const lines = vault.logs.slice(before).join('');
  test.match(lines, /"event":"rowUnreadable"/, 'is an alarm');
  test.notMatch(lines, marker);
});

t.test('a failure of the program', async (test) => {
  const vault = await setUp(test);
  const { keyring } = vault;
  const { seal } = keyring;
  keyring.seal = (): never => {
    throw new TypeError(`cannot read ${marker}`, { cause: new Error(marker) });
  };
  isOneFailure(
    test,
    vault,
    await vault.call('alice', 'POST', url, body),
    { status: 500, code: 'internal', cause: { name: 'TypeError' } },
    'with a cause',
  );
  keyring.seal = (): never => {
    throw { toString: () => marker } as unknown as Error;
  };
  const answer = await vault.call('alice', 'POST', url, body);
  test.match(
    answer,
    { status: 500, json: { code: 'internal' } },
    'thrown things that are no errors',
  );
  test.notOk(answer.text.includes(marker) || vault.logs.join('').includes(marker));
  keyring.seal = seal;
  test.equal((await vault.call('alice', 'POST', url, body)).status, 201);
});
