// Tickets: what the caller of the broker is given, what is kept of it, and the row MAC of that. A
// row is an answer "yes", so it counts only as the vault wrote it.
import { hash, randomBytes, timingSafeEqual } from 'node:crypto';
import type { Keyring } from '../crypto/index.ts';
import type { CredentialId, EngineId, SubjectId, TicketId } from '../shared/ids.ts';
import type { JsonObject } from '../shared/json.ts';
import { isTime } from '../shared/times.ts';

/** What the row MAC of a ticket's row covers: all of it. */
export interface TicketMacFields {
  readonly id: TicketId;
  readonly hash: Buffer;
  readonly credential: CredentialId;
  readonly engine: EngineId;
  readonly onBehalfOf: SubjectId | null;
  readonly host: string | null;
  readonly expiresAt: Date;
  readonly revision: number;
}

const ticketBytes = 32;
export const ticketForm = /^vbt_[A-Za-z0-9_-]{43}$/;

/** A fresh ticket and what is stored of it. The text is shown once. */
export function newTicket(): { readonly text: string; readonly hash: Buffer } {
  const text = `vbt_${randomBytes(ticketBytes).toString('base64url')}`;
  return { text, hash: hashOf(text) };
}

/** Whether the text is the ticket behind the hash, in constant time. */
export function isTicket(text: string, held: Buffer): boolean {
  const found = hashOf(text);
  return held.length === found.length && timingSafeEqual(found, held);
}

// A ticket is 256 random bits: there is nothing to guess that a slow hash would have to protect.
const hashOf = (text: string): Buffer => hash('sha256', text, 'buffer');

/** The row MAC of a ticket. */
export const ticketRowMac = (keyring: Keyring, row: TicketMacFields): Buffer =>
  keyring.rowMac('broker_ticket', asJson(row));

/** Whether the vault wrote this row. */
export const verifyTicketRowMac = (keyring: Keyring, row: TicketMacFields, seal: Buffer): boolean =>
  isTime(row.expiresAt) && keyring.verifyRowMac('broker_ticket', asJson(row), seal);

// Named one by one: rows carry more columns than the row MAC covers.
const asJson = ({
  id,
  hash: held,
  credential,
  engine,
  onBehalfOf,
  host,
  expiresAt,
  revision,
}: TicketMacFields): JsonObject => ({
  id,
  hash: held.toString('base64url'),
  credential,
  engine,
  onBehalfOf,
  host,
  expiresAt: expiresAt.toISOString(),
  revision,
});
