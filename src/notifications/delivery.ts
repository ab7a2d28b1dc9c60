// One attempt to deliver one message. The vault opens the webhook's credential in its own name:
// that stands in the audit log, committed, before anything is dialled, and what became of it
// afterwards. Killed in between, the message is sent again, with the same id.
import { type Keyring, KeyUnavailable } from '../crypto/index.ts';
import type { Db } from '../db/client.ts';
import { type Egress, EgressFailed } from '../egress/index.ts';
import { AppError } from '../shared/errors.ts';
import {
  type Claimed,
  type DueRow,
  failPending,
  findDue,
  releaseWebhook,
  writeOutcome,
} from './claims.ts';
import { bodyOf, signedHeaders } from './message.ts';
import { delayAfter, pauseAfter, readRetryAfter, tooLateMs } from './retries.ts';
import { verifyNotificationRowMac, type Outcome, verifyWebhookRowMac } from './types.ts';
import { refusesExposed, settingsOf } from '../access/index.ts';
import { type AuditLog, credentialTarget, type EventInput } from '../audit/index.ts';
import {
  type CredentialRow,
  type CredentialsService,
  type InUse,
  isUnder,
} from '../credentials/index.ts';

export interface DeliveryParts {
  readonly db: Db;
  readonly keyring: Keyring;
  readonly audit: AuditLog;
  readonly now: () => number;
  /**
   * Whether this replica's clock is known to agree with the database's: else nothing is given up.
   */
  readonly isClockAgreed: () => boolean;
  readonly egress: Pick<Egress, 'request'>;
  readonly credentials: Pick<CredentialsService, 'openForUse'>;
  /** Told of each use of a credential. */
  readonly onUse: (credential: Claimed['credential']) => void;
  /** Told of a row that was changed past the service. */
  readonly onAlarm: (row: { table: 'webhook' | 'notification'; id: string }) => void;
}

export const attemptMs = 15_000;
const responseBytesMax = 256 * 1024;
/** For so long a webhook is let be whose own row was changed past the service. */
const brokenPauseMs = 3_600_000;

/** What an attempt came to; `wasUsed`: the credential was opened for it. */
interface Attempted {
  readonly outcome: Outcome;
  readonly retryAfterMs?: number | undefined;
  readonly wasUsed: boolean;
  readonly reason?: string;
}

/**
 * Sends the claimed webhook what waits longest for it, and lets the webhook go. Throws when the
 * database or the keys are not there; the claim then ends by itself.
 */
export async function deliverNext(parts: DeliveryParts, claimed: Claimed): Promise<void> {
  const { db, keyring, now } = parts;
  const message = await findDue(db, claimed.credential, new Date(now()));
  if (message === undefined) {
    await releaseWebhook(db, claimed, { pausedUntil: null });
    return;
  }
  // SECURITY: the vault signs and sends only what it wrote itself, to where an admin has said.
  const broken = !verifyWebhookRowMac(keyring, claimed, claimed.seal)
    ? 'webhook'
    : !verifyNotificationRowMac(keyring, message, message.seal) || message.team !== claimed.team
      ? 'notification'
      : undefined;
  if (broken !== undefined)
    parts.onAlarm({ table: broken, id: broken === 'webhook' ? claimed.credential : message.id });
  const isTooLate = parts.isClockAgreed() && message.at.getTime() + tooLateMs < now();
  const attempted: Attempted =
    broken !== undefined
      ? { outcome: 'sealBroken', wasUsed: false, reason: 'sealBroken' }
      : isTooLate
        ? { outcome: 'tooLate', wasUsed: false, reason: 'tooLate' }
        : await attempt(parts, claimed, message);
  await settle(parts, claimed, message, attempted, { isBroken: broken });
}

async function attempt(
  parts: DeliveryParts,
  claimed: Claimed,
  message: DueRow,
): Promise<Attempted> {
  let used: InUse;
  try {
    used = await parts.credentials.openForUse(
      callerOf(message),
      { id: claimed.credential, team: claimed.team, slug: claimed.slug },
      {
        action: 'credential.use',
        details: { notification: message.id, type: message.type, attempt: message.attempts + 1 },
        demand: (row) => {
          demandUse(row, {
            refusesExposed: refusesExposed(parts.keyring, settingsOf(claimed.settings)),
          });
        },
      },
      undefined,
    );
  } catch (error) {
    if (error instanceof KeyUnavailable)
      return { outcome: 'keyUnavailable', wasUsed: false, reason: 'keyUnavailable' };
    if (error instanceof AppError)
      return { outcome: 'credential', wasUsed: false, reason: error.code };
    throw error;
  }
  parts.onUse(claimed.credential);
  const body = bodyOf(message);
  try {
    const { status, headers } = await parts.egress.request({
      url: String(used.row.publicFields['url']),
      method: 'POST',
      headers: signedHeaders(used.secrets, { id: message.id, body, nowMs: parts.now() }),
      body,
      team: claimed.slug,
      timeoutMs: attemptMs,
      responseBytesMax,
    });
    return {
      outcome: outcomeOf(status),
      wasUsed: true,
      retryAfterMs: readRetryAfter(headers.get('retry-after'), parts.now()),
    };
  } catch (error) {
    if (!(error instanceof EgressFailed)) throw error;
    return { outcome: error.step, wasUsed: true };
  }
}

/**
 * SECURITY: the vault's own use needs no delivery, which says what engines get; everything else
 * that keeps a credential from being used keeps it from this.
 */
function demandUse(
  { type, problems, policy, publicFields }: CredentialRow,
  of: { readonly refusesExposed: boolean },
): void {
  if (type !== 'webhook') throw new AppError('stateConflict', 'The credential is no webhook.');
  if (of.refusesExposed && problems.includes('exposed'))
    throw new AppError('stateConflict', 'The credential is exposed.');
  const path = URL.parse(String(publicFields['url']))?.pathname ?? '/';
  const isLet =
    (policy.methods?.includes('POST') ?? true) &&
    (policy.pathPrefixes?.some((prefix) => isUnder(path, prefix)) ?? true);
  if (!isLet) throw new AppError('stateConflict', 'The policy does not let it through.');
}

function outcomeOf(status: number): Outcome {
  if (status >= 200 && status < 300) return 'ok';
  if (status === 410) return 'gone';
  return status >= 400 && status < 500 ? 'refused' : 'unexpected'; // a redirect too: it is not followed
}

/** Writes what became of it: into the message, the webhook, the audit log. */
async function settle(
  { db, audit, now }: DeliveryParts,
  claimed: Claimed,
  message: DueRow,
  attempted: Attempted,
  { isBroken }: { isBroken: 'webhook' | 'notification' | undefined },
): Promise<void> {
  const { outcome, retryAfterMs, wasUsed, reason } = attempted;
  const at = new Date(now());
  const attempts = message.attempts + (outcome === 'tooLate' ? 0 : 1);
  const isLast = outcome === 'gone' || outcome === 'tooLate' || isBroken === 'notification';
  const delayMs = isLast ? undefined : delayAfter(attempts, retryAfterMs);
  const later = (ms: number): Date => new Date(at.getTime() + ms);
  const isGood = outcome === 'ok';
  await db.transaction().execute(async (trx) => {
    // What ended without a word from the receiver says nothing about it.
    const isAboutMessage = outcome === 'tooLate' || isBroken === 'notification';
    const pauseMs = isBroken === 'webhook' ? brokenPauseMs : pauseAfter(delayMs, retryAfterMs);
    const isReleased = await releaseWebhook(
      trx,
      claimed,
      isGood
        ? { pausedUntil: retryAfterMs === undefined ? null : later(retryAfterMs), deliveredAt: at }
        : {
            pausedUntil: isAboutMessage ? null : later(pauseMs),
            ...(isAboutMessage ? {} : { failedAt: at }),
            ...(outcome === 'gone' ? { goneAt: at } : {}),
          },
    );
    // A replica whose claim has ended may only record that the message arrived.
    if (isReleased || isGood) {
      await writeOutcome(trx, message.id, {
        state: isGood ? 'delivered' : delayMs === undefined ? 'failed' : 'pending',
        outcome,
        attempts,
        at,
        next: delayMs === undefined || isGood ? null : later(delayMs),
      });
      if (outcome === 'gone') await failPending(trx, claimed.credential, outcome, at);
    }
    await audit.record(trx, {
      caller: callerOf(message),
      team: { id: claimed.team, slug: claimed.slug },
      target: credentialTarget(claimed.credential),
      ...(wasUsed
        ? { action: 'credential.used' }
        : { action: 'credential.use', decision: 'deny', reason: reason ?? outcome }),
      details: { notification: message.id, type: message.type, attempt: attempts, outcome },
    });
  });
}

const callerOf = ({ id }: DueRow): EventInput['caller'] => ({
  subject: null,
  requestId: `notification:${id}`,
  address: null,
});
