// The demo's act about the broker: a key is used, and nobody who uses it ever has it.
import { demoSecret, type Stage } from './demo-stage.ts';
import type { DemoUpstream } from './demo-upstream.ts';

interface Ticket {
  readonly id: string;
  readonly ticket: string;
  readonly baseUrl: string;
}

/** A broker-only credential, a ticket, a call with it, and the end of the ticket. */
export async function useBroker(stage: Stage, upstream: DemoUpstream): Promise<void> {
  stage.chapter('Use without holding');
  const apiKey = demoSecret();
  const { id } = await stage.call<{ id: string }>(
    'alice',
    'POST',
    '/v1/teams/payments/credentials',
    {
      body: {
        name: 'model',
        type: 'openai',
        fields: { apiKey, baseUrl: upstream.url },
        policy: { delivery: ['broker'], allowedHosts: [], methods: ['POST'] },
      },
      expects: 201,
      shows: ({ id }) => ({ id }),
    },
  );
  await stage.call('n8n', 'POST', '/v1/leases', {
    body: { credentials: [{ id }], purpose: 'invoice run', onBehalfOf: 'erin' },
    expects: 422,
  });
  const {
    ticket,
    baseUrl,
    id: ticketId,
  } = await stage.call<Ticket>('n8n', 'POST', '/v1/broker-tickets', {
    body: { credential: { id }, purpose: 'invoice run', onBehalfOf: 'erin' },
    expects: 201,
    shows: (made) => ({ ticket: `${made.ticket.slice(0, 8)}…`, baseUrl: made.baseUrl }),
  });
  const answer = await stage.call<{ answer: number; youSent: string }>(
    'workflow',
    'POST',
    `${baseUrl}v1/chat/completions`,
    { body: { question: 'all?' }, ticket, expects: 200, shows: (got) => got },
  );
  stage.check(
    'the service got the key, the workflow got its answer',
    upstream.lastAuthorization() === `Bearer ${apiKey}` && answer.answer === 42,
  );
  stage.check(
    'and the key that the service sent back was taken out of it',
    !answer.youSent.includes(apiKey),
  );
  await stage.call('workflow', 'GET', `${baseUrl}v1/models`, { ticket, expects: 403 });
  await stage.call('alice', 'DELETE', `/v1/broker-tickets/${ticketId}`, { expects: 204 });
  await stage.call('workflow', 'POST', `${baseUrl}v1/chat/completions`, {
    body: {},
    ticket,
    expects: 401,
  });
  stage.check('its key stands in no answer', stage.search(apiKey).hits === 0);
}
