// The document of OpenID Connect that an issuer has: read once, when a credential is stored,
// through the egress, and written out. SECURITY: nothing that it says becomes another host: its
// issuer is ours, and its endpoints are of the issuer's origin.
import type { Egress } from '../egress/index.ts';
import { EgressFailed } from '../egress/index.ts';
import { parseJson } from '../shared/strict-json.ts';
import { AppError, invalid } from '../shared/errors.ts';
import { endpointFields } from './types/oauth-fields.ts';
import type { Discovered } from './providers/write-out.ts';
import { faultsIn } from '../shared/input-faults.ts';

export interface DiscoveryParts {
  readonly egress: Pick<Egress, 'request'>;
  readonly now: () => number;
}

const timeoutMs = 5_000;
const documentBytesMax = 256 * 1024;
const readsPerMinute = 10;
const minuteMs = 60_000;
const teamsMax = 10_000;

/** Reads the documents of issuers. */
export class Discovery {
  readonly #parts: DiscoveryParts;
  readonly #recent = new Map<string, readonly number[]>();
  constructor(parts: DiscoveryParts) {
    this.#parts = parts;
  }

  /**
   * What the issuer's document says. Throws invalidRequest where it says something else than it
   * may, oauthUnavailable where there is none to be had, rateLimited.
   */
  async read(issuer: string, team: string): Promise<Discovered> {
    this.#count(team);
    const document = await this.#fetch(issuer, team);
    const text = (name: string): string =>
      typeof document[name] === 'string' ? document[name] : '';
    const list = (name: string): readonly unknown[] | undefined =>
      Array.isArray(document[name]) ? document[name] : undefined;
    const [authorizationUrl, tokenUrl] = [text('authorization_endpoint'), text('token_endpoint')];
    const isOurs =
      text('issuer') === issuer &&
      isEndpointOf(issuer, authorizationUrl) &&
      isEndpointOf(issuer, tokenUrl);
    if (!isOurs) throw refused();
    const methods = list('token_endpoint_auth_methods_supported') ?? ['client_secret_basic'];
    return {
      authorizationUrl,
      tokenUrl,
      clientAuthentication: methods.includes('client_secret_basic') ? 'header' : 'body',
      isIssuerNamed: document['authorization_response_iss_parameter_supported'] === true,
    };
  }

  async #fetch(issuer: string, team: string): Promise<Readonly<Record<string, unknown>>> {
    try {
      const answer = await this.#parts.egress.request({
        url: `${issuer.replace(/\/$/, '')}/.well-known/openid-configuration`,
        method: 'GET',
        headers: { accept: 'application/json' },
        team,
        timeoutMs,
        responseBytesMax: documentBytesMax,
      });
      if (answer.status !== 200) throw unavailable();
      const document = parsed(answer.body);
      if (typeof document !== 'object' || document === null) throw refused();
      return document as Readonly<Record<string, unknown>>;
    } catch (error) {
      throw error instanceof EgressFailed ? unavailable() : error;
    }
  }

  /** SECURITY: a team that stores issuers much faster than a person would is scanning something. */
  #count(team: string): void {
    const now = this.#parts.now();
    const recent = (this.#recent.get(team) ?? []).filter((at) => at > now - minuteMs && at <= now);
    if (recent.length >= readsPerMinute)
      throw new AppError(
        'rateLimited',
        'Too many issuers for this team; wait as Retry-After says.',
        {
          retryAfterSeconds: Math.ceil((recent[0]! + minuteMs - now) / 1000),
        },
      );
    if (this.#recent.size >= teamsMax) this.#recent.clear();
    this.#recent.set(team, [...recent, now]);
  }
}

/** SECURITY: of the issuer's scheme, host and port, and of the form that a stored endpoint has. */
function isEndpointOf(issuer: string, url: string): boolean {
  const origin = URL.parse(issuer)?.origin;
  return (
    origin !== undefined &&
    URL.parse(url)?.origin === origin &&
    faultsIn(endpointFields.tokenUrl.schema, url, '').length === 0
  );
}

function parsed(body: Buffer): unknown {
  try {
    return parseJson(body);
  } catch {
    throw refused(); // its words may quote the document
  }
}

const refused = (): AppError => invalid('/fields/issuer', 'discovery');
const unavailable = (): AppError =>
  new AppError('oauthUnavailable', "The issuer's document is not available: try again later.", {
    retryAfterSeconds: 5,
  });
