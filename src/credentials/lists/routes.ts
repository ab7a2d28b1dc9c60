// The HTTP face of lists of credentials, and of what is counted over them.
import type { FastifyInstance } from 'fastify';
import type { z } from 'zod';
import { addOperation } from '../../http/operation.ts';
import type { Cursors } from '../../http/paging.ts';
import { teamPath } from '../../http/schemas.ts';
import type { JsonObject } from '../../shared/json.ts';
import type { CredentialLists } from './listing.ts';
import * as schemas from './schemas.ts';
import { showSeen } from '../schemas.ts';
import { showEach } from '../../shared/showing.ts';
import type { Caller, TeamRef } from '../../access/index.ts';

const listDescription =
  'With `shared`, what grants give. Every order can be turned round, every filter goes with ' +
  'every other. A page may hold less than its limit, where few of many rows pass the filters, ' +
  'or where the fields are long: only `nextCursor` says whether there is more.';

/** Adds the lists. */
export function registerCredentialLists(
  app: FastifyInstance,
  { lists, cursors }: { lists: CredentialLists; cursors: Cursors },
): void {
  const list = async (
    caller: Caller,
    team: TeamRef | undefined,
    query: schemas.CredentialListQuery,
  ): Promise<z.output<typeof schemas.credentialList>> => {
    const listing = schemas.listingOf(query);
    const isNames = query.view === 'names';
    const identity = {
      list: isNames ? 'credentialNames' : 'credentials',
      subject: caller.sub,
      filters: JSON.parse(JSON.stringify({ ...listing, team: team?.slug ?? null })) as JsonObject,
    };
    const page = cursors.page(query, identity);
    if (isNames) {
      const { rows, end } = await lists.listNames(caller, team, listing, page);
      const { items, nextCursor } = cursors.cut(
        rows,
        page,
        identity,
        ({ sortKey, id }) => [sortKey, id],
        end,
      );
      return { items: showEach(items, schemas.showName), nextCursor };
    }
    const found = await lists.list(caller, team, listing, page);
    const { items, nextCursor } = cursors.cut(
      found.rows,
      page,
      identity,
      ({ place }) => place,
      found.end,
    );
    return {
      items: showEach(
        items.filter(({ isShown }) => isShown),
        ({ row, resolved }) => showSeen(row, resolved),
      ),
      nextCursor,
    };
  };

  addOperation(app, {
    method: 'GET',
    url: '/v1/teams/:team/credentials',
    access: { team: 'credential.read', by: 'team' },
    operationId: 'listTeamCredentials',
    tag: 'credentials',
    summary: 'List the credentials of a team, or those shared with it',
    description: listDescription,
    params: teamPath,
    query: schemas.credentialListQuery,
    problems: ['invalidCursor'],
    success: { status: 200, schema: schemas.credentialList, description: 'A page of credentials.' },
    handler: ({ scope, query, caller }) => list(caller, scope.team, query),
  });
  addOperation(app, {
    method: 'GET',
    url: '/v1/credentials',
    access: { each: 'credential.read' },
    operationId: 'listCredentials',
    tag: 'credentials',
    summary: 'List every credential that you may see',
    description: listDescription,
    query: schemas.credentialListQuery,
    problems: ['invalidCursor'],
    success: {
      status: 200,
      schema: schemas.credentialList,
      description:
        'A page of the credentials of all your teams, and of those that are shared with them ' +
        'or with you; each once.',
    },
    handler: ({ query, caller }) => list(caller, undefined, query),
  });
  addOperation(app, {
    method: 'GET',
    url: '/v1/teams/:team/problems',
    access: { team: 'credential.read', by: 'team' },
    operationId: 'countTeamProblems',
    tag: 'credentials',
    summary: 'Count the credentials of a team, and those with problems',
    description: 'The credentials themselves: the list, with `problem`.',
    params: teamPath,
    success: {
      status: 200,
      schema: schemas.teamProblems,
      description: 'The counts, as they are now.',
    },
    handler: ({ scope }) => lists.countProblems(scope.team),
  });
}
