// The second call with a ticket is one round trip: recorded by the statement that reads, over what
// is expected. Whatever has changed since, it is decided and recorded as it is now, and what may
// not go out does not.
import { findType } from '../../src/credentials/types/registry.ts';
import { type KyselyPlugin, sql } from 'kysely';
import t from 'tap';
import { AuditLog } from '../../src/audit/record.ts';
import { Calls } from '../../src/broker/call.ts';
import { CallLimits } from '../../src/broker/limits.ts';
import type { AppError } from '../../src/shared/errors.ts';
import type { CredentialId, TicketId } from '../../src/shared/ids.ts';
import { unbounded } from '../../src/access/issuers.ts';
import { presenting, startBroker } from '../helpers/broker.ts';
import { demand } from '../helpers/leases.ts';

const any = { 'if-match': '*' };

t.test('a ticket that was used before', async (t) => {
  const stage = await startBroker(t, () => undefined);
  const { vault, credential, secret, engine } = stage;
  const { db, keyring } = vault;
  const now = (): number => Date.now() + vault.clock.ms;
  await vault.member('payments', 'ed', 'editor');
  let statements = 0;
  const counting: KyselyPlugin = {
    transformQuery: ({ node }) => node,
    transformResult: async ({ result }) => {
      statements += 1;
      return result;
    },
  };
  const audit = new AuditLog({
    db,
    keyring,
    now,
    onError: (error) => {
      throw error;
    },
    onAlarm: () => undefined,
  });
  const calls = new Calls({
    subjectBounds: unbounded,
    db: db.withPlugin(counting),
    keyring,
    audit,
    now,
    usage: { count: () => undefined },
    types: { find: async (name: string) => findType(name) },
    accessTokens: {
      accessTokenFor: () => {
        throw new Error('nothing here is held');
      },
    },
    limits: new CallLimits(now, 1_000),
    outcomes: { add: () => undefined },
  });
  const ticket = await stage.newTicket({ onBehalfOf: 'ed', ttlSeconds: 3_600 });

  const events = (action: string) =>
    db
      .selectFrom('audit_event')
      .select(['target_id', 'credential_version', 'key_id', 'details', 'decision', 'reason'])
      .where('action', '=', action)
      .orderBy('at')
      .orderBy('id')
      .execute();
  const allowedOf = async () =>
    (await events('credential.use')).filter(({ decision }) => decision === 'allow');
  /**
   * What a call comes to: statements, the secret's place or the refusal, and what the audit log
   * says of it.
   */
  const call = async (text = ticket.ticket, pathAndQuery = '/v1/chat?x=y') => {
    const before = [(await allowedOf()).length, (await events('credential.used')).length] as const;
    statements = 0;
    const got = await calls
      .admit({
        ...presenting(ticket, text),
        method: 'GET',
        pathAndQuery,
        isUpgrade: false,
        requestId: 'a-request',
        address: '192.0.2.7',
      })
      .then(
        (admitted) => {
          admitted.leave();
          return admitted.rendered.headers['authorization'];
        },
        ({ code, errors = [] }: AppError) => [code, ...errors.map(({ rule }) => rule)].join(' '),
      );
    const counted = statements;
    return {
      got,
      statements: counted,
      allowed: (await allowedOf()).slice(before[0]),
      failed: (await events('credential.used')).slice(before[1]),
    };
  };
  const activeKey = async (): Promise<string> =>
    (
      await db
        .selectFrom('data_key')
        .select('id')
        .where('state', '=', 'active')
        .executeTakeFirstOrThrow()
    ).id;
  const bearer = `Bearer ${secret}`;

  await t.test('takes one statement, and stands in the audit log with what it is', async (t) => {
    t.match(await call(), { statements: 2, got: bearer }, 'the first time two');
    const again = await call();
    t.match(again, { statements: 1, got: bearer, failed: { length: 0 } });
    t.equal(again.allowed.length, 1);
    t.match(again.allowed[0], {
      target_id: credential,
      credential_version: 1,
      key_id: await activeKey(),
      details: {
        ticket: ticket.id,
        engine: engine.id,
        method: 'GET',
        host: 'upstream.test',
        path: '/v1/chat',
      },
    });
    const { json } = await vault.call(
      'alice',
      'GET',
      '/v1/teams/payments/audit-events?action=credential.use',
    );
    t.ok(
      json.items.every(
        (each: { intact: boolean; actor: string; address: string }) =>
          each.intact && each.actor === 'n8n' && each.address === '192.0.2.7',
      ),
    );
  });

  await t.test('another text, or a path that is refused, is recorded as no call', async (t) => {
    for (const [text, path, got] of [
      [`${ticket.ticket.slice(0, -2)}xx`, '/v1/chat', 'ticketInvalid'],
      [ticket.ticket, '/v1/../x', 'invalidUrl'],
      [stage.ticket.ticket, '/v1/chat', 'ticketInvalid'],
    ] as const) {
      const refused = await call(text, path);
      t.match(refused.got, got);
      t.strictSame(refused.allowed, []);
    }
  });

  const credentialPath = (path = ''): string => `/v1/credentials/${credential}${path}`;
  async function tampered(table: string, change: string): Promise<void> {
    await db.connection().execute(async (connection) => {
      await sql`set session_replication_role = replica`.execute(connection);
      await sql.raw(`update ${table} set ${change}`).execute(connection);
      await sql`set session_replication_role = origin`.execute(connection);
    });
  }
  const brokered = { delivery: ['broker'], allowedHosts: [] };
  const changes: readonly (readonly [
    what: string,
    act: () => Promise<unknown>,
    undo: () => Promise<unknown>,
  ])[] = [
    [
      'the engine has left the team',
      () =>
        demand(
          vault.call('alice', 'DELETE', '/v1/teams/payments/members/n8n', undefined, any),
          204,
        ),
      () => vault.member('payments', 'n8n', 'engine'),
    ],
    [
      'the person has lost the right',
      () => vault.member('payments', 'ed', 'viewer'),
      () => vault.member('payments', 'ed', 'editor'),
    ],
    [
      'the engine is disabled',
      () =>
        demand(
          vault.call('operator', 'PATCH', `/v1/engines/${engine.id}`, { state: 'disabled' }, any),
          200,
        ),
      () =>
        demand(
          vault.call('operator', 'PATCH', `/v1/engines/${engine.id}`, { state: 'enabled' }, any),
          200,
        ),
    ],
    [
      'the credential is disabled',
      () => demand(vault.call('alice', 'POST', credentialPath('/disable')), 200),
      () => demand(vault.call('alice', 'POST', credentialPath('/enable')), 200),
    ],
    [
      'the credential has been disabled past the service',
      () => sql`update credential set state = 'disabled' where id = ${credential}`.execute(db),
      () => sql`update credential set state = 'enabled' where id = ${credential}`.execute(db),
    ],
    [
      'its delivery was taken away',
      () =>
        demand(
          vault.call(
            'alice',
            'PATCH',
            credentialPath(),
            { policy: { delivery: [], allowedHosts: [] } },
            any,
          ),
          200,
        ),
      () =>
        demand(
          vault.call(
            'alice',
            'PATCH',
            credentialPath(),
            { fields: { apiKey: secret }, policy: brokered },
            any,
          ),
          200,
        ),
    ],
    [
      'its methods were narrowed',
      () =>
        demand(
          vault.call(
            'alice',
            'PATCH',
            credentialPath(),
            { policy: { ...brokered, methods: ['POST'] } },
            any,
          ),
          200,
        ),
      () =>
        demand(
          vault.call(
            'alice',
            'PATCH',
            credentialPath(),
            { fields: { apiKey: secret }, policy: brokered },
            any,
          ),
          200,
        ),
    ],
    [
      'the team has been deleted past the service',
      () => sql`update team set deleted_at = now() where slug = 'payments'`.execute(db),
      () => sql`update team set deleted_at = null where slug = 'payments'`.execute(db),
    ],
    [
      'its key is no longer one that opens',
      () => tampered('data_key', "state = 'retired', retired_at = now()"),
      () => tampered('data_key', "state = 'active', retired_at = null"),
    ],
    [
      'it is exposed, and the team refuses that',
      () =>
        tampered('data_key', "compromised_at = now(), compromise_reason = 'x'").then(() =>
          sql`update team set refuse_exposed_leases = true`.execute(db),
        ),
      () => tampered('data_key', 'compromised_at = null, compromise_reason = null'),
    ],
    [
      'the ticket ends earlier, past the service',
      () =>
        sql`update broker_ticket set expires_at = now() - interval '1 hour' where id = ${ticket.id}`.execute(
          db,
        ),
      async () => undefined,
    ],
  ];
  for (const [what, act, undo] of changes) {
    await t.test(`${what}: nothing goes out, and nothing stands as if it had`, async (t) => {
      const { expires_at: expiresAt } = await db
        .selectFrom('broker_ticket')
        .select('expires_at')
        .where('id', '=', ticket.id as TicketId)
        .executeTakeFirstOrThrow();
      await call();
      t.match(await call(), { statements: 1, got: bearer }, 'good and expected before');
      await act();
      const after = await call();
      t.match(after.got, /^(?:ticketInvalid|brokerRefused|unsupportedCall)/);
      t.strictSame(after.allowed, []);
      await undo();
      await sql`update broker_ticket set expires_at = ${expiresAt} where id = ${ticket.id}`.execute(
        db,
      );
      vault.clock.ms += 61_000; // refusals have a ceiling a minute
    });
  }

  await t.test(
    'a new value and a new key of the team: used and recorded as it is now',
    async (t) => {
      await call();
      await demand(
        vault.call(
          'alice',
          'PATCH',
          credentialPath(),
          { fields: { apiKey: `${secret}-new` } },
          any,
        ),
        200,
      );
      const { current_version: version } = await db
        .selectFrom('credential')
        .select('current_version')
        .where('id', '=', credential as CredentialId)
        .executeTakeFirstOrThrow();
      t.match(await call(), { got: `${bearer}-new`, allowed: [{ credential_version: version }] });
      t.match(await call(), {
        statements: 1,
        got: `${bearer}-new`,
        allowed: [{ credential_version: version, key_id: await activeKey() }],
      });
    },
  );

  await t.test('what is recorded and then does not go out stands as not sent', async (t) => {
    await call();
    const { token, version } = await db
      .selectFrom('credential_version')
      .select(['token', 'version'])
      .where('credential_id', '=', credential as CredentialId)
      .orderBy('version', 'desc')
      .executeTakeFirstOrThrow();
    const other = (await stage.store('other')).id as string;
    const setToken = (value: string): Promise<unknown> =>
      sql`update credential_version set token = ${value} where credential_id = ${credential} and version = ${version}`.execute(
        db,
      );
    await setToken(
      (
        await db
          .selectFrom('credential_version')
          .select('token')
          .where('credential_id', '=', other as CredentialId)
          .executeTakeFirstOrThrow()
      ).token,
    );
    const bad = await call();
    t.match(bad.got, 'undecryptable');
    t.equal(bad.allowed.length, 1);
    t.match(bad.failed, [
      {
        target_id: credential,
        decision: 'deny',
        reason: 'notSent',
        details: { ticket: ticket.id, failure: 'undecryptable' },
      },
    ]);
    await setToken(token);
    t.match(await call(), { statements: 2, got: `${bearer}-new` }, 'and heals');
  });

  await t.test(
    'a ticket that was tampered with is refused by its row MAC, and the audit log takes the call back',
    async (t) => {
      await demand(
        vault.call('alice', 'PATCH', credentialPath(), { fields: { apiKey: secret } }, any),
        200,
      );
      await call();
      t.match(await call(), { statements: 1, got: bearer });
      await sql`update broker_ticket set expires_at = expires_at + interval '1 day' where id = ${ticket.id}`.execute(
        db,
      );
      const bad = await call();
      t.equal(bad.got, 'ticketInvalid');
      t.match(bad.failed, [{ decision: 'deny', reason: 'notSent' }]);
    },
  );
  await audit.stop();
});
