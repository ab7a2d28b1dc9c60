// What a handler gets is typed by the access of its operation, and is there when it runs.
import { Writable } from 'node:stream';
import Fastify, { type FastifyInstance } from 'fastify';
import t from 'tap';
import { addOperation, type AnyOperation } from '../../src/http/operation.ts';

const rest = (operationId: string) =>
  ({
    method: 'GET',
    url: `/${operationId}`,
    operationId,
    tag: 'service',
    summary: 'Test',
    success: { status: 204, description: 'Done.' },
  }) as const;

/** An app without the hooks that find out who calls. */
function bareApp(): FastifyInstance {
  const app = Fastify({ logger: { stream: new Writable({ write: (_, __, done) => done() }) } });
  app.decorate('operations', [] as AnyOperation[]);
  app.setValidatorCompiler(() => () => true);
  app.setSerializerCompiler(() => (answer) => JSON.stringify(answer));
  return app;
}

t.test('a handler gets what its access brings, and its types say no more', async (t) => {
  const app = bareApp();
  const ran: string[] = [];
  addOperation(app, {
    ...rest('open'),
    access: 'public',
    handler: async (input) => {
      ran.push('open');
      // @ts-expect-error nobody has been asked who they are
      t.equal(input.caller, undefined);
      // @ts-expect-error
      t.equal(input.scope, undefined);
    },
  });
  addOperation(app, {
    ...rest('own'),
    access: 'authenticated',
    handler: async ({ caller, ...input }) => {
      ran.push(`own ${caller.sub}`);
      // @ts-expect-error the access names no team
      t.equal(input.scope, undefined);
    },
  });
  addOperation(app, {
    ...rest('operated'),
    access: { operator: 'teams.manage' as never },
    handler: async ({ caller, ...input }) => {
      ran.push(`operated ${caller.sub}`);
      // @ts-expect-error the access names no team
      t.equal(input.scope, undefined);
    },
  });
  addOperation(app, {
    ...rest('teams'),
    access: { team: 'audit.read', by: 'team' },
    handler: async ({ caller, scope }) => {
      ran.push(`teams ${caller.sub} ${scope.team.slug}`);
    },
  });
  const statusOf = async (url: string): Promise<number> =>
    (await app.inject({ method: 'GET', url })).statusCode;
  t.equal(await statusOf('/open'), 204);
  for (const url of ['/own', '/operated', '/teams'])
    t.equal(await statusOf(url), 500, `${url} does not run where no hook has asked who calls`);
  t.same(ran, ['open']);
});

t.test('nor does one of a team run where a caller is known, and no team', async (t) => {
  const app = bareApp();
  app.addHook('onRequest', async (request) => {
    request.caller = { sub: 'alice' } as never;
  });
  let ran = 0;
  for (const [name, access] of [
    ['own', 'authenticated'],
    ['teams', { team: 'audit.read', by: 'team' }],
  ] as const)
    addOperation(app, {
      ...rest(name),
      access,
      handler: async () => {
        ran += 1;
      },
    });
  t.equal((await app.inject({ method: 'GET', url: '/own' })).statusCode, 204);
  t.equal((await app.inject({ method: 'GET', url: '/teams' })).statusCode, 500);
  t.equal(ran, 1);
});
