// The HTTP face of tests of connections.
import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import { addOperation } from '../http/operation.ts';
import { credentialPath } from '../http/schemas.ts';
import { testOutcomes, steps } from './report.ts';
import type { ConnectionsService } from './service.ts';
import type { CredentialRow } from '../credentials/index.ts';

const report = z
  .strictObject({
    ok: z.boolean().meta({ description: 'Whether every step went well.' }),
    steps: z
      .array(
        z.strictObject({
          step: z.enum(steps).meta({
            description:
              '`name`: resolving it; a target that the vault may not reach is the same as a ' +
              'name that does not exist.',
          }),
          outcome: z.enum(testOutcomes).meta({
            description:
              '`refused`: the log-in was not accepted. `unexpected`: the other side does not ' +
              'answer as a server of this kind does.',
          }),
        }),
      )
      .max(steps.length)
      .meta({ description: 'In their order; the last one is where it ended.' }),
  })
  .meta({
    id: 'ConnectionReport',
    description: 'Nothing that the other side sent is in it.',
    examples: [
      {
        ok: false,
        steps: [
          { step: 'name', outcome: 'ok' },
          { step: 'connect', outcome: 'ok' },
          { step: 'tls', outcome: 'ok' },
          { step: 'login', outcome: 'refused' },
        ],
      },
    ],
  });

/** Adds the operation on connections. */
export function registerConnections(
  app: FastifyInstance,
  { service }: { service: ConnectionsService },
): void {
  addOperation(app, {
    method: 'POST',
    url: '/v1/credentials/:id/test',
    access: { team: 'credential.use', by: 'credential' },
    operationId: 'testConnection',
    tag: 'credentials',
    summary: 'Test a credential against its own destination',
    description:
      'With the stored values only, by the rule of its type; the answer says at which step it ' +
      'ended. Ten a minute and team; by a grant those of the team that it is to. Takes no ' +
      'idempotency key: a repetition is another test.',
    params: credentialPath,
    success: {
      status: 200,
      schema: report,
      description: 'What became of the test; a log-in that fails is an answer like others.',
    },
    problems: ['notTestable', 'stateConflict', 'undecryptable', 'keyUnavailable'],
    handler: ({ scope, caller }) =>
      service.testConnection(caller, scope.resource as CredentialRow, scope.grantPath),
  });
}
