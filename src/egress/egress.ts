// The door to the outside: everything that dials goes through here, with one rule. A target is a
// DNS name whose addresses are all global unicast, or one that the operator allowed; what was
// checked is what is connected to; TLS is always verified; no proxy, no redirect.
import type { Socket } from 'node:net';
import type { SecureContext } from 'node:tls';
import { type Dispatcher, Pool } from 'undici';
import {
  type Address,
  isGlobalUnicast,
  isLoopbackAddress,
  isNever,
  parseAddress,
} from './addresses.ts';
import { type AllowRule, isAllowedBy, rulesFor } from './allow.ts';
import { dial, secure, trustedAuthorities } from './dial.ts';
import { type Answer, exchange } from './exchange.ts';
import { EgressFailed } from './failure.ts';
import { configuredHost, hostName, type Origin, parseTarget } from './names.ts';
import { isOwn, type OwnEndpoint } from './own.ts';
import { raced } from './raced.ts';
import { NameCache, type Resolve, systemResolve } from './resolve.ts';
import { type Upgrade, type Upgraded, upgradeOver } from './upgrade.ts';

export interface EgressParts {
  readonly allow: readonly AllowRule[];
  /**
   * The vault's own listeners and database; asked at every check, because a free port is known only
   * later.
   */
  readonly own: () => readonly OwnEndpoint[];
  /** Certificates, in PEM, of authorities that count beside the usual ones. */
  readonly ca?: string | undefined;
  /**
   * Every target stands in the configuration: it may be private, an address, and beside the vault
   * behind one name. SECURITY: never for a target that anybody else has chosen.
   */
  readonly isConfigured?: true;
  readonly resolve?: Resolve;
  readonly connectMs?: number;
  readonly headersMs?: number;
  readonly rememberNamesMs?: number;
}

/** A target that may be dialled, and where. */
export interface CheckedOrigin extends Origin {
  readonly addresses: readonly string[];
  /**
   * A rule of the operator names it, for these addresses: only then may a secret go over a
   * connection without TLS.
   */
  readonly isAllowedPlain: boolean;
}

export interface EgressRequest {
  readonly url: string;
  readonly method: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string | Buffer;
  /** The slug of the team for which it is. */
  readonly team: string;
  /** For everything together, from the name to the last byte. */
  readonly timeoutMs: number;
  readonly responseBytesMax: number;
}

type Verdict = 'refused' | 'allowed' | 'allowedPlain';

/** "Bad ports" of the Fetch standard of WHATWG. */
const blockedPorts: ReadonlySet<number> = new Set([
  0, 1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102,
  103, 104, 109, 110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465,
  512, 513, 514, 515, 526, 530, 531, 532, 540, 548, 554, 556, 563, 587, 601, 636, 989, 990, 993,
  995, 1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6379, 6566, 6665, 6666, 6667,
  6668, 6669, 6679, 6697, 10080,
]);

const connectMsDefault = 3_000;
const headersMsDefault = 10_000;
const rememberNamesMsDefault = 5_000;
const addressesMax = 32;
const poolsMax = 1_000;
const poolIdleMs = 120_000;
/** For the vault's own questions; they wait for one of these as long as they have time. */
const ownConnectionsPerPool = 64;

/** Calls of others, which may last for hours, leave the vault's own questions their connections. */
type Purpose = 'call' | 'own';

/** Checks, connects, and keeps connections. */
export class Egress {
  readonly #parts: EgressParts;
  readonly #names: NameCache;
  /** What was found about a list of addresses, for as long as that very list is remembered. */
  readonly #verdicts = new WeakMap<readonly string[], Map<string, Verdict>>();
  readonly #connectMs: number;
  readonly #headersMs: number;
  readonly #pools = new Map<string, { readonly pool: Pool; usedAt: number }>();
  /** Addresses that stand for themselves. */
  readonly #literals = new Map<string, readonly string[]>();
  #trust: SecureContext | undefined;
  readonly #closed = new AbortController();

  constructor(parts: EgressParts) {
    this.#parts = parts;
    this.#connectMs = parts.connectMs ?? connectMsDefault;
    this.#names = new NameCache(parts.resolve ?? systemResolve(), {
      limitMs: this.#connectMs,
      keepMs: parts.rememberNamesMs ?? rememberNamesMsDefault,
    });
    this.#headersMs = parts.headersMs ?? headersMsDefault;
  }

  /**
   * The target with its addresses. Throws EgressFailed `name`: the same for a name without
   * addresses and for what may not be dialled.
   */
  async check(origin: Origin, team: string): Promise<CheckedOrigin> {
    const { isNamed, ...checked } = await this.#checkHost(origin.host, origin.port, team);
    // SECURITY: what listens there speaks something else, and would take a body of somebody's
    // choosing for it.
    if (blockedPorts.has(origin.port) && !isNamed) throw new EgressFailed('name');
    // SECURITY: without TLS anybody on the way reads the secret, so only where the operator knows
    // the way.
    if (origin.protocol !== 'https:' && !checked.isAllowedPlain) throw new EgressFailed('name');
    return { ...checked, protocol: origin.protocol };
  }

  /**
   * A dispatcher for calls, whose connections go to the addresses checked now. Nothing waits in it:
   * it has as many connections as are used at once, so the caller bounds their number. Ask for it
   * at each use: one that was not asked for lately gets closed when it is idle.
   */
  dispatcher(origin: Origin, team: string): Promise<Dispatcher> {
    return this.#dispatcher(origin, team, 'call');
  }

  async #dispatcher(origin: Origin, team: string, purpose: Purpose): Promise<Dispatcher> {
    const checked = await this.check(origin, team);
    // SECURITY: teams share no connection, and a name that moves gets new ones.
    const key = [
      purpose,
      checked.protocol,
      checked.host,
      checked.port,
      team,
      ...checked.addresses,
    ].join(' ');
    const known = this.#pools.get(key);
    const pool = known?.pool ?? this.#poolFor(checked, purpose);
    this.#pools.delete(key); // the one used last stands last
    this.#pools.set(key, { pool, usedAt: performance.now() });
    this.#closeIdle();
    return pool;
  }

  /** A connection by itself. The caller closes it. Throws EgressFailed. */
  async connect(
    host: string,
    port: number,
    options: { team: string; tls: boolean; timeoutMs: number },
  ): Promise<Socket> {
    const checked = await this.#checkHost(host, port, options.team);
    return dial({
      ...checked,
      trust: options.tls ? this.trust : undefined,
      protocols: [],
      timeoutMs: Math.min(options.timeoutMs, this.#connectMs),
      closed: this.#closed.signal,
    });
  }

  /**
   * A request over a connection of its own, which may become something else. Throws EgressFailed
   * and what the connection throws; ends with the signal.
   */
  async upgrade(origin: Origin, team: string, options: Upgrade): Promise<Upgraded> {
    const { signal } = options;
    const { protocol, host, port, addresses } = await this.check(origin, team);
    const dialled = dial({
      host,
      port,
      addresses,
      trust: protocol === 'https:' ? this.trust : undefined,
      protocols: ['http/1.1'],
      timeoutMs: this.#connectMs,
      closed: this.#closed.signal,
    });
    const socket = await raced(
      signal,
      dialled,
      () => signal.reason,
      (late) => late.destroy(),
    );
    return upgradeOver(socket, options);
  }

  /**
   * A connection of `connect` turned to TLS, its certificate checked for the host. Throws
   * EgressFailed; the connection is closed then.
   */
  secure(socket: Socket, host: string, options: { timeoutMs: number }): Promise<Socket> {
    return secure(socket, {
      host,
      trust: this.trust,
      timeoutMs: Math.min(options.timeoutMs, this.#connectMs),
      closed: this.#closed.signal,
    });
  }

  /** One exchange over HTTP, whole. A redirect is an answer like any other. Throws EgressFailed. */
  async request(request: EgressRequest): Promise<Answer> {
    const target = parseTarget(request.url, this.#hostOf);
    if (target === undefined) throw new EgressFailed('name');
    return exchange({
      ...request,
      path: target.path,
      headersMs: this.#headersMs,
      dispatcher: () => this.#dispatcher(target.origin, request.team, 'own'),
    });
  }

  /** What certificates are checked against; for a connection that turns to TLS later. */
  get trust(): SecureContext {
    return (this.#trust ??= trustedAuthorities(this.#parts.ca));
  }

  /** Ends every connection, and everything that waits for one. */
  async close(): Promise<void> {
    this.#closed.abort();
    this.#names.close();
    const pools = [...this.#pools.values()];
    this.#pools.clear();
    await Promise.all(pools.map(({ pool }) => pool.destroy()));
  }

  /** The host as it is dialled; a literal address only where it stands in the configuration. */
  readonly #hostOf = (text: string): string | undefined => {
    if (this.#parts.isConfigured !== true) return hostName(text);
    const host = configuredHost(text);
    if (host !== undefined && parseAddress(host) !== undefined && !this.#literals.has(host))
      this.#literals.set(host, [host]);
    return host;
  };

  async #checkHost(
    given: string,
    port: number,
    team: string,
  ): Promise<Omit<CheckedOrigin, 'protocol'> & { readonly isNamed: boolean }> {
    const host = this.#hostOf(given);
    if (host === undefined || this.#closed.signal.aborted) throw new EgressFailed('name');
    const rules = rulesFor(this.#parts.allow, { host, port, team });
    const isOperators = rules.length > 0 || this.#parts.isConfigured === true;
    const literal = this.#literals.get(host);
    const addresses = literal ?? (await this.#names.find(host, { isOperators }));
    const verdicts = this.#verdicts.get(addresses) ?? new Map<string, Verdict>();
    this.#verdicts.set(addresses, verdicts);
    const verdict =
      verdicts.get(`${port} ${team}`) ?? (await this.#judge({ host, port, addresses }, rules));
    verdicts.set(`${port} ${team}`, verdict);
    if (verdict === 'refused') throw new EgressFailed('name');
    return {
      host,
      port,
      addresses: addresses.slice(0, addressesMax),
      isAllowedPlain: verdict === 'allowedPlain',
      isNamed: isOperators,
    };
  }

  async #judge(
    { host, port, addresses }: { host: string; port: number; addresses: readonly string[] },
    rules: readonly AllowRule[],
  ): Promise<Verdict> {
    const parsed = addresses.map(parseAddress);
    const known = parsed.filter((address): address is Address => address !== undefined);
    if (this.#parts.isConfigured === true) {
      if (known.length === 0 || known.length !== parsed.length || known.some(isNever))
        return 'refused';
      // SECURITY: without TLS nothing leaves this machine.
      return known.every(isLoopbackAddress) ? 'allowedPlain' : 'allowed';
    }
    // SECURITY: one address that may not be dialled refuses the name: it is nobody's mistake to
    // have a public name point inside.
    const isRefused =
      known.length === 0 ||
      known.length !== parsed.length ||
      known.some(
        (address) => isNever(address) || !(isAllowedBy(rules, address) || isGlobalUnicast(address)),
      );
    if (
      isRefused ||
      (await isOwn({ host, port, addresses: known }, this.#parts.own(), this.#names))
    )
      return 'refused';
    return known.every((address) => isAllowedBy(rules, address)) ? 'allowedPlain' : 'allowed';
  }

  #poolFor(checked: CheckedOrigin, purpose: Purpose): Pool {
    const { protocol, host, port, addresses } = checked;
    const trust = protocol === 'https:' ? this.trust : undefined;
    return new Pool(`${protocol}//${host.includes(':') ? `[${host}]` : host}:${port}`, {
      connections: purpose === 'own' ? ownConnectionsPerPool : null,
      pipelining: 1,
      allowH2: false,
      headersTimeout: this.#headersMs,
      // SECURITY: what undici hands in is left aside; it takes the name of the certificate from a
      // Host header.
      connect: (_options, done) => {
        dial({
          host,
          port,
          addresses,
          trust,
          protocols: ['http/1.1'],
          timeoutMs: this.#connectMs,
          closed: this.#closed.signal,
        }).then(
          (socket) => {
            done(null, socket);
          },
          (error: unknown) => {
            done(error as Error, null);
          },
        );
      },
    });
  }

  #closeIdle(): void {
    const before = performance.now() - poolIdleMs;
    for (const [key, { pool, usedAt }] of this.#pools) {
      if (usedAt >= before && this.#pools.size <= poolsMax) break;
      this.#pools.delete(key);
      // waits for what it has begun; there is nobody to tell
      void pool.close().catch(() => undefined);
    }
  }
}
