// The OAuth tokens stored for a credential, opened and sealed. The plaintext has its own expiry:
// the columns beside the token are for queries.
import {
  canonicalJson,
  DecryptionFailed,
  findCanonicalJson,
  type Keyring,
  Secret,
  type SecretFields,
  type WrappedDataKey,
} from '../crypto/index.ts';
import type { JsonObject } from '../shared/json.ts';
import type { Reading } from './answer.ts';
import { tokenSetBinding, type OAuthCredential } from './token-binding.ts';
import type { StoredTokensRow } from './repository.ts';
import {
  findProvider,
  isWiderPolicy,
  oauthClient,
  type OAuthSettings,
  type Policy,
  policyJson,
  findType,
} from '../credentials/index.ts';

export interface TokenSet {
  readonly accessToken: string | undefined;
  readonly refreshToken: string | undefined;
}

/** A credential as far as its tokens are concerned. */
export interface Situation {
  readonly row: StoredTokensRow | undefined;
  readonly sequence: number;
  readonly tokens: Secret<TokenSet> | undefined;
  /** Names the access token and tells nothing of it. */
  readonly tokenId: string;
  readonly expiresAt: Date | undefined;
  /** The provider has said no lifetime: `expiresAt` is what the credential assumes. */
  readonly isAssumed: boolean;
  readonly isRefreshable: boolean;
  /** The tokens are those that the current version brought. */
  readonly isOfVersion: boolean;
}

/**
 * The OAuth tokens stored for this client, under no narrower policy. Throws DecryptionFailed,
 * KeyUnavailable.
 */
export function situationOf(
  keyring: Keyring,
  of: OAuthCredential,
  row: StoredTokensRow | undefined,
  secrets: SecretFields,
): Situation {
  const { grant, assumedLifetimeSeconds } = oauthSettingsOf(of);
  const isByItself = grant === 'clientCredentials';
  const sequence = row?.sequence ?? 0;
  const nothing = {
    row,
    sequence,
    tokens: undefined,
    // What a version brings has a name of its version's.
    tokenId: `v${of.version}.${sequence}`,
    expiresAt: undefined,
    isAssumed: false,
    isRefreshable: isByItself,
    isOfVersion: false,
  };
  if (row?.hasToken === true) {
    // SECURITY: a token that was given to another client, or for a narrower use, counts for
    // nothing.
    if (findCanonicalJson(row.client) !== canonicalJson(clientOf(of))) return nothing;
    if (row.sealed === undefined) throw new DecryptionFailed();
    const opened = keyring.open(
      row.sealed.key,
      tokenSetBinding({
        team: of.team,
        credential: of.id,
        sequence: row.sequence,
        type: of.type,
        client: row.client,
        policy: row.policy,
      }),
      row.sealed.token,
    );
    // The policy of that time is the vault's word only now.
    if (isWiderPolicy(row.policy as unknown as Policy, of.policy)) return nothing;
    // SECURITY: exposed to be taken apart; what comes out is a Secret again.
    const { accessToken, refreshToken, expiresAt } = opened.expose();
    const isRefreshable = isByItself || refreshToken !== undefined;
    const said = timeOf(expiresAt);
    const assumed = isRefreshable ? assumedEnd(row.obtainedAt, assumedLifetimeSeconds) : undefined;
    return {
      row,
      sequence,
      tokens: new Secret({ accessToken, refreshToken }),
      tokenId: `t${sequence}`,
      expiresAt: said ?? assumed,
      isAssumed: said === undefined && assumed !== undefined,
      isRefreshable,
      isOfVersion: false,
    };
  }
  if (row?.takesVersion === false) return nothing;
  // SECURITY: the same.
  const { accessToken, refreshToken } = secrets.expose();
  if (accessToken === undefined && refreshToken === undefined) return nothing;
  const expiry = of.publicFields[findType(of.type)?.oauth?.expiryField ?? ''];
  return {
    ...nothing,
    tokens: new Secret({ accessToken, refreshToken }),
    expiresAt: timeOf(expiry === undefined ? undefined : String(expiry)),
    isRefreshable: isByItself || refreshToken !== undefined,
    isOfVersion: true,
  };
}

/** The token of a row at its next sequence. */
export function sealTokenSet(
  keyring: Keyring,
  key: WrappedDataKey,
  of: OAuthCredential,
  sequence: number,
  {
    tokens,
    expiresAt,
  }: {
    readonly tokens: Secret<TokenSet>;
    readonly expiresAt: Date | undefined;
  },
): string {
  // SECURITY: exposed here, to be sealed at once.
  const { accessToken, refreshToken } = tokens.expose();
  const fields = {
    ...(accessToken === undefined ? {} : { accessToken }),
    ...(refreshToken === undefined ? {} : { refreshToken }),
    ...(expiresAt === undefined ? {} : { expiresAt: expiresAt.toISOString() }),
  };
  return keyring.seal(
    key,
    tokenSetBinding({
      team: of.team,
      credential: of.id,
      sequence,
      type: of.type,
      client: clientOf(of),
      policy: policyJson(of.policy),
    }),
    new Secret(fields),
  );
}

/** The settings of a credential whose type has some. */
export function oauthSettingsOf({
  type,
  publicFields,
}: Pick<OAuthCredential, 'type' | 'publicFields'>): OAuthSettings {
  const settings = findType(type)?.oauth?.settings(publicFields);
  if (settings === undefined) throw new TypeError('the type holds no tokens');
  return settings;
}

/**
 * Where the provider's answers say that the account lives: for showing only, so that the entry of
 * now may say it.
 */
export function instanceOf({ publicFields }: Pick<OAuthCredential, 'publicFields'>): {
  readonly instance?: NonNullable<Reading['instance']>;
} {
  const instance = findProvider(String(publicFields['provider'] ?? ''))?.instance;
  return instance === undefined ? {} : { instance };
}

/** The client that tokens of this credential belong to. */
export function clientOf({
  type,
  publicFields,
}: Pick<OAuthCredential, 'type' | 'publicFields'>): JsonObject {
  const client = oauthClient(findType(type), publicFields);
  if (client === undefined) throw new TypeError('the type holds no tokens');
  return client;
}

const assumedLifetimeSecondsDefault = 3_600;
/** When a token ends whose provider said no lifetime; only asked where another can be had. */
export const assumedEnd = (
  obtainedAt: Date | null,
  seconds = assumedLifetimeSecondsDefault,
): Date | undefined =>
  obtainedAt === null ? undefined : new Date(obtainedAt.getTime() + seconds * 1000);

const timeOf = (text: string | undefined): Date | undefined =>
  text === undefined || Number.isNaN(Date.parse(text)) ? undefined : new Date(text);
