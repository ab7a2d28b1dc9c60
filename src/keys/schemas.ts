// The shapes of keys and rotations on the wire. Key material has no place in any of them: ids,
// states, counts, fingerprints.
import { z } from 'zod';
import {
  count,
  fingerprint,
  id,
  line,
  slug,
  subject,
  time,
  timeOrNull,
  tokenFormat,
  version,
} from '../http/schemas.ts';
import { destroyDaysMax, destroyDaysMin } from './life.ts';
import type { Forecast, Rotation } from './service.ts';
import type { KeyRow, RotationFailure } from './types.ts';

export const key = z
  .strictObject({
    id,
    version,
    state: z.enum(['active', 'decryptOnly', 'retired', 'destroyPending', 'destroyed']).meta({
      id: 'KeyState',
      description:
        '`active` seals; `decryptOnly` opens; `retired` and `destroyPending` do neither; of a ' +
        '`destroyed` one the material is gone.',
    }),
    format: tokenFormat,
    fingerprint,
    rootFingerprint: fingerprint.meta({
      description: 'The root key that wraps this key now, or wrapped it last.',
    }),
    rootFingerprints: z
      .array(fingerprint)
      .min(1)
      .max(1000)
      .meta({
        description:
          'Every root key that ever wrapped it. A backup holds it under one of them, and is ' +
          'readable to whoever has that one.',
      }),
    rows: count.meta({ description: 'Tokens under this key, counted now.' }),
    compromised: z.boolean().meta({ description: 'The mark is permanent.' }),
    compromisedAt: timeOrNull,
    compromiseReason: line(200)
      .nullable()
      .meta({ examples: [null] }),
    rotateAt: time
      .nullable()
      .meta({ description: "When the team's policy asks for the next rotation." }),
    overdue: z.boolean().meta({ description: 'Whether that time is over.' }),
    createdAt: time,
    createdBy: subject.nullable().meta({ description: 'null where the vault did it by itself.' }),
    demotedAt: timeOrNull,
    retiredAt: timeOrNull,
    destroyAt: timeOrNull,
    destroyedAt: timeOrNull,
    lastBackupWithKey: timeOrNull.meta({
      examples: [null],
      description:
        'Backups taken until then hold this key, wrapped, and open with one of ' +
        '`rootFingerprints`; later ones do not hold it. null while its destruction is not ' +
        'scheduled: then every backup does. ' +
        'Only destroying those root keys, or the backups, ends the old ones.',
    }),
  })
  .meta({ id: 'Key' });
const rotationFields = {
  id,
  state: z
    .enum(['running', 'completed', 'completedWithFailures', 'cancelled'])
    .meta({ id: 'KeyRotationState' }),
  toKey: id.meta({ description: 'The key that the rotation made.' }),
  total: count.meta({ description: 'Tokens to re-encrypt, counted at the start.' }),
  done: count,
  failed: count,
  rowsPerSecond: z
    .number()
    .min(0)
    .max(1e9)
    .meta({ format: 'double', examples: [5210.4] }),
  estimatedEnd: time
    .nullable()
    .meta({ description: 'If it goes on like this; null when it has ended or not begun.' }),
  cause: z
    .enum(['request', 'policy', 'compromise', 'rootCompromise'])
    .meta({ id: 'KeyRotationCause' }),
  createdAt: time,
  createdBy: subject.nullable().meta({ description: 'null where the vault started it by itself.' }),
  endedAt: timeOrNull,
};
export const rotation = z.strictObject(rotationFields).meta({ id: 'KeyRotation' });
export const rotationWithFailures = z
  .strictObject({
    ...rotationFields,
    failures: z
      .array(
        z.strictObject({
          credential: id,
          version: version
            .nullable()
            .meta({ description: 'null: the OAuth tokens stored for the credential.' }),
        }),
      )
      .max(100)
      .meta({
        description:
          'Up to 100 of the tokens that did not open. They stay under their key and block ' +
          'retiring it.',
      }),
  })
  .meta({ id: 'KeyRotationWithFailures' });
export const keyPath = z.strictObject({ team: slug, key: id });
export const rotationPath = z.strictObject({ team: slug, rotation: id });

/** A key as clients see it. */
export const showKey = (row: KeyRow, now: number): z.output<typeof key> => ({
  id: row.id,
  version: row.version,
  state: row.state,
  format: row.format,
  fingerprint: row.fingerprint,
  rootFingerprint: row.rootFingerprint,
  rootFingerprints: [...row.rootFingerprints],
  rows: row.rows,
  compromised: row.compromisedAt !== null,
  compromisedAt: row.compromisedAt,
  compromiseReason: row.compromiseReason,
  rotateAt: row.rotateAt,
  overdue: row.rotateAt !== null && row.rotateAt.getTime() <= now,
  createdAt: row.createdAt,
  createdBy: row.createdBy,
  demotedAt: row.demotedAt,
  retiredAt: row.retiredAt,
  destroyAt: row.destroyAt,
  destroyedAt: row.destroyedAt,
  lastBackupWithKey: row.destroyedAt ?? row.destroyAt,
});
/** A rotation as clients see it. */
export const showRotation = (row: Rotation): z.output<typeof rotation> => ({
  id: row.id,
  state: row.state,
  toKey: row.toKey,
  total: row.total,
  done: row.done,
  failed: row.failed,
  rowsPerSecond: row.rowsPerSecond,
  estimatedEnd: row.estimatedEnd,
  cause: row.cause,
  createdAt: row.createdAt,
  createdBy: row.createdBy,
  endedAt: row.endedAt,
});
/** A token that did not open. */
export const showFailure = ({
  credential,
  version: failed,
}: RotationFailure): { credential: string; version: number | null } => ({
  credential,
  version: failed,
});

const reason = line(200)
  .min(1)
  .meta({ examples: ['routine'] });
/** Why; it stands in the audit log. */
export const reasonBody = z
  .strictObject({ reason: reason.optional() })
  .meta({ id: 'KeyChange', examples: [{ reason: 'routine' }] });
export const compromiseBody = z
  .strictObject({ reason })
  .meta({ id: 'KeyCompromise', examples: [{ reason: 'a backup was lost' }] });
export const destroyBody = z
  .strictObject({
    reason: reason.optional(),
    days: z
      .int()
      .min(destroyDaysMin)
      .max(destroyDaysMax)
      .meta({ format: 'int32', description: 'How long it can still be cancelled.', examples: [7] }),
  })
  .meta({ id: 'KeyDestroySchedule', examples: [{ days: 30, reason: 'no backup needs it' }] });

export const forecast = z
  .strictObject({
    rows: count.meta({ description: 'Tokens that a rotation would re-encrypt.' }),
    estimatedSeconds: count,
    isMeasured: z.boolean().meta({
      description: 'False where no large rotation has run here yet: the pace is assumed.',
    }),
  })
  .meta({ id: 'KeyRotationForecast' });
/** What a rotation would come to. */
export const showForecast = (row: Forecast): z.output<typeof forecast> => ({
  rows: row.rows,
  estimatedSeconds: row.estimatedSeconds,
  isMeasured: row.isMeasured,
});
