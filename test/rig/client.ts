// Requests to the replicas, as a platform behind a balancer sends them: mostly to those that say
// they are ready, sometimes to others. What came back is judged here only as far as HTTP goes.
import { errors, Pool } from 'undici';
import { codeByStatus, documentOperations, undocumented } from '../helpers/documented-answers.ts';
import { audience, forge, issuer, type Signer } from '../helpers/identity.ts';
import type { Journal } from './journal.ts';
import type { Random } from './random.ts';
import type { Replica } from './replica.ts';
import type { Station } from './setting.ts';

export interface Call {
  readonly operation: string;
  /** The subject; null sends no token. */
  readonly as: string | null;
  readonly params?: Readonly<Record<string, string>>;
  readonly query?: Readonly<Record<string, string>>;
  readonly body?: unknown;
  readonly headers?: Readonly<Record<string, string>>;
}

/** What came back. `none`: nothing, and it may have happened; `notSent`: it reached nobody. */
export interface Answered {
  readonly outcome: 'answer' | 'none' | 'notSent';
  readonly replica: string;
  readonly start: number;
  readonly status?: number;
  readonly code?: string;
  readonly requestId?: string;
  readonly error?: string;
  readonly ms: number;
  readonly etag?: string;
  /** Bodies are looked at member by member. */
  readonly json?: any;
}

/** How long a caller waits before it asks somebody else. */
const patienceMs = 20_000;
/** How long any request may take at a replica that runs all the while. */
const answerMsMax = 60_000;

/** Codes by which a replica says that nothing happened and that another may be asked. */
export const passingCodes: readonly string[] = [
  'databaseUnavailable',
  'notReady',
  'rateLimited',
  'keyUnavailable',
  'identityProviderUnavailable',
  'keyBusy',
];

export class Client {
  readonly #stations: readonly Station[];
  readonly #secret: Signer;
  readonly #journal: Journal;
  readonly #random: Random;
  readonly #pools = new Map<string, Pool>();
  readonly #late = new Set<Promise<void>>();
  #ready: readonly Replica[];
  #watching: NodeJS.Timeout | undefined;

  constructor(parts: {
    stations: readonly Station[];
    secret: Signer;
    journal: Journal;
    random: Random;
  }) {
    this.#stations = parts.stations;
    this.#secret = parts.secret;
    this.#journal = parts.journal;
    this.#random = parts.random;
    this.#ready = parts.stations.map(({ replica }) => replica);
  }

  /** Asks the replicas every second whether they are ready. */
  watch(): void {
    this.#watching = setInterval(() => {
      void Promise.all(
        this.#stations.map(async ({ replica }) => ((await replica.isReady()) ? [replica] : [])),
      ).then((found) => {
        this.#ready = found.flat();
      });
    }, 1_000);
  }

  get readyCount(): number {
    return this.#ready.length;
  }

  /** A replica to ask. */
  choose(): Replica {
    const listening = this.#stations
      .map(({ replica }) => replica)
      .filter(({ url, isAlive }) => isAlive && url !== '');
    const ready = this.#ready.filter((each) => listening.includes(each));
    if (ready.length > 0 && this.#random.chance(0.85)) return this.#random.pick(ready);
    return this.#random.pick(
      listening.length > 0 ? listening : this.#stations.map(({ replica }) => replica),
    );
  }

  /** A token by the clock of the replica that will read it: what clocks do wrong shows elsewhere. */
  token(as: string, replica?: Replica): string {
    const at = Math.floor((Date.now() + (replica?.clock.skewMs ?? 0)) / 1000);
    const claims = { iss: issuer, aud: audience, sub: as, iat: at - 30, exp: at + 3_600 };
    return forge(this.#secret, { alg: 'HS256' }, claims);
  }

  /** Sends it once, and waits as long as a caller would. `onLate` gets an answer after that. */
  async send(
    call: Call,
    replica: Replica,
    onLate: (answer: Answered) => void = () => undefined,
  ): Promise<Answered> {
    const found = documentOperations.get(call.operation);
    if (found === undefined) throw new Error(`there is no operation ${call.operation}`);
    const path = found.path.replaceAll(/\{(\w+)\}/g, (_, name: string) => {
      const value = call.params?.[name];
      if (value === undefined) throw new Error(`${call.operation} needs ${name}`);
      return encodeURIComponent(value);
    });
    const query = new URLSearchParams(call.query ?? {}).toString();
    const begun = this.#exchange(
      call,
      replica,
      found.method,
      query === '' ? path : `${path}?${query}`,
    );
    let timer: NodeJS.Timeout | undefined;
    const impatient = new Promise<undefined>((resolve) => {
      timer = setTimeout(() => resolve(undefined), patienceMs);
    });
    const answer = await Promise.race([begun, impatient]);
    clearTimeout(timer);
    if (answer !== undefined) return answer;
    const late = begun.then((found) => {
      if (found.outcome === 'answer') onLate(found);
    });
    this.#late.add(late);
    void late.finally(() => this.#late.delete(late));
    return {
      outcome: 'none',
      replica: replica.name,
      start: replica.starts,
      error: 'patience',
      ms: patienceMs,
    };
  }

  /** Returns when nothing is under way any more. */
  async settle(): Promise<void> {
    await Promise.all([...this.#late]);
  }

  async close(): Promise<void> {
    clearInterval(this.#watching);
    for (const pool of this.#pools.values()) await pool.destroy();
  }

  async #exchange(
    { operation, as, body, headers = {} }: Call,
    replica: Replica,
    method: string,
    path: string,
  ): Promise<Answered> {
    const begun = performance.now();
    const { name, starts: start, freezes, url } = replica;
    const of = { replica: name, start };
    const ms = (): number => Math.round(performance.now() - begun);
    if (url === '') return { ...of, outcome: 'notSent', error: 'notListening', ms: 0 };
    try {
      const response = await this.#poolOf(replica).request({
        method: method as 'GET',
        path,
        headers: {
          ...(as === null ? {} : { authorization: `Bearer ${this.token(as, replica)}` }),
          ...(body === undefined ? {} : { 'content-type': 'application/json' }),
          ...headers,
        },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      });
      const text = await response.body.text();
      const header = (wanted: string): string | undefined => {
        const value = response.headers[wanted.toLowerCase()];
        return Array.isArray(value) ? value[0] : value;
      };
      const faults = undocumented(operation, { status: response.statusCode, header, text });
      const json = jsonOf(text);
      const status = response.statusCode;
      const code =
        status < 400
          ? undefined
          : method === 'HEAD'
            ? codeByStatus(operation, status)
            : String(json?.code);
      const requestId = header('x-request-id');
      if (faults.length > 0)
        this.#journal.fault('undocumentedAnswer', `${operation} at ${name}: ${faults.join(', ')}`);
      if (response.statusCode === 500)
        this.#journal.fault('internalError', `${operation} at ${name}, request ${requestId}`);
      const etag = header('etag');
      return {
        ...of,
        outcome: 'answer',
        status: response.statusCode,
        ...(code === undefined ? {} : { code }),
        ...(requestId === undefined ? {} : { requestId }),
        ...(etag === undefined ? {} : { etag }),
        json,
        ms: ms(),
      };
    } catch (error) {
      const { code, name: kind } = error as NodeJS.ErrnoException;
      const isUnsent =
        code === 'ECONNREFUSED' || error instanceof errors.ConnectTimeoutError || kind === 'unsent';
      const ranOn = replica.isAlive && replica.starts === start && replica.freezes === freezes;
      if (ms() >= answerMsMax && ranOn)
        this.#journal.fault('noAnswer', `${operation} at ${name} in ${ms()} ms`);
      return {
        ...of,
        outcome: isUnsent ? 'notSent' : 'none',
        error: String(code ?? kind),
        ms: ms(),
      };
    }
  }

  #poolOf(replica: Replica): Pool {
    const key = `${replica.name}/${replica.starts}`;
    const known = this.#pools.get(key);
    if (known !== undefined) return known;
    for (const [other, pool] of this.#pools)
      if (other.startsWith(`${replica.name}/`)) {
        this.#pools.delete(other);
        void pool.destroy();
      }
    const pool = new Pool(replica.url, {
      connections: 64,
      connectTimeout: 5_000,
      headersTimeout: answerMsMax,
      bodyTimeout: answerMsMax,
      keepAliveTimeout: 10_000,
    });
    this.#pools.set(key, pool);
    return pool;
  }
}

function jsonOf(text: string): any {
  if (text === '') return undefined;
  try {
    return JSON.parse(text);
  } catch {
    return text; // several lines of JSON, or none
  }
}
