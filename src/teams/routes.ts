// The HTTP face of teams and members.
import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import type { Idempotency } from '../http/idempotency.ts';
import { addOperation } from '../http/operation.ts';
import type { Cursors } from '../http/paging.ts';
import { expectedRevision, sentRevision, setEtag } from '../http/preconditions.ts';
import { pageOf, pageQuery, teamPath } from '../http/schemas.ts';
import type { SeenTeam, TeamsService } from './service.ts';
import { showEach, showOne } from '../shared/showing.ts';
import { decide } from '../access/index.ts';
import {
  member,
  memberPath,
  memberPut,
  showMember,
  showTeam,
  team,
  teamCreate,
  teamUpdate,
  teamWithRole,
} from './schemas.ts';

/** Adds the operations on teams and members. */
export function registerTeams(
  app: FastifyInstance,
  {
    service,
    idempotency,
    cursors,
  }: { service: TeamsService; idempotency: Idempotency; cursors: Cursors },
): void {
  addOperation(app, {
    method: 'POST',
    url: '/v1/teams',
    access: { operator: 'team.create' },
    operationId: 'createTeam',
    tag: 'teams',
    summary: 'Create a team with its first key and its admins',
    body: teamCreate,
    guards: { idempotencyKey: true, etag: true },
    success: {
      status: 201,
      schema: team,
      location: 'ifReadable',
      links: { getTeam: { team: '$response.body#/slug' } },
      description: 'The team.',
    },
    problems: ['slugTaken', 'isAnEngine', 'issuerTeams', 'limitReached'],
    handler: async ({ body, caller, request, reply }) => {
      const row = await idempotency.run({
        request,
        caller,
        execute: (claim) => service.createTeam(caller, body, claim),
        load: (made) => service.getTeam(made, caller),
      });
      setEtag(reply, row.revision);
      // An operator has no role in a team, unless it is among the admins, and still is.
      if (
        body.admins.includes(caller.sub) &&
        decide(await service.resolveTeam(caller, row.slug), 'team.read').kind === 'allow'
      )
        void reply.header('Location', `/v1/teams/${row.slug}`);
      return showTeam(row);
    },
  });
  addOperation(app, {
    method: 'GET',
    url: '/v1/teams',
    access: 'authenticated',
    operationId: 'listTeams',
    tag: 'teams',
    summary: 'List the teams in which you hold a role',
    query: z.strictObject(pageQuery),
    success: {
      status: 200,
      schema: pageOf(teamWithRole).meta({ id: 'TeamPage' }),
      description: 'A page of teams, by slug.',
    },
    problems: ['invalidCursor'],
    handler: async ({ query, caller }) => {
      const identity = { list: 'teams', subject: caller.sub, filters: {} };
      const page = cursors.page(query, identity);
      const { items, nextCursor } = cursors.cut(
        await service.listTeams(caller, page),
        page,
        identity,
        ({ team: row }) => [row.slug],
      );
      return {
        items: showEach(items, ({ team: row, role: held }) => ({ ...showTeam(row), role: held })),
        nextCursor,
      };
    },
  });
  addOperation(app, {
    method: 'GET',
    url: '/v1/teams/:team',
    access: { team: 'team.read', by: 'team' },
    operationId: 'getTeam',
    tag: 'teams',
    summary: 'Read a team',
    params: teamPath,
    guards: { etag: true },
    success: { status: 200, schema: team, description: 'The team.' },
    handler: async ({ scope, request, reply }) => {
      const row = scope.resource as SeenTeam;
      if (!row.intact) service.alarm(scope.team, request.id);
      setEtag(reply, row.revision);
      return showOne(row, showTeam);
    },
  });
  addOperation(app, {
    method: 'PATCH',
    url: '/v1/teams/:team',
    access: { team: 'team.manage', by: 'team' },
    operationId: 'updateTeam',
    tag: 'teams',
    summary: 'Change a team',
    description:
      'A new token format counts from the next key rotation on; tokens of both formats open ' +
      'all along. Where the settings are not `intact`, all but the name have to be sent.',
    params: teamPath,
    body: teamUpdate,
    guards: { ifMatch: true, etag: true },
    success: { status: 200, schema: team, description: 'The team as it is now.' },
    problems: ['stateConflict'],
    handler: async ({ scope, body, caller, request, reply }) => {
      const row = await service.updateTeam(caller, scope.team, body, expectedRevision(request));
      setEtag(reply, row.revision);
      return showTeam(row);
    },
  });
  addOperation(app, {
    method: 'DELETE',
    url: '/v1/teams/:team',
    access: { team: 'team.manage', by: 'team' },
    operationId: 'deleteTeam',
    tag: 'teams',
    summary: 'Delete a team that has no credentials',
    description:
      'The team is gone at once; its rows and keys are destroyed after 7 days. The slug is ' +
      'never given again.',
    params: teamPath,
    guards: { ifMatch: true },
    success: { status: 204, description: 'Deleted.' },
    problems: ['teamNotEmpty'],
    handler: async ({ scope, caller, request }) => {
      await service.deleteTeam(caller, scope.team, expectedRevision(request));
      return undefined;
    },
  });
  addOperation(app, {
    method: 'GET',
    url: '/v1/teams/:team/members',
    access: { team: 'team.read', by: 'team' },
    operationId: 'listMembers',
    tag: 'members',
    summary: 'List the members of a team',
    params: teamPath,
    query: z.strictObject(pageQuery),
    success: {
      status: 200,
      schema: pageOf(member).meta({ id: 'MemberPage' }),
      description: 'A page of members, by subject.',
    },
    problems: ['invalidCursor'],
    handler: async ({ scope, query, caller, request }) => {
      const identity = { list: 'members', subject: caller.sub, filters: { team: scope.team.slug } };
      const page = cursors.page(query, identity);
      const { items, nextCursor } = cursors.cut(
        await service.members.listMembers(scope.team, page, request.id),
        page,
        identity,
        (row) => [row.sub],
      );
      return { items: showEach(items, showMember), nextCursor };
    },
  });
  addOperation(app, {
    method: 'PUT',
    url: '/v1/teams/:team/members/:subject',
    access: { team: 'team.manage', by: 'team' },
    operationId: 'putMember',
    tag: 'members',
    summary: 'Add a member or change a role',
    description: 'If-Match is needed when the subject is a member already.',
    params: memberPath,
    body: memberPut,
    guards: { ifMatch: 'existing', etag: true },
    success: { status: 200, schema: member, description: 'The member.' },
    problems: ['lastAdmin', 'notAnEngine', 'isAnEngine', 'issuerTeams', 'limitReached'],
    handler: async ({ scope, params, body, caller, request, reply }) => {
      const row = await service.members.putMember(
        caller,
        scope.team,
        params.subject,
        body,
        sentRevision(request),
      );
      setEtag(reply, row.revision);
      return showMember({ ...row, intact: true });
    },
  });
  addOperation(app, {
    method: 'DELETE',
    url: '/v1/teams/:team/members/:subject',
    access: { team: 'team.manage', by: 'team' },
    operationId: 'removeMember',
    tag: 'members',
    summary: 'Remove a member',
    params: memberPath,
    guards: { ifMatch: true },
    success: { status: 204, description: 'Removed; it counts at the next request.' },
    problems: ['lastAdmin'],
    handler: async ({ scope, params, caller, request }) => {
      await service.members.removeMember(
        caller,
        scope.team,
        params.subject,
        expectedRevision(request),
      );
      return undefined;
    },
  });
}
