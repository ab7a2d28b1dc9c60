// The statements of the vault, as the server gets them: reads are known for reads, and what is
// called harmless is.
import { sql } from 'kysely';
import t from 'tap';
import { folded } from '../helpers/folded.ts';
import { openDatabase } from '../../src/db/client.ts';
import { harmlessFunctions, mayWrite } from '../../src/db/writing.ts';
import { testDatabase } from '../helpers/database.ts';
import { databaseProxy } from '../helpers/database-proxy.ts';
import { demand } from '../helpers/leases.ts';
import { startVault } from '../helpers/vault.ts';
import { send, writes, writingStage } from '../helpers/written.ts';

/** Volatile for another reason than that they change something. */
const volatileAllTheSame: Readonly<Record<string, string>> = {
  pg_advisory_xact_lock: 'a lock, gone with the transaction',
  pg_advisory_xact_lock_shared: 'a lock, gone with the transaction',
  pg_current_wal_insert_lsn: 'moves with what others write',
  pg_is_in_recovery: 'ends with a promotion',
  pg_sleep: 'waits',
};

t.test(
  'no function that is called harmless can change anything',
  folded(async (t) => {
    const { db } = await testDatabase(t);
    const { rows } = await sql<{ name: string; isVolatile: boolean }>`
    select proname as name, bool_or(provolatile = 'v') as "isVolatile" from pg_proc group by proname`.execute(
      db,
    );
    const known = new Map(rows.map(({ name, isVolatile }) => [name, isVolatile]));
    for (const name of harmlessFunctions) {
      t.ok(known.has(name), `${name} is a function of the database`);
      t.equal(known.get(name), Object.hasOwn(volatileAllTheSame, name), name);
    }
  }),
);

t.test(
  'what a reading operation asks is known for a read',
  folded(async (t) => {
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
    const { items } = await demand(vault.call('alice', 'GET', '/v1/teams/payments/keys'), 200);
    const { id } = await demand(send(stage, await writes['createCredential']!(stage)), 201);
    const rotation = await demand(
      vault.call('alice', 'POST', '/v1/teams/payments/key-rotations'),
      202,
    );
    const webhook = await writes['putWebhook']!(stage);
    await demand(send(stage, webhook), 200);
    const parts: Record<string, string> = {
      team: 'payments',
      id,
      key: items[0].id,
      rotation: rotation.id,
      engine: stage.engine.id,
      type: 'openai',
      credential: webhook.url.split('/').at(-1)!,
    };
    let asked = 0;
    for (const { method, url: template, operationId } of vault.app.operations) {
      if (method !== 'GET') continue;
      const path = (template.includes('/webhooks/') ? webhook.url : template)
        .replaceAll(/:([A-Za-z]+)/g, (_, name: string) => parts[name] ?? raise(name))
        .concat(template.endsWith('/deliveries') ? '/deliveries' : '');
      for (const as of ['alice', 'operator']) {
        const before = proxy.statements().length;
        const { status } = await vault.call(as, 'GET', path);
        if (
          as === 'alice' &&
          !template.startsWith('/v1/engines') &&
          !template.startsWith('/v1/root') &&
          template !== '/v1/status'
        )
          t.equal(status, 200, `${operationId} ${path}`);
        for (const text of proxy.statements().slice(before)) {
          // Beside what is read: its own record, an event of it, the frame of its transaction.
          if (
            /^\s*insert into (access_record|subject)\b|audit_event|^start transaction|^commit$/.test(
              text,
            )
          )
            continue;
          asked += 1;
          t.notOk(mayWrite(text), `${operationId}: ${text}`);
        }
      }
    }
    t.ok(asked > 60, `${asked} statements`);
  }),
);

function raise(name: string): never {
  throw new Error(`say what stands for :${name}`);
}
