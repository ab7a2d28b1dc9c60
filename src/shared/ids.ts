// Ids of everything the vault keeps: UUIDv7, made by the service before the insert, because tokens and seals bind them.
// Each noun has its own type, so that one cannot be passed for another.
import { randomUUIDv7 } from 'node:crypto';

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
export type AuthorizationId = Id<'authorization'>;

const idPattern = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

/** A fresh id; ids made later sort after earlier ones, to the millisecond. */
export function newId<T extends Id<string>>(): T {
  return randomUUIDv7() as T;
}

/** Whether the text has the one form that ids of the vault have: a lower-case UUIDv7. */
export function isId<T extends Id<string>>(text: string): text is T {
  return idPattern.test(text);
}
