// One call from an engine to its credentials: asks for a lease, opens it, gives the credentials.
// Nothing is kept.
import type { JWTVerifyGetKey } from 'jose';
import type { EnginePrivateKey } from './engine-key.ts';
import { VaultProblem } from './errors.ts';
import { type OpenedLease, openLease, vaultKeys } from './open-lease.ts';

export interface VaultClientOptions {
  /** Where the vault is called. */
  readonly baseUrl: string;
  /** What its leases are issued as, where that is another URL: its public one. */
  readonly issuer?: string;
  /** The engine's own subject. */
  readonly subject: string;
  /** A valid JWT of the engine; asked for at each call. */
  readonly token: () => string | Promise<string>;
  readonly privateKeys: readonly EnginePrivateKey[];
  /** The longest that one call may take. */
  readonly timeoutMs?: number;
}

/** What to lease: credentials by id, or by team and name. */
export interface LeaseRequest {
  readonly credentials: readonly ((
    | { readonly id: string }
    | { readonly team: string; readonly name: string }
  ) & { readonly knownVersion?: number })[];
  readonly purpose: string;
  readonly runId?: string;
  readonly onBehalfOf?: string;
  readonly subjectToken?: string;
  readonly keyId?: string;
  readonly ttlSeconds?: number;
  /** Access tokens that an upstream refused: others are wanted. */
  readonly rejected?: readonly { readonly id: string; readonly tokenId: string }[];
}

/** Leases credentials from one vault. */
export class VaultClient {
  readonly #options: VaultClientOptions;
  readonly #baseUrl: string;
  readonly #keys: JWTVerifyGetKey;

  constructor(options: VaultClientOptions) {
    this.#options = options;
    this.#baseUrl = options.baseUrl.replace(/\/+$/, '');
    this.#keys = vaultKeys(`${this.#baseUrl}/.well-known/jwks.json`);
  }

  /**
   * Every credential that is asked for, or an error. Throws VaultProblem, LeaseInvalid, and what
   * `fetch` throws.
   */
  async lease(request: LeaseRequest): Promise<OpenedLease> {
    const { token, privateKeys, subject, issuer, timeoutMs = 10_000 } = this.#options;
    const answer = await fetch(`${this.#baseUrl}/v1/leases`, {
      method: 'POST',
      redirect: 'error',
      signal: AbortSignal.timeout(timeoutMs),
      headers: { authorization: `Bearer ${await token()}`, 'content-type': 'application/json' },
      body: JSON.stringify(request),
    });
    const document = (await answer.json().catch(() => ({}))) as {
      sealed?: unknown;
      code?: unknown;
    };
    if (answer.status !== 201 || typeof document.sealed !== 'string')
      throw new VaultProblem(answer.status, document);
    return openLease(document.sealed, {
      privateKeys,
      audience: subject,
      vault: { issuer: issuer ?? this.#baseUrl, keys: this.#keys },
    });
  }
}
