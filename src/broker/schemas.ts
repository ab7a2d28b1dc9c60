// What goes in and out of the operations on tickets.
import { z } from 'zod';
import {
  purposeLengthMax,
  ticketSecondsDefault,
  ticketSecondsMax,
  tokenLengthMax,
} from '../shared/limits.ts';
import { id, line, name, slug, subject, time } from '../http/schemas.ts';
import { jwtForm } from '../shared/patterns.ts';
import { ticketForm } from './tickets.ts';

export const ticketCreate = z
  .strictObject({
    credential: z.union([z.strictObject({ id }), z.strictObject({ team: slug, name })]).meta({
      id: 'CredentialName',
      description: 'By id, or by team and name.',
      examples: [{ team: 'payments', name: 'openai-prod' }],
    }),
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
    onBehalfOf: subject.optional().meta({
      description:
        'For whom the workflow runs: needs `credential.use`, at every call. May be missing ' +
        "only where `actsForItself` is set on the engine's membership.",
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
    host: z
      .string()
      .max(253)
      .regex(/^[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?$/, 'a lower-case host name')
      .optional()
      .meta({
        description:
          "Where the calls go, one of the policy's `allowedHosts`; left out for a type with a " +
          'destination of its own, and where the policy names exactly one host.',
        examples: ['api.example.com'],
      }),
    ttlSeconds: z
      .int()
      .min(1)
      .max(ticketSecondsMax)
      .optional()
      .meta({ format: 'int32', default: ticketSecondsDefault, examples: [ticketSecondsDefault] }),
  })
  .meta({
    id: 'BrokerTicketCreate',
    examples: [
      {
        credential: { team: 'payments', name: 'openai-prod' },
        purpose: 'invoice run',
        runId: 'run-2031',
        onBehalfOf: 'alice',
      },
    ],
  });

export const ticketCreated = z
  .strictObject({
    id,
    ticket: z
      .string()
      .length(47)
      .regex(ticketForm)
      .meta({
        description:
          'Stands for the secret at the broker and nowhere else. Shown once; the vault keeps a ' +
          'hash.',
        examples: ['vbt_8n3yq5kQw0v2Zb1x7LrTt4uJcE6mHsGfD9aVpXoYiRk'],
      }),
    baseUrl: z
      .string()
      .max(500)
      .regex(/^https?:\/\/[^\s?#]+\/$/)
      .meta({
        format: 'uri',
        description:
          "Stands for the credential's own base URL: give it to an SDK, and the ticket as its " +
          'API key.',
        examples: ['https://broker.example/broker/019aa7c2-5b1e-7c3a-9d52-0a4f6e1b2c3d/'],
      }),
    expiresAt: time,
  })
  .meta({ id: 'BrokerTicket' });
