// Liveness and readiness: which part is not ready is said, why is not, and asking costs next to
// nothing.
import { setTimeout as delay } from 'node:timers/promises';
import { sql } from 'kysely';
import { pino } from 'pino';
import t from 'tap';
import { readConfig } from '../../src/config/config.ts';
import { generateRootKey } from '../../src/crypto/index.ts';
import { issuersOf } from '../../src/config/issuers.ts';
import { startVault as serve } from '../../src/serve.ts';
import { timeOf } from '../helpers/clock.ts';
import { command, testDatabase } from '../helpers/database.ts';
import { audience, forge, issuer, sharedSecret } from '../helpers/identity.ts';
import { until } from '../helpers/processes.ts';
import { startVault } from '../helpers/vault.ts';

const key = sharedSecret();

/** A vault as `serve` composes it, in this process. */
async function serving(
  test: { teardown(action: () => unknown): unknown },
  databaseUrl: string,
): Promise<{
  get: (path: string) => Promise<{ status: number; headers: Headers; json: any }>;
  stop: () => Promise<void>;
}> {
  const { config, secrets } = readConfig(
    {
      DATABASE_URL: databaseUrl,
      CREDVAULT_ROOT_KEYS: generateRootKey(),
      CREDVAULT_JWT_SECRET: key.verifier,
      CREDVAULT_JWT_ISSUER: issuer,
      CREDVAULT_JWT_AUDIENCE: audience,
      PORT: '0',
    },
    'serve',
    () => '',
  );
  const vault = await serve({
    config,
    databaseUrl: secrets.databaseUrl,
    rootKeys: secrets.rootKeys,
    issuers: issuersOf(config.issuers, secrets.jwtSecret),
    operators: [],
    tls: undefined,
    trustedProxies: [],
    logger: pino({ level: 'silent' }),
  });
  let stopped: Promise<void> | undefined;
  const stop = (): Promise<void> => (stopped ??= vault.stop());
  test.teardown(stop);
  return {
    stop,
    get: async (path) => {
      const answer = await fetch(`${vault.url}${path}`, {
        headers: path.startsWith('/v1')
          ? { authorization: `Bearer ${forge(key, { alg: 'HS256' })}` }
          : {},
      });
      return { status: answer.status, headers: answer.headers, json: await answer.json() };
    },
  };
}

t.test('each part that fails is named, and the process stays alive', async (test) => {
  const { url, db } = await testDatabase(test);
  const { get } = await serving(test, url);
  const isReady = async (): Promise<boolean> => (await get('/readyz')).status === 200;
  test.match(await get('/readyz'), {
    status: 200,
    json: { status: 'ok', database: 'ok', schema: 'ok', rootKeys: 'ok', clock: 'ok' },
  });

  const faults: [string, string[], string[]][] = [
    [
      'schema',
      [
        'create table kept as select * from schema_migration',
        'delete from schema_migration where version > 1',
      ],
      ['insert into schema_migration select * from kept where version > 1', 'drop table kept'],
    ],
    [
      'schema',
      ["update schema_migration set name = name || 'x' where version = 1"],
      ['update schema_migration set name = left(name, -1) where version = 1'],
    ],
    [
      'rootKeys',
      ['create table kept as select * from root_key', "update root_key set canary = '\\x00'"],
      [
        'update root_key set canary = kept.canary from kept where kept.fingerprint = root_key.fingerprint',
        'drop table kept',
      ],
    ],
  ];
  for (const [part, harm, heal] of faults) {
    for (const statement of harm) await sql.raw(statement).execute(db);
    const answer = await until(async () => {
      const asked = await get('/readyz');
      return asked.status === 503 && asked;
    });
    test.match(answer.json, { code: 'notReady', detail: `Not ready: ${part}.` });
    test.ok(Number(answer.headers.get('retry-after')) > 0);
    test.equal((await get('/healthz')).status, 200, 'alive');
    for (const statement of heal) await sql.raw(statement).execute(db);
    await until(isReady);
  }
});

t.test(
  'a replica whose clock is half a minute off is not ready, one that is five seconds off is',
  async (test) => {
    const { url, db } = await testDatabase(test);
    const time = await timeOf(db);
    const { get } = await serving(test, url);
    for (const sign of [1, -1]) {
      time.ms = sign * 32_000;
      const answer = await until(async () => {
        const asked = await get('/readyz');
        return asked.status === 503 && asked;
      });
      test.match(answer.json, { code: 'notReady', detail: 'Not ready: clock.' });
      time.ms = sign * 5_000;
      await until(async () => (await get('/readyz')).status === 200);
    }
  },
);

t.test('a database that is gone is 503 and comes back', async (test) => {
  const { url } = await testDatabase(test);
  const name = /\/(test_[0-9a-f]+)/.exec(url)?.[1] ?? '';
  const server = url.replace(name, 'postgres');
  const { get } = await serving(test, url);
  test.equal((await get('/v1/whoami')).status, 200);
  await command(server, `alter database ${name} with allow_connections false`);
  await command(
    server,
    `select pg_terminate_backend(pid) from pg_stat_activity where datname = '${name}'`,
  );
  const answer = await until(async () => {
    const asked = await get('/readyz');
    return asked.status === 503 && asked;
  });
  test.match(answer.json.detail, /database/);
  test.equal((await get('/healthz')).status, 200);
  const asked = await get('/v1/whoami');
  test.match(asked, { status: 503, json: { code: 'databaseUnavailable' } });
  test.ok(Number(asked.headers.get('retry-after')) > 0);
  await command(server, `alter database ${name} with allow_connections true`);
  await until(async () => (await get('/readyz')).status === 200);
  test.equal((await get('/v1/whoami')).status, 200);
});

t.test('however often it is asked, the parts are looked at once a second', async (test) => {
  let looks = 0;
  const vault = await startVault(test, {
    readiness: [
      {
        name: 'database',
        check: async () => {
          looks += 1;
          return true;
        },
      },
    ],
    rateLimits: { address: 5, subject: 5 },
  });
  const ask = (): Promise<number[]> =>
    Promise.all(
      Array.from({ length: 100 }, async () => (await vault.call(null, 'GET', '/readyz')).status),
    );
  test.same(
    new Set([...(await ask()), ...(await ask())]),
    new Set([200]),
    'and no limit holds a probe up',
  );
  test.equal(looks, 1);
  vault.clock.ms += 2_000;
  await ask();
  test.equal(looks, 2);
  vault.clock.ms -= 3_600_000;
  await ask();
  test.equal(looks, 3, 'whatever the clock does');
});

t.test(
  'a part that does not answer is not ready, and is not asked again until it has',
  async (test) => {
    let looks = 0;
    const vault = await startVault(test, {
      readiness: [
        { name: 'schema', check: async () => true },
        {
          name: 'database',
          check: () => {
            looks += 1;
            return delay(600_000, true, { ref: false });
          },
        },
      ],
    });
    for (let round = 0; round < 2; round += 1) {
      test.match(await vault.call(null, 'GET', '/readyz'), {
        status: 503,
        json: { detail: 'Not ready: database.' },
      });
      vault.clock.ms += 2_000;
    }
    test.equal(looks, 1);
  },
);
