// The HTTP face of tickets. The broker itself listens elsewhere (./listener.ts).
import type { FastifyInstance, FastifyRequest } from 'fastify';
import type { z } from 'zod';
import { type Authenticator, onBehalfOf } from '../http/authentication.ts';
import { addOperation } from '../http/operation.ts';
import { shownType } from '../credentials/index.ts';
import { credentialPath } from '../http/schemas.ts';
import type { Wanted } from './references.ts';
import { ticketCreate, ticketCreated, ticketExtended, ticketUpdate } from './schemas.ts';
import type { BrokerService, Bundle } from './service.ts';
import type { TicketLife } from './ticket-life.ts';

const rulesOfRefusals =
  '`notFound` (or you may not know of it), `deleted`, `disabled`, `expired`, `exposed`, ' +
  '`undecryptable`, `deliveryNotAllowed`, `notBrokerable` ' +
  '(the type or the value cannot be put into a request), `hostRequired`, `hostNotAllowed`, ' +
  '`onBehalfOfRequired`, `onBehalfOfRefused`, `duplicate` (the same credential for the same ' +
  'person and host), ' +
  '`size` (of all together: ask in parts), and `max` of `ttlSeconds` where a policy gives less.';

/** Adds the operations on tickets. */
export function registerBrokerTickets(
  app: FastifyInstance,
  {
    service,
    life,
    authenticator,
  }: { service: BrokerService; life: TicketLife; authenticator: Authenticator },
): void {
  addOperation(app, {
    method: 'POST',
    url: '/v1/broker-tickets',
    access: { each: 'credential.lease' },
    operationId: 'createBrokerTicket',
    tag: 'broker',
    summary: 'Create tickets to use credentials through the broker',
    description:
      'A ticket for each credential, good for that one only; all or none. One id extends and ' +
      'ends them. ' +
      `A refusal points at each reference and names the rule: ${rulesOfRefusals} All of it is ` +
      `asked again at every call. ` +
      'Takes no idempotency key: a repetition makes other tickets.',
    body: ticketCreate,
    success: { status: 201, schema: ticketCreated, description: 'The tickets, this once.' },
    problems: [
      'ticketRefused',
      'brokerOff',
      'subjectTokenInvalid',
      'stateConflict',
      'keyUnavailable',
    ],
    handler: async ({ body, caller, request }) => {
      const bundle = await service.createTickets(caller, {
        wanted: await wantedOf(body, request, authenticator),
        isAlone: body.credential !== undefined,
        purpose: body.purpose,
        runId: body.runId,
        ttlSeconds: body.ttlSeconds,
      });
      return answerOf(bundle);
    },
  });
  addOperation(app, {
    method: 'PATCH',
    url: '/v1/broker-tickets/:id',
    access: { each: 'credential.lease' },
    operationId: 'updateBrokerTicket',
    tag: 'broker',
    summary: 'Extend the tickets of one call',
    description:
      'For the engine that made them. They end `ttlSeconds` from now; from their making they ' +
      'can last as long as `limits.ticketSeconds` of the policies says, an hour without it. ' +
      `Every right is asked again, and for all of them or none; a refusal names it as at their ` +
      `making, by the order in which they were made. What has ended stays ended (404).`,
    params: credentialPath,
    body: ticketUpdate,
    success: { status: 200, schema: ticketExtended, description: 'When they end.' },
    problems: ['notFound', 'ticketRefused', 'stateConflict', 'keyUnavailable'],
    handler: async ({ params, body, caller }) =>
      life.extendTickets(caller, params.id, body.ttlSeconds),
  });
  addOperation(app, {
    method: 'DELETE',
    url: '/v1/broker-tickets/:id',
    access: { each: 'credential.lease' },
    operationId: 'deleteBrokerTicket',
    tag: 'broker',
    summary: 'Delete the tickets of one call',
    description:
      "For the engine that made them; for admins of a credential's team, those of the team's " +
      'credentials. The next call with one is refused.',
    params: credentialPath,
    success: { status: 204, description: 'The tickets are good for nothing any more.' },
    problems: ['notFound'],
    handler: async ({ params, caller }) => life.deleteTickets(caller, params.id),
  });
}

/**
 * What is asked for. Who is named for all of them counts where an item names nobody; a token of a
 * person proves that one and no other.
 */
async function wantedOf(
  body: z.output<typeof ticketCreate>,
  request: FastifyRequest,
  authenticator: Authenticator,
): Promise<Wanted[]> {
  const forAll = await onBehalfOf(request, authenticator, body);
  if (body.credential !== undefined)
    return [
      {
        reference: body.credential as Wanted['reference'],
        onBehalfOf: forAll,
        host: body.host,
      },
    ];
  return (body.credentials ?? []).map(({ onBehalfOf: sub, host, ...reference }) => ({
    reference: reference as Wanted['reference'],
    onBehalfOf:
      sub === undefined
        ? forAll
        : { sub, isProven: forAll?.isProven === true && forAll.sub === sub },
    host,
  }));
}

function answerOf({ id, expiresAt, credentials }: Bundle): z.input<typeof ticketCreated> {
  const { ticket, baseUrl } = credentials[0]!;
  return {
    id,
    expiresAt,
    credentials: credentials.map(({ row, hostUrl, ...each }) => ({
      id: row.id,
      team: row.slug,
      name: row.name,
      type: shownType(row.type),
      publicFields: each.publicFields,
      ticket: each.ticket,
      baseUrl: each.baseUrl,
      ...(hostUrl === undefined ? {} : { hostUrl }),
    })),
    // As when one call made one ticket.
    ticket,
    baseUrl,
  };
}
