// How large a lease may be, and what is known of its size before anything is opened: sizes are
// asked first, so that a request for too much costs no more than its refusal.
import { findType } from '../credentials/index.ts';

const KiB = 1024;
const MiB = 1024 * KiB;

/** The longest payload; an engine that needs more asks in parts. */
export const leaseBytesMax = 8 * MiB;
/**
 * The most that is read for one lease, as it is stored: tokens, public fields and policies. A
 * payload of the largest size fits, as base64 and with its padding.
 */
export const storedBytesMax = 16 * MiB;
/**
 * Up to this a lease is read by the statement that asks for sizes. Of a larger one that statement
 * reads nothing: room is taken first.
 */
export const smallBytesMax = 1 * MiB;
/** What one engine may have open at once on a replica, and all of them together; as stored. */
export const openBytesMaxEngine = 32 * MiB;
export const openBytesMax = 64 * MiB;
/** So much is opened or compared in one go; then others have their turn. */
export const bytesPerTurn = 64 * KiB;

/**
 * At most so much of a token's bytes are neither its fields nor the encoding: names and padding.
 */
const envelopeBytesMax = 5 * KiB;

interface Found {
  readonly type: string;
  /** In bytes as stored: a token that is not wanted has none. */
  readonly size: { readonly token: number; readonly content: number };
}

/** What a found credential takes while it is open. */
export const storedBytesOf = ({ size }: Pick<Found, 'size'>): number => size.token + size.content;

/**
 * Its least size in the payload. Of a type whose tokens are stored, what is in the version stays
 * behind.
 */
export function payloadBytesMin({ size, type }: Found): number {
  if (findType(type)?.oauth !== undefined) return 0;
  return Math.max(0, Math.floor(size.token / 4) * 3 - envelopeBytesMax);
}
