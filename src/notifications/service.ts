// Webhooks, as people ask for them: which credential of type webhook gets which of the team's
// notifications, and what became of them. Where to send and with which secret is the credential's;
// there is no secret here.
import type { Keyring } from '../crypto/index.ts';
import type { Db, Executor } from '../db/client.ts';
import { isUniqueViolation } from '../db/errors.ts';
import { AppError, invalid, notFound } from '../shared/errors.ts';
import { type CredentialId, isId } from '../shared/ids.ts';
import {
  checkRevision,
  type ExpectedRevision,
  preconditionFailed,
  preconditionRequired,
  revisionOfReplacement,
} from '../shared/revisions.ts';
import type { Outbox } from './outbox.ts';
import * as repository from './repository.ts';
import {
  type DeliveryRow,
  type EventType,
  eventTypes,
  webhookRowMac,
  type WebhookRow,
  verifyWebhookRowMac,
} from './types.ts';
import type { Page } from '../shared/paging.ts';
import type { Caller, TeamRef } from '../access/index.ts';
import { type AuditLog, credentialTarget } from '../audit/index.ts';
import type { CredentialsService } from '../credentials/index.ts';

export interface WebhooksParts {
  readonly db: Db;
  readonly keyring: Keyring;
  readonly audit: AuditLog;
  readonly now: () => number;
  readonly credentials: Pick<CredentialsService, 'getCredential'>;
  readonly outbox: Outbox;
  /** Whether a row can be answered with; asked before a change of it commits. */
  readonly canShow: (row: WebhookRow) => boolean;
  /** Called when something is to be delivered, so that this replica looks at once. */
  readonly wake: () => void;
}

export const webhooksMax = 10;
const pendingTestsMax = 5;
const testRetrySeconds = 60;

/** What is asked of webhooks. */
export class WebhooksService {
  readonly #parts: WebhooksParts;
  constructor(parts: WebhooksParts) {
    this.#parts = parts;
  }

  /**
   * The team's webhooks; one whose row was changed past the service is left out, with the alarm.
   */
  async listWebhooks(team: TeamRef, requestId: string): Promise<WebhookRow[]> {
    const rows = await repository.listWebhooks(this.#parts.db, team.id, { limit: webhooksMax });
    return rows.filter((row) => this.#rowMacVerifies(team, row, requestId));
  }

  /** One webhook. Throws notFound. */
  async getWebhook(
    team: TeamRef,
    credential: string,
    requestId: string,
    executor: Executor = this.#parts.db,
  ): Promise<WebhookRow> {
    const rows = isId<CredentialId>(credential)
      ? await repository.listWebhooks(executor, team.id, { credential, limit: 1 })
      : [];
    const row = rows[0];
    if (row === undefined || !this.#rowMacVerifies(team, row, requestId)) throw notFound();
    return row;
  }

  #rowMacVerifies(team: TeamRef, row: WebhookRow, requestId: string): boolean {
    if (verifyWebhookRowMac(this.#parts.keyring, row, row.seal)) return true;
    this.#parts.audit.alarm({
      team,
      action: 'team.read',
      target: { type: 'webhook', id: row.credential },
      reason: 'sealBroken',
      requestId,
    });
    return false;
  }

  /**
   * Sends the team's notifications of these kinds to a credential of type webhook from now on; what
   * stood in the way of deliveries is forgotten. `expected` is asked for only of a webhook that is
   * there. Throws notFound, invalidRequest, preconditionRequired, preconditionFailed,
   * stateConflict.
   */
  async putWebhook(
    caller: Caller,
    team: TeamRef,
    id: string,
    events: readonly EventType[],
    expected: ExpectedRevision | undefined,
  ): Promise<WebhookRow> {
    const { db, keyring, audit, credentials, now, canShow } = this.#parts;
    if (!isId<CredentialId>(id)) throw notFound();
    const credential = id;
    const at = new Date(now());
    const wanted = eventTypes.filter((event) => events.includes(event));
    try {
      return await db.transaction().execute(async (trx) => {
        // It may have been given away since it was looked at, and then it is the other team's
        // webhook or nobody's.
        if (
          !(await repository.lockTeamOfWebhooks(trx, team.id)) ||
          !(await repository.holdCredential(trx, team.id, credential))
        )
          throw notFound();
        // SECURITY: where the team's messages go is what the credential says, and only as the vault
        // wrote it.
        const { type } = await credentials.getCredential(team, credential, trx);
        if (type !== 'webhook') throw invalid('/params/credential', 'notAWebhook');
        const all = await repository.listWebhooks(trx, team.id, { limit: webhooksMax });
        const found = all.find((each) => each.credential === credential);
        // SECURITY: what the vault did not write is replaced, not continued: nothing of it is
        // protected anew.
        const isTampered =
          found !== undefined &&
          !(verifyWebhookRowMac(keyring, found, found.seal) && canShow(found));
        const before = isTampered ? undefined : found;
        if (found !== undefined) {
          if (expected === undefined) throw preconditionRequired();
          checkRevision(expected, found.revision);
        } else {
          if (expected !== undefined && expected !== 'any') throw preconditionFailed();
          if (all.length >= webhooksMax)
            throw new AppError('stateConflict', `A team has at most ${webhooksMax} webhooks.`);
          // SECURITY: those of deleted credentials count: they come back with them, and every event
          // is written once for each.
          const dropped = await repository.dropDeleted(trx, team.id, webhooksMax);
          await audit.record(
            trx,
            ...dropped.map((each) => ({
              caller,
              team,
              action: 'webhook.remove',
              target: credentialTarget(each),
              reason: 'credentialDeleted',
            })),
          );
        }
        const sealed = {
          credential,
          team: team.id,
          events: wanted,
          revision: isTampered ? revisionOfReplacement() : (before?.revision ?? 0) + 1,
        };
        await repository.writeWebhook(trx, {
          ...sealed,
          seal: webhookRowMac(keyring, sealed),
          by: caller.subject,
          at,
          isReplacement: isTampered,
        });
        await audit.record(trx, {
          caller,
          team,
          action: found === undefined ? 'webhook.add' : 'webhook.change',
          target: credentialTarget(credential),
          details: { events: wanted, ...(isTampered ? { wasTampered: true } : {}) },
        });
        return this.getWebhook(team, credential, caller.requestId, trx);
      });
    } catch (error) {
      throw isUniqueViolation(error, 'webhook_pkey') ? preconditionFailed() : error;
    }
  }

  /**
   * Sends nothing there any more, and forgets what waits and what was sent. The credential stays.
   * Throws notFound, preconditionFailed.
   */
  async deleteWebhook(
    caller: Caller,
    team: TeamRef,
    id: string,
    expected: ExpectedRevision,
  ): Promise<void> {
    const { db, audit } = this.#parts;
    await db.transaction().execute(async (trx) => {
      if (!isId<CredentialId>(id) || !(await repository.lockTeamOfWebhooks(trx, team.id)))
        throw notFound();
      // One whose row MAC does not verify can be removed too.
      const [row] = await repository.listWebhooks(trx, team.id, { credential: id, limit: 1 });
      if (row === undefined) throw notFound();
      checkRevision(expected, row.revision);
      await repository.deleteWebhook(trx, team.id, id);
      await audit.record(trx, {
        caller,
        team,
        action: 'webhook.remove',
        target: credentialTarget(id),
      });
    });
  }

  /**
   * Puts a test message into the outbox. Throws notFound, stateConflict for a receiver that is
   * gone, rateLimited.
   */
  async testWebhook(caller: Caller, team: TeamRef, id: string): Promise<DeliveryRow> {
    const { db, audit, credentials, outbox, now } = this.#parts;
    const { credential, goneAt } = await this.getWebhook(team, id, caller.requestId);
    if (goneAt !== null)
      throw new AppError(
        'stateConflict',
        'The receiver said that it is gone; put the webhook again first.',
      );
    const made = await db.transaction().execute(async (trx) => {
      await repository.lockTeamOfWebhooks(trx, team.id);
      // SECURITY: tests dial for their caller, so a caller with too many open tests waits.
      if ((await repository.countPendingTests(trx, credential)) >= pendingTestsMax)
        throw new AppError('rateLimited', 'Tests are waiting for this webhook already.', {
          retryAfterSeconds: testRetrySeconds,
        });
      const { name } = await credentials.getCredential(team, credential, trx);
      const notification = await outbox.putFor(trx, credential, {
        team,
        type: 'webhook.test',
        subject: credentialTarget(credential),
        dueAt: new Date(now()),
        data: { credential: { id: credential, name, type: 'webhook' } },
      });
      await audit.record(trx, {
        caller,
        team,
        action: 'webhook.test',
        target: credentialTarget(credential),
        details: { notification },
      });
      return notification;
    });
    this.#parts.wake();
    const [row] = (
      await repository.listDeliveries(db, team.id, credential, {
        limit: pendingTestsMax * 2,
        before: undefined,
      })
    ).filter((each) => each.id === made);
    if (row === undefined) throw notFound();
    return row;
  }

  /**
   * Messages to a webhook, newest first; one more than the page, for the cursor. Throws notFound.
   */
  async listDeliveries(
    team: TeamRef,
    id: string,
    page: Page,
    requestId: string,
  ): Promise<DeliveryRow[]> {
    const { credential } = await this.getWebhook(team, id, requestId);
    return repository.listDeliveries(this.#parts.db, team.id, credential, {
      limit: page.limit + 1,
      before: page.after?.[0],
    });
  }
}
