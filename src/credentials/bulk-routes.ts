// Many credentials of one team in one request: each item by itself, in the order in which they
// stand, each with its own result.
import type { FastifyInstance, FastifyRequest } from 'fastify';
import { z } from 'zod';
import type { Role } from '../db/tables.ts';
import type { Caller } from '../http/access.ts';
import { noClaim } from '../http/idempotency.ts';
import { bulkItemsMax } from '../http/limits.ts';
import { addOperation } from '../http/operation.ts';
import { problemAt } from '../http/problem.ts';
import { id, problem, revision, teamPath } from '../http/schemas.ts';
import * as schemas from './schemas.ts';
import {
  type CredentialChange,
  type CredentialInput,
  type CredentialRow,
  type CredentialsService,
  type OwningTeam,
  timesOf,
} from './service.ts';

const which = {
  id,
  revision: z.union([revision, z.literal('*')]).meta({
    description: 'The one that you mean, as If-Match would say it; `*` for whatever it is.',
    examples: [3],
  }),
};
const item = z.discriminatedUnion('op', [
  schemas.credentialCreate.extend({ op: z.literal('create') }),
  schemas.credentialUpdate.extend({ op: z.literal('update'), ...which }),
  z.strictObject({ op: z.literal('delete'), ...which }),
]);
type Item = z.output<typeof item>;

const bulk = z.strictObject({ items: z.array(item).min(1).max(bulkItemsMax) }).meta({
  id: 'CredentialBulk',
  examples: [
    {
      items: [
        { op: 'create', name: 'openai-prod', type: 'openai', fields: { apiKey: 'your API key' } },
      ],
    },
  ],
});
const result = z
  .strictObject({
    status: z
      .int()
      .min(200)
      .max(599)
      .meta({
        format: 'int32',
        description: 'As the request for this one thing would have been answered.',
        examples: [201],
      }),
    credential: schemas.credential.optional().meta({ description: 'With 200 and 201.' }),
    problem: problem.optional().meta({ description: 'With 4xx and 5xx.' }),
  })
  .meta({ id: 'CredentialBulkResult' });
const results = z
  .strictObject({
    results: z.array(result).max(bulkItemsMax).meta({ description: 'In the order of the items.' }),
  })
  .meta({ id: 'CredentialBulkResults' });
type Result = z.output<typeof result>;

/** Adds the operation on many credentials. */
export function registerCredentialBulk(
  app: FastifyInstance,
  { service }: { service: CredentialsService },
): void {
  addOperation(app, {
    method: 'POST',
    url: '/v1/teams/:team/credentials/bulk',
    access: { team: 'credential.write', by: 'team' },
    operationId: 'changeCredentials',
    tag: 'credentials',
    summary: 'Change many credentials: store, change, delete',
    description:
      'Each item is a change by itself, with its own event in the trail and its own result; a refused one stops nothing. After a 5xx the rest is not tried and has the same result. ' +
      'Takes no idempotency key: names are unique, and changes say which revision they mean.',
    params: teamPath,
    body: bulk,
    success: { status: 200, schema: results, description: 'What became of each item.' },
    handler: async ({ scope, body, caller, request }) => ({
      results: await runAll(
        service,
        { caller, team: scope.thing as OwningTeam, role: scope.role, request },
        body.items,
      ),
    }),
  });
}

interface Context {
  readonly caller: Caller;
  readonly team: OwningTeam;
  readonly role: Role;
  readonly request: FastifyRequest;
}

async function runAll(
  service: CredentialsService,
  context: Context,
  items: readonly Item[],
): Promise<Result[]> {
  const done: Result[] = [];
  for (const [index, each] of items.entries()) {
    const last = done.at(-1);
    if (last !== undefined && last.status >= 500) done.push(last);
    else {
      done.push(
        await run(service, context, each).catch((error: unknown): Result => {
          const failed = problemAt(`/items/${index}`, error, context.request);
          return { status: failed.status, problem: failed as unknown as z.output<typeof problem> };
        }),
      );
    }
  }
  return done;
}

async function run(
  service: CredentialsService,
  { caller, team, role }: Context,
  each: Item,
): Promise<Result> {
  if (each.op === 'create') {
    const { op: _op, ...input } = each;
    const row = await service.createCredential(
      caller,
      team,
      { ...input, ...timesOf(input) } as CredentialInput,
      noClaim,
    );
    return { status: 201, credential: schemas.showCredential(row) };
  }
  // SECURITY: of this team and of no other: the right that was asked for is one in it.
  const found: CredentialRow = await service.getCredential(team, each.id);
  const expected = each.revision === '*' ? 'any' : each.revision;
  if (each.op === 'delete') {
    await service.deleteCredential(caller, found, expected);
    return { status: 204 };
  }
  const { op: _op, id: _id, revision: _revision, ...change } = each;
  const row = await service.updateCredential(
    caller,
    found,
    role,
    { ...change, ...timesOf(change) } as CredentialChange,
    expected,
  );
  return { status: 200, credential: schemas.showCredential(row) };
}
