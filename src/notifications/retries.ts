// When a message is tried again: ten attempts over some three days, as the standard-webhooks
// specification suggests.
import { randomInt } from 'node:crypto';

const secondMs = 1_000;
const minuteMs = 60 * secondMs;
const hourMs = 60 * minuteMs;
const delaysMs = [
  5 * secondMs,
  5 * minuteMs,
  30 * minuteMs,
  2 * hourMs,
  5 * hourMs,
  10 * hourMs,
  14 * hourMs,
  20 * hourMs,
  24 * hourMs,
] as const;

export const attemptsMax = delaysMs.length + 1;
/** A message that is older is not sent any more. */
export const tooLateMs = 80 * hourMs;
/** The longest that a receiver can ask to be let be. */
const retryAfterMsMax = 24 * hourMs;
/** For so long at the most one failure holds up what else waits for the receiver. */
const pauseMsMax = 5 * minuteMs;

/**
 * How long after the failure of this attempt the next one comes; undefined when there is none.
 * Within a fifth of it at random, so that receivers do not meet them all at once.
 */
export function delayAfter(attempt: number, retryAfterMs: number | undefined): number | undefined {
  const delayMs = delaysMs[attempt - 1];
  if (delayMs === undefined) return undefined;
  return Math.max(Math.round(delayMs * (0.8 + randomInt(401) / 1_000)), retryAfterMs ?? 0);
}

/** For how long nothing else is sent to the receiver either. */
export const pauseAfter = (delayMs: number | undefined, retryAfterMs: number | undefined): number =>
  Math.max(Math.min(delayMs ?? pauseMsMax, pauseMsMax), retryAfterMs ?? 0);

/**
 * What a Retry-After asks for, in seconds or as a date, within bounds; undefined for what says
 * nothing.
 */
export function readRetryAfter(header: string | null, now: number): number | undefined {
  if (header === null) return undefined;
  const ms = /^\d{1,9}$/.test(header) ? Number(header) * secondMs : Date.parse(header) - now;
  return Number.isNaN(ms) || ms <= 0 ? undefined : Math.min(ms, retryAfterMsMax);
}
