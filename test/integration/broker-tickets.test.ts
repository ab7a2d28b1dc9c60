// Tickets for the broker: who gets one, for what, what is kept of it, and how it ends.
import { createHash, randomBytes, randomUUIDv7 } from 'node:crypto';
import { sql } from 'kysely';
import t from 'tap';
import { AuditLog } from '../../src/audit/record.ts';
import { Retention } from '../../src/retention/service.ts';
import type { TicketId } from '../../src/shared/ids.ts';
import { askTicket, startBroker } from '../helpers/broker.ts';
import { everyColumn } from '../helpers/canary.ts';
import { askLease, demand, registerEngine, rulesOf, storeOpenai } from '../helpers/leases.ts';
import { until } from '../helpers/processes.ts';
import { startVault, type TestVault } from '../helpers/vault.ts';

const brokered = { policy: { delivery: ['broker'], allowedHosts: [] } };
const any = { 'if-match': '*' };

t.test('tickets', async (t) => {
  const vault = await startVault(t, { brokerUrl: () => 'https://broker.test:7302' });
  await vault.team('payments');
  await vault.team('secretive', ['mallory']);
  for (const [sub, role] of [
    ['ed', 'editor'],
    ['vera', 'viewer'],
    ['otto', 'auditor'],
  ] as const)
    await vault.member('payments', sub, role);
  const engine = await registerEngine(vault, 'n8n');
  await vault.member('payments', 'n8n', 'engine');
  const good = await storeOpenai(vault, 'payments', 'good', 'sk-a-good-key', brokered);
  const foreign = await storeOpenai(
    vault,
    'secretive',
    'good',
    'sk-a-foreign-key',
    brokered,
    'mallory',
  );
  const aMinuteLater = (): void => {
    vault.clock.ms += 61_000;
  };
  const lastEvent = async (action: string): Promise<any> =>
    vault.db
      .selectFrom('audit_event')
      .leftJoin('team', 'team.id', 'team_id')
      .select([
        'action',
        'reason',
        'decision',
        'target_type',
        'target_id',
        'details',
        'slug',
        'credential_version',
      ])
      .where('action', '=', action)
      .orderBy('audit_event.id', 'desc')
      .limit(1)
      .executeTakeFirst();

  await t.test('201: by id and by name; the text is shown once, the hash is kept', async (t) => {
    const made = [];
    for (const credential of [{ id: good.id }, { team: 'payments', name: 'good' }]) {
      const answer = await demand(
        askTicket(vault, 'n8n', credential, { runId: 'run-1', ttlSeconds: 60 }),
        201,
      );
      t.match(answer, {
        ticket: /^vbt_[A-Za-z0-9_-]{43}$/,
        baseUrl: 'https://broker.test:7302/payments/good/',
      });
      const seconds = (Date.parse(answer.expiresAt) - Date.now() - vault.clock.ms) / 1000;
      t.ok(seconds > 0 && seconds <= 60);
      made.push(answer);
      t.match(await lastEvent('ticket.create'), {
        decision: 'allow',
        target_type: 'credential',
        target_id: good.id,
        slug: 'payments',
        credential_version: 1,
        details: {
          ticket: answer.id,
          engine: engine.id,
          purpose: 'a test',
          runId: 'run-1',
          isProven: false,
          ttlSeconds: 60,
        },
      });
    }
    t.not(made[0].ticket, made[1].ticket);
    const { ticket_hash: held } = await vault.db
      .selectFrom('broker_ticket')
      .select('ticket_hash')
      .where('id', '=', made[0].id)
      .executeTakeFirstOrThrow();
    t.strictSame(held, createHash('sha256').update(made[0].ticket).digest());
    for (const { place, text } of await everyColumn(vault.db))
      for (const { ticket } of made) t.notOk(text.includes(ticket.slice(4, 24)), place);
    for (const line of vault.logs)
      for (const { ticket } of made) t.notOk(line.includes(ticket.slice(4, 24)));
  });

  await t.test('403: only engines, and not a disabled one', async (t) => {
    for (const sub of ['alice', 'ed', 'vera', 'otto', 'operator', 'stranger']) {
      aMinuteLater();
      for (const id of [good.id, randomUUIDv7()])
        t.equal((await askTicket(vault, sub, { id })).status, 403, sub);
    }
    t.match(await lastEvent('ticket.create'), {
      decision: 'deny',
      reason: 'notAnEngine',
      slug: null,
    });
    await demand(
      vault.call('operator', 'PATCH', `/v1/engines/${engine.id}`, { state: 'disabled' }, any),
      200,
    );
    t.equal((await askTicket(vault, 'n8n', { id: good.id })).status, 403);
    await demand(
      vault.call('operator', 'PATCH', `/v1/engines/${engine.id}`, { state: 'enabled' }, any),
      200,
    );
  });

  await t.test('422: what does not exist and what is foreign get the same answer', async (t) => {
    aMinuteLater();
    const answers = [];
    for (const credential of [
      { id: randomUUIDv7() },
      { id: foreign.id },
      { team: 'secretive', name: 'good' },
      { team: 'nowhere', name: 'good' },
    ]) {
      const { status, json } = await askTicket(vault, 'n8n', credential);
      answers.push({ status, ...json, requestId: '' });
    }
    for (const answer of answers) t.strictSame(answer, answers[0]);
    t.match(answers[0], {
      status: 422,
      code: 'ticketRefused',
      errors: [{ pointer: '/credential', rule: 'notFound' }],
    });
  });

  await t.test('422: each with its rule, and in the audit log', async (t) => {
    const header = (name: string, fields: object, policy: object): Promise<any> =>
      demand(
        vault.call('alice', 'POST', '/v1/teams/payments/credentials', {
          name,
          type: 'bearer',
          fields,
          policy,
        }),
        201,
      );
    const [leaseOnly, disabled, expired, tampered, deleted] = [
      await storeOpenai(vault, 'payments', 'lease-only', 'sk-a-lease-key'),
      await storeOpenai(vault, 'payments', 'disabled', 'sk-disabled-key', brokered),
      await storeOpenai(vault, 'payments', 'expired', 'sk-expired-key', {
        ...brokered,
        expiresAt: new Date(Date.now() + vault.clock.ms + 1_000).toISOString(),
      }),
      await storeOpenai(vault, 'payments', 'bent', 'sk-bent-key-bent', brokered),
      await storeOpenai(vault, 'payments', 'deleted', 'sk-deleted-key', brokered),
    ];
    await demand(vault.call('alice', 'POST', `/v1/credentials/${disabled.id}/disable`), 200);
    await demand(
      vault.call('alice', 'DELETE', `/v1/credentials/${deleted.id}`, undefined, any),
      204,
    );
    await sql`update credential_version set token = (select token from credential_version where credential_id = ${good.id}) where credential_id = ${tampered.id}`.execute(
      vault.db,
    );
    const policy = { delivery: ['broker'], allowedHosts: ['api.one.example', '*.two.example'] };
    const several = await header('several', { token: 'a-token-of-length' }, policy);
    const none = await header(
      'none',
      { token: 'a-token-of-length' },
      { delivery: ['broker'], allowedHosts: [] },
    );
    const one = await header(
      'one',
      { token: 'a-token-of-length' },
      { delivery: ['broker'], allowedHosts: ['api.one.example'] },
    );
    aMinuteLater();
    const ask = async (id: string, more: object = {}): Promise<string[] | number> => {
      const answer = await askTicket(vault, 'n8n', { id }, { ...more });
      return answer.status === 422 ? rulesOf(answer) : answer.status;
    };
    for (const [id, rule] of [
      [leaseOnly.id, 'deliveryNotAllowed'],
      [disabled.id, 'disabled'],
      [expired.id, 'expired'],
      [deleted.id, 'deleted'],
      [tampered.id, 'undecryptable'],
    ]) {
      t.strictSame(await ask(id), [`/credential ${rule}`]);
      t.match(await lastEvent('ticket.create'), {
        decision: 'deny',
        reason: rule,
        target_id: id,
        slug: 'payments',
      });
    }
    t.strictSame(await ask(tampered.id), ['/credential undecryptable'], 'again, and it is marked');
    t.equal(
      (await vault.call('alice', 'GET', `/v1/credentials/${tampered.id}`)).json.health,
      'undecryptable',
    );
    t.strictSame(await ask(several.id), ['/host hostRequired']);
    t.strictSame(await ask(none.id), ['/host hostRequired']);
    for (const host of [
      'evil.example',
      'one.example',
      'a.b.two.example',
      'two.example',
      'api.one.example.evil.example',
    ])
      t.strictSame(await ask(several.id, { host }), ['/host hostNotAllowed'], host);
    t.match(await lastEvent('ticket.create'), { decision: 'deny', reason: 'hostNotAllowed' });
    for (const host of ['api.one.example', 'x.two.example'])
      t.equal(await ask(several.id, { host }), 201, host);
    t.match(await lastEvent('ticket.create'), { details: { host: 'x.two.example' } });
    t.equal(await ask(one.id), 201, 'the only host need not be said');
    t.match(await lastEvent('ticket.create'), { details: { host: 'api.one.example' } });
    t.strictSame(
      await ask(good.id, { host: 'evil.example' }),
      ['/host hostNotAllowed'],
      'a type with a destination of its own goes nowhere else',
    );
  });

  await t.test('422: on whose behalf', async (t) => {
    aMinuteLater();
    const ask = async (onBehalfOf: string | null): Promise<string[] | number> => {
      const answer = await askTicket(vault, 'n8n', { id: good.id }, { onBehalfOf });
      return answer.status === 201 ? 201 : rulesOf(answer);
    };
    for (const sub of ['alice', 'ed']) t.equal(await ask(sub), 201, sub);
    for (const sub of ['vera', 'otto', 'mallory', 'n8n', 'nobody-ever-seen'])
      t.strictSame(await ask(sub), ['/onBehalfOf onBehalfOfRefused'], sub);
    t.strictSame(await ask(null), ['/onBehalfOf onBehalfOfRequired']);
    await vault.member('payments', 'n8n', 'engine', 'alice', { actsForItself: true });
    t.equal(await ask(null), 201);
    await vault.member('payments', 'n8n', 'engine', 'alice', { actsForItself: false });
    t.equal(
      (
        await askTicket(
          vault,
          'n8n',
          { id: good.id },
          { onBehalfOf: null, subjectToken: await vault.token('alice') },
        )
      ).status,
      201,
      'a token of the person is proof',
    );
    t.match(await lastEvent('ticket.create'), { details: { isProven: true } });
    t.match(
      await askTicket(vault, 'n8n', { id: good.id }, { subjectToken: await vault.token('ed') }),
      { status: 400, json: { code: 'subjectTokenInvalid' } },
    );
  });

  await t.test('400: bad input is named by place and rule', async (t) => {
    const good_ = { credential: { id: good.id }, purpose: 'x', onBehalfOf: 'alice' };
    for (const [body, pointer] of [
      [{ ...good_, credential: undefined }, ''],
      [{ ...good_, credentials: [{ id: good.id }] }, ''],
      [{ ...good_, credential: undefined, credentials: [{ id: good.id }], host: 'a.example' }, ''],
      [{ ...good_, credential: undefined, credentials: [] }, '/credentials'],
      [{ ...good_, credential: { name: 'good' } }, '/credential'],
      [{ ...good_, purpose: undefined }, '/purpose'],
      [{ ...good_, ttlSeconds: 43_201 }, '/ttlSeconds'],
      [{ ...good_, ttlSeconds: 0 }, '/ttlSeconds'],
      [{ ...good_, host: 'EVIL' }, '/host'],
      [{ ...good_, host: '127.0.0.1:80' }, '/host'],
      [{ ...good_, host: '*.example' }, '/host'],
      [{ ...good_, includeSecret: true }, '/includeSecret'],
    ] as const) {
      const answer = await vault.call('n8n', 'POST', '/v1/broker-tickets', body);
      t.equal(answer.status, 400, pointer);
      t.ok(
        answer.json.errors.some((fault: { pointer: string }) => fault.pointer.startsWith(pointer)),
        `${pointer} in ${answer.text}`,
      );
    }
  });

  await t.test(
    'a broker-only credential is leased to nobody, and a lease-only one gets no ticket',
    async (t) => {
      aMinuteLater();
      t.strictSame(rulesOf(await askLease(vault, 'n8n', [{ id: good.id }])), [
        '/credentials/0 deliveryNotAllowed',
      ]);
    },
  );

  await t.test(
    'delete: the engine that made it and admins of the team; recorded; gone for everybody',
    async (t) => {
      aMinuteLater();
      const other = await registerEngine(vault, 'other-engine');
      await vault.member('payments', 'other-engine', 'engine');
      t.ok(other);
      const make = async (): Promise<TicketId> =>
        (await demand(askTicket(vault, 'n8n', { id: good.id }), 201)).id;
      for (const [sub, status] of [
        ['n8n', 204],
        ['alice', 204],
        ['ed', 403],
        ['vera', 403],
        ['otto', 403],
        ['other-engine', 403],
        ['mallory', 404],
        ['stranger', 404],
        ['operator', 404],
      ] as const) {
        const id = await make();
        t.equal((await vault.call(sub, 'DELETE', `/v1/broker-tickets/${id}`)).status, status, sub);
        const kept = await vault.db
          .selectFrom('broker_ticket')
          .select('id')
          .where('id', '=', id)
          .execute();
        t.equal(kept.length, status === 204 ? 0 : 1, sub);
        if (status === 204) {
          t.match(await lastEvent('ticket.delete'), {
            decision: 'allow',
            target_id: good.id,
            slug: 'payments',
            details: { ticket: id },
          });
          t.equal((await vault.call(sub, 'DELETE', `/v1/broker-tickets/${id}`)).status, 404);
        } else t.match(await lastEvent('ticket.delete'), { decision: 'deny' });
      }
      const [there, nowhere] = [
        await vault.call('stranger', 'DELETE', `/v1/broker-tickets/${await make()}`),
        await vault.call('stranger', 'DELETE', `/v1/broker-tickets/${randomUUIDv7()}`),
      ];
      t.strictSame({ ...there.json, requestId: '' }, { ...nowhere.json, requestId: '' });
    },
  );

  await t.test('tickets end with the registration of their engine', async (t) => {
    const { id } = await demand(askTicket(vault, 'n8n', { id: good.id }), 201);
    await demand(vault.call('operator', 'DELETE', `/v1/engines/${engine.id}`, undefined, any), 204);
    t.equal(
      (await vault.db.selectFrom('broker_ticket').select('id').where('id', '=', id).execute())
        .length,
      0,
    );
  });
});

t.test('what changes while a ticket is being decided is decided again', async (t) => {
  const { vault, credential } = await small(t);
  const waiting = async (): Promise<boolean> =>
    (
      await sql`
    select 1 from pg_stat_activity where wait_event_type = 'Lock' and query like '%with basis as%' and datname = current_database()`.execute(
        vault.db,
      )
    ).rows.length === 1;
  let answer: ReturnType<typeof askTicket> | undefined;
  await vault.db.transaction().execute(async (trx) => {
    await sql`lock table audit_event in access exclusive mode`.execute(trx);
    answer = askTicket(vault, 'n8n', { id: credential });
    await until(waiting);
    await sql`update engine set state = 'disabled', revision = revision + 1`.execute(trx);
  });
  t.equal((await answer!).status, 403);
  t.equal((await vault.db.selectFrom('broker_ticket').select('id').execute()).length, 0);
});

t.test('nothing is made without its event', async (t) => {
  const { vault, credential } = await small(t);
  const { execute } = await failEvents(vault);
  t.equal((await askTicket(vault, 'n8n', { id: credential })).status, 500);
  t.equal((await vault.db.selectFrom('broker_ticket').select('id').execute()).length, 0);
  await execute();
  t.equal((await askTicket(vault, 'n8n', { id: credential })).status, 201);
});

t.test('housekeeping takes expired tickets and no others', async (t) => {
  const { vault, credential } = await small(t);
  const now = (): number => Date.now() + vault.clock.ms;
  const [short, long] = [
    await demand(askTicket(vault, 'n8n', { id: credential }, { ttlSeconds: 1 }), 201),
    await demand(askTicket(vault, 'n8n', { id: credential }, { ttlSeconds: 3600 }), 201),
  ];
  vault.clock.ms += 2_000;
  const raise = (error: Error): never => {
    throw error;
  };
  await new Retention({
    db: vault.db,
    audit: new AuditLog({
      db: vault.db,
      keyring: vault.keyring,
      now,
      onError: raise,
      onAlarm: () => undefined,
    }),
    clock: vault.databaseClock,
    onError: raise,
    batchRows: 1,
  }).run();
  t.strictSame(
    (await vault.db.selectFrom('broker_ticket').select('id').execute()).map(({ id }) => id),
    [long.id],
  );
  t.not(short.id, long.id);
});

async function small(
  t: Parameters<typeof startVault>[0],
): Promise<{ vault: TestVault; credential: string }> {
  const vault = await startVault(t);
  await vault.team('payments');
  await registerEngine(vault, 'n8n');
  await vault.member('payments', 'n8n', 'engine');
  const { id } = await storeOpenai(
    vault,
    'payments',
    'good',
    `sk-${randomBytes(12).toString('hex')}`,
    brokered,
  );
  return { vault, credential: id };
}

/** No event is written from now on, until what is returned has run. */
async function failEvents(vault: TestVault): Promise<{ execute(): Promise<unknown> }> {
  await sql`create function no_event() returns trigger language plpgsql as $$ begin raise exception 'no event'; end $$`.execute(
    vault.db,
  );
  await sql`create trigger no_event before insert on audit_event for each row execute function no_event()`.execute(
    vault.db,
  );
  return { execute: () => sql`drop trigger no_event on audit_event`.execute(vault.db) };
}

t.test(
  'a ticket without a target of its own stays with its host, whatever the policy says later',
  async (t) => {
    const { vault, store, newTicket } = await startBroker(t, (_request, response) => {
      response.end();
    });
    const key = { accessKeyId: 'AKIA1', secretAccessKey: 'secret-access-key-0123456789' };
    const hostOf = async (fields: object): Promise<string | null> => {
      const name = `s3-${Object.keys(fields).length}`;
      const policy = { allowedHosts: ['one.s3.eu-west-1.amazonaws.com'] };
      const { id } = await store(name, policy, { type: 's3', fields: { ...key, ...fields } });
      const ticket = await newTicket({}, id);
      const { rows } = await sql<{ host: string | null }>`
      select host from broker_ticket where id = ${ticket.id}`.execute(vault.db);
      return rows[0]!.host;
    };
    t.equal(await hostOf({}), 'one.s3.eu-west-1.amazonaws.com');
    t.equal(
      await hostOf({ endpoint: 'https://store.example' }),
      null,
      'its own endpoint is its own',
    );
  },
);
