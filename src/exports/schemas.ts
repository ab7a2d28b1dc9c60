// The lines of an export. Each kind is strict: a column that is read and not named here does not go
// out, it stops the export.
import { z } from 'zod';
import {
  count,
  deliveryList,
  fingerprint,
  queryFlag,
  id,
  line,
  name,
  revision,
  slug,
  subject,
  time,
  timeOrNull,
  tokenFormat,
  version,
} from '../http/schemas.ts';
import type { Line } from './kinds.ts';
import { roles } from '../access/index.ts';
import { event } from '../audit-events/index.ts';
import { credential as credentialShape } from '../credentials/index.ts';
import {
  ciphertextTables,
  type DescribedKind,
  type ExportForm,
  key as keyShape,
  rotation as rotationShape,
} from '../keys/index.ts';
import { delivery as deliveryShape, shownWebhook as webhookShape } from '../notifications/index.ts';
import { reasons } from '../oauth/index.ts';
import { lettersForm } from '../shared/patterns.ts';

export const exportQuery = z.strictObject({
  events: queryFlag.meta({ description: '`false` leaves the audit events out.', examples: [true] }),
});

const { labels, description, policy, publicFields, secretFields, type } = credentialShape.shape;
const some = timeOrNull;
const who = subject.nullable().meta({ description: 'null where the vault did it by itself.' });
const made = { createdAt: time, createdBy: subject };
const stamps = { ...made, updatedAt: time, updatedBy: subject };
const intact = z.boolean().meta({ description: 'Whether the row is as the vault wrote it.' });
const keyHistory = z
  .array(id)
  .max(100_000)
  .meta({ description: 'Every key that the value was ever under.', examples: [[]] });
const living = z.enum(['enabled', 'disabled']);

const lines = {
  export: z
    .strictObject({
      kind: z.literal('export'),
      format: z
        .int()
        .min(1)
        .max(1_000)
        .meta({ format: 'int32', description: 'Of the lines; 1.', examples: [1] }),
      team: slug,
      at: time,
      by: subject,
      withEvents: z.boolean(),
    })
    .meta({ id: 'ExportHead', description: 'The first line.' }),
  team: z
    .strictObject({
      kind: z.literal('team'),
      id,
      slug,
      name,
      tokenFormat,
      rotateEveryDays: z
        .int()
        .min(1)
        .max(3650)
        .meta({ format: 'int32' })
        .nullable()
        .meta({ examples: [null] }),
      refuseExposedLeases: z.boolean(),
      defaultDelivery: deliveryList,
      versionsKept: z
        .int()
        .min(1)
        .max(1_000)
        .meta({ format: 'int32', examples: [10] }),
      intact: z.boolean().meta({ examples: [true] }),
      revision,
      ...stamps,
    })
    .meta({ id: 'ExportTeam' }),
  member: z
    .strictObject({
      kind: z.literal('member'),
      subject,
      role: z.enum(roles),
      actsForItself: z.boolean(),
      intact,
      revision,
      ...stamps,
    })
    .meta({ id: 'ExportMember' }),
  key: z
    .strictObject({
      kind: z.literal('key'),
      id,
      version,
      state: keyShape.shape.state,
      format: tokenFormat,
      fingerprint,
      rootFingerprint: fingerprint,
      rootFingerprints: z.array(fingerprint).min(1).max(1000),
      createdAt: time,
      createdBy: who,
      demotedAt: some,
      retiredAt: some,
      compromisedAt: some,
      compromisedBy: who,
      compromiseReason: line(200)
        .nullable()
        .meta({ examples: [null] }),
      destroyScheduledAt: some,
      destroyAt: some,
      destroyedAt: some,
    })
    .meta({ id: 'ExportKey', description: 'A key of the team: no material, not even wrapped.' }),
  rotation: z
    .strictObject({
      kind: z.literal('rotation'),
      id,
      state: rotationShape.shape.state,
      toKey: id,
      total: count,
      done: count,
      cause: rotationShape.shape.cause,
      createdAt: time,
      createdBy: who,
      progressedAt: time,
      endedAt: some,
    })
    .meta({ id: 'ExportRotation' }),
  rotationFailure: z
    .strictObject({
      kind: z.literal('rotationFailure'),
      rotation: id,
      credential: id,
      version: version
        .nullable()
        .meta({ description: 'null: the OAuth tokens stored for the credential.' }),
      at: time,
    })
    .meta({ id: 'ExportRotationFailure' }),
  credential: z
    .strictObject({
      kind: z.literal('credential'),
      id,
      name,
      type,
      description,
      labels,
      state: z.enum([...living.options, 'deleted']),
      stateBefore: living
        .nullable()
        .meta({ description: 'Of a deleted one: what it comes back to.', examples: [null] }),
      isDeleted: z.boolean(),
      deletedAt: some,
      version,
      expiresAt: some,
      rotateAfter: some,
      useCount: count,
      lastUsedAt: some,
      intact,
      revision,
      ...stamps,
    })
    .meta({
      id: 'ExportCredential',
      description:
        'A credential, deleted ones included until they are destroyed. What a version says ' +
        'stands in its line.',
    }),
  version: z
    .strictObject({
      kind: z.literal('version'),
      credential: id,
      version,
      isCurrent: z.boolean(),
      publicFields,
      secretFields,
      policy,
      key: id.meta({ description: 'The key that its value is under.' }),
      keyHistory,
      undecryptableAt: some,
      ...made,
    })
    .meta({ id: 'ExportVersion', description: 'A version without its values.' }),
  connection: z
    .strictObject({
      kind: z.literal('connection'),
      credential: id,
      isHeld: z.boolean().meta({ description: 'Whether an access token is held.' }),
      key: id.nullable(),
      keyHistory,
      sequence: count,
      expiresAt: some,
      isRefreshable: z.boolean(),
      obtainedAt: some,
      connectedAt: some,
      connectedBy: who,
      attempts: count,
      retryAt: some,
      failure: z
        .enum(reasons)
        .nullable()
        .meta({ examples: [null] }),
      failedAt: some,
      unavailableSince: some,
      forcedCount: count,
      forceAfter: some,
      rejectedAt: some,
      instanceUrl: line(300)
        .nullable()
        .meta({ examples: [null] }),
    })
    .meta({
      id: 'ExportConnection',
      description: 'How a credential stands with its OAuth provider.',
    }),
  authorization: z
    .strictObject({
      kind: z.literal('authorization'),
      id,
      credential: id,
      subject,
      createdAt: time,
      expiresAt: time,
    })
    .meta({
      id: 'ExportAuthorization',
      description: 'Somebody has begun to connect an account and has not come back.',
    }),
  grant: z
    .strictObject({
      kind: z.literal('grant'),
      id,
      credential: id,
      to: z.enum(['team', 'subject', 'engine']),
      team: slug.nullable(),
      subject: subject.nullable(),
      access: z.enum(['read', 'use']),
      intact,
      revision,
      ...stamps,
    })
    .meta({
      id: 'ExportGrant',
      description: 'What another team or somebody may do with a credential of this one.',
    }),
  ticket: z
    .strictObject({
      kind: z.literal('ticket'),
      id,
      bundle: id
        .nullable()
        .meta({ description: 'By which it is extended and ended; its own id where it is null.' }),
      credential: id,
      engine: id,
      onBehalfOf: who,
      host: line(253)
        .nullable()
        .meta({ examples: [null] }),
      expiresAt: time,
      createdAt: time,
    })
    .meta({
      id: 'ExportTicket',
      description:
        'A ticket of the broker, until it is destroyed. What it is presented as is not stored.',
    }),
  webhook: z
    .strictObject({
      kind: z.literal('webhook'),
      credential: id,
      events: webhookShape.shape.events,
      intact,
      servedAt: some,
      pausedUntil: some,
      failingSince: some,
      deliveredAt: some,
      goneAt: some,
      revision,
      ...stamps,
    })
    .meta({ id: 'ExportWebhook', description: 'A credential to which notifications go.' }),
  notification: z
    .strictObject({
      kind: z.literal('notification'),
      credential: id.meta({ description: 'Of the webhook.' }),
      id,
      type: deliveryShape.shape.type,
      subjectType: line(40),
      subject: line(255),
      dueAt: time,
      at: time,
      state: deliveryShape.shape.state,
      attempts: deliveryShape.shape.attempts,
      nextAttemptAt: some,
      lastAttemptAt: some,
      outcome: deliveryShape.shape.outcome,
      endedAt: some,
    })
    .meta({
      id: 'ExportNotification',
      description: 'A message that waits for a webhook, or was sent within the last 35 days.',
    }),
  event: z
    .strictObject({ kind: z.literal('event'), ...event.shape })
    .meta({ id: 'ExportEvent', description: 'An audit event, newest first.' }),
  unreadable: z
    .strictObject({
      kind: z.literal('unreadable'),
      of: z
        .string()
        .max(40)
        .regex(lettersForm, 'letters')
        .meta({ examples: ['credential'] }),
      id: id.nullable(),
    })
    .meta({
      id: 'ExportUnreadable',
      description: 'A row that was changed past the vault until it fits no shape.',
    }),
  end: z.strictObject({ kind: z.literal('end'), lines: count }).meta({
    id: 'ExportEnd',
    description: 'The last line, with how many there are. Without it the export broke off.',
  }),
} as const;

const forms: Readonly<Record<ExportForm, z.ZodType>> = {
  count,
  flag: z.boolean(),
  time,
  timeOrNull: some,
};

/** The schema of a kind that the descriptor of its table describes. */
const describedLine = ({ kind, schema, description, members }: DescribedKind) =>
  z
    .strictObject({
      kind: z.literal(kind),
      credential: id,
      number: count,
      key: id.nullable(),
      keyHistory,
      ...Object.fromEntries(
        Object.entries(members).map(([member, { form }]) => [member, forms[form]]),
      ),
    })
    .meta({ id: schema, description });

const allLines: Readonly<Record<string, (typeof lines)[keyof typeof lines]>> = {
  ...lines,
  ...Object.fromEntries(
    ciphertextTables.flatMap(({ exported }) =>
      exported.spelled === undefined ? [[exported.kind, describedLine(exported)]] : [],
    ),
  ),
};

/** Any line. */
export const exportLine = z
  .discriminatedUnion(
    'kind',
    Object.values(allLines) as unknown as [typeof lines.export, typeof lines.end],
  )
  .meta({ id: 'ExportLine' });

/**
 * A line as text, as its kind's schema lets it out. One tampered row does not end the export; it is
 * reported.
 */
export function textOf(
  given: Line,
  onUnreadable: (row: { readonly kind: string; readonly id: string | null }) => void,
): string {
  const { success, data } = lineOf(given.kind).safeParse(given);
  if (success && data.kind !== 'unreadable') return `${JSON.stringify(data)}\n`;
  const of = success && data.kind === 'unreadable' ? data.of : given.kind;
  const named = id.safeParse(given['id'] ?? given['credential']).data ?? null;
  onUnreadable({ kind: of, id: named });
  return `${JSON.stringify({ kind: 'unreadable', of, id: named })}\n`;
}

function lineOf(kind: string): (typeof lines)[keyof typeof lines] {
  const of = allLines[kind];
  if (of === undefined) throw new TypeError('a kind of line without a schema');
  return of;
}
