// The role table over every operation of openapi.yaml and every kind of caller: members in each
// role, strangers, people and engines of other teams by grants, those who were removed or disabled.
// What is expected comes from the document's action and from the tables below, which say by
// themselves who may do what.
import t from 'tap';
import { folded } from '../helpers/folded.ts';
import type { Role } from '../../src/db/tables.ts';
import { committedDocument } from '../helpers/documented-answers.ts';
import { startFilled } from '../helpers/filled-team.ts';
import { demand, registerEngine, storeOpenai } from '../helpers/leases.ts';
import { operationsOf } from '../helpers/openapi.ts';
import type { Answer, TestVault } from '../helpers/vault.ts';

/** Which roles may do which action. */
const allowed: Readonly<Record<string, readonly Role[]>> = {
  'credential.read': ['viewer', 'editor', 'admin', 'auditor', 'engine'],
  'credential.write': ['editor', 'admin'],
  'credential.manage': ['admin'],
  'credential.use': ['editor', 'admin'],
  'credential.lease': ['engine'],
  'team.read': ['viewer', 'editor', 'admin', 'auditor', 'engine'],
  'team.manage': ['admin'],
  'key.read': ['admin', 'auditor'],
  'key.rotate': ['admin'],
  'audit.read': ['admin', 'auditor'],
};
/** What crosses from team to team by a grant. */
const crossing: Readonly<Record<string, readonly string[]>> = {
  read: ['credential.read'],
  use: ['credential.read', 'credential.use', 'credential.lease'],
};

interface Caller {
  /** Null sends no token. */
  readonly sub: string | null;
  readonly claims?: Record<string, unknown>;
  /** In the team that the paths name. */
  readonly role?: Role;
  readonly isOperator?: true;
  /** To the one credential that the paths name: with which role it counts. */
  readonly grant?: { readonly access: 'read' | 'use'; readonly role: Role };
}

const roles = ['viewer', 'editor', 'admin', 'auditor', 'engine'] as const;

/** Everybody who may come, in a vault that is filled for them. */
async function callersOf(
  vault: TestVault,
  people: Readonly<Record<Role, string>>,
  credential: string,
): Promise<Map<string, Caller>> {
  const callers = new Map<string, Caller>([
    ['nobody', { sub: null }],
    ['a stranger', { sub: 'stranger' }],
    ['the operator', { sub: 'operator', isOperator: true }],
    [
      'an operator by scope',
      { sub: 'oscar', claims: { scope: 'vault:operate' }, isOperator: true },
    ],
    ['somebody with other scopes', { sub: 'sam', claims: { scope: 'vault:read operate' } }],
  ]);
  for (const role of roles) callers.set(`the ${role}`, { sub: people[role], role });

  // In teams that have nothing, and in teams to which the credential was granted.
  for (const access of [undefined, 'read', 'use'] as const) {
    const team = access === undefined ? 'elsewhere' : `granted-${access}`;
    await vault.team(team, [`admin-${team}`]);
    const engine = await registerEngine(vault, `engine-${team}`);
    for (const role of ['viewer', 'editor', 'auditor', 'engine'] as const)
      await vault.member(
        team,
        role === 'engine' ? engine.sub : `${role}-${team}`,
        role,
        `admin-${team}`,
      );
    if (access !== undefined)
      await demand(
        vault.call('alice', 'PUT', `/v1/credentials/${credential}/grants/teams/${team}`, {
          access,
        }),
        200,
      );
    for (const role of roles)
      callers.set(`the ${role} of ${team}`, {
        sub: `${role}-${team}`,
        ...(access === undefined ? {} : { grant: { access, role } }),
      });
    // Who was removed there, and an engine that was disabled.
    await vault.member(team, `former-${team}`, 'admin', `admin-${team}`);
    await demand(
      vault.call(`admin-${team}`, 'DELETE', `/v1/teams/${team}/members/former-${team}`, undefined, {
        'if-match': '*',
      }),
      204,
    );
    callers.set(`a former admin of ${team}`, { sub: `former-${team}` });
    const disabled = await registerEngine(vault, `disabled-${team}`);
    await vault.member(team, disabled.sub, 'engine', `admin-${team}`);
    await disable(vault, disabled.id);
    callers.set(`a disabled engine of ${team}`, { sub: disabled.sub });
  }

  // By themselves: a person counts as an editor, an engine as an engine.
  for (const access of ['read', 'use'] as const) {
    const to = (sub: string): Promise<unknown> =>
      demand(
        vault.call('alice', 'PUT', `/v1/credentials/${credential}/grants/subjects/${sub}`, {
          access,
        }),
        200,
      );
    await to(`guest-${access}`);
    callers.set(`a guest, ${access}`, {
      sub: `guest-${access}`,
      grant: { access, role: 'editor' },
    });
    const engine = await registerEngine(vault, `robot-${access}`);
    await to(engine.sub);
    callers.set(`an engine, ${access}`, { sub: engine.sub, grant: { access, role: 'engine' } });
    const disabled = await registerEngine(vault, `stopped-${access}`);
    await to(disabled.sub);
    await disable(vault, disabled.id);
    callers.set(`a disabled engine, ${access}`, { sub: disabled.sub });
  }
  await vault.member('payments', 'former', 'admin');
  await demand(
    vault.call('alice', 'DELETE', '/v1/teams/payments/members/former', undefined, {
      'if-match': '*',
    }),
    204,
  );
  callers.set('a former admin', { sub: 'former' });
  const disabled = await registerEngine(vault, 'disabled');
  await vault.member('payments', disabled.sub, 'engine');
  await disable(vault, disabled.id);
  callers.set('a disabled engine', { sub: disabled.sub });
  return callers;
}

const disable = (vault: TestVault, engine: string): Promise<unknown> =>
  demand(
    vault.call(
      'operator',
      'PATCH',
      `/v1/engines/${engine}`,
      { state: 'disabled' },
      {
        'if-match': '*',
      },
    ),
    200,
  );

interface Documented {
  readonly id: string;
  readonly method: string;
  readonly path: string;
  readonly action: string;
}

const operations: readonly Documented[] = operationsOf(committedDocument).map(
  ({ path, method, operation }) => ({
    id: String(operation['operationId']),
    method,
    path,
    action: String(operation['x-action']),
  }),
);

/** What has to come back: 0 is whatever the operation answers to whom it lets in. */
function expected({ action, path }: Documented, caller: Caller): 0 | 401 | 403 | 404 | undefined {
  if (action === 'public') return 0;
  if (caller.sub === null) return 401;
  if (action === 'authenticated') return 0;
  const may = allowed[action];
  if (may === undefined) return caller.isOperator === true ? 0 : 403;
  const isOfCredential = path.startsWith('/v1/credentials/{id}');
  if (!isOfCredential && !path.startsWith('/v1/teams/{team}')) return undefined;
  const { role, grant } = caller;
  if (role !== undefined && may.includes(role)) return 0;
  if (isOfCredential && grant !== undefined)
    return crossing[grant.access]!.includes(action) && may.includes(grant.role) ? 0 : 403;
  return role === undefined ? 404 : 403;
}

const codes = { 401: 'unauthenticated', 403: 'forbidden', 404: 'notFound' } as const;

t.test(
  'every operation is for whom the table says, and for nobody else',
  folded(async (t) => {
    const { vault, people, fill, parts } = await startFilled(t);
    const callers = await callersOf(vault, people, parts['id']!);
    t.ok(callers.size > 35, `${callers.size} callers`);
    const documented = new Set(operations.map(({ action }) => action));
    t.same(
      Object.keys(allowed).filter((action) => !documented.has(action)),
      [],
      'each action of the table is one of the document',
    );
    let requests = 0;
    for (const operation of operations) {
      const url = fill({ url: operation.path.replaceAll(/\{(\w+)\}/g, ':$1') } as never);
      for (const [name, caller] of callers) {
        const status = expected(operation, caller);
        if (status === undefined) continue;
        requests += 1;
        const what = `${operation.id} as ${name}`;
        const answer = await ask(vault, caller, operation.method, url);
        if (status !== 0) {
          t.equal(answer.status, status, what);
          if (operation.method !== 'HEAD') t.equal(answer.json?.code, codes[status], what);
        } else if (operation.method === 'GET' || operation.method === 'HEAD')
          t.equal(answer.status, 200, what);
        // A body that cannot be read is refused after the decision, and before anything happens.
        else t.same([answer.status, answer.json?.code], [400, 'malformedJson'], what);
      }
    }
    t.ok(requests > 2_500, `${requests} requests`);
  }),
);

/** Actions of which each thing in the body is asked by itself. */
t.test('leases and tickets are for engines that the table lets have the credential', async (t) => {
  const { vault, people, parts } = await startFilled(t);
  const { id } = await storeOpenai(vault, 'payments', 'both', 'sk-test-both', {
    policy: { delivery: ['lease', 'broker'], allowedHosts: [] },
  });
  parts['id'] = id;
  const callers = await callersOf(vault, people, id);
  for (const [name, caller] of callers) {
    if (caller.sub === null) continue;
    // An enabled engine is one wherever it is; people and disabled engines are none.
    const isEngine =
      caller.role === 'engine' ||
      caller.grant?.role === 'engine' ||
      caller.sub === 'engine-elsewhere';
    const isReached = caller.role === 'engine' || (isEngine && caller.grant?.access === 'use');
    // On behalf of somebody who may use it: in the engine's own team, or in the one that owns it.
    const body = { purpose: 'a test', onBehalfOf: people.editor };
    for (const [operation, more] of [
      ['leases', { credentials: [{ id }] }],
      ['broker-tickets', { credential: { id } }],
    ] as const) {
      const what = `${operation} as ${name}`;
      const answer = await ask(vault, caller, 'POST', `/v1/${operation}`, { ...body, ...more });
      if (isReached) t.equal(answer.status, 201, `${what}: ${answer.text}`);
      else if (isEngine) t.equal(answer.status, 422, what);
      else t.same([answer.status, answer.json?.code], [403, 'forbidden'], what);
    }
  }
});

async function ask(
  vault: TestVault,
  { sub, claims }: Caller,
  method: string,
  url: string,
  body?: unknown,
): Promise<Answer> {
  const headers: Record<string, string> =
    sub === null ? {} : { authorization: `Bearer ${await vault.token(sub, claims ?? {})}` };
  const sent = body ?? (method === 'GET' ? undefined : '{');
  return vault.call(null, method, url, sent, headers);
}
