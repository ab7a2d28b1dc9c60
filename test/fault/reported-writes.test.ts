// The synchronous standby goes away and comes back. What was written meanwhile is on the primary
// alone, and a failover loses it: no answer reports it before the standby has it.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import t, { type Test } from 'tap';
import { connectionsOf, openDatabase } from '../../src/db/client.ts';
import { CommitUnknown } from '../../src/db/errors.ts';
import { Standby } from '../../src/db/standby.ts';
import { startLocalPostgres } from '../../src/dev/postgres.ts';
import {
  command,
  makeTemplate,
  templateName,
  testDatabase,
  withDatabase,
} from '../helpers/database.ts';
import { databaseProxy } from '../helpers/database-proxy.ts';
import { demand, storeOpenai } from '../helpers/leases.ts';
import { type Answer, startVault, type TestVault } from '../helpers/vault.ts';
import { type Prepared, send, writes, writingStage } from '../helpers/written.ts';

t.setTimeout(600_000);

interface Cluster {
  readonly vault: TestVault;
  /** From now on commits wait for a standby that is not there, until they are told not to. */
  lose(): Promise<void>;
  /** Commits wait for nobody. */
  heal(): Promise<void>;
}

/** A vault on a server of its own. Whoever waits for the absent standby is soon told to give up. */
async function cluster(t: Test): Promise<Cluster> {
  const folder = mkdtempSync(join(tmpdir(), 'vault-sync-'));
  const server = await startLocalPostgres({ folder: join(folder, 'postgres'), isDurable: false });
  t.teardown(async () => {
    await server.stop();
    rmSync(folder, { recursive: true, force: true });
  });
  await makeTemplate(server.url);
  await command(server.url, `alter database ${templateName} set synchronous_commit = on`);
  const url = withDatabase(server.url, templateName);
  const { db, close } = openDatabase({ url, onError: () => undefined });
  t.teardown(() => close());
  const vault = await startVault(t, { database: { url, db } });
  const look = new pg.Client({ connectionString: server.url });
  await look.connect();
  const giveUp = (): Promise<pg.QueryResult> =>
    look.query(`select pg_cancel_backend(pid) from pg_stat_activity where wait_event = 'SyncRep'`);
  let isOver = false;
  const givingUp = (async () => {
    while (!isOver) {
      await giveUp();
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  })();
  t.teardown(async () => {
    isOver = true;
    await givingUp;
    await look.end();
  });
  const admin = new pg.Client({ connectionString: server.url });
  await admin.connect();
  await admin.query('set synchronous_commit = on');
  t.teardown(() => admin.end());
  let wasGivenUp = false;
  admin.on('notice', () => {
    wasGivenUp = true;
  });
  // The server's processes hear of it one after the other: it is so when a commit shows it.
  const setStandby = async (name: string): Promise<void> => {
    await admin.query(`alter system set synchronous_standby_names = '${name}'`);
    await admin.query('select pg_reload_conf()');
    do {
      wasGivenUp = false;
      await admin.query(`select pg_logical_emit_message(true, 'test', '')`);
    } while (wasGivenUp !== (name !== ''));
  };
  return { vault, lose: () => setStandby('absent'), heal: () => setStandby('') };
}

const isUnknown = (t: Test, answer: Answer, what: string): void => {
  t.match(answer, { status: 503, json: { code: 'commitUnknown' } }, `${what}: ${answer.status}`);
  t.match(answer.headers['retry-after'], /^\d+$/, what);
  t.equal(answer.headers['etag'], undefined, what);
};

t.test('nothing that the standby does not have is reported, whatever is asked', async (t) => {
  const { vault, lose, heal } = await cluster(t);
  const stage = await writingStage(vault);
  for (const [operation, prepare] of Object.entries(writes)) {
    const prepared = await prepare(stage);
    await lose();
    isUnknown(t, await send(stage, prepared), `${operation}, at first`);
    isUnknown(t, await send(stage, prepared), `${operation}, again`);
    await heal();
    const { status } = await send(stage, prepared);
    t.ok(status < 500, `${operation}, when the standby is back: ${status}`);
  }
});

t.test('a commit on the server that took over confirms nothing of the one before it', async (t) => {
  const vault = await startVault(t);
  await vault.team('payments');
  await vault.member('payments', 'eve', 'editor');
  await vault.team('sales');
  // The refusal records its own event, and that commit comes last.
  const ask = (): Promise<Answer> =>
    vault.call('eve', 'DELETE', '/v1/teams/sales', undefined, { 'if-match': '*' });
  t.equal((await ask()).status, 404);
  connectionsOf.get(vault.db)?.noteTimeline('00000099');
  isUnknown(t, await ask(), 'it began when another server was the primary');
  t.equal((await ask()).status, 404);
});

t.test('what rests on a write of somebody else', async (t) => {
  const { vault, lose, heal } = await cluster(t);
  await vault.team('payments');
  await vault.member('payments', 'eve', 'editor');
  await vault.team('sales');
  const url = '/v1/teams/payments/credentials';
  const { id } = await storeOpenai(vault, 'payments', 'first', 'sk-test');
  const body = { name: 'second', type: 'openai', fields: { apiKey: 'sk-test' } };
  const key = { 'idempotency-key': 'k1' };
  await lose();
  const ask = (): Promise<Answer[]> =>
    Promise.all([
      vault.call('eve', 'POST', url, body),
      vault.call('alice', 'POST', url, body, key),
      vault.call('alice', 'POST', url, { ...body, name: 'third' }, key),
      vault.call(
        'eve',
        'PATCH',
        `/v1/credentials/${id}`,
        { description: 'x' },
        { 'if-match': '"1"' },
      ),
      vault.call('eve', 'PATCH', `/v1/credentials/${id}`, { description: 'x' }),
      vault.call('eve', 'PUT', `${url}/second`, { type: 'openai', fields: { apiKey: 'sk-test' } }),
      vault.call('eve', 'DELETE', '/v1/teams/sales', undefined, { 'if-match': '*' }),
      vault.call('alice', 'DELETE', '/v1/teams/sales/members/nobody', undefined, {
        'if-match': '*',
      }),
    ]);
  isUnknown(t, await vault.call('alice', 'POST', url, body, key), 'the first');
  isUnknown(
    t,
    await vault.call(
      'alice',
      'PATCH',
      `/v1/credentials/${id}`,
      { description: 'y' },
      { 'if-match': '"1"' },
    ),
    'the revision',
  );
  for (const [index, answer] of (await ask()).entries()) isUnknown(t, answer, `alone ${index}`);
  t.equal(
    (await vault.call('eve', 'GET', `/v1/credentials/${id}`)).status,
    200,
    'a read says what the primary has',
  );
  t.equal(
    (await vault.call('eve', 'POST', url, { nonsense: true })).status,
    400,
    'what is wrong with the request itself rests on nothing',
  );
  t.equal((await vault.call(null, 'POST', url, body)).status, 401);
  await heal();
  t.same(
    (await ask()).map(({ status, json }) => json?.code ?? status),
    [
      'nameTaken',
      201,
      'idempotencyKeyReused',
      'preconditionFailed',
      'preconditionRequired',
      'preconditionRequired',
      'notFound',
      'notFound',
    ],
  );
});

const isConfirmation = (text: string): boolean => text.includes('pg_logical_emit_message');

t.test(
  'a change is confirmed by its own commit: only what is read after it costs a round trip more',
  async (t) => {
    const { url } = await testDatabase(t);
    const proxy = await databaseProxy(t, url);
    const database = openDatabase({
      url: `postgresql://vault@127.0.0.1:${proxy.port}/${new URL(url).pathname.slice(1)}`,
      namedStatements: false, // each statement with its text
      onError: () => undefined,
    });
    t.teardown(() => database.close());
    const vault = await startVault(t, { database: { url, db: database.db } });
    const stage = await writingStage(vault);
    const asked: string[] = [];
    for (const [operation, prepare] of Object.entries(writes)) {
      const prepared = await prepare(stage);
      const before = proxy.statements().length;
      t.ok((await send(stage, prepared)).status < 300, operation);
      if (proxy.statements().slice(before).some(isConfirmation)) asked.push(operation);
    }
    // Read after their commit, to be shown as they are then; none of them is asked for often.
    t.same(asked, ['startRotation', 'markKeyCompromised', 'testWebhook']);
    const before = proxy.statements().length;
    const made = await writes['createCredential']!(stage);
    const headers = { 'idempotency-key': 'k1' };
    await demand(send(stage, { ...made, headers }), 201);
    t.notOk(proxy.statements().slice(before).some(isConfirmation), 'nor does a first key');
    await demand(send(stage, { ...made, headers }), 201);
    t.ok(proxy.statements().slice(before).some(isConfirmation), 'and a repetition does');
  },
);

t.test(
  'what nobody can confirm is unknown: another primary, none, one that was not awaited',
  async (t) => {
    const { url } = await testDatabase(t);
    const proxy = await databaseProxy(t, url);
    const { db, close } = openDatabase({
      url: `postgresql://vault@127.0.0.1:${proxy.port}/${new URL(url).pathname.slice(1)}`,
      poolMax: 1,
      namedStatements: false,
      onError: () => undefined,
    });
    t.teardown(() => close());
    const standby = new Standby({ db });
    t.equal(standby.timeline, undefined);
    await t.rejects(standby.confirm(undefined), CommitUnknown, 'nothing is known of the primary');
    t.match(standby.timeline, /^[0-9A-F]{8}$/);
    await standby.confirm(standby.timeline);
    await t.rejects(standby.confirm('00000000'), CommitUnknown, 'seen before a promotion');
    proxy.cutAnswerTo('pg_logical_emit_message');
    const asked = proxy.statements().length;
    const first = t.rejects(standby.confirm(standby.timeline), CommitUnknown);
    await new Promise((resolve) => setImmediate(resolve));
    // The first is under way: what these saw may have been written after it was sent.
    const others = Array.from({ length: 50 }, () => standby.confirm(standby.timeline));
    await Promise.all([first, ...others]);
    t.equal(
      proxy.statements().slice(asked).filter(isConfirmation).length,
      2,
      'one for all who wait',
    );
  },
);

t.test('of two requests at once with one key both are told the same', async (t) => {
  const vault = await startVault(t);
  const stage = await writingStage(vault);
  const keyed: Record<string, number> = {
    createTeam: 201,
    createCredential: 201,
    restoreCredential: 200,
    restoreCredentialVersion: 200,
    offerTransfer: 201,
    acceptTransfer: 200,
    createEngine: 201,
    addEngineKey: 201,
    startRotation: 202,
  };
  for (const [operation, status] of Object.entries(keyed)) {
    for (let round = 0; round < 4; round += 1) {
      const prepared: Prepared = await writes[operation]!(stage);
      const headers = { ...prepared.headers, 'idempotency-key': `${operation}-${round}` };
      const answers = await Promise.all(
        Array.from({ length: 4 }, () => send(stage, { ...prepared, headers })),
      );
      t.same(
        answers.map((answer) => answer.json?.code ?? answer.status),
        answers.map(() => status),
        operation,
      );
    }
  }
});
