// Many credentials of one team in one request: each item by itself, in the order in which they
// stand, each with its own result.
import type { FastifyInstance, FastifyRequest } from 'fastify';
import { z } from 'zod';
import type { Role } from '../db/tables.ts';
import { HangUp } from '../shared/hang-up.ts';
import { bulkItemsMax } from '../shared/limits.ts';
import { addOperation } from '../http/operation.ts';
import { problemAt, problemOfUntried } from '../http/problem.ts';
import { id, problem, revision, teamPath } from '../http/schemas.ts';
import { AppError } from '../shared/errors.ts';
import { Gate } from '../shared/gate.ts';
import * as schemas from './schemas.ts';
import {
  type CredentialChange,
  type CredentialInput,
  type CredentialsService,
  type OwningTeam,
  timesOf,
} from './service.ts';
import { noClaim } from '../db/claims.ts';
import type { Caller } from '../access/index.ts';
import type { CredentialRow } from './rows.ts';

const which = {
  id,
  revision: z.union([revision, z.enum(['*'])]).meta({
    description: 'The one that you mean, as If-Match would say it; `*` for whatever it is.',
    examples: [3],
  }),
};
const item = z.discriminatedUnion('op', [
  schemas.credentialCreate.extend({ op: z.literal('create') }).meta({ id: 'BulkCreate' }),
  schemas.credentialUpdate.extend({ op: z.literal('update'), ...which }).meta({ id: 'BulkUpdate' }),
  z.strictObject({ op: z.literal('delete'), ...which }).meta({ id: 'BulkDelete' }),
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

/** What updates of one request may open together, as it is stored. */
export const bulkStoredBytesMax = 16 * 1024 * 1024;

/** Lets requests of a team in, four at once. */
export type BulkGate = Gate<OwningTeam['id']>;
export const bulkGate = (): BulkGate => new Gate({ atOnce: 4, waitingMax: 200, waitMs: 10_000 });

/** Adds the operation on many credentials. */
export function registerCredentialBulk(
  app: FastifyInstance,
  { service, running }: { service: CredentialsService; running: BulkGate },
): void {
  addOperation(app, {
    method: 'POST',
    url: '/v1/teams/:team/credentials/bulk',
    access: { team: 'credential.write', by: 'team' },
    operationId: 'changeCredentials',
    tag: 'credentials',
    summary: 'Change many credentials: store, change, delete',
    description:
      'Each item is a change by itself, with its own event in the audit log and its own ' +
      'result; a refused one stops nothing. After a 5xx other than `oauthUnavailable` the rest ' +
      'is not tried and has the same result. ' +
      'Updates of fields and policies open what is stored: those beyond 16 MiB together are ' +
      'refused with the rule `size`. Four of a team run at once on a replica. ' +
      'Takes no idempotency key: names are unique, and changes say which revision they mean.',
    params: teamPath,
    body: bulk,
    success: { status: 200, schema: results, description: 'What became of each item.' },
    handler: async ({ scope, body, caller, request, reply }) => {
      const team = scope.resource as OwningTeam;
      const hangUp = new HangUp(reply.raw);
      const leave = await hangUp.race(running.enter(team.id), (late) => late?.());
      if (leave === undefined)
        throw new AppError('rateLimited', 'Other changes run; wait as Retry-After says.', {
          retryAfterSeconds: 5,
        });
      try {
        return {
          results: await runAll(
            service,
            { caller, team, role: scope.role, request, hangUp },
            body.items,
          ),
        };
      } finally {
        leave();
      }
    },
  });
}

interface Context {
  readonly caller: Caller;
  readonly team: OwningTeam;
  readonly role: Role;
  readonly request: FastifyRequest;
  readonly hangUp: HangUp;
}

async function runAll(
  service: CredentialsService,
  context: Context,
  items: readonly Item[],
): Promise<Result[]> {
  const done: Result[] = [];
  const tooLarge = await beyondSize(service, context.team, items);
  for (const [index, each] of items.entries()) {
    context.hangUp.demand();
    const last = done.at(-1);
    if (last !== undefined && endsAll(last)) {
      // What is not known of one is known of those that were not tried: nothing was changed.
      const isUnknown = last.problem?.code === 'commitUnknown';
      done.push(isUnknown ? refusalOf(problemOfUntried(context.request)) : last);
    } else {
      const effects = context.request.effects?.part();
      const one = (): Promise<Result> => run(service, context, each, tooLarge.has(each));
      done.push(
        await (effects === undefined ? one() : effects.run(one)).catch((error: unknown) =>
          refusalOf(problemAt(`/items/${index}`, error, context.request, effects)),
        ),
      );
    }
  }
  return done;
}

/** A failure of the vault's own; a provider that does not answer is one item's. */
const endsAll = ({ status, problem }: Result): boolean =>
  status >= 500 && problem?.code !== 'oauthUnavailable';

const refusalOf = (failed: ReturnType<typeof problemAt>): Result => ({
  status: failed.status,
  problem: failed as unknown as z.output<typeof problem>,
});

/**
 * The updates for which there is no room any more: how large what they open is, is asked before
 * any of it is opened.
 */
async function beyondSize(
  service: CredentialsService,
  team: OwningTeam,
  items: readonly Item[],
): Promise<ReadonlySet<Item>> {
  const opening = items.filter(
    (each) => each.op === 'update' && (each.fields !== undefined || each.policy !== undefined),
  ) as Extract<Item, { op: 'update' }>[];
  if (opening.length === 0) return new Set();
  const sizes = await service.storedSizes(
    team,
    opening.map((each) => each.id),
  );
  let bytes = 0;
  return new Set(
    opening.filter((each) => {
      bytes += sizes.get(each.id) ?? 0;
      return bytes > bulkStoredBytesMax;
    }),
  );
}

async function run(
  service: CredentialsService,
  { caller, team, role }: Context,
  each: Item,
  isTooLarge: boolean,
): Promise<Result> {
  if (isTooLarge)
    throw new AppError(
      'invalidRequest',
      'What these changes open is too large together: send fewer of them at once.',
      { errors: [{ pointer: '', rule: 'size' }] },
    );
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
  const expected = each.revision === '*' ? 'any' : [each.revision];
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
