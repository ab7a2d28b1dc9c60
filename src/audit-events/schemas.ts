// The shape of an audit event on the wire, and what a row becomes in it.
import { z } from 'zod';
import type { Keyring } from '../crypto/index.ts';
import { id, line, subject, time, version } from '../http/schemas.ts';
import type { JsonObject } from '../shared/json.ts';
import type { EventRow } from './repository.ts';
import { verifyAddress, verifyEvent } from '../audit/index.ts';
import { lettersForm } from '../shared/patterns.ts';

export const action = z
  .string()
  .min(3)
  .max(60)
  .regex(/^[a-zA-Z]+(?:\.[a-zA-Z]+)+$/, 'words with dots between')
  .meta({ examples: ['credential.create'] });
export const targetId = line(64).meta({ examples: ['019aa7c2-5b1e-7c3a-9d52-0a4f6e1b2c3d'] });
const text = line(255);
const detail = z.union([
  text,
  z.int().meta({ format: 'int64' }),
  z.boolean(),
  z.array(text).max(200),
]);
/** An event as clients see it. */
export const event = z
  .strictObject({
    id,
    at: time,
    actor: subject.nullable().meta({ description: 'Who; null when the subject was erased.' }),
    action,
    target: z
      .strictObject({
        type: z
          .string()
          .max(40)
          .regex(lettersForm, 'letters')
          .meta({ examples: ['credential'] }),
        id: targetId,
        subject: subject.nullable().meta({ description: 'When the target is a subject.' }),
      })
      .meta({ id: 'AuditTarget' }),
    decision: z.enum(['allow', 'deny']),
    reason: line(60).nullable(),
    requestId: line(64).meta({ examples: ['019aa7c2-5b1e-7c3a-9d52-0a4f6e1b2c3d'] }),
    key: id.nullable(),
    credentialVersion: version.nullable(),
    address: line(64).nullable(),
    onBehalfOf: subject.nullable(),
    purpose: line(200).nullable(),
    runId: line(200).nullable(),
    details: z.record(z.string().max(60).regex(lettersForm, 'letters'), detail).meta({
      id: 'AuditDetails',
      maxProperties: 30,
      description: 'Names, ids and counts; never a value.',
      examples: [{ type: 'openai' }],
    }),
    intact: z.boolean().meta({
      description:
        'Whether the event is as it was written; an address that was erased does not count.',
    }),
  })
  .meta({ id: 'AuditEvent' });

type Shown = z.output<typeof event>;

/** An event's row as clients see it; its MAC is checked on the way. */
export function showEvent(row: EventRow, keyring: Keyring): Shown {
  const { onBehalfOf, purpose, runId, ...details } = (row.details as JsonObject | null) ?? {};
  const { grantee } = details;
  const textOf = (value: unknown): string | null => (typeof value === 'string' ? value : null);
  const isAddressTrue =
    row.address === null ||
    row.salt === null ||
    verifyAddress(row, { address: row.address, salt: row.salt });
  const shown: Shown = {
    id: row.id,
    at: row.at,
    actor: row.actorSub,
    action: row.action,
    target: {
      type: row.targetType,
      id: row.targetId,
      subject: row.targetType === 'subject' ? (row.people[row.targetId] ?? null) : null,
    },
    decision: row.decision,
    reason: row.reason,
    requestId: row.requestId,
    key: row.key,
    credentialVersion: row.credentialVersion,
    address: isAddressTrue ? row.address : null,
    onBehalfOf: typeof onBehalfOf === 'string' ? (row.people[onBehalfOf] ?? null) : null,
    purpose: textOf(purpose),
    runId: textOf(runId),
    details: {
      ...details,
      ...(typeof grantee === 'string' ? { grantee: row.people[grantee] ?? grantee } : {}),
    } as Shown['details'],
    intact: isAddressTrue && verifyEvent(row, keyring),
  };
  return shown.intact || event.safeParse(shown).success ? shown : unreadable(row);
}

/**
 * What is shown of a row that somebody changed until it does not fit: one such row must not hide
 * the others.
 */
function unreadable({ id: held, at }: EventRow): Shown {
  return {
    id: id.safeParse(held).success ? held : noId,
    at,
    actor: null,
    action: 'audit.unreadable',
    target: { type: 'unknown', id: 'unknown', subject: null },
    decision: 'deny',
    reason: null,
    requestId: 'unknown',
    key: null,
    credentialVersion: null,
    address: null,
    onBehalfOf: null,
    purpose: null,
    runId: null,
    details: {},
    intact: false,
  };
}

const noId = '00000000-0000-7000-8000-000000000000' as EventRow['id'];
