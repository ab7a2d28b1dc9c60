// What goes in and out of the operations on tickets.
import { z } from 'zod';
import {
  purposeLengthMax,
  ticketSecondsDefault,
  ticketSecondsMax,
  ticketsMax,
  tokenLengthMax,
} from '../shared/limits.ts';
import { publicFields } from '../credentials/index.ts';
import { id, line, name, slug, subject, time, typeText } from '../http/schemas.ts';
import { jwtForm, portForm } from '../shared/patterns.ts';
import { refined } from '../shared/refine.ts';
import { ticketForm } from './tickets.ts';

const host = z
  .string()
  .max(253)
  .regex(
    new RegExp(
      `^(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\\.){0,40}[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?` +
        `${portForm}$`,
    ),
    'a lower-case host name, perhaps with a port',
  )
  .meta({
    id: 'TicketHost',
    description:
      'Where the calls go, one of those that the policy allows, with its port where that is ' +
      'not 443; left out for a type with a destination of its own, and where the policy allows ' +
      'exactly one.',
    examples: ['api.example.com'],
  });
const onBehalfOf = subject.meta({
  description:
    'For whom the workflow runs: needs `credential.use`, at every call. May be missing only ' +
    "where `actsForItself` is set on the engine's membership.",
});
/** For whom and where, beside which credential. */
const more = { onBehalfOf: onBehalfOf.optional(), host: host.optional() };
const seconds = z.int().min(1).max(ticketSecondsMax);

export const ticketCreate = refined(
  z.strictObject({
    credential: z
      .union([z.strictObject({ id }), z.strictObject({ team: slug, name })])
      .optional()
      .meta({
        id: 'CredentialName',
        description: 'One credential by itself, by id, or by team and name. Taken until 1.0.',
        examples: [{ team: 'payments', name: 'openai-prod' }],
      }),
    credentials: z
      .array(
        z
          .union([z.strictObject({ id, ...more }), z.strictObject({ team: slug, name, ...more })])
          .meta({
            id: 'TicketFor',
            description: 'A credential, by id, or by team and name; for whom, and where.',
            examples: [{ team: 'payments', name: 'openai-prod' }],
          }),
      )
      .min(1)
      .max(ticketsMax)
      .optional(),
    purpose: line(purposeLengthMax)
      .min(1)
      .meta({
        description: 'Stands in the audit log of the team whose credential is used.',
        examples: ['invoice run'],
      }),
    runId: line(100)
      .min(1)
      .optional()
      .meta({ description: 'The run, as the engine calls it.', examples: ['run-2031'] }),
    onBehalfOf: onBehalfOf.optional().meta({
      description: 'For whom, where a credential names nobody of its own.',
    }),
    subjectToken: z
      .string()
      .max(tokenLengthMax)
      .regex(jwtForm, 'a JWT')
      .optional()
      .meta({
        description:
          "A token of that person for this vault: makes the engine's word proof, and stands for " +
          '`onBehalfOf` when that is missing.',
        writeOnly: true,
      }),
    host: host.optional(),
    ttlSeconds: seconds.optional().meta({
      format: 'int32',
      description:
        `At most what the policy gives (\`limits.ticketSeconds\`); ${ticketSecondsDefault}, or ` +
        `that if it is less, when left out.`,
      examples: [ticketSecondsDefault],
    }),
  }),
  {
    rule: 'credentialOrCredentials',
    check: ({ credential, credentials, host: ofOne }) =>
      (credential === undefined) !== (credentials === undefined) &&
      (ofOne === undefined || credential !== undefined),
    says: 'Either `credential`, perhaps with `host`, or `credentials`.',
  },
).meta({
  id: 'BrokerTicketCreate',
  examples: [
    {
      credentials: [
        { team: 'payments', name: 'openai-prod' },
        { team: 'payments', name: 'slack-bot', onBehalfOf: 'bo' },
      ],
      purpose: 'invoice run',
      runId: 'run-2031',
      onBehalfOf: 'alice',
    },
  ],
});

export const ticketUpdate = z
  .strictObject({
    ttlSeconds: seconds.meta({ format: 'int32', examples: [ticketSecondsDefault] }),
  })
  .meta({ id: 'BrokerTicketUpdate', examples: [{ ttlSeconds: ticketSecondsDefault }] });

export const ticketExtended = z
  .strictObject({ id, expiresAt: time })
  .meta({ id: 'BrokerTicketExtended' });

const ticket = z
  .string()
  .length(47)
  .regex(ticketForm)
  .meta({
    id: 'Ticket',
    description:
      'Stands for the secret at the broker and nowhere else. Shown once; the vault keeps a hash.',
    examples: ['vbt_8n3yq5kQw0v2Zb1x7LrTt4uJcE6mHsGfD9aVpXoYiRk'],
  });
const url = (id: string, description: string, example: string) =>
  z
    .string()
    .max(2_000)
    .regex(/^https?:\/\/[^\s?#]+\/$/)
    .meta({ id, format: 'uri', description, examples: [example] });
const baseUrl = url(
  'TicketBaseUrl',
  "Stands for the credential's own base URL: give it to an SDK, and the ticket as its API key. " +
    'The same for every ticket of the credential, until it is renamed; `…/-/{id}/` stays beyond ' +
    'that.',
  'https://broker.example/payments/openai-prod/',
);
const hostUrl = url(
  'TicketHostUrl',
  'The same as a host of its own, for SDKs that take a host and no path; only where the ' +
    'platform operator has set that up.',
  'https://019aa7c2-5b1e-7c3a-9d52-0a4f6e1b2c3d.broker-hosts.example/',
);
export const ticketCreated = z
  .strictObject({
    id: id.meta({ description: 'By which all of them are extended and ended.' }),
    expiresAt: time,
    credentials: z
      .array(
        z.strictObject({
          id,
          team: slug,
          name,
          type: typeText,
          publicFields,
          ticket,
          baseUrl,
          hostUrl: hostUrl.optional(),
        }),
      )
      .max(ticketsMax)
      .meta({ description: 'In the order of the request.' }),
    ticket: ticket.meta({ description: 'That of the first one: read it in `credentials`.' }),
    baseUrl: baseUrl.meta({ description: 'That of the first one: read it in `credentials`.' }),
  })
  .meta({ id: 'BrokerTicket' });
