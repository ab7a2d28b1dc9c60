// The audit log: one event for every change, in its transaction; each event shows when it was
// touched; people and addresses can go.
import pg from 'pg';
import t from 'tap';
import { sql } from 'kysely';
import { nodesOf, planOf, type SentStatement, watchStatements } from '../../bench/plans.ts';
import { generateEngineKey } from '../../src/client/index.ts';
import { tampered, intrude } from '../helpers/intruder.ts';
import { askLease, registerEngine } from '../helpers/leases.ts';
import { type Answer, startVault, type TestVault } from '../helpers/vault.ts';

const any = { 'if-match': '*' };
type Act = (vault: TestVault, ids: { one: string; off: string; engine: string }) => Promise<Answer>;

/**
 * [what, the action of its event, its target's type, how it is done]; in an order in which each is
 * possible.
 */
const changes: readonly (readonly [string, string, string, Act])[] = [
  [
    'create a team',
    'team.create',
    'team',
    ({ call }) =>
      call('operator', 'POST', '/v1/teams', {
        slug: 'second',
        name: 'Second',
        admins: ['alice', 'sub-of-bob'],
      }),
  ],
  [
    'create a team once',
    'team.create',
    'team',
    ({ call }) =>
      call(
        'operator',
        'POST',
        '/v1/teams',
        { slug: 'third', name: 'Third', admins: ['alice'] },
        { 'idempotency-key': 'k1' },
      ),
  ],
  [
    'rename a team',
    'team.update',
    'team',
    ({ call }) => call('alice', 'PATCH', '/v1/teams/payments', { name: 'Money' }, any),
  ],
  [
    'add a member',
    'member.add',
    'subject',
    ({ call }) => call('alice', 'PUT', '/v1/teams/payments/members/sub-of-eve', { role: 'viewer' }),
  ],
  [
    'change a role',
    'member.change',
    'subject',
    ({ call }) =>
      call('alice', 'PUT', '/v1/teams/payments/members/sub-of-eve', { role: 'editor' }, any),
  ],
  [
    'remove a member',
    'member.remove',
    'subject',
    ({ call }) => call('alice', 'DELETE', '/v1/teams/payments/members/sub-of-eve', undefined, any),
  ],
  [
    'store a credential',
    'credential.create',
    'credential',
    ({ call }) =>
      call('alice', 'POST', '/v1/teams/payments/credentials', {
        name: 'a',
        type: 'bearer',
        fields: { token: 'x' },
      }),
  ],
  [
    'store a credential once',
    'credential.create',
    'credential',
    ({ call }) =>
      call(
        'alice',
        'POST',
        '/v1/teams/payments/credentials',
        { name: 'b', type: 'bearer', fields: { token: 'x' } },
        { 'idempotency-key': 'k2' },
      ),
  ],
  [
    'rename a credential',
    'credential.update',
    'credential',
    ({ call }, { one }) =>
      call('alice', 'PATCH', `/v1/credentials/${one}`, { name: 'renamed' }, any),
  ],
  [
    'replace a secret',
    'credential.update',
    'credential',
    ({ call }, { one }) =>
      call('alice', 'PATCH', `/v1/credentials/${one}`, { fields: { apiKey: 'new' } }, any),
  ],
  [
    'change everything',
    'credential.update',
    'credential',
    ({ call }, { one }) =>
      call(
        'alice',
        'PATCH',
        `/v1/credentials/${one}`,
        {
          description: 'x',
          labels: { a: 'b' },
          expiresAt: '2099-01-01T00:00:00Z',
          policy: { delivery: ['lease'], allowedHosts: ['a.test'] },
          fields: { apiKey: 'newer' },
        },
        any,
      ),
  ],
  [
    'lease it',
    'credential.lease',
    'credential',
    (vault, { one }) => askLease(vault, 'n8n', [{ id: one }]),
  ],
  [
    'disable it',
    'credential.disable',
    'credential',
    ({ call }, { one }) => call('alice', 'POST', `/v1/credentials/${one}/disable`),
  ],
  [
    'enable it',
    'credential.enable',
    'credential',
    ({ call }, { one }) =>
      call('alice', 'POST', `/v1/credentials/${one}/enable`, undefined, {
        'idempotency-key': 'k3',
      }),
  ],
  [
    'delete it',
    'credential.delete',
    'credential',
    ({ call }, { off }) => call('alice', 'DELETE', `/v1/credentials/${off}`, undefined, any),
  ],
  [
    'rotate the key',
    'key.rotate',
    'key',
    ({ call }) => call('alice', 'POST', '/v1/teams/payments/key-rotations'),
  ],
  [
    'delete a team',
    'team.delete',
    'team',
    ({ call }) => call('alice', 'DELETE', '/v1/teams/third', undefined, any),
  ],
];

t.test('events', async (t) => {
  const vault = await startVault(t);
  const { call, db } = vault;
  await vault.team('payments');
  const engine = (await registerEngine(vault, 'n8n')).id;
  await vault.member('payments', 'n8n', 'engine');
  const store = async (name: string): Promise<string> =>
    (
      await call('alice', 'POST', '/v1/teams/payments/credentials', {
        name,
        type: 'openai',
        fields: { apiKey: 'x' },
      })
    ).json.id;
  const ids = { one: await store('one'), off: await store('off'), engine };
  const month =
    (
      await sql<{
        name: string;
      }>`select 'audit_event_' || to_char(now() at time zone 'UTC', 'YYYY_MM') as name`.execute(db)
    ).rows[0]?.name ?? '';
  const bounds =
    (
      await sql<{
        bounds: string;
      }>`select pg_get_expr(relpartbound, oid) as bounds from pg_class where relname = ${month}`.execute(
        db,
      )
    ).rows[0]?.bounds ?? '';
  const tables = (
    await sql<{
      name: string;
    }>`select relname as name from pg_class where relnamespace = current_schema()::regnamespace and relkind in ('r', 'p') and not relispartition
    and relname not in ('access_record', 'subject', ${month}) order by relname`.execute(db)
  ).rows.map(({ name }) => name);
  const sumOf = async (name: string): Promise<string> =>
    (
      await sql
        .raw<{ sum: string }>(
          `select coalesce(md5(string_agg(held::text, '|' order by held::text)), '') as sum from ${name} held`,
        )
        .execute(db)
    ).rows[0]?.sum ?? '';
  /** A sum of every table but access records and subjects. */
  const state = async (): Promise<Record<string, string>> => {
    const sums: Record<string, string> = {};
    for (const name of tables) sums[name] = await sumOf(name);
    return sums;
  };
  interface Row {
    id: string;
    action: string;
    target_type: string;
    decision: string;
  }
  const events = async (): Promise<Row[]> =>
    (await sql<Row>`select id, action, target_type, decision from audit_event`.execute(db)).rows;

  const changed = [
    'team',
    'membership',
    'credential',
    'credential_version',
    'data_key',
    'key_rotation',
  ];
  await sql`create function no_commit() returns trigger language plpgsql as $$ begin raise exception 'no commit today'; end $$`.execute(
    db,
  );

  for (const [what, action, type, act] of changes) {
    await t.test(what, async (t) => {
      await sql.raw(`alter table audit_event detach partition ${month}`).execute(db);
      const before = await state();
      const refused = await act(vault, ids);
      t.ok(refused.status >= 500, `without its event it does not happen: ${refused.status}`);
      t.strictSame(await state(), before, 'and nothing is stored');
      await sql.raw(`alter table audit_event attach partition ${month} ${bounds}`).execute(db);
      if (what !== 'lease it') {
        // which changes nothing but the audit log
        const told = await state();
        await sql
          .raw(
            changed
              .map(
                (table) =>
                  `create constraint trigger no_commit after insert or update or delete on ${table} deferrable initially deferred for each row execute function no_commit();`,
              )
              .join('\n'),
          )
          .execute(db);
        t.ok((await act(vault, ids)).status >= 500);
        await sql
          .raw(changed.map((table) => `drop trigger no_commit on ${table};`).join('\n'))
          .execute(db);
        t.strictSame(await state(), told, 'what does not commit has no event');
      }
      const known = await events();
      const done = await act(vault, ids);
      t.ok(done.status < 300, done.text);
      const all = await events();
      t.match(
        all.filter(({ id }) => !known.some((each) => each.id === id)),
        [{ action, target_type: type, decision: 'allow' }],
        'one event',
      );
      if (done.status === 201 && what.endsWith('once')) {
        t.equal((await act(vault, ids)).status, 201);
        t.equal((await events()).length, all.length, 'a repetition is no event');
      }
    });
  }

  t.test('what changes nothing has no event', async (t) => {
    const before = (await events()).length;
    for (const body of [{}, { name: 'renamed' }, { description: 'x' }])
      t.equal((await call('alice', 'PATCH', `/v1/credentials/${ids.one}`, body, any)).status, 200);
    t.equal(
      (await call('alice', 'PATCH', '/v1/teams/payments', { name: 'Money' }, any)).status,
      200,
    );
    t.equal(
      (
        await call(
          'alice',
          'PATCH',
          `/v1/credentials/${ids.one}`,
          { name: 'x' },
          { 'if-match': '"1"' },
        )
      ).status,
      412,
    );
    t.equal(
      (
        await call(
          'alice',
          'PATCH',
          `/v1/credentials/${ids.one}`,
          { fields: { baseUrl: 'https://evil.test' } },
          any,
        )
      ).status,
      422,
    );
    t.equal((await call('alice', 'POST', `/v1/credentials/${ids.one}/enable`)).status, 409);
    t.equal(
      (
        await call('alice', 'POST', '/v1/teams/payments/credentials', {
          name: 'renamed',
          type: 'bearer',
          fields: { token: 'x' },
        })
      ).status,
      409,
    );
    t.equal((await events()).length, before);
  });

  t.test('it reads as what was done, by whom, and every event is intact', async (t) => {
    const { items } = (await call('alice', 'GET', '/v1/teams/payments/audit-events?limit=200'))
      .json;
    t.ok(items.length >= 15);
    t.ok(items.every(({ intact }: { intact: boolean }) => intact));
    t.match(
      items.find(({ action }: any) => action === 'credential.lease'),
      {
        actor: 'n8n',
        target: { type: 'credential', id: ids.one },
        purpose: 'a test',
        onBehalfOf: 'alice',
        address: '127.0.0.1',
        key: /^[0-9a-f-]{36}$/,
        credentialVersion: 3,
      },
    );
    t.match(
      items.find(({ action }: any) => action === 'member.add'),
      { actor: 'alice', target: { type: 'subject' } },
    );
    t.match(
      items.find(
        ({ action, target }: any) => action === 'member.remove' && target.type === 'subject',
      ),
      { target: { subject: 'sub-of-eve' }, details: { roleBefore: 'editor' } },
    );
    const times = items.map(({ at }: { at: string }) => at);
    t.strictSame(times, times.toSorted().toReversed(), 'newest first');
    await call('operator', 'POST', `/v1/engines/${engine}/keys`, {
      key: generateEngineKey('P-256').publicJwk,
    });
    t.match(
      (await call('alice', 'GET', '/v1/teams/payments/audit-events?limit=1')).json.items,
      [{ actor: 'operator', target: { type: 'engine', id: engine }, intact: true }],
      'a new key of an engine shows in its teams',
    );
  });

  t.test('no subject, no address and no value stands in an event', async (t) => {
    const { rows } = await sql<{
      text: string;
    }>`select string_agg(audit_event::text, E'\n') as text from audit_event`.execute(db);
    t.equal(
      /sub-of-|alice|""n8n""|operator|127\.0\.0\.1|newer/.exec(rows[0]?.text ?? 'operator'),
      null,
    );
    const { rows: sides } = await sql<{
      n: number;
      m: number;
    }>`select count(*) as n, (select count(*) from audit_event where address_hash is not null) as m from audit_address`.execute(
      db,
    );
    t.ok(
      sides[0]?.n === sides[0]?.m && (sides[0]?.n ?? 0) > 0,
      'each address stands beside its event',
    );
  });

  t.test('filters and pages', async (t) => {
    const list = async (query: string): Promise<any[]> => {
      const answer = await call('alice', 'GET', `/v1/teams/payments/audit-events?${query}`);
      if (answer.status !== 200) throw new Error(answer.text);
      return answer.json.items;
    };
    const all = await list('limit=200');
    t.strictSame(
      await list('limit=200&action=credential.update'),
      all.filter(({ action }) => action === 'credential.update'),
    );
    t.strictSame(
      await list(`limit=200&target=${ids.one}`),
      all.filter(({ target }) => target.id === ids.one),
    );
    vault.clock.ms += 61_000;
    await call('n8n', 'DELETE', `/v1/credentials/${ids.one}`, undefined, any);
    t.match(await list('decision=deny'), [
      {
        actor: 'n8n',
        action: 'credential.write',
        decision: 'deny',
        reason: 'role',
        target: { type: 'credential', id: ids.one },
      },
    ]);
    const [from, until] = [all[9].at, all[3].at];
    t.strictSame(
      await list(`limit=200&from=${from}&until=${until}`),
      all.filter(({ at }) => at >= from && at < until),
    );
    t.strictSame(
      await list(`limit=200&until=${encodeURIComponent('1999-01-01T00:00:00+02:00')}`),
      [],
    );
    const seen: any[] = [];
    for (let cursor = ''; ; ) {
      const page = (
        await call(
          'alice',
          'GET',
          `/v1/teams/payments/audit-events?limit=3&decision=allow${cursor}`,
        )
      ).json;
      seen.push(...page.items);
      if (page.nextCursor === null) break;
      cursor = `&cursor=${page.nextCursor}`;
    }
    t.strictSame(seen, await list('limit=200&decision=allow'));
    for (const bad of [
      'action=x',
      'action=credential',
      'decision=maybe',
      'from=yesterday',
      'from=0000-01-01T00:00:00Z',
      'target=',
      'limit=0',
      'cursor=x',
      'actor=alice',
    ]) {
      t.equal(
        (await call('alice', 'GET', `/v1/teams/payments/audit-events?${bad}`)).status,
        400,
        bad,
      );
    }
    await vault.team('other', ['ann']);
    t.match(
      await call('ann', 'GET', '/v1/teams/other/audit-events'),
      { json: { items: [{ action: 'team.create' }] } },
      'a team sees its own',
    );
    t.equal((await call('operator', 'GET', '/v1/teams/payments/audit-events')).status, 404);
  });

  t.test(
    'an event whose address was erased is intact, one with another address is not',
    async (t) => {
      const {
        rows: [row],
      } = await sql<{
        id: string;
      }>`select event_id as id from audit_address join audit_event on event_id = id where target_id = ${ids.one} and action = 'credential.enable'`.execute(
        db,
      );
      const read = async (): Promise<any> =>
        (
          await call(
            'alice',
            'GET',
            `/v1/teams/payments/audit-events?target=${ids.one}&action=credential.enable`,
          )
        ).json.items[0];
      t.match(await read(), { address: '127.0.0.1', intact: true });
      await tampered(
        db,
        {
          table: 'audit_address',
          statement: `update audit_address set address = '203.0.113.9' where event_id = '${row?.id}'`,
        },
        async () => {
          t.match(await read(), { address: null, intact: false });
        },
      );
      await tampered(
        db,
        {
          table: 'audit_address',
          statement: `update audit_address set salt = '\\x00' where event_id = '${row?.id}'`,
        },
        async () => {
          t.match(await read(), { address: null, intact: false });
        },
      );
      await sql`delete from audit_address where event_id = ${row?.id}`.execute(db);
      t.match(await read(), { address: null, intact: true });
    },
  );

  t.test('every column of an event that is touched shows', async (t) => {
    const {
      rows: [lease],
    } = await sql<{
      id: string;
    }>`select id from audit_event where action = 'credential.lease' and decision = 'allow'`.execute(
      db,
    );
    const columns = (
      await sql<{
        name: string;
      }>`select attname as name from pg_attribute where attrelid = 'audit_event'::regclass and attnum > 0 and not attisdropped`.execute(
        db,
      )
    ).rows.map(({ name }) => name);
    await sql`delete from audit_address where event_id = ${lease?.id}`.execute(db); // else the side row alone would tell
    const other = '019aa7c2-5b1e-7c3a-9d52-0a4f6e1b2c3d';
    const touched: Readonly<Record<string, readonly string[]>> = {
      id: [`'${other}'`],
      at: [`at + interval '1 second'`],
      actor_id: ['null', `'${other}'`, `(select id from subject where sub = 'alice')`],
      team_id: [`(select id from team where slug = 'second')`],
      action: [`'credential.read'`, `'x y'`, `E'a\\n'`],
      target_type: [`'team'`, `'a b'`],
      target_id: [`'${other}'`, `E'\\u0001'`, `repeat('x', 500)`],
      decision: [`'deny'`],
      reason: [`'role'`, `''`, `repeat('x', 500)`],
      request_id: [`'${other}'`, `repeat('x', 500)`],
      key_id: ['null', `'${other}'`],
      credential_version: ['null', '1', '-1'],
      address_hash: ['null', `'\\x00'`],
      mac_version: ['2', '-1', '70000'],
      mac: [`'\\x'`, `set_bit(mac, 0, 1 - get_bit(mac, 0))`],
      details: [
        `details || '{"purpose":"another"}'`,
        `details - 'lease'`,
        `'{}'`,
        `'null'`,
        `'7'`,
        `'"x"'`,
        `'[]'`,
        `'{"a":{"b":{"c":1}}}'`,
        `'{"a":1e400}'`,
        `'{"a b":1}'`,
        `details || '{"count":1.5}'`,
      ],
    };
    t.strictSame(Object.keys(touched).sort(), columns.toSorted(), 'every column is touched');
    for (const [column, values] of Object.entries(touched)) {
      for (const value of values) {
        await tampered(
          db,
          {
            table: 'audit_event',
            statement: `update audit_event set ${column} = ${value} where id = '${lease?.id}'`,
          },
          async () => {
            const team = column === 'team_id' ? 'second' : 'payments';
            const answer = await call('alice', 'GET', `/v1/teams/${team}/audit-events?limit=200`);
            t.equal(answer.status, 200, `${column} = ${value}: ${answer.text.slice(0, 200)}`);
            const broken = answer.json.items.filter(({ intact }: { intact: boolean }) => !intact);
            t.equal(broken.length, 1, `${column} = ${value}`);
          },
        );
      }
    }
    t.ok(
      (await call('alice', 'GET', '/v1/teams/payments/audit-events?limit=200')).json.items.every(
        ({ intact }: { intact: boolean }) => intact,
      ),
      'put back, all are intact',
    );
    await intrude(
      db,
      `insert into audit_event select gen_random_uuid(), at, actor_id, team_id, action, target_type, target_id, decision, reason, request_id, key_id, credential_version, address_hash, details, mac_version, mac from audit_event where id = '${lease?.id}'`,
    );
    t.match(
      (
        await call('alice', 'GET', '/v1/teams/payments/audit-events?action=credential.lease')
      ).json.items
        .map(({ intact }: any) => intact)
        .sort(),
      [false, true],
      'a copy is no event',
    );
  });

  t.test('the audit log is append-only', async (t) => {
    for (const statement of [
      'update audit_event set reason = null',
      'delete from audit_event',
      'truncate audit_event',
      `update ${month} set reason = null`,
      `delete from ${month}`,
      `truncate ${month}`,
    ]) {
      await t.rejects(sql.raw(statement).execute(db), /the audit is append-only/, statement);
    }
  });

  t.test('months are made ahead, for each of the three tables', async (t) => {
    const { rows } = await sql<{ parent: string; n: number; ahead: boolean }>`
      select inhparent::regclass::text as parent, count(*) as n, bool_or(inhrelid::regclass::text like '%' || to_char(now() at time zone 'UTC' + interval '3 months', 'YYYY_MM')) as ahead
      from pg_inherits where inhparent in ('audit_event'::regclass, 'audit_address'::regclass, 'access_record'::regclass) group by 1 order by 1`.execute(
      db,
    );
    t.match(rows, [
      { parent: 'access_record', ahead: true },
      { parent: 'audit_address', ahead: true },
      { parent: 'audit_event', ahead: true },
    ]);
  });
});

t.test(
  'a page of the audit log reads as many people as it shows, however many there are',
  async (t) => {
    const vault = await startVault(t);
    const { call, db } = vault;
    await vault.team('payments');
    const engine = await registerEngine(vault, 'n8n');
    await vault.member('payments', engine.sub, 'engine');
    await vault.member('payments', 'sub-of-eve', 'viewer');
    const { id } = (
      await call('alice', 'POST', '/v1/teams/payments/credentials', {
        name: 'one',
        type: 'openai',
        fields: { apiKey: 'x' },
      })
    ).json;
    for (let times = 0; times < 60; times += 1) await askLease(vault, engine.sub, [{ id }]);
    await call('alice', 'PUT', `/v1/credentials/${id}/grants/subjects/sub-of-grace`, {
      access: 'read',
    });
    await sql`insert into subject (id, sub) select gen_random_uuid(), 'subject-' || n from generate_series(1, 50000) as n`.execute(
      db,
    );
    await sql`analyze subject`.execute(db);
    const sent: SentStatement[] = [];
    const end = watchStatements((statement) => {
      if (statement.text.includes('from audit_event')) sent.push(statement);
    });
    const answer = await call('alice', 'GET', '/v1/teams/payments/audit-events?limit=200');
    end();
    t.equal(answer.status, 200);
    const { items } = answer.json;
    t.ok(items.length > 60);
    t.ok(items.every(({ intact }: { intact: boolean }) => intact));
    t.match(
      items.find(({ action }: any) => action === 'grant.add'),
      { actor: 'alice', details: { grantee: 'sub-of-grace' } },
    );
    t.match(
      items.find(({ action }: any) => action === 'credential.lease'),
      { actor: 'n8n', onBehalfOf: 'alice' },
    );
    t.match(
      items.find(({ target }: any) => target.subject === 'sub-of-eve'),
      { action: 'member.add' },
    );
    t.equal(sent.length, 1);
    const client = new pg.Client({ connectionString: vault.databaseUrl });
    await client.connect();
    const nodes = nodesOf(await planOf(client, sent[0]!));
    await client.end();
    t.ok(nodes.some((node) => node['Index Name'] === 'subject_pkey'));
    const people = nodes.filter((node) => node['Relation Name'] === 'subject');
    t.ok(
      people.length > 0 && people.every((node) => node['Plan Rows'] < 10),
      'a few for each event',
    );
    t.notOk(
      people.some((node) => node['Node Type'] === 'Seq Scan'),
      'by the primary key',
    );
  },
);

t.test('a page with filters looks at a bounded number of events', async (t) => {
  const vault = await startVault(t);
  const { call, db } = vault;
  await vault.team('payments');
  await vault.member('payments', 'sub-of-eve', 'viewer');
  await sql`insert into audit_event (id, at, actor_id, team_id, action, target_type, target_id, decision, request_id, details, mac_version, mac)
    select gen_random_uuid(), now() + n * interval '1 millisecond', null, (select id from team), 'credential.read', 'credential', 'x', 'allow', 'r', '{}', 1, '\\x00'
    from generate_series(1, 25000) as n`.execute(db);
  const url = '/v1/teams/payments/audit-events?action=member.add';
  const found: string[] = [];
  const sizes: number[] = [];
  for (let cursor: string | null = ''; cursor !== null; ) {
    const { status, json }: Answer = await call(
      'alice',
      'GET',
      `${url}${cursor === '' ? '' : `&cursor=${cursor}`}`,
    );
    t.equal(status, 200);
    found.push(...json.items.map(({ action }: { action: string }) => action));
    sizes.push(json.items.length);
    cursor = json.nextCursor;
  }
  t.strictSame(found, ['member.add'], 'what is far back is found');
  t.strictSame(sizes, [0, 0, 1], 'a stretch at a time');
  t.strictSame(
    (await call('alice', 'GET', `${url}&until=2000-01-01T00:00:00Z`)).json,
    { items: [], nextCursor: null },
    'where there is nothing to look at the list ends',
  );
});
