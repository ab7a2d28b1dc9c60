// OAuth 2.0: how an account is connected to a credential, and the door to its tokens. Who connects
// is who began, in person and with the right at both times; nothing is answered to anybody without
// a token of the vault's.
import { canonicalJson, type Keyring, Secret, type SecretFields } from '../crypto/index.ts';
import type { Db } from '../db/client.ts';
import { AppError, forbidden, notFound } from '../shared/errors.ts';
import { growthLimits, limitReached } from '../shared/growth.ts';
import {
  ProviderRefused,
  ProviderUnavailable,
  type Reason,
  providerRefusalOf,
} from './failures.ts';
import { assumedEnd, clientOf, instanceOf, sealTokenSet, oauthSettingsOf } from './token-set.ts';
import type { OAuthCredential } from './token-binding.ts';
import type { Issued } from './answer.ts';
import { checkAuthorizationAnswer, type Provider } from './provider.ts';
import * as repository from './repository.ts';
import * as authorizations from './authorization-repository.ts';
import type { AuthorizationRow } from './authorization-repository.ts';
import { beginAuthorization, readState, stateHolds, verifierOf } from './state.ts';
import { type Caller, decide, type ResolvedResource } from '../access/index.ts';
import { type AuditLog, credentialTarget } from '../audit/index.ts';
import {
  type CredentialRow,
  verifyCredentialRowMac,
  KeyMoved,
  lockActiveKey,
  lockCredential,
  type OAuthSettings,
  policyJson,
  roomOf,
  type TeamRoom,
  findType,
  underActiveKey,
} from '../credentials/index.ts';

export interface OAuthParts {
  readonly db: Db;
  readonly keyring: Keyring;
  readonly audit: AuditLog;
  readonly now: () => number;
  readonly provider: Provider;
  /** The page of the platform to which providers send people back. */
  readonly redirectUri: string | undefined;
  /** The credential with the caller's standing, as the authorization hook finds it. */
  readonly resolve: (
    caller: Caller,
    id: string,
  ) => Promise<ResolvedResource<CredentialRow> | undefined>;
  /** The secrets of the current version. Throws undecryptable. */
  readonly openSecrets: (caller: Caller, row: CredentialRow) => Promise<SecretFields>;
  readonly room?: TeamRoom | undefined;
  readonly authorizationsMax?: number | undefined;
}

/** What came back from the provider, by way of the person's browser. */
export interface CallbackInput {
  readonly state: string;
  readonly code?: string | undefined;
  readonly error?: string | undefined;
  readonly iss?: string | undefined;
}

/** How a credential stands with its provider. */
export interface ProviderConnection {
  readonly credential: string;
  readonly state: 'notConnected' | 'connected' | 'refreshFailed';
  readonly reason: Reason | null;
  readonly isRefreshable: boolean;
  readonly validUntil: Date | null;
  /** The provider has said no lifetime. */
  readonly isLifetimeAssumed: boolean;
  readonly obtainedAt: Date | null;
  readonly connectedAt: Date | null;
  readonly connectedBy: string | null;
  /** Since when the provider gives no usable answer. */
  readonly unavailableSince: Date | null;
  /** Since when no refresh is forced any more, because fresh tokens were refused in a row. */
  readonly rejectedSince: Date | null;
  readonly instanceUrl: string | null;
}

const stateMs = 10 * 60_000;
const right = 'credential.write';

/** What people ask of OAuth 2.0. */
export class OAuthService {
  readonly #parts: OAuthParts;
  constructor(parts: OAuthParts) {
    this.#parts = parts;
  }

  /**
   * Begins an authorization: where the person's browser is to go. Throws stateConflict,
   * oauthNotConfigured, limitReached.
   */
  async startAuthorization(
    caller: Caller,
    row: CredentialRow,
  ): Promise<{ authorizationUrl: string; expiresAt: Date }> {
    const { db, audit, now, redirectUri } = this.#parts;
    const max = this.#parts.authorizationsMax ?? growthLimits.authorizations;
    if (findType(row.type)?.oauth === undefined) throw notAuthorized();
    const settings = oauthSettingsOf(row);
    if (settings.grant !== 'authorizationCode' || settings.authorizationUrl === undefined)
      throw notAuthorized();
    if (redirectUri === undefined)
      throw new AppError(
        'oauthNotConfigured',
        'The vault does not know the page to which providers send people back: ' +
          'CREDVAULT_OAUTH_REDIRECT_URI is not set.',
      );
    const at = new Date(now());
    const expiresAt = new Date(at.getTime() + stateMs);
    const begun = beginAuthorization({
      team: row.team,
      credential: row.id,
      subject: caller.subject,
      client: clientOf(row),
      redirectUri,
      expiresAt,
    });
    await db.transaction().execute(async (trx) => {
      const open = await authorizations.countOpen(trx, row.team, max, at);
      if (open.count >= max) {
        const untilMs = (open.until?.getTime() ?? 0) - at.getTime();
        throw limitReached('authorizations', max, {
          retryAfterSeconds: Math.max(1, Math.ceil(untilMs / 1_000)),
        });
      }
      await authorizations.insertAuthorization(trx, { ...begun.row, at });
      await audit.record(trx, {
        caller,
        team: { id: row.team, slug: row.slug },
        action: 'oauth.authorize',
        target: credentialTarget(row.id),
        credentialVersion: row.version,
      });
    });
    return {
      authorizationUrl: authorizationUrlOf(settings, {
        authorizationUrl: settings.authorizationUrl,
        redirectUri,
        state: begun.state,
        challenge: begun.challenge,
      }),
      expiresAt,
    };
  }

  /**
   * Ends an authorization with what the provider said: the code becomes tokens. Throws
   * oauthStateInvalid, notFound, forbidden, stateConflict, oauthRefused, oauthUnavailable,
   * undecryptable, keyBusy, limitReached.
   */
  async finishAuthorization(caller: Caller, input: CallbackInput): Promise<ProviderConnection> {
    const { authorization, verifier } = await this.#take(caller, input.state);
    const row = await this.#authorize(caller, authorization);
    const team = { id: row.team, slug: row.slug };
    // What was begun for one client is not ended for another.
    if (canonicalJson(authorization.client) !== canonicalJson(clientOf(row)))
      throw new AppError(
        'stateConflict',
        'The credential has changed since the authorization began: begin again.',
      );
    let issued: Issued;
    try {
      issued = await this.#redeem(caller, row, authorization, verifier, input);
    } catch (error) {
      const reason =
        error instanceof ProviderRefused
          ? error.reason
          : error instanceof ProviderUnavailable
            ? 'unavailable'
            : undefined;
      if (reason === undefined) throw error;
      await this.#parts.db.transaction().execute((trx) =>
        this.#parts.audit.record(trx, {
          caller,
          team,
          action: 'oauth.connect',
          target: credentialTarget(row.id),
          decision: 'deny',
          reason,
          credentialVersion: row.version,
        }),
      );
      if (reason === 'unavailable')
        throw new AppError(
          'oauthUnavailable',
          'The provider gives no usable answer: begin again later.',
          { retryAfterSeconds: 5 },
        );
      throw refused(reason);
    }
    const connection = await this.#store(caller, row, issued);
    if (issued.failure === undefined) return connection;
    throw refused(issued.failure);
  }

  /** How the credential stands with its provider; of a type that holds no tokens, not connected. */
  async getConnection(row: CredentialRow): Promise<ProviderConnection> {
    const isOAuth = findType(row.type)?.oauth !== undefined;
    return connectionOf(
      row,
      isOAuth ? await repository.findStoredTokens(this.#parts.db, row.team, row.id) : undefined,
      this.#parts.now(),
    );
  }

  /**
   * The authorization of a state, once. SECURITY: one answer for unknown, used, over, tampered, and
   * begun by somebody else; the last one's stays good.
   */
  async #take(
    caller: Caller,
    state: string,
  ): Promise<{ authorization: AuthorizationRow; verifier: Secret<string> }> {
    const { db, audit, now } = this.#parts;
    const read = readState(state);
    const found =
      read === undefined ? undefined : await authorizations.findAuthorization(db, read.id);
    const refuse = async (reason: string): Promise<AppError> => {
      await audit.denial({
        caller,
        team: undefined,
        action: right,
        target: { type: 'authorization', id: found?.id ?? 'unknown' },
        reason,
        isHidden: true,
      });
      return new AppError(
        'oauthStateInvalid',
        'This state is not yours, or it has expired: begin again.',
      );
    };
    if (read === undefined || found === undefined || !stateHolds(read.half, found))
      throw await refuse('stateUnknown');
    if (found.subject !== caller.subject) throw await refuse('stateOfAnother');
    // SECURITY: gone before anything is done with it, so that a state is good once.
    const isTaken = await db.transaction().execute(async (trx) => {
      if (!(await authorizations.deleteAuthorization(trx, found.id))) return false;
      await audit.record(trx, {
        caller,
        team: { id: found.team, slug: found.slug },
        action: 'oauth.callback',
        target: credentialTarget(found.credential),
      });
      return true;
    });
    if (!isTaken) throw await refuse('stateUsed');
    if (found.expiresAt.getTime() <= now()) throw await refuse('stateExpired');
    return { authorization: found, verifier: verifierOf(read.half, found) };
  }

  /** The credential, if the caller may still write it: the time since they began counts. */
  async #authorize(caller: Caller, { credential, team }: AuthorizationRow): Promise<CredentialRow> {
    const resolved = await this.#parts.resolve(caller, credential);
    const decision = decide(resolved, right);
    if (decision.kind === 'allow' && resolved !== undefined && resolved.team.id === team)
      return resolved.resource;
    const reason = decision.kind === 'allow' ? 'noSuchThing' : decision.reason;
    await this.#parts.audit.denial({
      caller,
      team: resolved?.team,
      action: right,
      target: credentialTarget(credential),
      reason,
      isHidden: decision.kind !== 'refuse',
    });
    throw decision.kind === 'refuse' ? forbidden() : notFound();
  }

  async #redeem(
    caller: Caller,
    row: CredentialRow,
    { redirectUri }: AuthorizationRow,
    verifier: Secret<string>,
    { code, error, iss }: CallbackInput,
  ): Promise<Issued> {
    const settings = oauthSettingsOf(row);
    if (code === undefined) throw new ProviderRefused(providerRefusalOf(error ?? '') ?? 'refused');
    const answer = checkAuthorizationAnswer(settings, { code, iss });
    const secrets = await this.#parts.openSecrets(caller, row);
    // SECURITY: exposed to be handed on as a Secret of its own.
    return this.#parts.provider.redeem(
      {
        team: row.slug,
        settings,
        clientSecret: new Secret(secrets.expose()['clientSecret']),
        ...instanceOf(row),
      },
      answer,
      redirectUri,
      verifier,
    );
  }

  async #store(
    caller: Caller,
    resolved: CredentialRow,
    issued: Issued,
  ): Promise<ProviderConnection> {
    const { keyring, audit, now } = this.#parts;
    return underActiveKey(() =>
      roomOf(this.#parts).transaction(resolved.team, async (trx, stay) => {
        const at = new Date(now());
        const row = await lockCredential(trx, resolved.team, resolved.id, at);
        // SECURITY: the provider was asked meanwhile; what is bound to the account is what the row
        // says now, and only if the vault wrote that.
        if (
          row === undefined ||
          row.state === 'deleted' ||
          !verifyCredentialRowMac(keyring, row, row.seal)
        )
          throw notFound();
        if (row.version !== resolved.version)
          throw new AppError(
            'stateConflict',
            'The credential has changed since the authorization began: begin again.',
          );
        const client = clientOf(row);
        const policy = policyJson(row.policy);
        const sequence =
          (await repository.lockStoredTokens(trx, {
            team: row.team,
            credential: row.id,
            client,
            policy,
          })) + 1;
        await stay.enter();
        const key = await lockActiveKey(trx, row.team);
        if (key === undefined) throw new KeyMoved();
        // SECURITY: whether there is a refresh token is asked here, and nothing else of it.
        const isRefreshable = issued.tokens.expose().refreshToken !== undefined;
        const token = sealTokenSet(keyring, key, asOAuth(row), sequence, issued);
        const going = await repository.findHeldBytes(trx, row.team, row.id);
        await stay.grow({ bytes: Buffer.byteLength(token) - going });
        await repository.writeStoredTokens(trx, {
          team: row.team,
          credential: row.id,
          sequence,
          key: key.id,
          token,
          client,
          policy,
          keyHistory: [],
          expiresAt: issued.expiresAt ?? null,
          isRefreshable,
          at,
          failure: issued.failure,
          instanceUrl: issued.instanceUrl,
          connectedBy: caller.subject,
        });
        await audit.record(trx, {
          caller,
          team: { id: row.team, slug: row.slug },
          action: 'oauth.connect',
          target: credentialTarget(row.id),
          ...(issued.failure === undefined ? {} : { decision: 'deny', reason: issued.failure }),
          key: key.id,
          credentialVersion: row.version,
          details: { sequence, isRefreshable },
        });
        return connectionOf(
          row,
          await repository.findStoredTokens(trx, row.team, row.id),
          at.getTime(),
        );
      }),
    );
  }
}

/**
 * Where the browser goes: the endpoint with its own query, the stored parameters, and over both of
 * them what the vault says itself.
 */
function authorizationUrlOf(
  { clientId, scope, scopeParameter, parameters, pkce }: OAuthSettings,
  of: {
    readonly authorizationUrl: string;
    readonly redirectUri: string;
    readonly state: Secret<string>;
    readonly challenge: string;
  },
): string {
  const url = new URL(of.authorizationUrl);
  const stored = new URLSearchParams(parameters ?? '');
  for (const name of stored.keys()) url.searchParams.delete(name);
  for (const [name, value] of stored) url.searchParams.append(name, value);
  const own = {
    response_type: 'code',
    client_id: clientId,
    redirect_uri: of.redirectUri,
    // SECURITY: the state is exposed here, into the URL of the provider's for the browser of the
    // person who began.
    state: of.state.expose(),
    ...(pkce === 'off' ? {} : { code_challenge: of.challenge, code_challenge_method: 'S256' }),
    ...(scope === undefined ? {} : { [scopeParameter ?? 'scope']: scope }),
  };
  for (const [name, value] of Object.entries(own)) url.searchParams.set(name, value);
  return url.href;
}

/** The current version of a credential's row, as tokens are asked for. */
export const asOAuth = ({
  id,
  team,
  slug,
  type,
  version,
  publicFields,
  policy,
}: CredentialRow): OAuthCredential => ({ id, team, slug, type, version, publicFields, policy });

function connectionOf(
  row: CredentialRow,
  held: repository.StoredTokensRow | undefined,
  now: number,
): ProviderConnection {
  const oauth = findType(row.type)?.oauth;
  const isByItself = oauth?.settings(row.publicFields).grant === 'clientCredentials';
  const takesVersion = held?.hasToken !== true && held?.takesVersion !== false;
  const fromVersion = (name: string): boolean =>
    takesVersion && row.secretFieldNames.includes(name);
  const expiry = takesVersion ? row.publicFields[oauth?.expiryField ?? ''] : undefined;
  const expiresAt = held?.expiresAt ?? (expiry === undefined ? null : new Date(String(expiry)));
  const isRefreshable = isByItself || held?.isRefreshable === true || fromVersion('refreshToken');
  const isConnected =
    oauth !== undefined &&
    (isByItself ||
      held?.hasToken === true ||
      fromVersion('accessToken') ||
      fromVersion('refreshToken'));
  const isOver = isConnected && !isRefreshable && expiresAt !== null && expiresAt.getTime() <= now;
  const reason = held?.failure ?? (isOver ? 'no_refresh_token' : null);
  const assumed =
    held?.hasToken === true && isRefreshable && held.expiresAt === null
      ? assumedEnd(held.obtainedAt, oauth?.settings(row.publicFields).assumedLifetimeSeconds)
      : undefined;
  return {
    credential: row.id,
    state: reason !== null ? 'refreshFailed' : isConnected ? 'connected' : 'notConnected',
    reason,
    isRefreshable,
    validUntil: expiresAt ?? assumed ?? null,
    isLifetimeAssumed: assumed !== undefined,
    obtainedAt: held?.obtainedAt ?? null,
    connectedAt: held?.connectedAt ?? null,
    connectedBy: held?.connectedBy ?? null,
    unavailableSince: held?.unavailableSince ?? null,
    rejectedSince: held?.rejectedAt ?? null,
    instanceUrl: held?.instanceUrl ?? null,
  };
}

const refused = (reason: string): AppError =>
  new AppError('oauthRefused', 'The provider refused.', { details: { reason } });
const notAuthorized = (): AppError =>
  new AppError('stateConflict', 'This type of credential is not authorized by a person.');
