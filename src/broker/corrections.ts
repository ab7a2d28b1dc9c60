// What the audit log says too early. A call's record commits before the call goes out, so a call
// that fails in between stands there as let out; an event of its own says that it was not sent.
import type { Db } from '../db/client.ts';
import {
  CommitUnknown,
  isDatabaseDown,
  isServerGone,
  NoPrimary,
  PoolExhausted,
  sqlState,
} from '../db/errors.ts';
import type { Outcomes } from './outcomes.ts';
import { refusalOf } from './refusals.ts';
import type { GrantPath } from '../access/index.ts';
import { type AuditLog, type EventInput, eventsThrough } from '../audit/index.ts';

export interface CorrectionParts {
  readonly db: Db;
  readonly audit: AuditLog;
  readonly outcomes: Pick<Outcomes, 'add'>;
}

/** A call that stands in the audit log, and by which grants it was made. */
export interface RecordedCall {
  readonly event: EventInput;
  readonly grantPaths: readonly GrantPath[];
}

/**
 * Records that a call was not sent, and why. Never throws: what cannot be written now waits with
 * the outcomes of calls and is written as soon as something can be.
 */
export async function recordNotSent(
  { db, audit, outcomes }: CorrectionParts,
  { event, grantPaths }: RecordedCall,
  error: unknown,
): Promise<void> {
  const { code, errors } = refusalOf(error);
  const events = eventsThrough(
    {
      ...event,
      action: 'credential.used',
      decision: 'deny',
      reason: 'notSent',
      details: {
        ticket: event.details?.['ticket'] ?? null,
        failure: errors?.[0]?.rule ?? code,
      },
    },
    grantPaths,
  );
  try {
    if (!isDatabaseDown(error)) return await audit.record(db, ...events);
  } catch {
    // the same as below
  }
  // The database takes nothing now: the writer of the outcomes tells that, and tries again.
  for (const each of events) outcomes.add(each);
}

/** What a connection says that never reached the server. */
const neverArrived: ReadonlySet<unknown> = new Set([
  'ECONNREFUSED',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'ENOTFOUND',
  'EAI_AGAIN',
  'ENOENT',
]);

/** Whether a statement that failed so may have been carried out all the same. */
export function mayBeRecorded(error: unknown): boolean {
  if (error instanceof CommitUnknown) return true;
  if (error instanceof NoPrimary || error instanceof PoolExhausted || !isDatabaseDown(error))
    return false;
  if (sqlState(error) !== undefined) return isServerGone(error);
  return !neverArrived.has((error as { code?: unknown }).code);
}
