// The HTTP face of webhooks.
import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import { addOperation } from '../http/operation.ts';
import type { Cursors } from '../http/paging.ts';
import { expectedRevision, sentRevision, setEtag } from '../http/preconditions.ts';
import { pageOf, pageQuery, teamPath } from '../http/schemas.ts';
import {
  delivery,
  messages,
  showDelivery,
  showWebhook,
  shownWebhook,
  webhookList,
  webhookPath,
  webhookPut,
} from './schemas.ts';
import type { WebhooksService } from './service.ts';
import { showEach, showOne } from '../shared/showing.ts';

/** Adds the operations on webhooks. */
export function registerWebhooks(
  app: FastifyInstance,
  { service, cursors }: { service: WebhooksService; cursors: Cursors },
): void {
  addOperation(app, {
    method: 'GET',
    url: '/v1/teams/:team/webhooks',
    access: { team: 'team.read', by: 'team' },
    operationId: 'listWebhooks',
    tag: 'webhooks',
    summary: 'List the webhooks of a team',
    params: teamPath,
    success: {
      status: 200,
      schema: webhookList,
      description: 'All of them; a team has at most 10.',
    },
    handler: async ({ scope, request }) => ({
      items: showEach(await service.listWebhooks(scope.team, request.id), showWebhook),
    }),
  });
  addOperation(app, {
    method: 'GET',
    url: '/v1/teams/:team/webhooks/:credential',
    access: { team: 'team.read', by: 'team' },
    operationId: 'getWebhook',
    tag: 'webhooks',
    summary: 'Read a webhook',
    params: webhookPath,
    guards: { etag: true },
    success: { status: 200, schema: shownWebhook, description: 'The webhook.' },
    handler: async ({ scope, params, request, reply }) => {
      const row = await service.getWebhook(scope.team, params.credential, request.id);
      setEtag(reply, row.revision);
      return showOne(row, showWebhook);
    },
  });
  addOperation(app, {
    method: 'PUT',
    url: '/v1/teams/:team/webhooks/:credential',
    access: { team: 'team.manage', by: 'team' },
    operationId: 'putWebhook',
    tag: 'webhooks',
    summary: 'Add a webhook or change its events',
    description:
      "The credential is one of the team's of type `webhook`: it says where notifications go " +
      'and signs them. If-Match is needed when it is a webhook already. Putting it again also ' +
      'ends a pause, and takes up one that was `gone`.',
    params: webhookPath,
    body: webhookPut,
    guards: { ifMatch: 'existing', etag: true },
    success: { status: 200, schema: shownWebhook, description: 'The webhook.' },
    problems: ['stateConflict'],
    sends: messages,
    handler: async ({ scope, params, body, caller, request, reply }) => {
      const row = await service.putWebhook(
        caller,
        scope.team,
        params.credential,
        body.events,
        sentRevision(request),
      );
      setEtag(reply, row.revision);
      return showWebhook(row);
    },
  });
  addOperation(app, {
    method: 'DELETE',
    url: '/v1/teams/:team/webhooks/:credential',
    access: { team: 'team.manage', by: 'team' },
    operationId: 'deleteWebhook',
    tag: 'webhooks',
    summary: 'Remove a webhook',
    description: 'Nothing is sent there any more, what waits included. The credential stays.',
    params: webhookPath,
    guards: { ifMatch: true },
    success: { status: 204, description: 'Removed.' },
    handler: async ({ scope, params, caller, request }) => {
      await service.deleteWebhook(caller, scope.team, params.credential, expectedRevision(request));
      return undefined;
    },
  });
  addOperation(app, {
    method: 'POST',
    url: '/v1/teams/:team/webhooks/:credential/test',
    access: { team: 'team.manage', by: 'team' },
    operationId: 'testWebhook',
    tag: 'webhooks',
    summary: 'Test a webhook with a message',
    description:
      'Sends `webhook.test` the way everything else is sent. Its delivery shows what becomes ' +
      'of it. Takes no idempotency key: a repetition is another test.',
    params: webhookPath,
    success: { status: 202, schema: delivery, description: 'The message, on its way.' },
    problems: ['stateConflict'],
    handler: async ({ scope, params, caller }) =>
      showDelivery(await service.testWebhook(caller, scope.team, params.credential)),
  });
  addOperation(app, {
    method: 'GET',
    url: '/v1/teams/:team/webhooks/:credential/deliveries',
    access: { team: 'team.read', by: 'team' },
    operationId: 'listWebhookDeliveries',
    tag: 'webhooks',
    summary: 'List the messages to a webhook',
    description: 'Newest first; those that have ended for 35 days.',
    params: webhookPath,
    query: z.strictObject(pageQuery),
    success: {
      status: 200,
      schema: pageOf(delivery).meta({ id: 'WebhookDeliveryPage' }),
      description: 'A page of messages.',
    },
    problems: ['invalidCursor'],
    handler: async ({ scope, params, query, caller, request }) => {
      const identity = {
        list: 'webhookDeliveries',
        subject: caller.sub,
        filters: { team: scope.team.slug, credential: params.credential },
      };
      const page = cursors.page(query, identity);
      const { items, nextCursor } = cursors.cut(
        await service.listDeliveries(scope.team, params.credential, page, request.id),
        page,
        identity,
        (row) => [row.id],
      );
      return { items: showEach(items, showDelivery), nextCursor };
    },
  });
}
