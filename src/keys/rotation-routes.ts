// The HTTP face of key rotations.
import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import type { Idempotency } from '../http/idempotency.ts';
import { canShow } from '../http/answers.ts';
import { addOperation, Otherwise } from '../http/operation.ts';
import type { Cursors } from '../http/paging.ts';
import { queryFlag, pageOf, pageQuery, teamPath } from '../http/schemas.ts';
import type { RotationId } from '../shared/ids.ts';
import * as schemas from './schemas.ts';
import type { KeysService, Rotation } from './service.ts';
import { showEach, showOne } from '../shared/showing.ts';

/** Adds the operations on rotations. */
export function registerRotations(
  app: FastifyInstance,
  {
    service,
    idempotency,
    cursors,
  }: { service: KeysService; idempotency: Idempotency; cursors: Cursors },
): void {
  addOperation(app, {
    method: 'POST',
    url: '/v1/teams/:team/key-rotations',
    access: { team: 'key.rotate', by: 'team' },
    operationId: 'startRotation',
    tag: 'keys',
    summary: 'Start a key rotation',
    description:
      'The new key is active at once; every token under another key is re-encrypted in the ' +
      'background. Values, versions and ETags do not change.',
    params: teamPath,
    body: schemas.reasonBody,
    isBodyOptional: true,
    query: z.strictObject({
      dryRun: queryFlag.meta({ description: 'Only say what it would come to.' }),
    }),
    guards: { idempotencyKey: true },
    success: {
      status: 202,
      schema: schemas.rotation,
      location: true,
      links: { getRotation: { team: '$request.path.team', rotation: '$response.body#/id' } },
      description: 'The rotation; follow it by its id.',
    },
    otherwise: {
      status: 200,
      schema: schemas.forecast,
      description: 'With `dryRun=true`: nothing was started.',
    },
    problems: ['rotationRunning', 'limitReached', 'keyBusy'],
    handler: async ({ scope, caller, request, reply, query, body }) => {
      if (query.dryRun === true)
        return new Otherwise(schemas.showForecast(await service.forecastRotation(scope.team)));
      const row = await idempotency.run<Rotation>({
        request,
        caller,
        execute: (claim) => service.startRotation(caller, scope.team, claim, body?.reason),
        load: (started) => service.getRotation(scope.team, started as RotationId),
      });
      void reply.header('Location', `/v1/teams/${scope.team.slug}/key-rotations/${row.id}`);
      return schemas.showRotation(row);
    },
  });
  addOperation(app, {
    method: 'GET',
    url: '/v1/teams/:team/key-rotations',
    access: { team: 'key.read', by: 'team' },
    operationId: 'listRotations',
    tag: 'keys',
    summary: 'List the key rotations of a team',
    params: teamPath,
    query: z.strictObject(pageQuery),
    success: {
      status: 200,
      schema: pageOf(schemas.rotation).meta({ id: 'KeyRotationPage' }),
      description: 'A page of rotations, newest first.',
    },
    problems: ['invalidCursor'],
    handler: async ({ scope, query, caller }) => {
      const identity = {
        list: 'keyRotations',
        subject: caller.sub,
        filters: { team: scope.team.slug },
      };
      const page = cursors.page(query, identity);
      const { items, nextCursor } = cursors.cut(
        await service.listRotations(scope.team, page),
        page,
        identity,
        (row) => [row.id],
      );
      return { items: showEach(items, schemas.showRotation), nextCursor };
    },
  });
  addOperation(app, {
    method: 'GET',
    url: '/v1/teams/:team/key-rotations/:rotation',
    access: { team: 'key.read', by: 'team' },
    operationId: 'getRotation',
    tag: 'keys',
    summary: 'Read a key rotation with its progress',
    params: schemas.rotationPath,
    success: {
      status: 200,
      schema: schemas.rotationWithFailures,
      description: 'The rotation as it is now.',
    },
    handler: async ({ scope, params }) => {
      const row = await service.getRotation(scope.team, params.rotation as RotationId);
      return showOne(row, (each) => ({
        ...schemas.showRotation(each),
        failures: each.failures.map(schemas.showFailure),
      }));
    },
  });
  addOperation(app, {
    method: 'POST',
    url: '/v1/teams/:team/key-rotations/:rotation/cancel',
    access: { team: 'key.rotate', by: 'team' },
    operationId: 'cancelRotation',
    tag: 'keys',
    summary: 'Cancel a running key rotation',
    description:
      'Re-encryption stops; the new key stays active. A later rotation re-encrypts what is left.',
    params: schemas.rotationPath,
    success: { status: 200, schema: schemas.rotation, description: 'The cancelled rotation.' },
    problems: ['rotationNotRunning'],
    handler: async ({ scope, params, caller }) => {
      const id = params.rotation as RotationId;
      const isReadable = canShow(schemas.rotation, schemas.showRotation);
      if (!isReadable(await service.getRotation(scope.team, id)))
        throw await service.unreadable(caller, scope.team, { type: 'rotation', id });
      return schemas.showRotation(await service.cancelRotation(caller, scope.team, id));
    },
  });
}
