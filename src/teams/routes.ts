// The HTTP face of teams and members.
import { unique } from '../shared/refine.ts';
import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import { canShow } from '../http/answers.ts';
import type { Idempotency } from '../http/idempotency.ts';
import { addOperation } from '../http/operation.ts';
import type { Cursors } from '../http/paging.ts';
import { expectedRevision, sentRevision, setEtag } from '../http/preconditions.ts';
import {
  deliveryList,
  name,
  pageOf,
  pageQuery,
  revision,
  slug,
  subject,
  teamPath,
  time,
  tokenFormat,
} from '../http/schemas.ts';
import type { SeenMember, SeenTeam, TeamsService } from './service.ts';
import { showEach, showOne } from '../shared/showing.ts';
import { decide, roles } from '../access/index.ts';
import type { MemberRow } from './types.ts';

const role = z
  .enum(roles)
  .meta({ id: 'Role', description: 'What a member may do; see the action of each operation.' });
const stamps = {
  revision,
  createdAt: time,
  createdBy: subject,
  updatedAt: time,
  updatedBy: subject,
};
const teamName = name.meta({ examples: ['Payments'] });
const settings = {
  tokenFormat,
  rotateEveryDays: z
    .int()
    .min(1)
    .max(3650)
    .meta({ format: 'int32' })
    .nullable()
    .meta({
      id: 'RotateEveryDays',
      description: "The keys' rotation policy; null is none.",
      examples: [90],
    }),
  refuseExposedLeases: z.boolean().meta({
    id: 'RefuseExposedLeases',
    description: 'Refuse leases of credentials whose value was ever under a compromised key.',
  }),
  defaultDelivery: deliveryList.meta({
    id: 'DefaultDelivery',
    description: 'The delivery of credentials that are stored without a policy.',
  }),
  versionsKept: z
    .int()
    .min(1)
    .max(1_000)
    .meta({
      id: 'VersionsKept',
      format: 'int32',
      description:
        'How many versions of a credential are kept, the current one counted in; those beyond ' +
        'go when the next one is made.',
      examples: [10],
    }),
};
const settingsIntact = z.boolean().meta({
  examples: [true],
  description:
    'Whether the settings are as the vault wrote them. Where they are not they count for ' +
    'nothing, until an admin sends all of them.',
});
const team = z
  .strictObject({ slug, name: teamName, ...settings, intact: settingsIntact, ...stamps })
  .meta({ id: 'Team' });
const teamWithRole = z
  .strictObject({ slug, name: teamName, ...settings, intact: settingsIntact, role, ...stamps })
  .meta({ id: 'TeamWithRole' });
const teamCreate = z
  .strictObject({
    slug,
    name: teamName,
    admins: unique(z.array(subject).min(1).max(20)).meta({
      description: 'The first admins; a team keeps at least one.',
    }),
  })
  .meta({
    id: 'TeamCreate',
    examples: [{ slug: 'payments', name: 'Payments', admins: ['alice'] }],
  });
const teamUpdate = z
  .strictObject({
    name: teamName.optional(),
    tokenFormat: tokenFormat.optional(),
    rotateEveryDays: settings.rotateEveryDays.optional(),
    refuseExposedLeases: settings.refuseExposedLeases.optional(),
    defaultDelivery: settings.defaultDelivery.optional(),
    versionsKept: settings.versionsKept.optional(),
  })
  .meta({ id: 'TeamUpdate', examples: [{ name: 'Payments and billing' }] });
const member = z
  .strictObject({
    subject,
    role,
    actsForItself: z
      .boolean()
      .meta({ description: 'Engines only: may lease without `onBehalfOf`.' }),
    intact: z.boolean().meta({
      description:
        'Whether the row is as the vault wrote it. A member whose row is not can do nothing: ' +
        'put or remove it.',
    }),
    ...stamps,
  })
  .meta({ id: 'Member' });
const memberPut = z
  .strictObject({ role, actsForItself: z.boolean().optional() })
  .meta({ id: 'MemberPut', examples: [{ role: 'editor' }] });
const memberPath = z.strictObject({ team: slug, subject });

const showTeam = (row: SeenTeam): z.output<typeof team> => ({
  slug: row.slug,
  name: row.name,
  tokenFormat: row.tokenFormat,
  rotateEveryDays: row.rotateEveryDays,
  refuseExposedLeases: row.refuseExposedLeases,
  defaultDelivery: [...row.defaultDelivery],
  versionsKept: row.versionsKept,
  intact: row.intact,
  revision: row.revision,
  createdAt: row.createdAt,
  createdBy: row.createdBy,
  updatedAt: row.updatedAt,
  updatedBy: row.updatedBy,
});
const showMember = (row: SeenMember): z.output<typeof member> => ({
  subject: row.sub,
  role: row.role,
  actsForItself: row.actsForItself,
  intact: row.intact,
  revision: row.revision,
  createdAt: row.createdAt,
  createdBy: row.createdBy,
  updatedAt: row.updatedAt,
  updatedBy: row.updatedBy,
});

/** Whether these rows can be answered with. */
export const canShowTeams = {
  team: canShow(team, showTeam),
  member: canShow<MemberRow>(member, (row) => showMember({ ...row, intact: true })),
};

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
        await service.listMembers(scope.team, page, request.id),
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
      const row = await service.putMember(
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
      await service.removeMember(caller, scope.team, params.subject, expectedRevision(request));
      return undefined;
    },
  });
}
