// A ticket is worth what is behind it at this moment: every right, state and rule is taken away in
// turn, and the next call is refused.
import { sql } from 'kysely';
import t from 'tap';
import { generateEngineKey } from '../../src/client/index.ts';
import { type BrokerStage, callBroker, startBroker, type Ticket } from '../helpers/broker.ts';
import { intrude } from '../helpers/intruder.ts';
import { demand } from '../helpers/leases.ts';
import { until } from '../helpers/processes.ts';
import { startVault } from '../helpers/vault.ts';

const any = { 'if-match': '*' };
const said = ({ status, json }: { status: number; json: any }): string =>
  [status, json?.code, ...(json?.errors ?? []).map(({ rule }: { rule: string }) => rule)]
    .filter((each) => each !== undefined)
    .join(' ');

/** A stage whose upstream counts its calls. */
async function stageOf(
  t: Parameters<typeof startBroker>[0],
  options: Parameters<typeof startBroker>[2] = {},
): Promise<BrokerStage & { calls(): number; lastSecret(): string }> {
  let calls = 0;
  let lastSecret = '';
  const stage = await startBroker(
    t,
    (request, response) => {
      calls += 1;
      lastSecret = request.headers.authorization ?? '';
      response.end('fine');
    },
    options,
  );
  return { ...stage, calls: () => calls, lastSecret: () => lastSecret };
}

t.test('what is taken away counts at the next call, and what is given back too', async (t) => {
  const stage = await stageOf(t);
  const { vault, credential, engine, call } = stage;
  const url = `/v1/credentials/${credential}`;
  const patch = (body: object): Promise<any> =>
    demand(vault.call('alice', 'PATCH', url, body, any), 200);
  const policy = { delivery: ['broker'], allowedHosts: [] as string[] };
  /**
   * Takes something away, sees the next call refused and nothing dialled, gives it back and sees it
   * pass.
   */
  const round = async (
    what: string,
    take: () => Promise<unknown>,
    refusal: string,
    give?: () => Promise<unknown>,
    ticket: Ticket = stage.ticket,
  ): Promise<void> => {
    vault.clock.ms += 61_000; // refusals above ten a minute would become one event
    const fresh = await stage.newTicket({ ttlSeconds: 3600 });
    const use = ticket === stage.ticket ? fresh : ticket;
    t.equal(said(await call('POST', '/v1/x', { ticket: use })), '200', `${what}: before`);
    const before = stage.calls();
    await take();
    t.equal(said(await call('POST', '/v1/x', { ticket: use })), refusal, what);
    t.equal(stage.calls(), before, `${what}: nothing was dialled`);
    if (give === undefined) return;
    await give();
    t.equal(said(await call('POST', '/v1/x', { ticket: use })), '200', `${what}: given back`);
  };
  const state = (to: string): Promise<any> =>
    demand(vault.call('operator', 'PATCH', `/v1/engines/${engine.id}`, { state: to }, any), 200);
  await round(
    'the engine is disabled',
    () => state('disabled'),
    '401 ticketInvalid',
    () => state('enabled'),
  );
  await round(
    'the engine leaves the team',
    () =>
      demand(vault.call('alice', 'DELETE', '/v1/teams/payments/members/n8n', undefined, any), 204),
    '403 brokerRefused notFound',
    () => vault.member('payments', 'n8n', 'engine'),
  );
  await round(
    'the credential is disabled',
    () => demand(vault.call('alice', 'POST', `${url}/disable`), 200),
    '403 brokerRefused disabled',
    () => demand(vault.call('alice', 'POST', `${url}/enable`), 200),
  );
  await round(
    'the credential expires',
    () => patch({ expiresAt: new Date(Date.now() + vault.clock.ms - 1_000).toISOString() }),
    '403 brokerRefused expired',
    () => patch({ expiresAt: null }),
  );
  const eddies = await stage.newTicket({ onBehalfOf: 'eddie', ttlSeconds: 3600 });
  await round(
    'the person becomes a viewer',
    () => vault.member('payments', 'eddie', 'viewer'),
    '403 brokerRefused onBehalfOfRefused',
    () => vault.member('payments', 'eddie', 'editor'),
    eddies,
  );
  await round(
    'the person leaves',
    () =>
      demand(
        vault.call('alice', 'DELETE', '/v1/teams/payments/members/eddie', undefined, any),
        204,
      ),
    '403 brokerRefused onBehalfOfRefused',
    () => vault.member('payments', 'eddie', 'editor'),
    eddies,
  );
  await vault.member('payments', 'n8n', 'engine', 'alice', { actsForItself: true });
  const nobodys = await stage.newTicket({ onBehalfOf: null, ttlSeconds: 3600 });
  const forItself = (actsForItself: boolean): Promise<void> =>
    vault.member('payments', 'n8n', 'engine', 'alice', { actsForItself });
  await round(
    'the engine acts for itself no more',
    () => forItself(false),
    '403 brokerRefused onBehalfOfRequired',
    () => forItself(true),
    nobodys,
  );
  await round(
    'the methods are narrowed',
    () => patch({ policy: { ...policy, methods: ['GET'] } }),
    '403 brokerRefused methodNotAllowed',
    () => patch({ policy, fields: { apiKey: 'sk-another-key-1' } }),
  );
  t.equal(stage.lastSecret(), 'Bearer sk-another-key-1', 'a new value is used at once');
  await round(
    'the paths are narrowed',
    () => patch({ policy: { ...policy, pathPrefixes: ['/v1/xy', '/v2'] } }),
    '403 brokerRefused pathNotAllowed',
    () => patch({ policy, fields: { apiKey: 'sk-another-key-2' } }),
  );
  await round(
    'the broker is no delivery any more',
    () => patch({ policy: { ...policy, delivery: [] } }),
    '403 brokerRefused deliveryNotAllowed',
    () => patch({ policy, fields: { apiKey: 'sk-another-key-3' } }),
  );
  await round(
    'the ticket is deleted',
    () => demand(vault.call('alice', 'DELETE', `/v1/broker-tickets/${eddies.id}`), 204),
    '401 ticketInvalid',
    undefined,
    eddies,
  );
  await round(
    'the token is tampered with',
    () =>
      intrude(
        vault.db,
        `update credential_version set token = left(token, -6) || 'AAAA' || right(token, 2) where credential_id = '${credential}'`,
      ),
    '403 brokerRefused undecryptable',
  );
  t.match(
    (await demand(vault.call('alice', 'GET', url), 200)).problems,
    ['undecryptable'],
    'and it is marked',
  );
});

t.test(
  'a credential that is deleted, a team that is deleted, a ticket that has expired',
  async (t) => {
    const stage = await stageOf(t);
    const { vault, call } = stage;
    const other = await stage.store('other');
    const ticket = await stage.newTicket({}, other.id);
    await demand(vault.call('alice', 'DELETE', `/v1/credentials/${other.id}`, undefined, any), 204);
    t.equal(said(await call('GET', '/', { ticket })), '403 brokerRefused deleted');
    const short = await stage.newTicket({ ttlSeconds: 2 });
    t.equal(said(await call('GET', '/', { ticket: short })), '200');
    vault.clock.ms += 2_000;
    t.equal(said(await call('GET', '/', { ticket: short })), '401 ticketInvalid');
    t.equal(said(await call('GET', '/')), '200');
    await sql`update team set deleted_at = now()`.execute(vault.db);
    t.equal(said(await call('GET', '/')), '403 brokerRefused notFound');
    t.equal(stage.calls(), 2);
  },
);

t.test('a host that the policy names no more', async (t) => {
  const stage = await stageOf(t);
  const { vault } = stage;
  const policy = { delivery: ['broker'], allowedHosts: ['one.test', '*.two.test'] };
  const { id } = await demand(
    vault.call('alice', 'POST', '/v1/teams/payments/credentials', {
      name: 'several',
      type: 'bearer',
      fields: { token: 'a-token-of-length' },
      policy,
    }),
    201,
  );
  const ticket = await stage.newTicket({ host: 'x.two.test' }, id);
  t.equal(
    said(await stage.call('GET', '/', { ticket })),
    '502 upstreamUnreachable name',
    'it is let out, and leads nowhere',
  );
  await demand(
    vault.call(
      'alice',
      'PATCH',
      `/v1/credentials/${id}`,
      { policy: { ...policy, allowedHosts: ['one.test'] } },
      any,
    ),
    200,
  );
  t.equal(said(await stage.call('GET', '/', { ticket })), '403 brokerRefused hostNotAllowed');
  const { details, reason } = await vault.db
    .selectFrom('audit_event')
    .select(['details', 'reason'])
    .where('decision', '=', 'deny')
    .orderBy('id', 'desc')
    .limit(1)
    .executeTakeFirstOrThrow();
  t.match({ details, reason }, { reason: 'hostNotAllowed' });
});

t.test('a ticket counts only as the vault wrote it', async (t) => {
  const stage = await stageOf(t);
  const { vault, ticket, call } = stage;
  await stage.store('other');
  const secondEngine = await demand(
    vault.call('operator', 'POST', '/v1/engines', {
      name: 'second',
      subject: 'second',
      keys: [generateEngineKey().publicJwk],
    }),
    201,
  );
  await vault.member('payments', 'second', 'engine');
  const {
    rows: [kept],
  } = await sql<
    Record<string, unknown>
  >`select ticket_hash, credential_id, engine_id, behalf_subject_id, host, expires_at, revision, seal from broker_ticket where id = ${ticket.id}`.execute(
    vault.db,
  );
  const restore = (): Promise<unknown> =>
    sql`update broker_ticket set ticket_hash = ${kept!['ticket_hash']}, credential_id = ${kept!['credential_id']}, engine_id = ${kept!['engine_id']}, behalf_subject_id = ${kept!['behalf_subject_id']},
    host = ${kept!['host']}, expires_at = ${kept!['expires_at']}, revision = ${kept!['revision']}, seal = ${kept!['seal']} where id = ${ticket.id}`.execute(
      vault.db,
    );
  for (const bend of [
    `credential_id = (select id from credential where name = 'other')`,
    `expires_at = expires_at + interval '1 hour'`,
    `engine_id = '${secondEngine.id}'`,
    `behalf_subject_id = null`,
    `behalf_subject_id = (select id from subject where sub = 'eddie')`,
    `host = 'evil.test'`,
    `revision = 2`,
    `seal = '\\x00'`,
    `seal = set_byte(seal, 10, (get_byte(seal, 10) + 1) % 256)`,
  ]) {
    vault.clock.ms += 61_000;
    await intrude(vault.db, `update broker_ticket set ${bend} where id = '${ticket.id}'`);
    t.equal(said(await call('GET', '/')), '401 ticketInvalid', bend);
    const event = await vault.db
      .selectFrom('audit_event')
      .select(['reason', 'target_id'])
      .where('action', '=', 'credential.use')
      .where('decision', '=', 'deny')
      .orderBy('id', 'desc')
      .limit(1)
      .executeTakeFirst();
    t.match(event, { reason: 'sealBroken', target_id: ticket.id }, bend);
    await restore();
  }
  t.ok(
    vault.logs.some((line) => line.includes('sealBroken')),
    'an alarm',
  );
  const foreign = await stage.newTicket();
  // Two tickets have no hash in common: the other one's row has to go first.
  await intrude(
    vault.db,
    `with gone as (delete from broker_ticket where id = '${foreign.id}' returning ticket_hash)
     select set_config('test.hash', encode(ticket_hash, 'hex'), false) from gone`,
    `update broker_ticket set ticket_hash = decode(current_setting('test.hash'), 'hex') where id = '${ticket.id}'`,
  );
  t.equal(
    said(
      await callBroker(stage.port, 'GET', `/broker/${ticket.id}/`, {
        authorization: `Bearer ${foreign.ticket}`,
      }),
    ),
    '401 ticketInvalid',
    'nor does another ticket open it',
  );
  await restore();
  vault.clock.ms = 0;
  t.equal(said(await call('GET', '/')), '200');
  await intrude(
    vault.db,
    `update credential set expires_at = now() + interval '1 year' where id = '${stage.credential}'`,
  );
  t.equal(
    said(await call('GET', '/')),
    '403 brokerRefused notFound',
    'a credential that was tampered with is not there',
  );
});

t.test(
  'what changes while a call is being decided is decided again, before anything is dialled',
  async (t) => {
    const stage = await stageOf(t);
    const { vault, call } = stage;
    const waiting = async (): Promise<boolean> =>
      (
        await sql`
    select 1 from pg_stat_activity where wait_event_type = 'Lock' and query ~ 'with (basis|found) as' and datname = current_database()`.execute(
          vault.db,
        )
      ).rows.length === 1;
    const subject = (sub: string): string => `(select id from subject where sub = '${sub}')`;
    for (const [change, refusal, back] of [
      [
        `update engine set state = 'disabled', revision = revision + 1`,
        '401 ticketInvalid',
        `update engine set state = 'enabled', revision = revision - 1`,
      ],
      [
        `update membership set role = 'viewer', revision = revision + 1 where subject_id = ${subject('eddie')}`,
        '403 brokerRefused onBehalfOfRefused',
        `update membership set role = 'editor', revision = revision - 1 where subject_id = ${subject('eddie')}`,
      ],
      [
        `update membership set acts_for_itself = true, revision = revision + 1 where subject_id = ${subject('n8n')}`,
        '403 brokerRefused notFound',
        `update membership set acts_for_itself = false, revision = revision - 1 where subject_id = ${subject('n8n')}`,
      ],
      [
        `update credential set state = 'disabled', revision = revision + 1`,
        '403 brokerRefused notFound',
        `update credential set state = 'enabled', revision = revision - 1`,
      ],
      ['delete from broker_ticket', '401 ticketInvalid', ''],
    ] as const)
      for (const isUsed of [false, true]) {
        // decided in two statements at a ticket's first call, in one later
        vault.clock.ms += 61_000;
        const eddies = await stage.newTicket({ onBehalfOf: 'eddie' });
        if (isUsed) t.equal(said(await call('GET', '/', { ticket: eddies })), '200');
        const before = stage.calls();
        let answer: ReturnType<typeof call> | undefined;
        await vault.db.transaction().execute(async (trx) => {
          await sql`lock table audit_event in access exclusive mode`.execute(trx);
          answer = call('GET', '/', { ticket: eddies });
          await until(waiting);
          await sql.raw(change).execute(trx);
        });
        t.equal(said(await answer!), refusal, `${change}, ${isUsed ? 'used' : 'fresh'}`);
        t.equal(stage.calls(), before, change);
        if (back !== '') await sql.raw(back).execute(vault.db);
      }
  },
);

t.test('without its event no call goes out', async (t) => {
  const stage = await stageOf(t);
  await sql`create function no_event() returns trigger language plpgsql as $$ begin raise exception 'no event'; end $$`.execute(
    stage.vault.db,
  );
  await sql`create trigger no_event before insert on audit_event for each row execute function no_event()`.execute(
    stage.vault.db,
  );
  t.equal(said(await stage.call('GET', '/')), '500 internal');
  await sql`drop trigger no_event on audit_event`.execute(stage.vault.db);
  t.equal(stage.calls(), 0);
  t.equal(said(await stage.call('GET', '/')), '200');
});

t.test('replicas: a ticket of one is good at the other, and ends at both', async (t) => {
  const stage = await stageOf(t);
  const { vault } = stage;
  const second = await startVault(t, {
    database: { url: vault.databaseUrl, db: vault.db },
    rootKey: vault.rootKey,
    egress: stage.egress,
  });
  await second.broker.listen({ host: '127.0.0.1', port: 0 });
  const { port } = second.broker.server.address() as { port: number };
  const at = (where: number): Promise<{ status: number; json: any }> =>
    callBroker(where, 'GET', `/broker/${stage.ticket.id}/`, {
      authorization: `Bearer ${stage.ticket.ticket}`,
    });
  t.equal(said(await at(port)), '200');
  t.equal(said(await at(stage.port)), '200');
  await demand(vault.call('n8n', 'DELETE', `/v1/broker-tickets/${stage.ticket.id}`), 204);
  t.equal(said(await at(port)), '401 ticketInvalid');
  t.equal(said(await at(stage.port)), '401 ticketInvalid');
});
