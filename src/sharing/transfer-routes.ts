// The HTTP face of transfers.
import { shownType } from '../credentials/index.ts';
import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import type { Idempotency } from '../http/idempotency.ts';
import { addOperation } from '../http/operation.ts';
import type { Cursors } from '../http/paging.ts';
import { setEtag } from '../http/preconditions.ts';
import {
  credentialPath,
  id,
  name,
  pageOf,
  pageQuery,
  revision,
  slug,
  subject,
  teamPath,
  time,
  typeText,
} from '../http/schemas.ts';
import type { TransfersService } from './transfers.ts';
import { showEach } from '../shared/showing.ts';
import type { CredentialRow } from '../credentials/index.ts';
import type { TransferRow } from './types.ts';

const transfer = z
  .strictObject({
    id,
    credential: id,
    name,
    type: typeText,
    from: slug.meta({ description: 'The team that owns it.' }),
    to: slug.meta({ description: 'The team that it is offered to.' }),
    expiresAt: time.meta({ description: 'Until when it can be accepted.' }),
    createdAt: time,
    createdBy: subject,
  })
  .meta({ id: 'Transfer', description: 'An open offer.' });
const transferPage = pageOf(transfer).meta({ id: 'TransferPage' });
const transferCreate = z
  .strictObject({ team: slug })
  .meta({ id: 'TransferCreate', examples: [{ team: 'billing' }] });
const transferAccepted = z
  .strictObject({ credential: id, team: slug, name, type: typeText, revision })
  .meta({ id: 'TransferAccepted', description: 'Where the credential is now.' });
const transferPath = z.strictObject({ transfer: id });

const showTransfer = (row: TransferRow): z.output<typeof transfer> => ({
  id: row.id,
  credential: row.credential,
  name: row.offered.name,
  type: shownType(row.offered.type),
  from: row.slug,
  to: row.toSlug,
  expiresAt: row.expiresAt,
  createdAt: row.createdAt,
  createdBy: row.createdBy,
});

/** Adds the operations on transfers. */
export function registerTransfers(
  app: FastifyInstance,
  {
    service,
    idempotency,
    cursors,
  }: { service: TransfersService; idempotency: Idempotency; cursors: Cursors },
): void {
  addOperation(app, {
    method: 'POST',
    url: '/v1/credentials/:id/transfers',
    access: { team: 'credential.manage', by: 'credential' },
    operationId: 'offerTransfer',
    tag: 'sharing',
    summary: 'Offer a credential to another team',
    description:
      'An admin of that team accepts it or not, within 7 days; until then nothing changes. One ' +
      'open offer a credential. The own team and one that there is not are refused (`ownTeam`, ' +
      '`unknownTeam`).',
    params: credentialPath,
    body: transferCreate,
    guards: { idempotencyKey: true },
    success: { status: 201, schema: transfer, description: 'The offer.' },
    problems: ['stateConflict'],
    handler: ({ scope, body, caller, request }) =>
      idempotency
        .run({
          request,
          caller,
          execute: (claim) =>
            service.offerTransfer(caller, scope.resource as CredentialRow, body.team, claim),
          load: (made) => service.getTransfer(made),
        })
        .then(showTransfer),
  });
  addOperation(app, {
    method: 'GET',
    url: '/v1/teams/:team/transfers',
    access: { team: 'credential.manage', by: 'team' },
    operationId: 'listTransfers',
    tag: 'sharing',
    summary: 'List the open offers of a team and to it',
    params: teamPath,
    query: z.strictObject(pageQuery),
    problems: ['invalidCursor'],
    success: {
      status: 200,
      schema: transferPage,
      description: 'A page of offers, in the order in which they were made.',
    },
    handler: async ({ scope, query, caller }) => {
      const identity = {
        list: 'transfers',
        subject: caller.sub,
        filters: { team: scope.team.slug },
      };
      const page = cursors.page(query, identity);
      const { items, nextCursor } = cursors.cut(
        await service.listTransfers(caller, scope.team, page),
        page,
        identity,
        ({ row }) => [row.id],
      );
      return {
        items: showEach(
          items.filter(({ isShown }) => isShown),
          ({ row }) => showTransfer(row),
        ),
        nextCursor,
      };
    },
  });
  addOperation(app, {
    method: 'POST',
    url: '/v1/transfers/:transfer/accept',
    access: { each: 'credential.manage' },
    operationId: 'acceptTransfer',
    tag: 'sharing',
    summary: 'Accept a credential that is offered to your team',
    description:
      'For admins of that team. The credential moves with every version and its connected ' +
      "account, re-encrypted under that team's key, in one transaction or not at all. Its " +
      'policy stays; its grants, tickets and offers end. ' +
      'Refused while the team has a credential of its name (`nameTaken`), while a version does ' +
      'not open (`undecryptable`), and where its versions are larger than 128 MiB together ' +
      '(`stateConflict`). One at a time is taken over by a team on a replica.',
    params: transferPath,
    guards: { idempotencyKey: true, etag: true },
    success: { status: 200, schema: transferAccepted, description: 'Where the credential is now.' },
    problems: [
      'notFound',
      'nameTaken',
      'limitReached',
      'undecryptable',
      'keyBusy',
      'keyUnavailable',
      'stateConflict',
    ],
    handler: async ({ params, caller, request, reply }) => {
      const row = await idempotency.run({
        request,
        caller,
        execute: (claim) => service.acceptTransfer(caller, params.transfer, claim),
        load: (accepted) => service.getAccepted(caller, accepted),
      });
      setEtag(reply, row.revision);
      return {
        credential: row.id,
        team: row.slug,
        name: row.name,
        type: shownType(row.type),
        revision: row.revision,
      };
    },
  });
  addOperation(app, {
    method: 'DELETE',
    url: '/v1/transfers/:transfer',
    access: { each: 'credential.manage' },
    operationId: 'declineTransfer',
    tag: 'sharing',
    summary: 'Remove an open offer',
    description:
      'Declined by an admin of the team that it is to, or withdrawn by one of the team that it ' +
      'is of.',
    params: transferPath,
    success: { status: 204, description: 'The offer is over.' },
    problems: ['notFound'],
    handler: async ({ params, caller }) => {
      await service.declineTransfer(caller, params.transfer);
      return undefined;
    },
  });
}
