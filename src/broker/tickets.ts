// Tickets: what the caller of the broker is given, what is kept of it, and the row MAC of that. A
// row is an answer "yes", so it counts only as the vault wrote it.
import { hash, randomBytes } from 'node:crypto';
import type { Keyring } from '../crypto/index.ts';
import type { CredentialId, EngineId, SubjectId, TicketId } from '../shared/ids.ts';
import type { JsonObject } from '../shared/json.ts';
import { isTime } from '../shared/times.ts';

/** What the row MAC of a ticket's row covers: all of it. */
export interface TicketMacFields {
  readonly id: TicketId;
  /** What tickets of one call have in common; null of a ticket that a release before made. */
  readonly bundle: TicketId | null;
  readonly hash: Buffer;
  readonly credential: CredentialId;
  readonly engine: EngineId;
  readonly onBehalfOf: SubjectId | null;
  readonly host: string | null;
  readonly expiresAt: Date;
  readonly revision: number;
  /** From then on the policy counts how long the ticket can be extended to. */
  readonly createdAt: Date;
}

const ticketBytes = 32;
export const ticketForm = /^vbt_[A-Za-z0-9_-]{43}$/;

/**
 * A fresh ticket and what is stored of it. The text is shown once. SECURITY: each one is random by
 * itself, so that no ticket tells anything of another one of its bundle.
 */
export function newTicket(): { readonly text: string; readonly hash: Buffer } {
  const text = `vbt_${randomBytes(ticketBytes).toString('base64url')}`;
  return { text, hash: ticketHash(text) };
}

/**
 * What is stored of a ticket, and what it is found by. A ticket is 256 random bits: there is
 * nothing to guess that a slow hash, or a comparison in constant time, would have to protect.
 */
export const ticketHash = (text: string): Buffer => hash('sha256', text, 'buffer');

/** The id that the API names a ticket by. */
export const bundleOf = ({ id, bundle }: Pick<TicketMacFields, 'id' | 'bundle'>): TicketId =>
  bundle ?? id;

/**
 * From when the policy counts. SECURITY: of a ticket whose row MAC does not cover its making, the
 * beginning of time: it is never extended.
 */
export const madeAtOf = ({ bundle, createdAt }: TicketMacFields): Date =>
  bundle === null ? new Date(0) : createdAt;

/** The row MAC of a ticket. */
export const ticketRowMac = (keyring: Keyring, row: TicketMacFields): Buffer =>
  keyring.rowMac('broker_ticket', asJson(row));

/** Whether the vault wrote this row. */
export const verifyTicketRowMac = (keyring: Keyring, row: TicketMacFields, seal: Buffer): boolean =>
  isTime(row.expiresAt) &&
  isTime(row.createdAt) &&
  keyring.verifyRowMac('broker_ticket', asJson(row), seal);

// Named one by one: rows carry more columns than the row MAC covers.
const asJson = ({
  id,
  bundle,
  hash: held,
  credential,
  engine,
  onBehalfOf,
  host,
  expiresAt,
  revision,
  createdAt,
}: TicketMacFields): JsonObject => ({
  id,
  hash: held.toString('base64url'),
  credential,
  engine,
  onBehalfOf,
  host,
  expiresAt: expiresAt.toISOString(),
  revision,
  // A ticket without a bundle is sealed as the release sealed that made it.
  ...(bundle === null ? {} : { bundle, createdAt: createdAt.toISOString() }),
});
