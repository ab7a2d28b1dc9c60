// The HTTP face of grants.
import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import { canShow } from '../http/answers.ts';
import { addOperation } from '../http/operation.ts';
import type { Cursors } from '../http/paging.ts';
import { expectedRevision, sentRevision, setEtag } from '../http/preconditions.ts';
import {
  credentialPath,
  id,
  pageOf,
  pageQuery,
  revision,
  slug,
  subject,
  time,
} from '../http/schemas.ts';
import type { SeenGrant, SharingService } from './service.ts';
import { showEach } from '../shared/showing.ts';
import type { CredentialRow } from '../credentials/index.ts';
import type { Grantee, SharedGrantRow } from './types.ts';

const access = z.enum(['read', 'use']).meta({
  id: 'GrantAccess',
  description:
    '`read`: the metadata. `use`: that, and to let a workflow use it; an engine may lease it ' +
    'or take a ticket for it.',
});
const grant = z
  .strictObject({
    id,
    kind: z
      .enum(['team', 'subject', 'engine'])
      .meta({ description: 'To a team, to somebody, or to the subject of a registered engine.' }),
    team: slug.nullable().meta({
      description: "The team that it is to; a member's role there says how much of it they have.",
    }),
    subject: subject.nullable().meta({ description: 'Whom it is to.', examples: [null] }),
    access,
    intact: z.boolean().meta({
      description:
        'Whether the row is as the vault wrote it. One that is not gives nothing: put or ' +
        'remove it.',
    }),
    revision,
    createdAt: time,
    createdBy: subject,
    updatedAt: time,
    updatedBy: subject,
  })
  .meta({ id: 'Grant' });
const grantPut = z.strictObject({ access }).meta({ id: 'GrantPut', examples: [{ access: 'use' }] });
const grantPage = pageOf(grant).meta({ id: 'GrantPage' });

const showGrant = (row: SeenGrant): z.output<typeof grant> => ({
  id: row.id,
  kind: row.kind,
  team: row.kind === 'team' ? row.name : null,
  subject: row.kind === 'team' ? null : row.name,
  access: row.access,
  intact: row.intact,
  revision: row.revision,
  createdAt: row.createdAt,
  createdBy: row.createdBy,
  updatedAt: row.updatedAt,
  updatedBy: row.updatedBy,
});

/** Whether a grant can be answered with. */
export const canShowGrant = canShow<SharedGrantRow>(grant, (row) =>
  showGrant({ ...row, intact: true }),
);

/** Adds the operations on grants. */
export function registerGrants(
  app: FastifyInstance,
  { service, cursors }: { service: SharingService; cursors: Cursors },
): void {
  addOperation(app, {
    method: 'GET',
    url: '/v1/credentials/:id/grants',
    access: { team: 'credential.manage', by: 'credential' },
    operationId: 'listGrants',
    tag: 'sharing',
    summary: 'List the grants of a credential',
    params: credentialPath,
    query: z.strictObject(pageQuery),
    problems: ['invalidCursor'],
    success: {
      status: 200,
      schema: grantPage,
      description: 'A page of grants, in the order in which they were made.',
    },
    handler: async ({ scope, query, caller, request }) => {
      const row = scope.resource as CredentialRow;
      const identity = { list: 'grants', subject: caller.sub, filters: { credential: row.id } };
      const page = cursors.page(query, identity);
      const { items, nextCursor } = cursors.cut(
        await service.listGrants(row, page, request.id),
        page,
        identity,
        (each) => [each.id],
      );
      return { items: showEach(items, showGrant), nextCursor };
    },
  });
  for (const kind of ['team', 'subject'] as const) {
    const isTeam = kind === 'team';
    const url = isTeam
      ? '/v1/credentials/:id/grants/teams/:team'
      : '/v1/credentials/:id/grants/subjects/:subject';
    const params = z.strictObject(
      isTeam ? { id, team: slug } : { id, subject },
    ) as unknown as z.ZodType<{ id: string; team?: string; subject?: string }>;
    const to = (path: { team?: string; subject?: string }): Grantee => ({
      kind,
      name: (isTeam ? path.team : path.subject) ?? '',
    });
    addOperation(app, {
      method: 'PUT',
      url,
      access: { team: 'credential.manage', by: 'credential' },
      operationId: isTeam ? 'putTeamGrant' : 'putSubjectGrant',
      tag: 'sharing',
      summary: isTeam
        ? 'Share a credential with a team, or change how'
        : 'Share a credential with somebody, or change how',
      description: isTeam
        ? 'What a grant gives is the grant and the role in the receiving team: to lease it takes ' +
          '`use` and the role `engine` there. If-Match is needed when there is a grant already. ' +
          'The own team and one that there is not are refused (`ownTeam`, `unknownTeam`).'
        : 'Gives `credential.read`, with `use` also `credential.use`; to an engine ' +
          '`credential.lease`, and then always `onBehalfOf` somebody. If-Match is needed when ' +
          'there is a grant already.',
      params,
      body: grantPut,
      guards: { ifMatch: 'existing', etag: true },
      success: { status: 200, schema: grant, description: 'The grant.' },
      problems: isTeam
        ? ['limitReached', 'stateConflict']
        : ['limitReached', 'notAnEngine', 'issuerTeams'],
      handler: async ({ scope, params: path, body, caller, request, reply }) => {
        const row = await service.putGrant(
          caller,
          scope.resource as CredentialRow,
          to(path),
          body.access,
          sentRevision(request),
        );
        setEtag(reply, row.revision);
        return showGrant({ ...row, intact: true });
      },
    });
    addOperation(app, {
      method: 'DELETE',
      url,
      access: { team: 'credential.manage', by: 'credential' },
      operationId: isTeam ? 'removeTeamGrant' : 'removeSubjectGrant',
      tag: 'sharing',
      summary: isTeam ? 'Remove the grant to a team' : 'Remove the grant to somebody',
      description: 'It counts at the next request, for tickets that were made before too.',
      params,
      guards: { ifMatch: true },
      success: { status: 204, description: 'Ended.' },
      handler: async ({ scope, params: path, caller, request }) => {
        await service.removeGrant(
          caller,
          scope.resource as CredentialRow,
          to(path),
          expectedRevision(request),
        );
        return undefined;
      },
    });
  }
}
