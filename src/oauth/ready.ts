// Is the stored token good for this use as it stands, is another one due, or is there none to be
// had? Pure: a situation in, the answer out.
import { Secret } from '../crypto/index.ts';
import { NoAccessToken } from './failures.ts';
import type { Situation } from './token-set.ts';
import type { Forced } from './types.ts';

/** A token for the header of a request. */
export interface AccessToken {
  readonly token: Secret<string>;
  /** Names the token and tells nothing of it: whoever was refused with it says this. */
  readonly tokenId: string;
  /** When it ends, as said or assumed; undefined where nothing says that it is still good. */
  readonly expiresAt: Date | undefined;
}

export type Readiness =
  | { readonly kind: 'ready'; readonly token: AccessToken }
  | { readonly kind: 'due'; readonly forced: Forced | undefined }
  /** Somebody refreshes it already: what comes of that is waited for. */
  | { readonly kind: 'underWay' }
  /** Fresh tokens were refused in a row: another one would be refused as well. */
  | { readonly kind: 'exhausted' };

/** A token that ends within this time is not given out any more if there is a way to another. */
const skewMs = 60_000;
/**
 * A token this young is not refreshed: another would be no better, and asking again and again uses
 * up the provider's limits.
 */
const youngMs = 30_000;
/** From one forced refresh to the next; then twice as long, and so on. */
const forcedPauseMs = 300_000;
/** So many fresh tokens refused in a row are enough. */
const forcedMax = 3;
/** A token that was good for longer than this was not refused when it was fresh. */
const freshMs = 3_600_000;

/**
 * What is to be done for a use; `rejected` is the name of a token that an upstream refused. Throws
 * NoAccessToken where no refresh would help.
 */
export function readinessOf(
  situation: Situation,
  rejected: string | undefined,
  now: number,
): Readiness {
  const { row, tokens, tokenId, expiresAt, isAssumed, isRefreshable } = situation;
  // SECURITY: exposed to be put into a Secret of its own: the refresh token stays behind.
  const accessToken = tokens?.expose().accessToken;
  const hasFailed = (row?.failure ?? null) !== null;
  const isClaimed = (row?.claimedUntil?.getTime() ?? 0) > now;
  const isPutOff = (row?.retryAt?.getTime() ?? 0) > now;
  const ageMs = row?.obtainedAt == null ? Infinity : now - row.obtainedAt.getTime();
  if (tokens === undefined && !isRefreshable) throw new NoAccessToken('notConnected');
  if (accessToken !== undefined && rejected === tokenId) {
    if (!isRefreshable || hasFailed) throw new NoAccessToken('refreshFailed');
    if (isClaimed) return { kind: 'underWay' };
    return forcedOf(situation, now, { ageMs, isPutOff });
  }

  const leftMs = expiresAt === undefined ? Infinity : expiresAt.getTime() - now;
  const isOver = leftMs <= 0;
  const held: Readiness | undefined =
    accessToken === undefined || (isOver && !isAssumed)
      ? undefined
      : {
          kind: 'ready',
          token: {
            token: new Secret(accessToken),
            tokenId,
            expiresAt: isOver ? undefined : expiresAt,
          },
        };
  if (held !== undefined && leftMs > skewMs) return held;
  if (!isRefreshable || hasFailed) {
    if (held !== undefined && !isOver) return held;
    throw new NoAccessToken('refreshFailed');
  }
  if (held === undefined) {
    if (isPutOff) throw new NoAccessToken('refreshUnavailable');
    return { kind: 'due', forced: undefined };
  }
  // It is good for a while, or nobody has said that it is over: nobody waits where another
  // refreshes already, where none is to be had now, or where all live as short.
  return isPutOff || isClaimed || ageMs < youngMs ? held : { kind: 'due', forced: undefined };
}

/**
 * SECURITY: whoever says that a token was refused makes the vault ask the provider. One in five
 * minutes, then twice as long; and no more when fresh tokens fare no better.
 */
function forcedOf(
  { row }: Situation,
  now: number,
  { ageMs, isPutOff }: { readonly ageMs: number; readonly isPutOff: boolean },
): Readiness {
  if (row?.rejectedAt != null) throw new NoAccessToken('rejectedByUpstream');
  const before = ageMs < freshMs ? (row?.forcedCount ?? 0) : 0;
  if (before >= forcedMax) return { kind: 'exhausted' };
  const isPaused = (row?.forceAfter?.getTime() ?? 0) > now;
  if (isPaused || isPutOff || ageMs < youngMs) throw new NoAccessToken('refreshUnavailable');
  const after = new Date(now + forcedPauseMs * 2 ** before);
  return { kind: 'due', forced: { count: before + 1, after } };
}
