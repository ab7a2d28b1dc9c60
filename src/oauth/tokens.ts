// Access tokens for use: the held one while it is good, else a new one, got once however many ask
// on however many replicas. Who refreshes has claimed the row in a statement of its own; no
// transaction is open, and no connection held, while the provider is asked or waited for.
import { randomInt } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { DecryptionFailed, type Keyring, Secret, type SecretFields } from '../crypto/index.ts';
import type { Db } from '../db/client.ts';
import { isForeignKeyViolation } from '../db/errors.ts';
import type { BudgetCounts } from '../shared/budget.ts';
import { Gate } from '../shared/gate.ts';
import { type DataKeyId, newId, type TeamId } from '../shared/ids.ts';
import type { Issued } from './answer.ts';
import { type Failure, NoAccessToken, ProviderRefused, ProviderUnavailable } from './failures.ts';
import {
  clientOf,
  instanceOf,
  sealTokenSet,
  oauthSettingsOf,
  type Situation,
  situationOf,
} from './token-set.ts';
import type { OAuthCredential } from './token-binding.ts';
import { type Provider, type ProviderClient, providerTimeoutMs } from './provider.ts';
import { type AccessToken, type Readiness, readinessOf } from './ready.ts';
import type { Forced } from './types.ts';
import { type AuditLog, credentialTarget, type EventInput } from '../audit/index.ts';
import { KeyMoved, lockActiveKey, policyJson, underActiveKey } from '../credentials/index.ts';
import * as repository from './repository.ts';

export interface AccessTokensParts {
  readonly db: Db;
  readonly keyring: Keyring;
  readonly audit: AuditLog;
  readonly now: () => number;
  readonly provider: Provider;
}

/** One use of a credential whose right was decided. */
export interface TokenUse {
  readonly credential: OAuthCredential;
  /** The opened fields of its version. */
  readonly secrets: SecretFields;
  /** In whose name a refresh stands in the audit log. */
  readonly caller: EventInput['caller'];
  /** The `tokenId` of a token that an upstream refused: another one is wanted. */
  readonly rejected?: string | undefined;
}

/**
 * A claim that outlives this was of a process that is gone. Longer than a provider is waited for,
 * and the writing after it.
 */
const claimMs = providerTimeoutMs * 3;
/** For so long somebody waits for the refresh of another. */
const waitMs = providerTimeoutMs + 5_000;
const retryMsMax = 300_000;
const storeAttempts = 3;
/**
 * Refreshes of one team that are under way at once on a replica, and how many of all teams wait for
 * their turn, no longer than for the refresh of another.
 */
const refreshesAtOnce = 32;
const refreshesWaitingMax = 1_000;

/** Gives out access tokens. */
export class AccessTokens {
  readonly #parts: AccessTokensParts;
  readonly #refreshing = new Map<string, Promise<AccessToken>>();
  readonly #gate = new Gate<TeamId>({
    atOnce: refreshesAtOnce,
    waitingMax: refreshesWaitingMax,
    waitMs,
  });
  constructor(parts: AccessTokensParts) {
    this.#parts = parts;
  }

  /** Refreshes that wait for others of their team. */
  get counts(): BudgetCounts {
    return this.#gate.counts;
  }

  /** A token that is good. Throws NoAccessToken, KeyUnavailable. */
  async accessTokenFor(use: TokenUse): Promise<AccessToken> {
    const readiness = this.#readiness(use, await this.#look(use));
    return readiness.kind === 'ready' ? readiness.token : this.#shared(use);
  }

  /** Waits for the refreshes that are under way. */
  async stop(): Promise<void> {
    await Promise.allSettled(this.#refreshing.values());
  }

  /** One refresh for all who ask on this replica. */
  #shared(use: TokenUse): Promise<AccessToken> {
    const { id, version } = use.credential;
    const name = `${id} ${version} ${use.rejected ?? ''}`;
    let refreshing = this.#refreshing.get(name);
    if (refreshing === undefined) {
      refreshing = this.#refreshed(use).finally(() => {
        this.#refreshing.delete(name);
      });
      this.#refreshing.set(name, refreshing);
    }
    return refreshing;
  }

  /** In its turn: a provider that doesn't answer takes up this team's, and nobody else's. */
  async #refreshed(use: TokenUse): Promise<AccessToken> {
    const leave = await this.#gate.enter(use.credential.team);
    if (leave === undefined) throw new NoAccessToken('refreshUnavailable');
    try {
      return await this.#refreshedOnce(use);
    } finally {
      leave();
    }
  }

  async #refreshedOnce(use: TokenUse): Promise<AccessToken> {
    const deadline = performance.now() + waitMs;
    for (let pauseMs = 30; ; pauseMs = Math.min(pauseMs * 2, 400)) {
      const situation = await this.#look(use);
      const readiness = this.#readiness(use, situation);
      if (readiness.kind === 'ready') return readiness.token;
      if (readiness.kind === 'exhausted') {
        await this.#noteRejected(use, situation);
        throw new NoAccessToken('rejectedByUpstream');
      }
      const claim =
        readiness.kind === 'due' ? await this.#claim(use, situation, readiness.forced) : undefined;
      if (claim !== undefined) await this.#refresh(use, situation, claim);
      else if (performance.now() > deadline) throw new NoAccessToken('refreshUnavailable');
      else await delay(pauseMs / 2 + randomInt(pauseMs));
    }
  }

  /** The OAuth tokens stored now. What does not open is remembered and stands in the audit log. */
  async #look(use: TokenUse): Promise<Situation> {
    const { db, keyring } = this.#parts;
    const { credential } = use;
    const row = await repository.findStoredTokens(db, credential.team, credential.id);
    if (row?.failure === 'undecryptable') throw new NoAccessToken('refreshFailed');
    try {
      return situationOf(keyring, credential, row, use.secrets);
    } catch (error) {
      if (!(error instanceof DecryptionFailed)) throw error;
      const key = row?.sealed?.key.id;
      if (row !== undefined && key !== undefined)
        await this.#noteUndecryptable(use, row.sequence, key);
      throw new NoAccessToken('refreshFailed');
    }
  }

  #readiness({ rejected }: TokenUse, situation: Situation): Readiness {
    return readinessOf(situation, rejected, this.#parts.now());
  }

  async #claim(
    { credential }: TokenUse,
    { sequence }: Situation,
    forced: Forced | undefined,
  ): Promise<string | undefined> {
    const { db, now } = this.#parts;
    const id = newId();
    const claim = {
      id,
      team: credential.team,
      credential: credential.id,
      sequence,
      client: clientOf(credential),
      policy: policyJson(credential.policy),
      at: new Date(now()),
      until: new Date(now() + claimMs),
      forced,
    };
    try {
      return (await repository.claimRefresh(db, claim)) ? id : undefined;
    } catch (error) {
      if (isForeignKeyViolation(error)) throw new NoAccessToken('notConnected'); // the credential was purged meanwhile
      throw error;
    }
  }

  /** Asks the provider, once, and stores what it gave or that it gave nothing. */
  async #refresh(use: TokenUse, situation: Situation, claim: string): Promise<void> {
    let issued: Issued;
    try {
      issued = await this.#ask(use, situation);
    } catch (error) {
      if (!(error instanceof ProviderRefused || error instanceof ProviderUnavailable)) throw error;
      return this.#noteFailure(use, situation, {
        claim,
        failure: error instanceof ProviderRefused ? (error.reason as Failure) : undefined,
      });
    }
    for (let [attempt, place] = [1, use]; ; attempt += 1) {
      try {
        await this.#store(place, situation, issued);
        if (place === use) return;
        break;
      } catch (error) {
        // The old refresh token may be void already: what was got is not given up at the first
        // trouble. Its place lets it be stored once.
        if (attempt >= storeAttempts) throw error;
        if (error instanceof repository.CredentialMoved || isForeignKeyViolation(error)) {
          // The claim was over when the answer came, and the credential has been handed over: what
          // was got follows it.
          const owner = await repository.findOwner(this.#parts.db, use.credential.id);
          if (owner === undefined) break;
          place = { ...use, credential: { ...use.credential, ...owner } };
        } else {
          await delay(100 * attempt);
        }
      }
    }
    throw new NoAccessToken('notConnected'); // for this team
  }

  #ask({ credential, secrets }: TokenUse, { tokens }: Situation): Promise<Issued> {
    const settings = oauthSettingsOf(credential);
    // SECURITY: exposed to be handed on, each as a Secret of its own.
    const client: ProviderClient = {
      team: credential.slug,
      settings,
      clientSecret: new Secret(secrets.expose()['clientSecret']),
      ...instanceOf(credential),
    };
    if (settings.grant === 'clientCredentials')
      return this.#parts.provider.clientCredentials(client);
    const refreshToken = tokens?.expose().refreshToken;
    if (refreshToken === undefined) throw new TypeError('a refresh needs a refresh token');
    return this.#parts.provider.refresh(client, new Secret(refreshToken));
  }

  /**
   * Writes what the provider gave over what it was got for; if that moved on meanwhile, it stays as
   * it is.
   */
  async #store(
    { credential, caller, rejected }: TokenUse,
    situation: Situation,
    issued: Issued,
  ): Promise<void> {
    const { db, keyring, audit, now } = this.#parts;
    const { team, slug, id } = credential;
    // SECURITY: exposed to be sealed with what stays.
    const given = issued.tokens.expose();
    const stays = situation.tokens?.expose();
    const kept = given.refreshToken ?? stays?.refreshToken;
    const refreshToken =
      oauthSettingsOf(credential).grant === 'clientCredentials' ? undefined : kept;
    // Where the answer has no access token that can be used, the one of before is good to its end.
    const isReplaced = given.accessToken !== undefined;
    const expiresAt = isReplaced ? issued.expiresAt : situation.expiresAt;
    const tokens = new Secret({
      accessToken: given.accessToken ?? stays?.accessToken,
      refreshToken,
    });
    const isKept = (refreshToken !== undefined && given.refreshToken === undefined) || !isReplaced;
    const sequence = situation.sequence + 1;
    const client = clientOf(credential);
    const policy = policyJson(credential.policy);
    await underActiveKey(() =>
      db.transaction().execute(async (trx) => {
        if (
          (await repository.lockStoredTokens(trx, { team, credential: id, client, policy })) !==
          situation.sequence
        )
          return;
        const key = await lockActiveKey(trx, team);
        if (key === undefined) throw new KeyMoved();
        await repository.writeStoredTokens(trx, {
          team,
          credential: id,
          sequence,
          key: key.id,
          token: sealTokenSet(keyring, key, credential, sequence, { tokens, expiresAt }),
          client,
          policy,
          keyHistory: isKept ? await repository.findKeptKeyHistory(trx, credential, situation) : [],
          expiresAt: expiresAt ?? null,
          isRefreshable: situation.isRefreshable,
          at: new Date(now()),
          failure: issued.failure,
          instanceUrl: issued.instanceUrl,
        });
        await audit.record(trx, {
          caller,
          team: { id: team, slug },
          action: 'oauth.refresh',
          target: credentialTarget(id),
          ...(issued.failure === undefined ? {} : { decision: 'deny', reason: issued.failure }),
          key: key.id,
          credentialVersion: credential.version,
          details: {
            sequence,
            isRefreshTokenNew: given.refreshToken !== undefined,
            ...(rejected === situation.tokenId ? { rejected } : {}),
          },
        });
      }),
    );
  }

  /**
   * Refused for good: visible until somebody connects again. Otherwise it is tried again, later and
   * later.
   */
  async #noteFailure(
    { credential, caller }: TokenUse,
    { row, sequence }: Situation,
    { claim, failure }: { claim: string; failure: Failure | undefined },
  ): Promise<void> {
    const { db, audit, now } = this.#parts;
    const at = new Date(now());
    const retryMs = Math.min(1_000 * 2 ** Math.min(row?.attempts ?? 0, 10), retryMsMax);
    await db.transaction().execute(async (trx) => {
      const of = {
        team: credential.team,
        credential: credential.id,
        sequence,
        claim,
        failure,
        retryAt: failure === undefined ? new Date(at.getTime() + retryMs) : null,
        at,
      };
      if (!(await repository.failRefresh(trx, of))) return;
      await audit.record(trx, {
        caller,
        team: { id: credential.team, slug: credential.slug },
        action: 'oauth.refresh',
        target: credentialTarget(credential.id),
        decision: 'deny',
        reason: failure ?? 'unavailable',
        credentialVersion: credential.version,
        details: { sequence },
      });
    });
  }

  /** No more is forced: seen in lists, until somebody does something or a token is got in time. */
  async #noteRejected({ credential, caller }: TokenUse, { sequence, tokenId }: Situation) {
    const { db, audit, now } = this.#parts;
    const of = { team: credential.team, credential: credential.id, sequence, at: new Date(now()) };
    await db.transaction().execute(async (trx) => {
      if (!(await repository.markRejected(trx, of))) return;
      await audit.record(trx, {
        caller,
        team: { id: credential.team, slug: credential.slug },
        action: 'oauth.rejected',
        target: credentialTarget(credential.id),
        decision: 'deny',
        reason: 'rejectedByUpstream',
        credentialVersion: credential.version,
        details: { sequence, rejected: tokenId },
      });
    });
  }

  async #noteUndecryptable(
    { credential, caller }: TokenUse,
    sequence: number,
    key: DataKeyId,
  ): Promise<void> {
    const { db, audit, now } = this.#parts;
    await db.transaction().execute(async (trx) => {
      if (
        !(await repository.failOpening(trx, {
          team: credential.team,
          credential: credential.id,
          sequence,
          key,
          at: new Date(now()),
        }))
      )
        return;
      await audit.record(trx, {
        caller,
        team: { id: credential.team, slug: credential.slug },
        action: 'oauth.refresh',
        target: credentialTarget(credential.id),
        decision: 'deny',
        reason: 'undecryptable',
        key,
        credentialVersion: credential.version,
        details: { sequence },
      });
    });
  }
}
