// A whole vault over `inject`, on a database of its own: what integration tests talk to. Nothing in
// it is mocked but the clock.
import { pino } from 'pino';
import { Writable } from 'node:stream';
import { randomBytes } from 'node:crypto';
import { SignJWT } from 'jose';
import type { FastifyInstance, InjectOptions } from 'fastify';
import { buildApp } from '../../src/app.ts';
import type { WebSocketTimes } from '../../src/broker/index.ts';
import { generateRootKey, type Keyring, parseRootKeys } from '../../src/crypto/index.ts';
import type { OAuthProvider } from '../../src/credentials/providers/define.ts';
import type { Db } from '../../src/db/client.ts';
import type { DatabaseClock } from '../../src/db/clock.ts';
import { Egress } from '../../src/egress/index.ts';
import { ConfiguredDocuments } from '../../src/egress/documents.ts';
import type { Issuer } from '../../src/access/issuers.ts';
import { documentBytesMax, documentTimeoutMs } from '../../src/http/jwks.ts';
import type { ReadinessCheck } from '../../src/http/health.ts';
import { openKeyring } from '../../src/keys/system-keys.ts';
import {
  type AnyOperation,
  problemCodesOf,
  problemsOfNoOperation,
} from '../../src/http/operation.ts';
import type { ErrorCode } from '../../src/shared/errors.ts';
import { clockOf, type MovedTime } from './clock.ts';
import type { GrowthLimits } from '../../src/shared/growth.ts';
import { testDatabase } from './database.ts';
import { hooked } from './hooked.ts';
import { oneIssuer, type Verification } from './issuers.ts';

const issuer = 'https://issuer.test';
const audience = 'credential-vault';
const secret = randomBytes(48).toString('base64url');

export interface Answer {
  readonly status: number;
  readonly headers: Record<string, string | string[] | number | undefined>;
  readonly text: string;
  readonly json: any;
}

export interface TestVault {
  readonly app: FastifyInstance;
  /** The broker's app; it listens when it is told to. */
  readonly broker: FastifyInstance;
  readonly db: Db;
  readonly databaseUrl: string;
  readonly keyring: Keyring;
  readonly rootKey: string;
  /** Every log line so far. */
  readonly logs: string[];
  /** Every answer so far, whole: what the canary is sought in. */
  readonly answers: string[];
  /** What was thrown on the way to an answer; the log does not say it. */
  readonly thrown: unknown[];
  /** The time, the database's and the vault's; add to `ms` to travel. */
  readonly clock: MovedTime;
  readonly databaseClock: DatabaseClock;
  token(sub: string, claims?: Record<string, unknown>): Promise<string>;
  /** Calls as a subject; `null` sends no token. A body is sent as JSON. */
  call(
    as: string | null,
    method: string,
    url: string,
    body?: unknown,
    headers?: Record<string, string>,
  ): Promise<Answer>;
  /** A team with these admins, made by the operator. */
  team(slug: string, admins?: string[]): Promise<void>;
  /** Adds or changes a member, as the admin. */
  member(team: string, sub: string, role: string, admin?: string, extra?: object): Promise<void>;
  /** Starts what runs in the background (rotation, use counts, housekeeping). */
  start(): void;
  /** Stops everything, as the process does; teardown does it too. */
  stop(): Promise<void>;
}

interface Options {
  operators?: string[];
  rateLimits?: { address: number; subject: number };
  brokerCallsMax?: number;
  webSocketTimes?: WebSocketTimes;
  growthLimits?: Partial<GrowthLimits>;
  tokenFormat?: 'fernet' | 'fernet-256';
  database?: { url: string; db: Db };
  rootKey?: string;
  publicUrl?: () => string;
  brokerUrl?: () => string | undefined;
  brokerHostSuffix?: string;
  verification?: Verification;
  /** Beside the one that `verification` describes. */
  moreIssuers?: readonly Issuer[];
  /** Authorities that count for fetching keys. */
  ca?: string;
  readiness?: readonly ReadinessCheck[];
  trustedProxies?: string[];
  tls?: { cert: string; key: string };
  /** What the vault dials through; without it, it reaches nothing private. */
  egress?: Egress;
  oauthRedirectUri?: string;
  oauthProviders?: readonly OAuthProvider[];
  /** What the replica's own clock is ahead of the database's. */
  skew?: MovedTime;
}
interface Teardown {
  teardown(action: () => unknown): unknown;
}

/** Starts a vault. The subject `operator` is its operator. */
export async function startVault(t: Teardown, options: Options = {}): Promise<TestVault> {
  const database = options.database ?? (await testDatabase(t));
  const rootKey = options.rootKey ?? generateRootKey();
  const { clock, time } = await clockOf(
    database.db,
    options.skew === undefined ? {} : { skew: options.skew },
  );
  const { now } = clock;
  const keyring = await openKeyring({ db: database.db, roots: parseRootKeys(rootKey), now });
  const egress = options.egress ?? new Egress({ allow: [], own: () => [] });
  const documents = new ConfiguredDocuments(options.ca, {
    timeoutMs: documentTimeoutMs,
    bytesMax: documentBytesMax,
  });
  const logs: string[] = [];
  const answers: string[] = [];
  const thrown: unknown[] = [];
  const stream = new Writable({
    write(chunk: Buffer, _encoding, done) {
      logs.push(chunk.toString('utf8'));
      done();
    },
  });
  const asked = new Map<string, AnyOperation>();
  const vault = await hooked(
    (app) => {
      noteOperations(app, asked);
      app.addHook('onError', async (_request, _reply, error) => {
        thrown.push(error);
      });
    },
    () =>
      buildApp({
        db: database.db,
        keyring,
        rootKeys: parseRootKeys(rootKey).fingerprints,
        logger: pino({ level: 'trace' }, stream),
        clock,
        issuers: [
          oneIssuer(options.verification ?? { issuer, audience, source: { secret } }),
          ...(options.moreIssuers ?? []),
        ],
        fetchDocumentFor: ({ ca }) => documents.for(ca),
        operators: options.operators ?? ['operator'],
        tokenFormat: options.tokenFormat ?? 'fernet',
        publicUrl: options.publicUrl ?? (() => 'https://vault.test'),
        brokerUrl: options.brokerUrl ?? (() => 'https://broker.test'),
        brokerHostSuffix: options.brokerHostSuffix,
        brokerCallsMax: options.brokerCallsMax ?? 1_000,
        ...(options.webSocketTimes === undefined ? {} : { webSocketTimes: options.webSocketTimes }),
        growthLimits: options.growthLimits,
        rateLimits: options.rateLimits ?? { address: 0, subject: 0 },
        trustedProxies: options.trustedProxies ?? [],
        tls: options.tls,
        readiness: options.readiness ?? [
          {
            name: 'database',
            check: async () => {
              await database.db.selectFrom('team').select('id').limit(1).execute();
              return true;
            },
          },
        ],
        egress,
        oauthRedirectUri: options.oauthRedirectUri,
        ...(options.oauthProviders === undefined ? {} : { oauthProviders: options.oauthProviders }),
      }),
  );
  let stopped: Promise<void> | undefined;
  const stop = (): Promise<void> =>
    (stopped ??= vault.stop().then(async () => {
      await egress.close();
      await documents.close();
    }));
  t.teardown(stop);

  const token = (sub: string, claims: Record<string, unknown> = {}): Promise<string> => {
    const at = Math.floor(now() / 1000);
    return new SignJWT({ iss: issuer, aud: audience, iat: at, exp: at + 600, sub, ...claims })
      .setProtectedHeader({ alg: 'HS256' })
      .sign(new TextEncoder().encode(secret));
  };
  const call: TestVault['call'] = async (as, method, url, body, headers = {}) => {
    const answer = await vault.app.inject({
      method: method as NonNullable<InjectOptions['method']>,
      url,
      headers: {
        ...(as === null ? {} : { authorization: `Bearer ${await token(as)}` }),
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
        ...headers,
      },
      ...(body === undefined
        ? {}
        : {
            payload:
              typeof body === 'string' || Buffer.isBuffer(body) ? body : JSON.stringify(body),
          }),
    });
    if (method !== 'HEAD') checkPromise(asked.get(String(answer.headers['x-request-id'])), answer);
    answers.push(`${answer.statusCode} ${JSON.stringify(answer.headers)}\n${answer.body}`);
    return {
      status: answer.statusCode,
      headers: answer.headers,
      text: answer.body,
      json: jsonOf(String(answer.headers['content-type']), answer.body),
    };
  };
  const must = (answer: Answer, status: number): void => {
    if (answer.status !== status)
      throw new Error(`expected ${status}, got ${answer.status}: ${answer.text}`);
  };
  return {
    app: vault.app,
    broker: vault.broker,
    db: database.db,
    databaseUrl: database.url,
    keyring,
    rootKey,
    logs,
    answers,
    thrown,
    clock: time,
    databaseClock: clock,
    token,
    call,
    start: () => {
      vault.start();
    },
    stop,
    team: async (slug, admins = ['alice']) => {
      must(await call('operator', 'POST', '/v1/teams', { slug, name: slug, admins }), 201);
    },
    member: async (team, sub, role, admin = 'alice', extra = {}) => {
      must(
        await call(
          admin,
          'PUT',
          `/v1/teams/${team}/members/${encodeURIComponent(sub)}`,
          { role, ...extra },
          { 'if-match': '*' },
        ),
        200,
      );
    },
  };
}

function noteOperations(app: FastifyInstance, asked: Map<string, AnyOperation>): void {
  app.addHook('onRequest', async (request) => {
    const { operation } = request.routeOptions.config;
    if (operation !== undefined) asked.set(request.id, operation);
  });
}

/** The body; of several lines of JSON all of them. */
function jsonOf(type: string, body: string): unknown {
  if (!type.includes('json') || body === '') return undefined;
  return type.startsWith('application/x-ndjson')
    ? body
        .trimEnd()
        .split('\n')
        .map((line) => JSON.parse(line) as unknown)
    : JSON.parse(body);
}

/** Whichever test meets an answer that openapi.yaml does not promise fails by it. */
function checkPromise(
  operation: AnyOperation | undefined,
  {
    statusCode,
    headers,
    body,
  }: { statusCode: number; headers: Record<string, unknown>; body: string },
): void {
  if (operation === undefined) return;
  const { operationId, success, guards } = operation;
  if (operation.otherwise?.status === statusCode) return;
  if (statusCode < 400) {
    const isWhole =
      statusCode === success.status &&
      (guards?.etag === undefined || headers['etag'] !== undefined) &&
      (success.location !== true || headers['location'] !== undefined);
    if (!isWhole)
      throw new Error(
        `${operationId} answers ${statusCode}, ETag ${String(headers['etag'])}, Location ${String(headers['location'])}: not what openapi.yaml says`,
      );
    return;
  }
  const { code } = JSON.parse(body) as { code: ErrorCode };
  if (![...problemCodesOf(operation), ...problemsOfNoOperation].includes(code))
    throw new Error(`${operationId} answers ${code}, which openapi.yaml does not promise`);
}
