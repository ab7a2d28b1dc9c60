// The connection to the database dies under each statement of each operation in turn. Whatever the
// vault answers then: `databaseUnavailable` says that nothing was changed, and that is so; where
// something may have been, it says `commitUnknown`, and when to come again.
import { sql } from 'kysely';
import t from 'tap';
import { type Db, openDatabase } from '../../src/db/client.ts';
import { testDatabase } from '../helpers/database.ts';
import { databaseProxy } from '../helpers/database-proxy.ts';
import { startVault } from '../helpers/vault.ts';
import { send, writes, writingStage } from '../helpers/written.ts';

t.setTimeout(600_000);

/** Operations that are not walked here, with the reason. */
const beside: Readonly<Record<string, string>> = {
  startAuthorization: 'needs a provider; one transaction, as those here',
  finishAuthorization: 'needs a provider; transactions around a call to it',
  testConnection: 'changes nothing but the audit log',
  markRootKeyCompromised: 'needs a second root key; one transaction, as those here',
};

/** What is stored, but for what is written beside the requests and for refusals. */
async function stored(db: Db): Promise<string> {
  const { rows } = await sql<{ digest: string }>`
    select concat_ws(' ',
      (select count(*) || ':' || coalesce(sum(revision), 0) from team), (select count(*) || ':' || coalesce(sum(revision), 0) from membership),
      (select count(*) || ':' || coalesce(sum(revision), 0) from engine), (select count(*) from engine_key),
      (select string_agg(state || coalesce(compromised_at::text, ''), ',' order by id) from data_key),
      (select string_agg(state, ',' order by id) from key_rotation),
      (select count(*) || ':' || coalesce(sum(revision), 0) from credential), (select count(*) from credential_version),
      (select count(*) || ':' || coalesce(sum(revision), 0) from credential_grant), (select count(*) from credential_transfer),
      (select count(*) from broker_ticket), (select count(*) from webhook), (select count(*) from notification),
      (select count(*) from audit_event where decision = 'allow')) as digest`.execute(db);
  return rows[0]?.digest ?? '';
}

t.test('no change passes for none, whichever answer of the database is lost', async (t) => {
  const { url, db } = await testDatabase(t);
  const proxy = await databaseProxy(t, url);
  const database = openDatabase({
    url: `postgresql://vault@127.0.0.1:${proxy.port}/${new URL(url).pathname.slice(1)}`,
    poolMax: 1, // one line: statements come one after the other
    namedStatements: false, // each with its text
    onError: () => undefined,
  });
  t.teardown(() => database.close());
  const vault = await startVault(t, { database: { url, db: database.db } });
  const stage = await writingStage(vault);
  t.same(
    [...Object.keys(writes), ...Object.keys(beside)].sort(),
    vault.app.operations
      .filter(({ method }) => method !== 'GET')
      .map(({ operationId }) => operationId)
      .sort(),
    'every operation that changes something is here',
  );
  proxy.cutAnswerTo('insert into "subject"');
  t.match(
    await vault.call(null, 'GET', '/v1/whoami', undefined, {
      authorization: `Bearer ${await vault.token('newcomer', { scope: 'vault:operate' })}`,
    }),
    { status: 503, json: { code: 'databaseUnavailable' } },
    'a read changes nothing that its caller asked for, whatever is noted beside it',
  );
  const seen = { unavailable: 0, unknown: 0, unknownAndDone: 0 };
  for (const [operation, prepare] of Object.entries(writes)) {
    for (let nth = 1; ; nth += 1) {
      const prepared = await prepare(stage);
      const before = await stored(db);
      const isCut = proxy.cutNthAnswer(nth);
      const answer = await send(stage, prepared);
      const what = `${operation}, statement ${nth}: ${answer.status} ${answer.json?.code ?? ''}`;
      if (!isCut()) {
        t.ok(answer.status < 300, `${what}, to its end`);
        break;
      }
      const isChanged = (await stored(db)) !== before;
      if (answer.status < 500) continue; // what was lost was beside the operation
      t.match(
        answer,
        { status: 503, json: { code: /^(commitUnknown|databaseUnavailable)$/ } },
        what,
      );
      t.match(answer.headers['retry-after'], /^\d+$/, what);
      if (answer.json.code === 'databaseUnavailable') {
        seen.unavailable += 1;
        t.notOk(isChanged, `${what}: and so nothing has changed`);
      } else {
        seen.unknown += 1;
        if (isChanged) seen.unknownAndDone += 1;
      }
    }
  }
  t.ok(seen.unavailable > 50 && seen.unknownAndDone > 30, JSON.stringify(seen));
});
