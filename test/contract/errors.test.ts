// Every code is provoked once, for real, and its answer compared with what openapi.yaml promises.
// The table of provocations is a Record over the codes: one that nobody can provoke does not
// compile.
import { randomUUIDv7 } from 'node:crypto';
import type { Socket } from 'node:net';
import { sql } from 'kysely';
import t from 'tap';
import { folded, type Rows } from '../helpers/folded.ts';
import { generateEngineKey } from '../../src/client/index.ts';
import { openDatabase } from '../../src/db/client.ts';
import {
  type AnyOperation,
  problemCodesOf,
  problemsOfBroker,
  problemsOfNoOperation,
} from '../../src/http/operation.ts';
import { problemMediaType, problems } from '../../src/http/problem.ts';
import { problem } from '../../src/http/schemas.ts';
import type { ErrorCode } from '../../src/shared/errors.ts';
import { rawAnswer } from '../helpers/bad-requests.ts';
import { databaseProxy } from '../helpers/database-proxy.ts';
import { forge, goodClaims, issuer, audience, keyPair } from '../helpers/identity.ts';
import { issuerWith } from '../helpers/issuers.ts';
import { hooked } from '../helpers/hooked.ts';
import { intrude } from '../helpers/intruder.ts';
import { askTicket, callBroker, startBroker } from '../helpers/broker.ts';
import { askLease, demand, registerEngine, storeOpenai } from '../helpers/leases.ts';
import { type Answer, startVault, type TestVault } from '../helpers/vault.ts';

t.test(
  'codes and statuses',
  folded((t) => {
    for (const [code, { status, title }] of Object.entries(problems)) {
      t.match(code, /^[a-z]+([A-Z][a-z]*)*$/);
      t.ok(status >= 400 && status < 600, code);
      t.match(title, /^[A-Z].*[^.]$/, code);
    }
  }),
);

t.test(
  'every code can be provoked, and its answer is what the document says',
  folded(async (t) => {
    const asked = new Map<string, AnyOperation | undefined>();
    const watched = (start: () => Promise<TestVault>): Promise<TestVault> =>
      hooked((app) => {
        app.addHook('onRequest', async (request) => {
          asked.set(request.id, request.routeOptions.config.operation);
        });
      }, start);
    const stage = await setStage(t, watched);
    const generic = new Set<ErrorCode>();
    for (const [code, provoke] of Object.entries(provocations) as [ErrorCode, Provocation][]) {
      const answer = await provoke(stage, t);
      checkProblem(t, answer, code);
      const operation = asked.get(answer.json.requestId);
      if (operation === undefined || problemsOfNoOperation.includes(code)) generic.add(code);
      else
        t.ok(
          problemCodesOf(operation).includes(code),
          `${operation.operationId} says that it can answer ${code}`,
        );
    }
    const { operations } = stage.vault.app;
    const ofOperations = new Set(operations.flatMap(problemCodesOf));
    t.same(
      [...generic].sort(),
      [
        ...new Set([
          ...problemsOfNoOperation,
          ...problemsOfBroker.filter((code) => !ofOperations.has(code)),
        ]),
      ].sort(),
      'only these belong to no operation',
    );
    const promised = new Set([...ofOperations, ...problemsOfNoOperation, ...problemsOfBroker]);
    t.same([...promised].sort(), Object.keys(problems).sort(), 'every code is promised somewhere');
    checkProblem(t, await stage.vault.call(null, 'GET', '/no/such/route'), 'notFound');
  }),
);

interface Teardown {
  teardown(action: () => unknown): unknown;
}
interface Stage {
  readonly vault: TestVault;
  readonly credential: string;
  readonly engine: string;
  readonly rotation: string;
  readonly oldKey: string;
  readonly newKey: string;
  /** Another vault over the same database or one of its own. */
  readonly another: (t: Teardown, options?: Parameters<typeof startVault>[1]) => Promise<TestVault>;
}
type Provocation = (stage: Stage, t: Teardown) => Promise<Answer>;

const any = { 'if-match': '*' };
const oauth = {
  name: 'oauth',
  type: 'oauth2',
  fields: {
    authorizationUrl: 'https://id.example/authorize',
    tokenUrl: 'https://nowhere.test/token',
    clientId: 'vault',
  },
};
const keptToTeams = issuerWith({
  issuer: 'https://heym.test',
  audiences: [audience],
  keys: { kind: 'jwksUrl', url: 'http://127.0.0.1:1/' },
  subjectPrefix: 'heym:',
  teams: ['heym-*'],
});
const imap = {
  name: 'mail',
  type: 'imap',
  fields: { host: 'mail.example', username: 'vault', password: 'pw' },
};

/**
 * A team with somebody in each part, a credential under a demoted key, and a rotation that nobody
 * works on.
 */
async function setStage(
  t: Teardown,
  watched: (start: () => Promise<TestVault>) => Promise<TestVault>,
): Promise<Stage> {
  const vault = await watched(() => startVault(t));
  await vault.team('payments');
  await vault.member('payments', 'eddie', 'editor');
  const { id: engine } = await registerEngine(vault, 'n8n');
  await vault.member('payments', 'n8n', 'engine');
  const { id: credential } = await storeOpenai(vault, 'payments', 'openai', 'sk-test');
  const {
    items: [{ id: oldKey }],
  } = await demand(vault.call('alice', 'GET', '/v1/teams/payments/keys'), 200);
  const { id: rotation, toKey: newKey } = await demand(
    vault.call('alice', 'POST', '/v1/teams/payments/key-rotations'),
    202,
  );
  return {
    vault,
    credential,
    engine,
    rotation,
    oldKey,
    newKey,
    another: (test, options = {}) => watched(() => startVault(test, options)),
  };
}

const provocations: Record<ErrorCode, Provocation> = {
  invalidRequest: ({ vault }) => vault.call('alice', 'POST', '/v1/teams/payments/credentials', {}),
  invalidUrl: ({ vault }) => vault.call('alice', 'GET', '/v1/teams/%zz'),
  malformedHttp: async ({ vault }) => answerTo(await listening(vault), 'NONSENSE\r\n\r\n'),
  headersTooLarge: async ({ vault }) =>
    answerTo(
      await listening(vault),
      `GET /healthz HTTP/1.1\r\nHost: v\r\nX-Long: ${'x'.repeat(100_000)}\r\n\r\n`,
    ),
  requestTimeout: async ({ vault }) => {
    // Node waits for half a minute; what it says then is said at once.
    const { server } = vault.app;
    server.once('connection', (socket: Socket) => {
      socket.once('data', () => {
        server.emit(
          'clientError',
          Object.assign(new Error('slow'), { code: 'ERR_HTTP_REQUEST_TIMEOUT' }),
          socket,
        );
      });
    });
    return answerTo(await listening(vault), 'GET /healthz HTTP/1.1\r\n');
  },
  malformedJson: ({ vault }) => vault.call('alice', 'POST', '/v1/teams/payments/credentials', '{'),
  invalidCursor: ({ vault }) =>
    vault.call('alice', 'GET', '/v1/teams/payments/credentials?cursor=abc'),
  unsupportedMediaType: ({ vault }) =>
    vault.call('alice', 'POST', '/v1/teams/payments/credentials', 'name=x', {
      'content-type': 'application/x-www-form-urlencoded',
    }),
  payloadTooLarge: ({ vault }) =>
    vault.call('alice', 'POST', '/v1/teams/payments/credentials', { name: 'x'.repeat(600_000) }),
  methodNotAllowed: ({ vault }) => vault.call('alice', 'PATCH', '/v1/whoami', {}),
  expectationFailed: async ({ vault }) =>
    answerTo(
      await listening(vault),
      'GET /healthz HTTP/1.1\r\nHost: v\r\nConnection: close\r\nExpect: a-miracle\r\n\r\n',
    ),
  unauthenticated: ({ vault }) => vault.call(null, 'GET', '/v1/whoami'),
  forbidden: ({ vault }) => vault.call('eddie', 'GET', '/v1/teams/payments/keys'),
  notFound: ({ vault }) => vault.call('alice', 'GET', `/v1/credentials/${randomUUIDv7()}`),
  preconditionRequired: ({ vault, credential }) =>
    vault.call('alice', 'DELETE', `/v1/credentials/${credential}`),
  preconditionFailed: ({ vault, credential }) =>
    vault.call('alice', 'DELETE', `/v1/credentials/${credential}`, undefined, {
      'if-match': '"999"',
    }),
  nameTaken: ({ vault }) =>
    vault.call('alice', 'POST', '/v1/teams/payments/credentials', {
      name: 'openai',
      type: 'openai',
      fields: { apiKey: 'sk-other' },
    }),
  slugTaken: ({ vault }) =>
    vault.call('operator', 'POST', '/v1/teams', {
      slug: 'payments',
      name: 'Payments',
      admins: ['alice'],
    }),
  subjectTaken: ({ vault }) =>
    vault.call('operator', 'POST', '/v1/engines', {
      name: 'another',
      subject: 'n8n',
      keys: [generateEngineKey().publicJwk],
    }),
  engineNameTaken: ({ vault }) =>
    vault.call('operator', 'POST', '/v1/engines', {
      name: 'the engine n8n',
      subject: 'another',
      keys: [generateEngineKey().publicJwk],
    }),
  engineKeyTaken: async ({ vault, engine }) => {
    const {
      keys: [{ jwk }],
    } = await demand(vault.call('operator', 'GET', `/v1/engines/${engine}`), 200);
    return vault.call('operator', 'POST', `/v1/engines/${engine}/keys`, { key: jwk });
  },
  lastAdmin: ({ vault }) =>
    vault.call('alice', 'DELETE', '/v1/teams/payments/members/alice', undefined, any),
  notAnEngine: ({ vault }) =>
    vault.call('alice', 'PUT', '/v1/teams/payments/members/nobody', { role: 'engine' }),
  isAnEngine: ({ vault }) =>
    vault.call('alice', 'PUT', '/v1/teams/payments/members/n8n', { role: 'viewer' }, any),
  holdsARole: ({ vault }) =>
    vault.call('operator', 'POST', '/v1/engines', {
      name: 'alice',
      subject: 'alice',
      keys: [generateEngineKey().publicJwk],
    }),
  issuerTeams: async ({ another }, t) => {
    const vault = await another(t, { moreIssuers: [keptToTeams] });
    await vault.team('payments');
    return vault.call('alice', 'PUT', '/v1/teams/payments/members/heym%3Acfo', { role: 'viewer' });
  },
  teamNotEmpty: ({ vault }) => vault.call('alice', 'DELETE', '/v1/teams/payments', undefined, any),
  notTestable: async ({ vault }) => {
    const { id } = await demand(
      vault.call('alice', 'POST', '/v1/teams/payments/credentials', {
        name: 'untestable',
        type: 'bearer',
        fields: { token: 't' },
      }),
      201,
    );
    return vault.call('alice', 'POST', `/v1/credentials/${id}/test`);
  },
  secretRequired: ({ vault, credential }) =>
    vault.call(
      'alice',
      'PATCH',
      `/v1/credentials/${credential}`,
      { fields: { baseUrl: 'https://elsewhere.example' } },
      any,
    ),
  undecryptable: async ({ vault }) => {
    const { id } = await demand(
      vault.call('alice', 'POST', '/v1/teams/payments/credentials', imap),
      201,
    );
    await intrude(
      vault.db,
      `update credential_version set token = (select token from credential_version where credential_id <> '${id}' limit 1) where credential_id = '${id}'`,
    );
    return vault.call(
      'alice',
      'PATCH',
      `/v1/credentials/${id}`,
      { fields: { mailbox: 'Sent' } },
      any,
    );
  },
  stateConflict: ({ vault, credential }) =>
    vault.call('alice', 'POST', `/v1/credentials/${credential}/enable`),
  oauthNotConfigured: async ({ vault }) => {
    const { id } = await demand(
      vault.call('alice', 'POST', '/v1/teams/payments/credentials', oauth),
      201,
    );
    return vault.call('alice', 'POST', `/v1/credentials/${id}/oauth/authorizations`);
  },
  oauthStateInvalid: ({ vault }) =>
    vault.call('alice', 'POST', '/v1/oauth/callbacks', { state: 'A'.repeat(64), code: 'x' }),
  oauthRefused: (stage, t) => answerToCallback(stage, t, { error: 'access_denied' }),
  oauthUnavailable: (stage, t) => answerToCallback(stage, t, { code: 'x' }),
  leaseRefused: ({ vault }) => askLease(vault, 'n8n', [{ id: randomUUIDv7() }]),
  ticketRefused: ({ vault }) => askTicket(vault, 'n8n', { id: randomUUIDv7() }),
  brokerOff: async ({ another }, t) => {
    const vault = await another(t, { brokerUrl: () => undefined });
    await registerEngine(vault, 'n8n');
    return askTicket(vault, 'n8n', { id: randomUUIDv7() });
  },
  subjectTokenInvalid: ({ vault, credential }) =>
    askLease(vault, 'n8n', [{ id: credential }], { subjectToken: 'a.b.c' }),
  rotationRunning: ({ vault }) => vault.call('alice', 'POST', '/v1/teams/payments/key-rotations'),
  rotationNotRunning: async ({ vault }) => {
    await vault.team('cancelled');
    const { id } = await demand(
      vault.call('alice', 'POST', '/v1/teams/cancelled/key-rotations'),
      202,
    );
    await demand(
      vault.call('alice', 'POST', `/v1/teams/cancelled/key-rotations/${id}/cancel`),
      200,
    );
    return vault.call('alice', 'POST', `/v1/teams/cancelled/key-rotations/${id}/cancel`);
  },
  keyInUse: ({ vault, oldKey }) =>
    vault.call('alice', 'POST', `/v1/teams/payments/keys/${oldKey}/retire`),
  keyStateConflict: ({ vault, newKey }) =>
    vault.call('alice', 'POST', `/v1/teams/payments/keys/${newKey}/retire`),
  keyBusy: ({ vault, oldKey }) =>
    vault.db.transaction().execute(async (trx) => {
      await sql`select 1 from data_key where id = ${oldKey} for key share`.execute(trx);
      return vault.call('alice', 'POST', `/v1/teams/payments/keys/${oldKey}/retire`);
    }),
  idempotencyKeyReused: async ({ vault }) => {
    const key = { 'idempotency-key': 'once' };
    await demand(
      vault.call(
        'operator',
        'POST',
        '/v1/teams',
        { slug: 'first', name: 'First', admins: ['alice'] },
        key,
      ),
      201,
    );
    return vault.call(
      'operator',
      'POST',
      '/v1/teams',
      { slug: 'second', name: 'Second', admins: ['alice'] },
      key,
    );
  },
  rateLimited: async ({ another }, t) => {
    const vault = await another(t, { rateLimits: { address: 0, subject: 1 } });
    await vault.call('alice', 'GET', '/v1/whoami');
    return vault.call('alice', 'GET', '/v1/whoami');
  },
  limitReached: async ({ another }, t) => {
    const vault = await another(t, { growthLimits: { credentials: 1 } });
    await vault.team('payments');
    await storeOpenai(vault, 'payments', 'one', 'sk-test-00000000');
    return vault.call('alice', 'PUT', '/v1/teams/payments/credentials/two', {
      type: 'openai',
      fields: { apiKey: 'sk-test-00000000' },
    });
  },
  internal: async ({ vault }) => {
    await sql`create function fail() returns trigger language plpgsql as $$ begin raise exception 'nobody knows this'; end $$`.execute(
      vault.db,
    );
    await sql`create trigger fail before update on team for each row execute function fail()`.execute(
      vault.db,
    );
    const answer = await vault.call('alice', 'PATCH', '/v1/teams/payments', { name: 'Other' }, any);
    await sql`drop trigger fail on team`.execute(vault.db);
    return answer;
  },
  notReady: async ({ another }, t) =>
    (await another(t, { readiness: [{ name: 'schema', check: async () => false }] })).call(
      null,
      'GET',
      '/readyz',
    ),
  keyUnavailable: async ({ another }, t) => {
    const vault = await another(t);
    await vault.team('payments');
    await intrude(
      vault.db,
      `insert into root_key (fingerprint, canary) values ('0123456789abcdef', '\\x00')`,
      `update data_key set root_fingerprint = '0123456789abcdef'`,
    );
    vault.keyring.forget();
    return vault.call('alice', 'POST', '/v1/teams/payments/credentials', imap);
  },
  databaseUnavailable: async ({ vault: { databaseUrl, rootKey }, another }, t) => {
    const proxy = await databaseProxy(t, databaseUrl);
    const database = openDatabase({
      url: `postgresql://vault@127.0.0.1:${proxy.port}/${new URL(databaseUrl).pathname.slice(1)}`,
      onError: () => undefined,
    });
    t.teardown(() => database.close());
    const vault = await another(t, { database: { url: databaseUrl, db: database.db }, rootKey });
    proxy.cutAnswerTo('membership');
    return vault.call('alice', 'GET', '/v1/teams/payments');
  },
  commitUnknown: async ({ vault }) => {
    // What PostgreSQL says when a commit was not awaited is a warning at the commit.
    await sql`create function warn() returns trigger language plpgsql as $$ begin raise warning 'not awaited' using errcode = '01000'; return null; end $$`.execute(
      vault.db,
    );
    await sql`create constraint trigger warn after update on team deferrable initially deferred for each row execute function warn()`.execute(
      vault.db,
    );
    const answer = await vault.call(
      'alice',
      'PATCH',
      '/v1/teams/payments',
      { name: 'Payments once more' },
      any,
    );
    await sql`drop trigger warn on team`.execute(vault.db);
    return answer;
  },
  misdirected: async (_stage, t) => {
    const { port, ticket } = await startBroker(
      t,
      (_request, response) => {
        response.end();
      },
      { vault: { brokerHostSuffix: 'hosts.example' } },
    );
    return callBroker(port, 'GET', `/broker/${ticket.id}/`, { host: 'elsewhere.example' });
  },
  ticketInvalid: async (_stage, t) => {
    const { port, ticket } = await startBroker(t, (_request, response) => {
      response.end();
    });
    return callBroker(port, 'GET', `/broker/${ticket.id}/`);
  },
  brokerRefused: async (_stage, t) =>
    (
      await startBroker(
        t,
        (_request, response) => {
          response.end();
        },
        { policy: { methods: ['GET'] } },
      )
    ).call('POST', '/'),
  rangeRefused: async (_stage, t) =>
    (
      await startBroker(t, (_request, response) => {
        response.end();
      })
    ).call('GET', '/', { headers: { range: 'bytes=0-9' } }),
  unsupportedCall: async (_stage, t) =>
    (
      await startBroker(t, (_request, response) => {
        response.end();
      })
    ).call('GET', '/', { headers: { connection: 'upgrade', upgrade: 'websocket' } }),
  upstreamUnreachable: async (_stage, t) =>
    (
      await startBroker(
        t,
        (_request, response) => {
          response.end();
        },
        { egress: { resolve: async () => [] } },
      )
    ).call('GET', '/'),
  upstreamUnusable: async (_stage, t) =>
    (
      await startBroker(t, (_request, response) => {
        response.destroy();
      })
    ).call('POST', '/'),
  upstreamTimeout: async (_stage, t) =>
    (await startBroker(t, () => undefined, { policy: { limits: { idleSeconds: 1 } } })).call(
      'GET',
      '/',
    ),
  identityProviderUnavailable: async ({ another }, t) => {
    const vault = await another(t, {
      verification: { issuer, audience, source: { jwksUrl: 'http://127.0.0.1:1/' } },
    });
    const key = keyPair('EdDSA');
    return vault.call(null, 'GET', '/v1/whoami', undefined, {
      authorization: `Bearer ${forge(key, { alg: key.alg, kid: key.kid }, goodClaims())}`,
    });
  },
};

/** Begins, and comes back with that. */
async function answerToCallback(
  { another }: Stage,
  t: Teardown,
  callback: object,
): Promise<Answer> {
  const vault = await another(t, { oauthRedirectUri: 'https://platform.test/' });
  await vault.team('payments');
  const { id } = await demand(
    vault.call('alice', 'POST', '/v1/teams/payments/credentials', oauth),
    201,
  );
  const { authorizationUrl } = await demand(
    vault.call('alice', 'POST', `/v1/credentials/${id}/oauth/authorizations`),
    201,
  );
  return vault.call('alice', 'POST', '/v1/oauth/callbacks', {
    state: new URL(authorizationUrl).searchParams.get('state'),
    ...callback,
  });
}

/** A problem document: its form, its code with the code's status and title, and nothing else. */
function checkProblem(t: Rows, { status, headers, json, text }: Answer, code: ErrorCode): void {
  t.equal(json?.code, code, `${code} is provoked: ${text}`);
  t.equal(status, problems[code].status, code);
  t.match(headers['content-type'], new RegExp(`^${problemMediaType.replace('+', '\\+')}`), code);
  const { success, error } = problem.safeParse(json);
  t.ok(success, `${code} is a problem document: ${error?.message}`);
  t.match(
    json,
    {
      type: `urn:credential-vault:problem:${code}`,
      title: problems[code].title,
      status,
      requestId: headers['x-request-id'],
    },
    code,
  );
  t.equal(headers['www-authenticate'], status === 401 ? 'Bearer' : undefined, code);
  if ([429, 503].includes(status))
    t.match(String(headers['retry-after'] ?? '1'), /^[1-9][0-9]{0,4}$/, code);
}

let port: Promise<number> | undefined;
/** The port on which the vault listens, from the first time on. */
const listening = (vault: TestVault): Promise<number> =>
  (port ??= vault.app
    .listen({ port: 0, host: '127.0.0.1' })
    .then((url) => Number(new URL(url).port)));

/** What comes back for these bytes. */
async function answerTo(to: number, bytes: string): Promise<Answer> {
  const [head = '', body = ''] = (await rawAnswer(to, bytes)).split('\r\n\r\n');
  const [first = '', ...lines] = head.split('\r\n');
  const headers = Object.fromEntries(
    lines.map((line): [string, string] => [
      line.slice(0, line.indexOf(':')).toLowerCase(),
      line.slice(line.indexOf(':') + 1).trim(),
    ]),
  );
  return {
    status: Number(first.split(' ')[1]),
    headers,
    text: body,
    json: body === '' ? undefined : JSON.parse(body),
  };
}
