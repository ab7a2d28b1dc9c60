// The HTTP face of engines. Keys come in and go out as public JWKs; a private one is refused
// without being looked at.
import { superRefined } from '../shared/refine.ts';
import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import type { Idempotency } from '../http/idempotency.ts';
import { engineKeysMax } from '../shared/limits.ts';
import { canShow } from '../http/answers.ts';
import { addOperation } from '../http/operation.ts';
import type { Cursors } from '../http/paging.ts';
import { expectedRevision, setEtag } from '../http/preconditions.ts';
import { id, keyId, name, pageOf, pageQuery, revision, subject, time } from '../http/schemas.ts';
import type { EnginesService, SeenEngine } from './service.ts';
import { showEach, showOne } from '../shared/showing.ts';
import type { EngineRow } from './types.ts';

// 32 bytes as base64url; the last character has two bits to spare, which must be zero.
const coordinate = z
  .string()
  .length(43)
  .regex(/^[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]$/, '43 characters of canonical base64url: 32 bytes')
  .meta({
    id: 'JwkCoordinate',
    description: '32 bytes as base64url.',
    examples: ['hSDwCYkwp1R0i33ctD73Wg2_Og0mOBr066SpjqqbTmo'],
  });
const okp = { kty: z.literal('OKP'), crv: z.literal('X25519'), x: coordinate };
const ec = { kty: z.literal('EC'), crv: z.literal('P-256'), x: coordinate, y: coordinate };
const asSent = {
  kid: keyId.optional().meta({ description: 'If given, the RFC 7638 thumbprint.' }),
  use: z.literal('enc').optional(),
  alg: z.literal('ECDH-ES').optional(),
};
const publicJwk = z
  .strictObject({
    kty: z.enum(['OKP', 'EC']),
    crv: z.enum(['X25519', 'P-256']),
    x: coordinate,
    y: coordinate.optional(),
  })
  .meta({
    id: 'PublicJwk',
    description: 'RFC 7517; only public members.',
    printedAs: z.discriminatedUnion('kty', [
      z.strictObject(okp).meta({ id: 'OkpJwk' }),
      z.strictObject(ec).meta({ id: 'EcJwk' }),
    ]),
  });

const jwkMembers = ['kty', 'crv', 'x', 'y', 'kid', 'use', 'alg'];
const privateMembers = ['d', 'p', 'q', 'dp', 'dq', 'qi', 'oth', 'k'];
// Loose and checked by hand: a private member has a rule of its own, so that whoever sent it learns
// that the key is to be thrown away.
const publicJwkInput = superRefined(
  z.looseObject({
    kty: z.enum(['OKP', 'EC']),
    crv: z.enum(['X25519', 'P-256']),
    x: coordinate,
    y: coordinate.optional(),
    ...asSent,
  }),
  (jwk, context) => {
    for (const member of Object.keys(jwk)) {
      if (jwkMembers.includes(member)) continue;
      // SECURITY: a private key must not enter the vault; neither its value nor a stranger's name
      // is said back.
      if (privateMembers.includes(member))
        context.addIssue({ code: 'custom', path: [member], message: 'privateKey' });
      else context.addIssue({ code: 'unrecognized_keys', keys: [member] });
    }
  },
  'Members that are private, or that nobody knows, are refused.',
).meta({
  id: 'PublicJwkInput',
  printedAs: z.discriminatedUnion('kty', [
    z.strictObject({ ...okp, ...asSent }).meta({ id: 'OkpJwkInput' }),
    z.strictObject({ ...ec, ...asSent }).meta({ id: 'EcJwkInput' }),
  ]),
  description:
    'X25519 (`OKP`) or P-256 (`EC`, with `y`), public members only. Make a pair on the engine; ' +
    'the private half never leaves it.',
  examples: [{ kty: 'OKP', crv: 'X25519', x: 'hSDwCYkwp1R0i33ctD73Wg2_Og0mOBr066SpjqqbTmo' }],
});

const state = z
  .enum(['enabled', 'disabled'])
  .meta({ id: 'EngineState', description: 'A disabled engine is refused at its next request.' });
const engineName = name.meta({ examples: ['n8n production'] });
const engineSubject = subject.meta({ examples: ['n8n'] });
const engine = z
  .strictObject({
    id,
    name: engineName,
    subject: engineSubject,
    state,
    keys: z
      .array(z.strictObject({ kid: keyId, jwk: publicJwk, createdAt: time, createdBy: subject }))
      .max(engineKeysMax)
      .meta({ description: 'Oldest first.' }),
    intact: z.boolean().meta({
      examples: [true],
      description:
        'Whether the registration is as the vault wrote it. One that is not counts for ' +
        'nothing: delete it, and register the engine again.',
    }),
    revision,
    createdAt: time,
    createdBy: subject,
    updatedAt: time,
    updatedBy: subject,
  })
  .meta({ id: 'Engine' });
const engineCreate = z
  .strictObject({
    name: engineName,
    subject: engineSubject,
    keys: z.array(publicJwkInput).min(1).max(engineKeysMax),
  })
  .meta({
    id: 'EngineCreate',
    examples: [
      {
        name: 'n8n production',
        subject: 'n8n',
        keys: [{ kty: 'OKP', crv: 'X25519', x: 'hSDwCYkwp1R0i33ctD73Wg2_Og0mOBr066SpjqqbTmo' }],
      },
    ],
  });
const engineUpdate = z
  .strictObject({ name: engineName.optional(), state: state.optional() })
  .meta({ id: 'EngineUpdate', examples: [{ state: 'disabled' }] });
const engineKeyCreate = z.strictObject({ key: publicJwkInput }).meta({
  id: 'EngineKeyCreate',
  examples: [
    { key: { kty: 'OKP', crv: 'X25519', x: 'hSDwCYkwp1R0i33ctD73Wg2_Og0mOBr066SpjqqbTmo' } },
  ],
});
const enginePath = z.strictObject({ engine: id });
const engineKeyPath = z.strictObject({ engine: id, kid: keyId });
const access = { operator: 'engine.manage' } as const;

const showEngine = (row: SeenEngine): z.output<typeof engine> => ({
  id: row.id,
  name: row.name,
  subject: row.sub,
  state: row.state,
  keys: row.keys.map(({ kid, jwk, createdAt, createdBy }) => ({
    kid,
    jwk: { ...jwk },
    createdAt,
    createdBy,
  })),
  intact: row.intact,
  revision: row.revision,
  createdAt: row.createdAt,
  createdBy: row.createdBy,
  updatedAt: row.updatedAt,
  updatedBy: row.updatedBy,
});

/** Whether an engine can be answered with. */
export const canShowEngine = canShow<EngineRow>(engine, (row) =>
  showEngine({ ...row, intact: true }),
);

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
