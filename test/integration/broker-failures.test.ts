// What goes wrong in the vault itself is said and recorded as the vault's: not as the upstream's,
// and never as a call that went out.
import { findType } from '../../src/credentials/types/registry.ts';
import { createServer, type Server } from 'node:http';
import t from 'tap';
import { AuditLog } from '../../src/audit/record.ts';
import { Calls, type CallParts } from '../../src/broker/call.ts';
import { CallLimits } from '../../src/broker/limits.ts';
import { Outcomes } from '../../src/broker/outcomes.ts';
import { BrokerProxy } from '../../src/broker/proxy.ts';
import { type Db, openDatabase } from '../../src/db/client.ts';
import { AppError } from '../../src/shared/errors.ts';
import { unbounded } from '../../src/access/issuers.ts';
import {
  type BrokerStage,
  lastOutcome,
  presenting,
  startBroker,
  type Ticket,
} from '../helpers/broker.ts';
import { databaseProxy } from '../helpers/database-proxy.ts';
import { listening } from '../helpers/egress.ts';

interface Teardown {
  teardown(action: () => unknown): unknown;
}

/** Calls of the test's own over the stage's vault, and everything that is told beside them. */
function callsOf(
  t: Teardown,
  { vault }: BrokerStage,
  more: Partial<CallParts> = {},
): { calls: Calls; outcomes: Outcomes } {
  const now = (): number => Date.now() + vault.clock.ms;
  const onError = (): void => undefined;
  const audit = new AuditLog({
    db: vault.db,
    keyring: vault.keyring,
    now,
    onError,
    onAlarm: () => undefined,
  });
  const outcomes = new Outcomes({ db: vault.db, audit, onError });
  t.teardown(() => Promise.all([audit.stop(), outcomes.flush()]));
  const parts: CallParts = {
    subjectBounds: unbounded,
    db: vault.db,
    keyring: vault.keyring,
    audit,
    now,
    usage: { count: () => undefined },
    types: { find: async (name: string) => findType(name) },
    accessTokens: {
      accessTokenFor: () => {
        throw new Error('nothing here is held');
      },
    },
    limits: new CallLimits(now, 2), // one for a team
    outcomes,
  };
  // As they are, a part that can be taken away among them.
  const calls = new Calls(Object.defineProperties(parts, Object.getOwnPropertyDescriptors(more)));
  return { calls, outcomes };
}
const asked = (ticket: Ticket) =>
  ({
    ...presenting(ticket, ticket.ticket),
    method: 'GET',
    pathAndQuery: '/v1/chat',
    isUpgrade: false,
    requestId: 'a-request',
    address: '192.0.2.7',
  }) as const;
const codeOf = (admitting: Promise<unknown>): Promise<unknown> =>
  admitting.then(
    () => 'admitted',
    (error: unknown) => (error instanceof AppError ? error.code : (error as Error).name),
  );
/** What the audit log says of calls, oldest first. */
const auditLogOf = async ({ vault }: BrokerStage): Promise<string[]> => {
  const { json } = await vault.call('alice', 'GET', '/v1/teams/payments/audit-events?limit=200');
  return json.items
    .filter(({ action }: { action: string }) => action.startsWith('credential.use'))
    .map(
      ({ action, decision, reason, intact, details }: any) =>
        `${action} ${decision}${reason === null ? '' : ` ${reason} ${details.failure}`}${intact ? '' : ' tampered'}`,
    )
    .reverse();
};

t.test('a call that is recorded and fails before it goes out', async (t) => {
  const stage = await startBroker(t, (_request, response) => response.end('fine'));
  let fault: Error | undefined;
  const usage = {
    count: (): void => {
      if (fault !== undefined) throw fault;
    },
  };
  for (const way of ['recorded as it is decided', 'recorded with the reading'])
    await t.test(`${way}: what nobody knows is no call`, async (t) => {
      const ticket = await stage.newTicket();
      const { calls } = callsOf(t, stage, { usage });
      if (way === 'recorded with the reading') (await calls.admit(asked(ticket))).leave();
      const before = await auditLogOf(stage);
      for (let turn = 0; turn < 3; turn += 1) {
        fault = new TypeError('a fault of ours');
        t.equal(await codeOf(calls.admit(asked(ticket))), 'TypeError', 'and is not swallowed');
        fault = undefined;
        (await calls.admit(asked(ticket))).leave(); // its place is free again
      }
      const call = ['credential.use allow', 'credential.used deny notSent internal'];
      const good = ['credential.use allow'];
      t.same((await auditLogOf(stage)).slice(before.length), [
        ...[...call, ...good],
        ...[...call, ...good],
        ...[...call, ...good],
      ]);
    });

  await t.test('while the database is away: later, once, and not forgotten', async (t) => {
    const ticket = await stage.newTicket();
    const away = openDatabase({
      url: 'postgres://nobody@127.0.0.1:1/nothing',
      onError: () => undefined,
    });
    t.teardown(() => away.close());
    let isAway = false;
    const parts = {
      get db(): Db {
        return isAway ? away.db : stage.vault.db;
      },
      usage: {
        count: (): void => {
          isAway = true;
          throw new TypeError('a fault of ours, and the database is away');
        },
      },
    };
    const { calls, outcomes } = callsOf(t, stage, parts as never);
    const before = await auditLogOf(stage);
    t.equal(await codeOf(calls.admit(asked(ticket))), 'TypeError');
    t.same((await auditLogOf(stage)).slice(before.length), ['credential.use allow']);
    isAway = false;
    await outcomes.flush();
    await outcomes.flush();
    t.same((await auditLogOf(stage)).slice(before.length), [
      'credential.use allow',
      'credential.used deny notSent internal',
    ]);
  });
});

t.test('a record of which nobody knows whether it is there', async (t) => {
  const stage = await startBroker(t, (_request, response) => response.end('fine'));
  const proxy = await databaseProxy(t, stage.vault.databaseUrl);
  const through = openDatabase({
    url: `postgresql://vault@127.0.0.1:${proxy.port}/${new URL(stage.vault.databaseUrl).pathname.slice(1)}`,
    onError: () => undefined,
  });
  t.teardown(() => through.close());
  for (const way of ['recorded as it is decided', 'recorded with the reading'])
    await t.test(way, async (t) => {
      const ticket = await stage.newTicket();
      const { calls, outcomes } = callsOf(t, stage, { db: through.db });
      if (way === 'recorded with the reading') (await calls.admit(asked(ticket))).leave();
      const before = await auditLogOf(stage);
      proxy.cutAnswerTo('audit_event');
      const code = await codeOf(calls.admit(asked(ticket)));
      t.not(code, 'admitted');
      await outcomes.flush();
      const after = (await auditLogOf(stage)).slice(before.length);
      t.equal(after.length, 2, after.join(', '));
      t.equal(after[0], 'credential.use allow', 'the server had it');
      t.match(after[1], /^credential\.used deny notSent (?:databaseUnavailable|commitUnknown)$/);
      (await calls.admit(asked(ticket))).leave(); // its place is free again
    });
});

t.test('a fault in the broker is no fault of the upstream', async (t) => {
  let isFaulty = false;
  const stage = await startBroker(t, (_request, response) => response.end('fine'), {
    egress: {
      own: () => {
        if (isFaulty) throw new TypeError('a fault of ours');
        return [];
      },
      rememberNamesMs: 0,
    },
  });
  t.equal((await stage.call('GET', '/x')).status, 200);
  isFaulty = true;
  const before = stage.vault.logs.length;
  const answer = await stage.call('GET', '/x');
  t.match(answer, { status: 500, json: { code: 'internal' }, headers: { 'vault-error': 'true' } });
  const line = stage.vault.logs.slice(before).find((each) => each.includes('requestFailed'));
  t.match(JSON.parse(line ?? '{}'), {
    code: 'internal',
    requestId: answer.json.requestId,
    causes: [{ name: 'TypeError', at: [/.+/] }],
  });
  t.notMatch(line, 'a fault of ours', 'names and places, no text');
  await lastOutcome(stage, ({ failure }) => failure === 'internal');
});

t.test('a fault after the answer has begun is logged, and recorded as what it is', async (t) => {
  const stage = await startBroker(t, (_request, response) => {
    response.writeHead(200, { 'content-type': 'text/plain' });
    response.write('beginning', () => {
      response.end('the rest');
    });
  });
  const { calls, outcomes } = callsOf(t, stage);
  const proxy = new BrokerProxy({
    egress: stage.egress,
    outcomes,
    now: Date.now,
    onError: () => undefined,
  });
  const logged: AppError[] = [];
  const server: Server = createServer((request, response) => {
    void (async () => {
      const admitted = await calls.admit(asked(stage.ticket));
      const limits = {
        ...admitted.limits,
        get responseBytes(): number {
          if (response.headersSent) throw new TypeError('a fault of ours');
          return 1e9;
        },
      };
      await proxy.carry(
        { ...admitted, limits },
        {
          request,
          response,
          seenAt: { brokerPath: '/broker/x', brokerUrl: '', ticketNames: [] },
          take: () => undefined,
          log: (failure) => logged.push(failure),
        },
      );
    })();
  });
  const port = await listening(t, server);
  await t.rejects(fetch(`http://127.0.0.1:${port}/`).then((answer) => answer.text()));
  t.match(logged, [{ code: 'internal', cause: { name: 'TypeError' } }]);
  await outcomes.flush();
  await lastOutcome(stage, ({ failure, status }) => failure === 'internal' && status === 200);
});
