// Ids of everything the vault keeps: UUIDv7, made by the service before the insert, because tokens
// and row MACs bind them. Each noun has its own type, so that one cannot be passed for another.
import { randomUUIDv7 } from 'node:crypto';
import { idForm } from './patterns.ts';

declare const brand: unique symbol;

export type Brand<T, B extends string> = T & { readonly [brand]: B };
export type Id<B extends string> = Brand<string, B>;

export type TeamId = Id<'team'>;
export type SubjectId = Id<'subject'>;
export type CredentialId = Id<'credential'>;
export type DataKeyId = Id<'dataKey'>;
export type SystemKeyId = Id<'systemKey'>;
export type EngineId = Id<'engine'>;
export type EngineKeyId = Id<'engineKey'>;
export type RotationId = Id<'rotation'>;
export type EventId = Id<'event'>;
export type LeaseId = Id<'lease'>;
export type TicketId = Id<'ticket'>;
export type GrantId = Id<'grant'>;
export type NotificationId = Id<'notification'>;
export type TransferId = Id<'transfer'>;
export type AuthorizationId = Id<'authorization'>;

let last = '';

/**
 * A fresh id. Of one process, ids made later sort after earlier ones, also within a millisecond and
 * when the clock goes back (RFC 9562, 6.2: twelve of the random bits count up), so that events
 * stand in the order in which they came to be.
 */
export function newId<T extends Id<string>>(): T {
  const fresh = randomUUIDv7();
  last =
    fresh.slice(0, timeEnd) > last.slice(0, timeEnd)
      ? fresh
      : `${after(last.slice(0, countEnd))}${fresh.slice(countEnd)}`;
  return last as T;
}

const timeEnd = 'tttttttt-tttt'.length;
const countEnd = 'tttttttt-tttt-7ccc'.length;

/** The next value of time and count; when the count is over, the time goes on by a millisecond. */
function after(front: string): string {
  const next = BigInt(`0x${front.slice(0, 8)}${front.slice(9, 13)}${front.slice(15)}`) + 1n;
  const hex = next.toString(16).padStart(15, '0');
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-7${hex.slice(12)}`;
}

/** Whether the text has the one form that ids of the vault have: a lower-case UUIDv7. */
export function isId<T extends Id<string>>(text: string): text is T {
  return idForm.test(text);
}
