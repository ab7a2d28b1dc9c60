// The export of a team's metadata: everything that is known, of one moment, as fast as it is read,
// and no value.
import { once } from 'node:events';
import { request as httpRequest, type IncomingMessage } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { randomBytes } from 'node:crypto';
import { sql } from 'kysely';
import t, { type Test } from 'tap';
import { AuditLog } from '../../src/audit/record.ts';
import { ExportsService } from '../../src/exports/service.ts';
import { openapiDocument } from '../../src/http/document.ts';
import type { SubjectId } from '../../src/shared/ids.ts';
import { startAuthorizationServer } from '../helpers/authorization-server.ts';
import { askTicket } from '../helpers/broker.ts';
import { formsOf, seek } from '../helpers/canary.ts';
import { intrude } from '../helpers/intruder.ts';
import { takes } from '../helpers/json-schema.ts';
import { demand, storeOpenai } from '../helpers/leases.ts';
import { begin, connect, oauthStage, storeOAuth } from '../helpers/oauth.ts';
import { until } from '../helpers/processes.ts';
import { secretOf } from '../helpers/type-samples.ts';
import { startVault, type TestVault } from '../helpers/vault.ts';

const any = { 'if-match': '*' };
const url = '/v1/teams/payments/export';
const of = (lines: any[], kind: string): any[] => lines.filter((line) => line.kind === kind);
const exported = async (vault: TestVault, as = 'alice', query = ''): Promise<any[]> =>
  demand(vault.call(as, 'GET', url + query), 200);

t.test('every kind of thing, each in its shape, and no value', async (t) => {
  const server = await startAuthorizationServer(t);
  const stage = await oauthStage(t, server);
  const { vault } = stage;
  const canary = `canary-${randomBytes(24).toString('hex')}`;
  await vault.member('payments', 'audrey', 'auditor');
  const openai = await storeOpenai(vault, 'payments', 'openai', canary, {
    labels: { env: 'prod' },
    description: 'two\nlines',
    expiresAt: '2031-01-31T00:00:00Z',
    rotateAfter: '2030-01-31T00:00:00Z',
  });
  await demand(
    vault.call(
      'alice',
      'PATCH',
      `/v1/credentials/${openai.id}`,
      { fields: { apiKey: `${canary}-2` } },
      any,
    ),
    200,
  );
  const gone = await storeOpenai(vault, 'payments', 'gone', canary, {
    policy: { delivery: ['broker'], allowedHosts: ['*.example.com'], limits: { concurrency: 3 } },
  });
  await demand(askTicket(vault, 'n8n', { id: gone.id }), 201);
  await demand(vault.call('alice', 'POST', `/v1/credentials/${gone.id}/disable`), 200);
  await demand(vault.call('alice', 'DELETE', `/v1/credentials/${gone.id}`, undefined, any), 204);
  const held = await storeOAuth(stage, 'held');
  await connect(stage, held.id);
  await begin(stage, held.id, 'eddie');
  const broken = await storeOpenai(vault, 'payments', 'broken', canary);
  await sql`update credential_version set token = overlay(token placing 'AAAAAAAA' from 40) where credential_id = ${broken.id}`.execute(
    vault.db,
  );
  vault.start();
  const rotation = await demand(
    vault.call('alice', 'POST', '/v1/teams/payments/key-rotations'),
    202,
  );
  await until(
    async () =>
      (await vault.call('alice', 'GET', `/v1/teams/payments/key-rotations/${rotation.id}`)).json
        .state !== 'running',
  );
  await vault.team('elsewhere', ['otto']);
  await storeOpenai(vault, 'elsewhere', 'not theirs', canary, {}, 'otto');
  await demand(
    vault.call('alice', 'PUT', `/v1/credentials/${openai.id}/grants/teams/elsewhere`, {
      access: 'use',
    }),
    200,
  );
  await demand(
    vault.call('alice', 'PUT', `/v1/credentials/${openai.id}/grants/subjects/bob`, {
      access: 'read',
    }),
    200,
  );
  const receiver = await demand(
    vault.call('alice', 'POST', '/v1/teams/payments/credentials', {
      name: 'receiver',
      type: 'webhook',
      fields: { url: 'https://hooks.test/vault', secret: secretOf('webhook', 'secret', canary) },
    }),
    201,
  );
  await demand(
    vault.call('alice', 'PUT', `/v1/teams/payments/webhooks/${receiver.id}`, {
      events: ['key.overdue'],
    }),
    200,
  );
  await sql`update webhook set paused_until = now() + interval '1 hour'`.execute(vault.db);
  await demand(vault.call('alice', 'POST', `/v1/teams/payments/webhooks/${receiver.id}/test`), 202);

  const answer = await vault.call('alice', 'GET', url);
  t.match(
    [answer.status, answer.headers['content-type'], answer.headers['content-disposition']],
    [200, 'application/x-ndjson', 'attachment; filename="payments.ndjson"'],
  );
  const lines: any[] = answer.json;
  const document = JSON.parse(JSON.stringify(openapiDocument(vault.app.operations))) as {
    components: { schemas: Record<string, any> };
  };
  const kinds = document.components.schemas['ExportLine'].oneOf.map(({ $ref }: { $ref: string }) =>
    $ref.split('/').at(-1),
  ) as string[];
  for (const line of lines) {
    const fitting = kinds.filter((name) =>
      takes(document.components.schemas[name], line, document),
    );
    t.equal(
      fitting.length,
      1,
      `a line of the kind ${line.kind} fits one of the document's shapes, ${fitting.join()}`,
    );
    t.equal(document.components.schemas[fitting[0] ?? '']?.properties.kind.const, line.kind);
  }
  t.strictSame(
    new Set(lines.map(({ kind }) => kind)),
    new Set(
      kinds
        .map((name) => document.components.schemas[name].properties.kind.const)
        .filter((kind) => kind !== 'unreadable'),
    ),
    'one of every kind is there',
  );
  t.match(lines[0], { kind: 'export', format: 1, team: 'payments', by: 'alice', withEvents: true });
  t.strictSame(lines.at(-1), { kind: 'end', lines: lines.length });

  t.match(of(lines, 'team'), [{ slug: 'payments', versionsKept: 10, createdBy: 'operator' }]);
  t.strictSame(
    of(lines, 'member')
      .map(({ subject, role, intact }) => `${subject} ${role} ${intact}`)
      .sort(),
    ['alice admin true', 'audrey auditor true', 'eddie editor true', 'n8n engine true'],
  );
  t.match(
    of(lines, 'key').map(({ version, state }) => `${version} ${state}`),
    ['1 decryptOnly', '2 active'],
  );
  t.match(of(lines, 'rotation'), [
    { id: rotation.id, state: 'completedWithFailures', total: 6, done: 5, createdBy: 'alice' },
  ]);
  t.match(of(lines, 'rotationFailure'), [
    { rotation: rotation.id, credential: broken.id, version: 1 },
  ]);
  const credentials = Object.fromEntries(of(lines, 'credential').map((line) => [line.name, line]));
  t.strictSame(
    Object.keys(credentials).sort(),
    ['broken', 'gone', 'held', 'openai', 'receiver'],
    "this team's, and no other's",
  );
  t.match(credentials['openai'], {
    id: openai.id,
    type: 'openai',
    state: 'enabled',
    isDeleted: false,
    labels: { env: 'prod' },
    description: 'two\nlines',
    expiresAt: '2031-01-31T00:00:00.000Z',
    rotateAfter: '2030-01-31T00:00:00.000Z',
    version: 2,
    intact: true,
  });
  t.match(credentials['gone'], {
    state: 'deleted',
    stateBefore: 'disabled',
    isDeleted: true,
    deletedAt: String,
    intact: true,
  });
  const versions = of(lines, 'version');
  t.match(
    versions.filter(({ credential }) => credential === openai.id),
    [
      {
        version: 1,
        isCurrent: false,
        secretFields: ['apiKey'],
        publicFields: { baseUrl: 'https://api.openai.com' },
      },
      { version: 2, isCurrent: true, key: of(lines, 'key')[1].id },
    ],
  );
  t.match(
    versions.find(({ credential }) => credential === gone.id),
    {
      policy: { delivery: ['broker'], allowedHosts: ['*.example.com'], limits: { concurrency: 3 } },
    },
  );
  t.ok(versions.find(({ credential }) => credential === broken.id).undecryptableAt);
  t.match(of(lines, 'webhook'), [
    { credential: receiver.id, events: ['key.overdue'], intact: true },
  ]);
  t.match(of(lines, 'notification'), [
    { credential: receiver.id, type: 'webhook.test', subject: receiver.id },
  ]);
  t.match(of(lines, 'grant'), [
    {
      credential: openai.id,
      to: 'team',
      team: 'elsewhere',
      subject: null,
      access: 'use',
      intact: true,
    },
    { to: 'subject', team: null, subject: 'bob', access: 'read', intact: true },
  ]);
  t.match(of(lines, 'connection'), [
    { credential: held.id, isHeld: true, isRefreshable: true, connectedBy: 'alice', failure: null },
  ]);
  t.match(of(lines, 'authorization'), [{ credential: held.id, subject: 'eddie' }]);
  t.match(of(lines, 'ticket'), [{ credential: gone.id, onBehalfOf: 'alice' }]);
  const events = of(lines, 'event');
  t.match(
    events[0],
    {
      action: 'team.export',
      actor: 'alice',
      decision: 'allow',
      intact: true,
      details: { withEvents: true },
    },
    'the export itself stands in the audit log, and so in the export',
  );
  t.ok(
    events.every(({ intact }) => intact) &&
      events.some(({ action }) => action === 'credential.create'),
  );

  const { rows: secrets } = await sql<{
    text: string;
  }>`select token as text from credential_version union select token from oauth_token union select encode(wrapped, 'base64') from data_key union select encode(seal, 'base64') from credential`.execute(
    vault.db,
  );
  for (const { text } of secrets.filter((each) => each.text !== null))
    t.notOk(answer.text.includes(text.slice(0, 60)), 'no token, no key, no row MAC');
  t.notMatch(answer.text, 'gAAAAA');
  t.strictSame(
    seek(formsOf(canary), [
      { place: 'the export', text: answer.text },
      { place: 'the log', text: vault.logs.join('') },
    ]),
    [],
  );
  for (const token of [...server.given.accessTokens, ...server.given.refreshTokens])
    t.notOk(answer.text.includes(token));

  const short = await exported(vault, 'audrey', '?events=false');
  t.equal(of(short, 'event').length, 0);
  t.strictSame(
    short.slice(1, -1),
    lines.slice(1, -1).filter(({ kind }) => kind !== 'event'),
    'an auditor gets the same',
  );
});

t.test('who may read the audit log, and nobody else', async (t) => {
  const vault = await startVault(t);
  await vault.team('payments');
  for (const [sub, role] of [
    ['eddie', 'editor'],
    ['vera', 'viewer'],
    ['audrey', 'auditor'],
  ] as const)
    await vault.member('payments', sub, role);
  t.equal((await vault.call('audrey', 'GET', url)).status, 200);
  for (const sub of ['eddie', 'vera'])
    t.equal((await vault.call(sub, 'GET', url)).json.code, 'forbidden');
  for (const sub of ['operator', 'mallory'])
    t.equal((await vault.call(sub, 'GET', url)).status, 404);
  t.equal((await vault.call('alice', 'GET', `${url}?events=yes`)).status, 400);
  const { rows } = await sql<{
    n: number;
  }>`select count(*)::int as n from audit_event where action = 'team.export' and decision = 'allow'`.execute(
    vault.db,
  );
  t.equal(rows[0]?.n, 1, 'what was refused was no export');
});

t.test('a row that somebody tampered with is said to be one, and the others go on', async (t) => {
  const vault = await startVault(t);
  await vault.team('payments');
  const { id } = await storeOpenai(vault, 'payments', 'first', 'sk-1');
  await storeOpenai(vault, 'payments', 'second', 'sk-2');
  await intrude(
    vault.db,
    `update credential set name = E'a\\u0007' where id = '${id}'`,
    `update credential set description = 'bent' where name = 'second'`,
    `update membership set role = 'editor'`,
  );
  const { db } = vault;
  await sql`update membership set role = 'admin'`.execute(db);
  await intrude(vault.db, `update credential set state = 'disabled' where name = 'second'`);
  const lines = await exported(vault);
  t.strictSame(of(lines, 'unreadable'), [{ kind: 'unreadable', of: 'credential', id }]);
  t.match(of(lines, 'credential'), [{ name: 'second', intact: false }]);
});

/** A vault with a large team, over a real connection. */
async function large(t: Test): Promise<{
  vault: TestVault;
  open: () => Promise<{ response: IncomingMessage; request: ReturnType<typeof httpRequest> }>;
  written: () => number;
  still: () => Promise<unknown>;
  snapshots: () => Promise<number>;
}> {
  const vault = await startVault(t);
  await vault.team('payments');
  const { id } = await storeOpenai(vault, 'payments', 'one', 'sk-1');
  await intrude(
    vault.db,
    `insert into credential select ('019aa7c2-5b1e-7c3a-9d52-' || lpad(to_hex(n), 12, '0'))::uuid, team_id, 'c' || n, type, repeat('d', 1000), labels, state, 1, expires_at, revision, seal, created_at, created_by, updated_at, updated_by from credential, generate_series(1, 4999) n where id = '${id}'`,
    `insert into credential_version (team_id, credential_id, version, data_key_id, token, secret_field_names, public_fields, policy, created_at, created_by, key_history) select held.team_id, credential.id, 1, data_key_id, token, secret_field_names, jsonb_build_object('baseUrl', 'https://x.example/' || repeat('p', 2000)), policy, held.created_at, held.created_by, key_history from credential, credential_version held where held.credential_id = '${id}' and credential.id <> '${id}'`,
  );
  const sockets: Socket[] = [];
  vault.app.server.on('connection', (socket: Socket) => {
    sockets.push(socket);
  });
  await vault.app.listen({ host: '127.0.0.1', port: 0 });
  const { port } = vault.app.server.address() as AddressInfo;
  const written = (): number => sockets.reduce((sum, socket) => sum + socket.bytesWritten, 0);
  return {
    vault,
    written,
    still: () => {
      let [before, times] = [-1, 0];
      return until(() => {
        const now = written();
        times = now === before && now > 0 ? times + 1 : 0;
        before = now;
        return times > 40;
      });
    },
    open: async () => {
      const request = httpRequest({
        host: '127.0.0.1',
        port,
        path: `${url}?events=false`,
        headers: { authorization: `Bearer ${await vault.token('alice')}` },
        agent: false,
      });
      request.on('error', () => undefined);
      request.end();
      const [response] = (await once(request, 'response')) as [IncomingMessage];
      response.on('error', () => undefined);
      return { response, request };
    },
    snapshots: async () =>
      (
        await sql<{
          n: number;
        }>`select count(*)::int as n from pg_stat_activity where datname = current_database() and xact_start is not null and pid <> pg_backend_pid()`.execute(
          vault.db,
        )
      ).rows[0]!.n,
  };
}
async function readAll(response: IncomingMessage): Promise<any[]> {
  const chunks: Buffer[] = [];
  for await (const chunk of response) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks)
    .toString('utf8')
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line));
}

t.test('five thousand credentials, of one moment, as fast as they are read', async (t) => {
  const { vault, open, written, still, snapshots } = await large(t);
  const { response } = await open();
  // Nobody reads: what is made fills the buffers on the way, and then nothing more is made.
  await still();
  t.ok(written() < 8_000_000, `${written()} bytes wait for the reader`);
  t.equal(await snapshots(), 1);
  await storeOpenai(vault, 'payments', 'later', 'sk-2');
  await intrude(vault.db, `delete from credential where name = 'c4991'`);
  await sql`update credential set name = 'renamed' where name = 'c4990'`.execute(vault.db);
  const lines = await readAll(response);
  t.strictSame(lines.at(-1), { kind: 'end', lines: lines.length });
  t.equal(of(lines, 'credential').length, 5_000, 'what was stored meanwhile is not there');
  t.equal(of(lines, 'version').length, 5_000);
  t.equal(new Set(of(lines, 'credential').map(({ id }) => id)).size, 5_000, 'each once');
  t.ok(
    of(lines, 'credential').some(({ name }) => name === 'c4990'),
    'and what was changed or removed meanwhile is as it was',
  );
  t.ok(written() > 15_000_000);
  t.equal(await until(async () => (await snapshots()) === 0), true, 'the snapshot is let go');
});

t.test('a client that goes away takes the snapshot with it; one of a team at a time', async (t) => {
  const { vault, open, snapshots } = await large(t);
  const first = await open();
  t.equal(await until(async () => (await snapshots()) === 1), true);
  t.match(await vault.call('alice', 'GET', url), {
    status: 429,
    json: { code: 'rateLimited' },
    headers: { 'retry-after': '5' },
  });
  await vault.team('sales', ['bella']);
  t.equal(
    (await vault.call('bella', 'GET', '/v1/teams/sales/export')).status,
    200,
    'and keeps no other team from its own',
  );
  first.request.destroy();
  await until(async () => (await snapshots()) === 0);
  const third = await open();
  t.equal(of(await readAll(third.response), 'end').length, 1, 'there is room again');
});

t.test('two at a time on a replica', async (t) => {
  const vault = await startVault(t);
  const { db, keyring } = vault;
  const audit = new AuditLog({
    db,
    keyring,
    now: Date.now,
    onError: (error) => {
      throw error;
    },
    onAlarm: () => undefined,
  });
  const service = new ExportsService({
    db,
    keyring,
    audit,
    now: Date.now,
    listEvents: async () => [],
    showEvent: () => ({}),
  });
  for (const slug of ['one', 'two', 'three']) await vault.team(slug);
  const teams = await db.selectFrom('team').select(['id', 'slug']).orderBy('id').execute();
  const { id: subject } = await db
    .selectFrom('subject')
    .select('id')
    .where('sub', '=', 'alice')
    .executeTakeFirstOrThrow();
  const begin = (index: number): Promise<AsyncGenerator<unknown>> =>
    service.exportTeam(
      {
        sub: 'alice',
        subject: subject as SubjectId,
        isOperator: false,
        requestId: 'a-request',
        address: null,
      },
      teams[index]!,
      { withEvents: false },
    );
  const running = [await begin(0), await begin(1)];
  await t.rejects(begin(2), { code: 'rateLimited' });
  await running.shift()!.return(undefined);
  running.push(await begin(2));
  await t.rejects(begin(2), { code: 'rateLimited' });
  for (const each of running) await each.return(undefined);
});

t.test(
  'an export that breaks off ends without its last line, and is logged once, without a value',
  async (t) => {
    const { vault, open, still } = await large(t);
    const { response } = await open();
    await still();
    await sql`select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and state like 'idle in transaction%'`.execute(
      vault.db,
    );
    await t.rejects(readAll(response), /aborted/);
    await until(() => vault.logs.some((line) => line.includes('an export broke off')));
    t.equal(vault.logs.filter((line) => line.includes('an export broke off')).length, 1);
    t.notMatch(vault.logs.join(''), /sk-1|ppppp|ddddd/);
    t.equal(
      (await vault.call('alice', 'GET', `${url}?events=false`)).status,
      200,
      'and the next one runs',
    );
  },
);
