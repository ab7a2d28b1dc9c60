// Routes and the table of access, compared in both directions, and every operation called by
// everybody. All of it is made from what is registered, so that an operation cannot be forgotten
// here.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import fastify, { type RouteOptions } from 'fastify';
import { randomUUIDv7 } from 'node:crypto';
import t from 'tap';
import { folded, type Rows } from '../helpers/folded.ts';
import { registerAuthorization } from '../../src/http/authorize.ts';
import { type AnyOperation, takesHead } from '../../src/http/operation.ts';
import { platformPage, startAuthorizationServer } from '../helpers/authorization-server.ts';
import { hooked } from '../helpers/hooked.ts';
import { askTicket } from '../helpers/broker.ts';
import { demand, storeOpenai } from '../helpers/leases.ts';
import { callBroken, startFilled } from '../helpers/filled-team.ts';
import { callbackOf } from '../helpers/oauth.ts';
import { type Answer, startVault, type TestVault } from '../helpers/vault.ts';
import {
  type Access,
  actionOf,
  isAllowed,
  operatorActions,
  roles,
  type TeamAction,
  teamActions,
} from '../../src/access/roles.ts';

/** Actions that no route has, because a service asks for them: where. */
const askedByServices: Partial<Record<TeamAction, string>> = {};

/** Routes that are no operations of the document: what shows it. */
const beside = [
  '/docs',
  '/docs/favicon-32x32.png',
  '/docs/start.js',
  '/docs/swagger-ui-bundle.js',
  '/docs/swagger-ui.css',
  '/openapi.json',
];

/**
 * What the broker's listener answers, and the vault's does not: asked for a ticket, not for a
 * token.
 */
const ofBroker = new Set(['/*']);
/** A vault and every route that fastify was ever told of. */
async function startWatched(
  t: Parameters<typeof startVault>[0],
): Promise<{ vault: TestVault; routes: RouteOptions[] }> {
  const routes: RouteOptions[] = [];
  const vault = await hooked(
    (app) => {
      app.addHook('onRoute', (route) => {
        if (!ofBroker.has(route.url)) routes.push(route);
      });
    },
    () => startVault(t),
  );
  return { vault, routes };
}

t.test(
  'every route says its access, and is an operation or part of the docs page',
  folded(async (t) => {
    const { vault, routes } = await startWatched(t);
    const shown = routes.flatMap(({ method, url }) =>
      [method].flat().map((each) => `${each} ${url}`),
    );
    t.ok(routes.length > 40, 'the routes are seen');
    for (const { method, url, config } of routes) t.ok(config?.access, `${String(method)} ${url}`);
    const operations = vault.app.operations.flatMap((operation) =>
      (takesHead(operation) ? [operation.method, 'HEAD'] : [operation.method]).map(
        (method) => `${method} ${operation.url}`,
      ),
    );
    t.same(
      shown.filter((route) => !operations.includes(route)).sort(),
      ['GET', 'HEAD'].flatMap((method) => beside.map((url) => `${method} ${url}`)),
    );
    t.same(
      operations.filter((route) => !shown.includes(route)),
      [],
    );
    for (const url of ofBroker)
      t.notOk(
        vault.app.hasRoute({ method: 'GET', url }),
        `${url} is not on the vault's own listener`,
      );
    for (const { url, config } of routes.filter((route) => beside.includes(route.url)))
      t.equal(config?.access, 'public', url);
  }),
);

t.test('a route that says no access stops the start', async (t) => {
  const app = fastify();
  registerAuthorization(app, {} as never); // nothing of it is asked before a request comes
  t.doesNotThrow(() => {
    app.get('/open', { config: { access: 'public' } }, () => 'open');
  });
  t.throws(() => {
    app.get('/forgotten', () => 'forgotten');
  }, /GET \/forgotten says no access/);
  t.throws(() => {
    app.get('/forgotten-too', { config: {} }, () => 'forgotten');
  }, /says no access/);
  await t.rejects(async () => {
    await app.register(async (inside) => {
      inside.post('/inside', () => 'forgotten');
    });
    await app.ready();
  }, /POST \/inside says no access/);
});

t.test('the table and the operations name the same actions', async (t) => {
  const { app } = await startVault(t);
  const used = new Set(app.operations.map(({ access }) => actionOf(access)));
  const asked = Object.entries(askedByServices);
  for (const [action, file] of asked)
    t.match(
      readFileSync(join(import.meta.dirname, '../..', file), 'utf8'),
      new RegExp(`isAllowed\\([^)]*'${action.replace('.', '\\.')}'\\)`),
      `${file} asks for ${action}`,
    );
  t.same(
    [...used].sort(),
    [
      'public',
      'authenticated',
      ...operatorActions,
      ...teamActions.filter((action) => !(action in askedByServices)),
    ].sort(),
  );
  for (const [action] of asked) t.notOk(used.has(action), `${action} is no exception any more`);
});

t.test(
  'without a valid token every operation but the public ones is 401',
  folded(async (t) => {
    const { vault, fill } = await startFilled(t);
    for (const operation of vault.app.operations) {
      const { method, access, operationId } = operation;
      const answer = await vault.call(null, method, fill(operation));
      if (access === 'public') {
        t.not(answer.status, 401, operationId);
        continue;
      }
      checkRefusal(t, answer, 401, 'unauthenticated', operationId);
      t.equal(answer.headers['www-authenticate'], 'Bearer', operationId);
      for (const authorization of [
        'Bearer x',
        'Bearer a.b.c',
        'Basic YTpi',
        await vault.token('alice'),
      ]) {
        t.equal(
          (await vault.call(null, method, fill(operation), undefined, { authorization })).status,
          401,
          `${operationId} with ${authorization.split(' ')[0]}`,
        );
      }
      const inQuery = `${fill(operation)}?access_token=${await vault.token('alice')}`;
      t.equal(
        (await vault.call(null, method, inQuery)).status,
        401,
        `${operationId}, with the token in the query`,
      );
    }
  }),
);

t.test(
  "what is a team's is 404 for everybody outside it, and looks like what does not exist",
  folded(async (t) => {
    const { vault, fill } = await startFilled(t);
    await vault.team('elsewhere', ['otto']);
    for (const operation of vault.app.operations.filter(({ access }) => isOfTeam(access))) {
      for (const outsider of ['stranger', 'otto', 'operator']) {
        const there = await vault.call(outsider, operation.method, fill(operation));
        const nowhere = await vault.call(
          outsider,
          operation.method,
          fill(operation, { team: 'nowhere', id: randomUUIDv7() }),
        );
        checkRefusal(t, there, 404, 'notFound', `${operation.operationId} as ${outsider}`);
        t.same(
          comparable(there),
          comparable(nowhere),
          `${operation.operationId} as ${outsider}: the same as for nothing`,
        );
        const broken = await callBroken(vault, outsider, operation, fill(operation));
        t.same(
          comparable(broken),
          comparable(nowhere),
          `${operation.operationId} as ${outsider}: the body is not looked at`,
        );
      }
    }
  }),
);

t.test(
  'in the team the table decides, role by role and action by action',
  folded(async (t) => {
    const { vault, fill, people } = await startFilled(t);
    for (const operation of vault.app.operations.filter(({ access }) => isOfTeam(access))) {
      const { access, operationId } = operation;
      const action = actionOf(access) as TeamAction;
      for (const role of roles) {
        const what = `${operationId} as ${role}`;
        // A body that cannot be read is refused after the decision and before anything happens.
        const answer = await callBroken(vault, people[role], operation, fill(operation));
        if (isAllowed(role, action)) checkAllowed(t, answer, operation, what);
        else checkRefusal(t, answer, 403, 'forbidden', what);
      }
    }
    const { rows } = await denials(vault);
    for (const action of new Set(
      vault.app.operations
        .filter(({ access }) => isOfTeam(access))
        .map(({ access }) => actionOf(access) as TeamAction),
    )) {
      for (const role of roles.filter((each) => !isAllowed(each, action))) {
        t.ok(
          rows.some(
            (row) =>
              row.action === action &&
              row.sub === people[role] &&
              row.reason === 'role' &&
              row.slug === 'payments',
          ),
          `${action} refused to the ${role} stands in the audit log`,
        );
      }
    }
  }),
);

t.test(
  "what is the operator's is 403 for everybody else",
  folded(async (t) => {
    const { vault, fill, people } = await startFilled(t);
    for (const operation of vault.app.operations.filter(
      ({ access }) => typeof access === 'object' && 'operator' in access,
    )) {
      for (const person of ['stranger', ...Object.values(people)]) {
        checkRefusal(
          t,
          await callBroken(vault, person, operation, fill(operation)),
          403,
          'forbidden',
          `${operation.operationId} as ${person}`,
        );
      }
      checkAllowed(
        t,
        await callBroken(vault, 'operator', operation, fill(operation)),
        operation,
        `${operation.operationId} as operator`,
      );
    }
  }),
);

t.test(
  'what is for everybody with a token is for a stranger too, and shows nothing of a team',
  async (t) => {
    const { vault, fill } = await startFilled(t);
    for (const operation of vault.app.operations.filter(
      ({ access }) => access === 'authenticated',
    )) {
      const answer = await vault.call('stranger', operation.method, fill(operation));
      t.equal(answer.status, 200, operation.operationId);
      t.notMatch(answer.text, 'payments', operation.operationId);
    }
  },
);

t.test(
  'operations over several teams ask the table for each thing',
  folded(async (t) => {
    const { vault, people, parts } = await startFilled(t);
    await vault.team('lending', ['otto']);
    const checks: Record<string, () => Promise<void>> = {
      async listCredentials() {
        for (const role of roles) {
          const { json } = await vault.call(people[role], 'GET', '/v1/credentials');
          t.same(
            json.items.map(({ id }: { id: string }) => id),
            isAllowed(role, 'credential.read') ? [parts.id, parts.credential] : [],
            role,
          );
        }
        for (const outsider of ['stranger', 'operator'])
          t.same(
            (await vault.call(outsider, 'GET', '/v1/credentials')).json,
            { items: [], nextCursor: null },
            outsider,
          );
      },
      async createLease() {
        const body = {
          credentials: [{ id: parts.id }],
          purpose: 'a test',
          onBehalfOf: people.editor,
        };
        for (const role of roles) {
          const answer = await vault.call(people[role], 'POST', '/v1/leases', body);
          if (isAllowed(role, 'credential.lease')) t.equal(answer.status, 201, role);
          else checkRefusal(t, answer, 403, 'forbidden', `createLease as ${role}`);
        }
        for (const outsider of ['stranger', 'operator'])
          checkRefusal(
            t,
            await vault.call(outsider, 'POST', '/v1/leases', body),
            403,
            'forbidden',
            outsider,
          );
        for (const role of roles) {
          const answer = await vault.call(people.engine, 'POST', '/v1/leases', {
            ...body,
            onBehalfOf: people[role],
          });
          t.equal(
            answer.status,
            isAllowed(role, 'credential.use') ? 201 : 422,
            `on behalf of the ${role}`,
          );
        }
      },
      async createBrokerTicket() {
        const { id } = await storeOpenai(vault, 'payments', 'brokered', 'sk-test-brokered', {
          policy: { delivery: ['broker'], allowedHosts: [] },
        });
        for (const role of roles) {
          const answer = await askTicket(
            vault,
            people[role],
            { id },
            { onBehalfOf: people.editor },
          );
          if (isAllowed(role, 'credential.lease')) t.equal(answer.status, 201, role);
          else checkRefusal(t, answer, 403, 'forbidden', `createBrokerTicket as ${role}`);
        }
        for (const outsider of ['stranger', 'operator'])
          checkRefusal(t, await askTicket(vault, outsider, { id }), 403, 'forbidden', outsider);
        for (const role of roles) {
          t.equal(
            (await askTicket(vault, people.engine, { id }, { onBehalfOf: people[role] })).status,
            isAllowed(role, 'credential.use') ? 201 : 422,
            `on behalf of the ${role}`,
          );
        }
      },
      async updateBrokerTicket() {
        const { id } = await storeOpenai(vault, 'payments', 'brokered-on', 'sk-test-brokered', {
          policy: { delivery: ['broker'], allowedHosts: [] },
        });
        const { id: ticket } = await demand(
          askTicket(vault, people.engine, { id }, { onBehalfOf: people.editor }),
          201,
        );
        const extend = (as: string) =>
          vault.call(as, 'PATCH', `/v1/broker-tickets/${ticket}`, { ttlSeconds: 60 });
        for (const role of roles) {
          const answer = await extend(people[role]);
          if (role === 'engine') t.equal(answer.status, 200, role);
          else checkRefusal(t, answer, 403, 'forbidden', `updateBrokerTicket as ${role}`);
        }
        for (const outsider of ['stranger', 'operator'])
          checkRefusal(t, await extend(outsider), 404, 'notFound', outsider);
      },
      async deleteBrokerTicket() {
        const { id } = await storeOpenai(vault, 'payments', 'brokered-too', 'sk-test-brokered', {
          policy: { delivery: ['broker'], allowedHosts: [] },
        });
        const make = async (): Promise<string> =>
          `/v1/broker-tickets/${(await demand(askTicket(vault, people.engine, { id }, { onBehalfOf: people.editor }), 201)).id}`;
        for (const role of roles) {
          const answer = await vault.call(people[role], 'DELETE', await make());
          if (role === 'engine' || isAllowed(role, 'credential.manage'))
            t.equal(answer.status, 204, role);
          else checkRefusal(t, answer, 403, 'forbidden', `deleteBrokerTicket as ${role}`);
        }
        for (const outsider of ['stranger', 'operator'])
          checkRefusal(
            t,
            await vault.call(outsider, 'DELETE', await make()),
            404,
            'notFound',
            outsider,
          );
      },
    };
    checks['acceptTransfer'] = async () => {
      for (const role of roles) {
        const { id } = await storeOpenai(vault, 'lending', `to-${role}`, 'sk-test', {}, 'otto');
        const offer = await demand(
          vault.call('otto', 'POST', `/v1/credentials/${id}/transfers`, { team: 'payments' }),
          201,
        );
        const url = `/v1/transfers/${offer.id}/accept`;
        for (const outsider of ['stranger', 'operator'])
          checkRefusal(t, await vault.call(outsider, 'POST', url), 404, 'notFound', outsider);
        checkRefusal(
          t,
          await vault.call('otto', 'POST', url),
          403,
          'forbidden',
          'who offers does not accept',
        );
        const answer = await vault.call(people[role], 'POST', url);
        if (isAllowed(role, 'credential.manage')) t.equal(answer.status, 200, role);
        else checkRefusal(t, answer, 403, 'forbidden', `acceptTransfer as ${role}`);
      }
    };
    checks['declineTransfer'] = async () => {
      for (const role of roles) {
        for (const [owner, by, to] of [
          ['lending', 'otto', 'payments'],
          ['payments', people.admin, 'lending'],
        ] as const) {
          const { id } = await storeOpenai(vault, owner, `declined-by-${role}`, 'sk-test', {}, by);
          const url = `/v1/transfers/${(await demand(vault.call(by, 'POST', `/v1/credentials/${id}/transfers`, { team: to }), 201)).id}`;
          for (const outsider of ['stranger', 'operator'])
            checkRefusal(t, await vault.call(outsider, 'DELETE', url), 404, 'notFound', outsider);
          const answer = await vault.call(people[role], 'DELETE', url);
          if (isAllowed(role, 'credential.manage')) t.equal(answer.status, 204, role);
          else checkRefusal(t, answer, 403, 'forbidden', `declineTransfer as ${role}`);
        }
      }
    };
    checks['finishAuthorization'] = async () => {
      const server = await startAuthorizationServer(t);
      const own = await startFilled(t, { egress: server.egress(), oauthRedirectUri: platformPage });
      const { id } = await demand(
        own.vault.call('alice', 'POST', '/v1/teams/payments/credentials', {
          name: 'oauth',
          type: 'oauth2',
          fields: server.fields(),
        }),
        201,
      );
      for (const role of roles) {
        // Begun by an admin or an editor, whose role is another one when he comes back.
        const person = own.people[role];
        if (role !== 'engine' && role !== 'admin')
          await own.vault.member('payments', person, 'editor');
        const begun = await own.vault.call(
          person,
          'POST',
          `/v1/credentials/${id}/oauth/authorizations`,
        );
        if (role !== 'engine' && role !== 'admin') await own.vault.member('payments', person, role);
        if (role === 'engine') {
          checkRefusal(t, begun, 403, 'forbidden', 'an engine begins nothing');
          continue;
        }
        const answer = await own.vault.call(
          person,
          'POST',
          '/v1/oauth/callbacks',
          callbackOf(await server.visit(begun.json.authorizationUrl)),
        );
        if (isAllowed(role, 'credential.write')) t.equal(answer.status, 200, role);
        else checkRefusal(t, answer, 403, 'forbidden', `finishAuthorization as ${role}`);
      }
      for (const outsider of ['stranger', 'operator', own.people.engine]) {
        checkRefusal(
          t,
          await own.vault.call(outsider, 'POST', '/v1/oauth/callbacks', {
            state: 'A'.repeat(64),
            code: 'x',
          }),
          400,
          'oauthStateInvalid',
          outsider,
        );
      }
    };
    t.same(
      Object.keys(checks).sort(),
      vault.app.operations
        .filter(({ access }) => typeof access === 'object' && 'each' in access)
        .map(({ operationId }) => operationId)
        .sort(),
    );
    for (const check of Object.values(checks)) await check();
  }),
);

const isOfTeam = (access: Access): boolean => typeof access === 'object' && 'team' in access;

function checkAllowed(t: Rows, answer: Answer, { method }: AnyOperation, what: string): void {
  if (method === 'GET') t.equal(answer.status, 200, what);
  else checkRefusal(t, answer, 400, 'malformedJson', what);
}

function checkRefusal(
  t: Rows,
  { status, headers, json }: Answer,
  expected: number,
  code: string,
  what: string,
): void {
  t.equal(status, expected, what);
  t.match(headers['content-type'], /^application\/problem\+json/, what);
  t.equal(json?.code, code, what);
}

/** All of an answer but what names the request. */
function comparable({ status, headers, json }: Answer): unknown {
  const { 'x-request-id': _, date: __, ...rest } = headers;
  const { requestId: ___, ...body } = json as Record<string, unknown>;
  return { status, headers: rest, body };
}

const denials = (vault: TestVault) =>
  vault.db
    .selectFrom('audit_event as event')
    .innerJoin('subject', 'subject.id', 'event.actor_id')
    .innerJoin('team', 'team.id', 'event.team_id')
    .select(['event.action', 'event.reason', 'subject.sub', 'team.slug'])
    .where('event.decision', '=', 'deny')
    .execute()
    .then((rows) => ({ rows }));
