// The schemas of webhooks, and of what is sent to them.
import { unique } from '../shared/refine.ts';
import { z } from 'zod';
import { canShow } from '../http/answers.ts';
import {
  count,
  id,
  line,
  name,
  revision,
  slug,
  subject,
  time,
  timeOrNull,
  version,
  typeText,
} from '../http/schemas.ts';
import {
  type DeliveryRow,
  deliveryStates,
  eventTypes,
  type NotificationType,
  outcomes,
  type WebhookRow,
} from './types.ts';
import { reasons } from '../oauth/index.ts';

const eventType = z.enum(eventTypes).meta({ id: 'NotificationType' });
const events = unique(z.array(eventType).min(1).max(eventTypes.length)).meta({
  id: 'NotificationTypes',
  description: 'The events it receives.',
  examples: [['credential.expiring', 'key.rotationEnded']],
});
export const webhookPath = z.strictObject({ team: slug, credential: id });
export const webhookPut = z.strictObject({ events }).meta({ id: 'WebhookPut' });
export const shownWebhook = z
  .strictObject({
    credential: z.strictObject({ id, name }).meta({
      description: 'Of type `webhook`: where notifications go, and the secret that signs them.',
    }),
    events,
    state: z.enum(['ok', 'failing', 'gone']).meta({
      description:
        '`failing`: the last attempt did not succeed. `gone`: the receiver answered 410, and ' +
        'nothing is sent until the webhook is put again.',
    }),
    pending: count.meta({ description: 'Messages that wait.', examples: [0] }),
    failingSince: timeOrNull,
    pausedUntil: timeOrNull.meta({ description: 'Nothing is sent before.' }),
    lastDeliveredAt: timeOrNull,
    revision,
    createdAt: time,
    createdBy: subject,
    updatedAt: time,
    updatedBy: subject,
  })
  .meta({ id: 'Webhook' });
export const webhookList = z
  .strictObject({ items: z.array(shownWebhook).max(10) })
  .meta({ id: 'WebhookList' });

export const delivery = z
  .strictObject({
    id: id.meta({ description: 'The `webhook-id` of the message, the same at every attempt.' }),
    type: z.enum([...eventTypes, 'webhook.test']),
    subject: z.strictObject({ type: line(40), id: line(255) }).meta({
      description: 'What it is about.',
      examples: [{ type: 'credential', id: '019aa7c2-5b1e-7c3a-9d52-0a4f6e1b2c3d' }],
    }),
    state: z.enum(deliveryStates),
    attempts: z
      .int()
      .min(0)
      .max(100)
      .meta({ format: 'int32', examples: [1] }),
    outcome: z
      .enum(outcomes)
      .nullable()
      .meta({
        description:
          'Of the last attempt. `name`: the host does not exist, or may not be reached. ' +
          '`refused`: 4xx. `unexpected`: any other answer but 2xx. `credential`: disabled, ' +
          'expired, or otherwise not to be used. ' +
          '`tooLate`: it waited for more than three days. `queueFull`: too much waited already.',
      }),
    createdAt: time,
    lastAttemptAt: timeOrNull,
    nextAttemptAt: timeOrNull,
    endedAt: timeOrNull,
  })
  .meta({ id: 'WebhookDelivery', description: 'Nothing that the receiver sent is in it.' });

const about = z.strictObject({
  id,
  name,
  type: typeText,
});
const dataKey = z.strictObject({ id, version });
const message = (type: NotificationType, data: z.ZodRawShape) =>
  z.strictObject({
    type: z.literal(type),
    timestamp: time,
    data: z.strictObject({ team: slug, ...data }),
  });

/** Every message that is sent, by its type. Members may be added to `data`. */
export const messages = {
  'credential.expiring': {
    summary: 'A credential expires within 14 days',
    schema: message('credential.expiring', { credential: about, expiresAt: time }),
  },
  'credential.expired': {
    summary: 'A credential has expired',
    schema: message('credential.expired', { credential: about, expiresAt: time }),
  },
  'credential.rotationDue': {
    summary: 'The secret of a credential should be replaced',
    schema: message('credential.rotationDue', { credential: about, rotateAfter: time }),
  },
  'credential.refreshFailed': {
    summary: 'A provider has refused to refresh for good',
    schema: message('credential.refreshFailed', {
      credential: about,
      reason: z.enum([...reasons, 'rejectedByUpstream']),
    }),
  },
  'credential.exposed': {
    summary: 'A data key was marked compromised, which exposes credentials',
    schema: message('credential.exposed', { key: dataKey }),
  },
  'key.rotationEnded': {
    summary: 'A rotation has ended',
    schema: message('key.rotationEnded', {
      rotation: z.strictObject({
        id,
        state: z.enum(['completed', 'completedWithFailures', 'cancelled']),
        toKey: id,
        total: count,
        done: count,
        failed: count,
      }),
    }),
  },
  'key.overdue': {
    summary: "A key was not rotated when the team's policy asked for it",
    schema: message('key.overdue', { key: dataKey, rotateAt: time }),
  },
  'row.sealBroken': {
    summary: 'A row was changed past the vault',
    schema: message('row.sealBroken', {
      row: z
        .strictObject({ type: line(40), id: line(255) })
        .meta({ examples: [{ type: 'credential', id: '019aa7c2-5b1e-7c3a-9d52-0a4f6e1b2c3d' }] }),
      action: line(60).meta({ description: 'What was refused.', examples: ['credential.read'] }),
    }),
  },
  'webhook.test': {
    summary: 'Somebody tests the webhook',
    schema: message('webhook.test', { credential: about }),
  },
} as const satisfies Readonly<Record<NotificationType, { summary: string; schema: z.ZodType }>>;

/** A webhook as it is answered. */
export const showWebhook = (row: WebhookRow): z.input<typeof shownWebhook> => ({
  credential: { id: row.credential, name: row.name },
  events: row.events as z.input<typeof shownWebhook>['events'],
  state: row.goneAt !== null ? 'gone' : row.failingSince !== null ? 'failing' : 'ok',
  pending: row.pending,
  failingSince: row.failingSince,
  pausedUntil: row.pausedUntil,
  lastDeliveredAt: row.deliveredAt,
  revision: row.revision,
  createdAt: row.createdAt,
  createdBy: row.createdBy,
  updatedAt: row.updatedAt,
  updatedBy: row.updatedBy,
});

/** Whether a webhook can be answered with. */
export const canShowWebhook = canShow(shownWebhook, showWebhook);

/** A message as it is answered. */
export const showDelivery = (row: DeliveryRow): z.input<typeof delivery> => ({
  id: row.id,
  type: row.type as z.input<typeof delivery>['type'],
  subject: { type: row.subjectType, id: row.subjectId },
  state: row.state,
  attempts: row.attempts,
  outcome: row.outcome,
  createdAt: row.at,
  lastAttemptAt: row.lastAttemptAt,
  nextAttemptAt: row.nextAttemptAt,
  endedAt: row.endedAt,
});
