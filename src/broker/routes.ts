// The HTTP face of tickets. The broker itself listens elsewhere (./listener.ts).
import type { FastifyInstance } from 'fastify';
import { type Authenticator, onBehalfOf } from '../http/authentication.ts';
import { ticketSecondsDefault } from '../shared/limits.ts';
import { addOperation } from '../http/operation.ts';
import { credentialPath } from '../http/schemas.ts';
import { ticketCreate, ticketCreated } from './schemas.ts';
import type { BrokerService, TicketInput } from './service.ts';

/** Adds the operations on tickets. */
export function registerBrokerTickets(
  app: FastifyInstance,
  { service, authenticator }: { service: BrokerService; authenticator: Authenticator },
): void {
  addOperation(app, {
    method: 'POST',
    url: '/v1/broker-tickets',
    access: { each: 'credential.lease' },
    operationId: 'createBrokerTicket',
    tag: 'broker',
    summary: 'Create a ticket to use one credential through the broker',
    description:
      'A refusal names the rule: `notFound` (or you may not know of it), `deleted`, ' +
      '`disabled`, `expired`, `exposed`, `undecryptable`, `deliveryNotAllowed`, ' +
      '`notBrokerable` ' +
      '(the type or the value cannot be put into a request), `hostRequired`, `hostNotAllowed`, ' +
      '`onBehalfOfRequired`, `onBehalfOfRefused`. All of it is asked again at every call. ' +
      'Takes no idempotency key: a repetition is another ticket.',
    body: ticketCreate,
    success: { status: 201, schema: ticketCreated, description: 'The ticket, this once.' },
    problems: [
      'ticketRefused',
      'brokerOff',
      'subjectTokenInvalid',
      'stateConflict',
      'keyUnavailable',
    ],
    handler: async ({ body, caller, request }) =>
      service.createTicket(caller, {
        credential: body.credential as TicketInput['credential'],
        purpose: body.purpose,
        runId: body.runId,
        host: body.host,
        onBehalfOf: await onBehalfOf(request, authenticator, body),
        ttlSeconds: body.ttlSeconds ?? ticketSecondsDefault,
      }),
  });
  addOperation(app, {
    method: 'DELETE',
    url: '/v1/broker-tickets/:id',
    access: { each: 'credential.lease' },
    operationId: 'deleteBrokerTicket',
    tag: 'broker',
    summary: 'Delete a ticket',
    description:
      "For the engine that made it, and for admins of the credential's team. The next call " +
      'with it is refused.',
    params: credentialPath,
    success: { status: 204, description: 'The ticket is good for nothing any more.' },
    problems: ['notFound'],
    handler: async ({ params, caller }) => service.deleteTicket(caller, params.id),
  });
}
