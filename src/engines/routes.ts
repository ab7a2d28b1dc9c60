// The HTTP face of engines. Keys come in and go out as public JWKs; a private one is refused
// without being looked at.
import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import type { Idempotency } from '../http/idempotency.ts';
import { addOperation } from '../http/operation.ts';
import type { Cursors } from '../http/paging.ts';
import { expectedRevision, setEtag } from '../http/preconditions.ts';
import { pageOf, pageQuery } from '../http/schemas.ts';
import type { EnginesService } from './service.ts';
import { showEach, showOne } from '../shared/showing.ts';
import {
  engine,
  engineCreate,
  engineKeyCreate,
  engineKeyPath,
  enginePath,
  engineUpdate,
  showEngine,
} from './schemas.ts';

const access = { operator: 'engine.manage' } as const;

/** Adds the operations on engines. */
export function registerEngines(
  app: FastifyInstance,
  {
    service,
    idempotency,
    cursors,
  }: { service: EnginesService; idempotency: Idempotency; cursors: Cursors },
): void {
  addOperation(app, {
    method: 'POST',
    url: '/v1/engines',
    access,
    operationId: 'createEngine',
    tag: 'engines',
    summary: 'Register a workflow engine with its public keys',
    description:
      'The subject may then be given the role `engine` in teams, and can hold no other role.',
    body: engineCreate,
    guards: { idempotencyKey: true, etag: true },
    success: {
      status: 201,
      schema: engine,
      location: true,
      links: { getEngine: { engine: '$response.body#/id' } },
      description: 'The engine.',
    },
    problems: ['subjectTaken', 'engineNameTaken', 'holdsARole'],
    handler: async ({ body, caller, request, reply }) => {
      const row = await idempotency.run({
        request,
        caller,
        execute: (claim) => service.createEngine(caller, body, claim),
        load: (made) => service.getEngine(made, request.id),
      });
      setEtag(reply, row.revision);
      void reply.header('Location', `/v1/engines/${row.id}`);
      return showEngine(row);
    },
  });
  addOperation(app, {
    method: 'GET',
    url: '/v1/engines',
    access,
    operationId: 'listEngines',
    tag: 'engines',
    summary: 'List the registered engines',
    query: z.strictObject(pageQuery),
    success: {
      status: 200,
      schema: pageOf(engine).meta({ id: 'EnginePage' }),
      description: 'A page of engines, by name.',
    },
    problems: ['invalidCursor'],
    handler: async ({ query, caller, request }) => {
      const identity = { list: 'engines', subject: caller.sub, filters: {} };
      const page = cursors.page(query, identity);
      const { items, nextCursor } = cursors.cut(
        await service.listEngines(page, request.id),
        page,
        identity,
        (row) => [row.name],
      );
      return { items: showEach(items, showEngine), nextCursor };
    },
  });
  addOperation(app, {
    method: 'GET',
    url: '/v1/engines/:engine',
    access,
    operationId: 'getEngine',
    tag: 'engines',
    summary: 'Read an engine',
    params: enginePath,
    guards: { etag: true },
    success: { status: 200, schema: engine, description: 'The engine.' },
    problems: ['notFound'],
    handler: async ({ params, request, reply }) => {
      const row = await service.getEngine(params.engine, request.id);
      setEtag(reply, row.revision);
      return showOne(row, showEngine);
    },
  });
  addOperation(app, {
    method: 'PATCH',
    url: '/v1/engines/:engine',
    access,
    operationId: 'updateEngine',
    tag: 'engines',
    summary: 'Rename, enable or disable an engine',
    params: enginePath,
    body: engineUpdate,
    guards: { ifMatch: true, etag: true },
    success: { status: 200, schema: engine, description: 'The engine as it is now.' },
    problems: ['notFound', 'engineNameTaken', 'stateConflict'],
    handler: async ({ params, body, caller, request, reply }) => {
      const row = await service.updateEngine(
        caller,
        params.engine,
        body,
        expectedRevision(request),
      );
      setEtag(reply, row.revision);
      return showEngine(row);
    },
  });
  addOperation(app, {
    method: 'DELETE',
    url: '/v1/engines/:engine',
    access,
    operationId: 'deleteEngine',
    tag: 'engines',
    summary: 'Remove an engine and its memberships',
    params: enginePath,
    guards: { ifMatch: true },
    success: { status: 204, description: 'Removed; it counts at the next request.' },
    problems: ['notFound'],
    handler: async ({ params, caller, request }) => {
      await service.deleteEngine(caller, params.engine, expectedRevision(request));
      return undefined;
    },
  });
  addOperation(app, {
    method: 'POST',
    url: '/v1/engines/:engine/keys',
    access,
    operationId: 'addEngineKey',
    tag: 'engines',
    summary: 'Register one more public key of an engine',
    description:
      'Leases go to the newest key unless the engine names another. Shows in the audit log of ' +
      'every team that the engine serves.',
    params: enginePath,
    body: engineKeyCreate,
    guards: { idempotencyKey: true, etag: true },
    success: {
      status: 201,
      schema: engine,
      links: { getEngine: { engine: '$response.body#/id' } },
      description: 'The engine with the key.',
    },
    problems: ['notFound', 'engineKeyTaken', 'stateConflict'],
    handler: async ({ params, body, caller, request, reply }) => {
      const row = await idempotency.run({
        request,
        caller,
        execute: (claim) => service.addEngineKey(caller, params.engine, body.key, claim),
        load: (made) => service.getEngine(made, request.id),
      });
      setEtag(reply, row.revision);
      return showEngine(row);
    },
  });
  addOperation(app, {
    method: 'DELETE',
    url: '/v1/engines/:engine/keys/:kid',
    access,
    operationId: 'removeEngineKey',
    tag: 'engines',
    summary: 'Remove a public key of an engine',
    description: 'If-Match takes the ETag of the engine. The last key stays.',
    params: engineKeyPath,
    guards: { ifMatch: true },
    success: { status: 204, description: 'Removed; no lease goes to it any more.' },
    problems: ['notFound', 'stateConflict'],
    handler: async ({ params, caller, request }) => {
      await service.removeEngineKey(caller, params.engine, params.kid, expectedRevision(request));
      return undefined;
    },
  });
}
