// The bare server: limits, the one parser of bodies, headers on every answer, problems for whatever
// goes wrong before, in and after a route. It knows no route.
import { randomUUIDv7 } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import fastify, {
  type FastifyInstance,
  type FastifyReply,
  type FastifyRequest,
  LogController,
} from 'fastify';
import type { Logger } from 'pino';
import { z } from 'zod';
import { AppError, invalid, notFound } from '../shared/errors.ts';
import { describeFailure } from '../shared/failure.ts';
import { addressFinder, rememberPeers } from './address.ts';
import { clientErrorAnswerer } from './client-errors.ts';
import { followExchanges } from './exchanges.ts';
import { faultOfHead } from './head.ts';
import { parseJson } from '../shared/strict-json.ts';
import {
  bodyBytesMax,
  connectionTimeoutMs,
  headerBytesMax,
  requestTimeoutMs,
  timeoutCheckMs,
} from '../shared/limits.ts';
import { logRequest } from './logging.ts';
import { takeOverAnswers } from './node-answers.ts';
import { pathRules } from './path-forms.ts';
import { sendProblem } from './problem.ts';
import { addAddressLimit } from './rate-limits.ts';
import { schemaErrorFormatter, serializerCompiler, validatorCompiler } from './validation.ts';

export interface ServerParts {
  readonly logger: Logger;
  readonly trustedProxies: readonly string[];
  /** Requests a minute from one address; 0 is no limit. */
  readonly addressLimit: number;
  readonly tls: { readonly cert: string; readonly key: string } | undefined;
  /** Once true, requests that still arrive on open connections are refused. */
  readonly isStopping: () => boolean;
  /** On every answer that is made here. */
  readonly headers?: Readonly<Record<string, string>>;
  /** What is said where there is no route. */
  readonly refusal?: (request: FastifyRequest) => AppError;
  readonly paramLengthMax?: number;
  /** Whether a request with an Upgrade is handed over with its connection; none is without it. */
  readonly takesUpgrade?: (request: IncomingMessage) => boolean;
  /**
   * How long a request may take to arrive, how long a connection may rest, how long a header block
   * may take; 0 is for ever.
   */
  readonly timeouts?: {
    readonly requestMs: number;
    readonly connectionMs: number;
    readonly headersMs: number;
  };
}

/** On answers that say nothing else of it. */
const unlessSaid = {
  'Cache-Control': 'no-store',
  'Content-Security-Policy': "default-src 'none'; frame-ancestors 'none'",
} as const;

/**
 * A fastify app without routes. Whatever comes is given its address, counted, and looked at for
 * what is refused to everybody, before the hooks that are added later.
 */
export async function createServer({
  logger,
  trustedProxies,
  addressLimit,
  tls,
  isStopping,
  headers = {},
  timeouts,
  ...parts
}: ServerParts): Promise<FastifyInstance> {
  const addressOf = addressFinder(trustedProxies);
  const ids = new WeakMap<object, string>();
  const ofNode = {
    maxHeaderSize: headerBytesMax,
    requireHostHeader: false, // who sends none is refused in ./head.ts
    connectionsCheckingInterval: timeoutCheckMs,
    ...(timeouts === undefined ? {} : { headersTimeout: timeouts.headersMs }),
    ...(parts.takesUpgrade === undefined ? {} : { shouldUpgradeCallback: parts.takesUpgrade }),
  };
  const always = {
    'X-Content-Type-Options': 'nosniff',
    'Referrer-Policy': 'no-referrer',
    ...(tls === undefined ? {} : { 'Strict-Transport-Security': 'max-age=31536000' }),
    ...headers,
  };
  const addHeaders = (request: FastifyRequest, reply: FastifyReply): void => {
    void reply.headers({ 'X-Request-Id': request.id, ...always });
    for (const [name, value] of Object.entries(unlessSaid))
      if (reply.getHeader(name) === undefined) void reply.header(name, value);
  };
  const app = fastify({
    // SECURITY: what fastify itself logs of an error has no text either.
    loggerInstance: logger.child({}, { serializers: { err: describeFailure } }),
    logController: new LogController({
      disableRequestLogging: true,
      requestIdLogLabel: 'requestId',
    }), // fastify's own lines carry the URL with its query
    genReqId: (request) => {
      const id = randomUUIDv7();
      ids.set(request, id);
      return id;
    },
    requestIdHeader: false,
    trustProxy: false, // what is forwarded is read in ./address.ts, where it has to be an address
    bodyLimit: bodyBytesMax,
    requestTimeout: timeouts?.requestMs ?? requestTimeoutMs,
    connectionTimeout: timeouts?.connectionMs ?? connectionTimeoutMs,
    routerOptions: {
      ...pathRules,
      ...(parts.paramLengthMax === undefined ? {} : { maxParamLength: parts.paramLengthMax }),
    },
    exposeHeadRoutes: false,
    forceCloseConnections: 'idle',
    return503OnClosing: false, // its answer is no problem document; the hook below gives one
    clientErrorHandler: clientErrorAnswerer({
      logger,
      headers: { ...unlessSaid, ...always },
      count: async (socket) => countAddress?.(addressOf({ socket, headers: {} })),
      idOf: (request) => ids.get(request),
    }),
    // What is refused before a route is found (bad URL, over-long parameter) meets no hook.
    frameworkErrors: (error, request, reply) => {
      const refuse = (refusal?: AppError): void => {
        addHeaders(request, reply);
        sendProblem(refusal ?? faultOfHead(request.raw) ?? error, request, reply);
        logRequest(request, reply);
      };
      if (countAddress === undefined) refuse();
      else void countAddress(addressOf(request.raw)).then(refuse, refuse);
    },
    schemaErrorFormatter,
    ...(tls === undefined
      ? { http: ofNode }
      : { https: { ...ofNode, cert: tls.cert, key: tls.key, minVersion: 'TLSv1.2' as const } }),
  }) as unknown as FastifyInstance;
  takeOverAnswers(app, {
    logger,
    underWay: followExchanges(app),
    takesUpgrades: parts.takesUpgrade !== undefined,
  });
  rememberPeers(app.server);
  const countAddress = await addAddressLimit(app, addressLimit);
  app.decorate('operations', []);
  app.setValidatorCompiler(validatorCompiler as never);
  app.setSerializerCompiler(serializerCompiler as never);
  app.setErrorHandler(sendProblem);
  app.setNotFoundHandler((request, reply) =>
    sendProblem(parts.refusal?.(request) ?? notFound(), request, reply),
  );
  app.removeAllContentTypeParsers();
  app.addContentTypeParser('application/json', { parseAs: 'buffer' }, readBody as never);
  app.addHook('onRoute', (route) => {
    const { operation } = route.config ?? {};
    if (operation === undefined) return;
    // A query member that the operation does not name is refused; one without any refuses them all.
    route.schema = { ...route.schema, querystring: route.schema?.querystring ?? noQuery };
  });
  app.decorateRequest('address', null);
  // Hooks that wait for nothing are callbacks: a promise for each, at each request, is felt.
  app.addHook('onRequest', (request, _reply, done) => {
    // SECURITY: taken now, because nobody can tell it any more when the connection is reset.
    request.address = addressOf(request.raw);
    const fault = faultOfHead(request.raw);
    const { isProbe = false } = request.routeOptions.config;
    const goOn = (refusal?: Error): void => {
      done(refusal ?? fault ?? (isStopping() && !isProbe ? stopping() : undefined));
    };
    if (countAddress === undefined || (isProbe && fault === undefined)) goOn();
    else void countAddress(request.address).then(goOn, goOn);
  });
  app.addHook('onSend', (request, reply, _payload, done) => {
    addHeaders(request, reply);
    done();
  });
  return app;
}

const stopping = (): AppError =>
  new AppError('notReady', 'The vault is stopping.', { retryAfterSeconds: 1 });

declare module 'fastify' {
  interface FastifyRequest {
    /**
     * Where it comes from; null where the peer was gone before it was known. It goes nowhere but
     * into limits and the audit's erasable side row.
     */
    address: string | null;
  }
}

const noQuery = z.strictObject({});

/**
 * The body as bytes → its value. An empty one is nothing, which operations that take no body
 * accept.
 */
async function readBody(request: FastifyRequest, bytes: Buffer): Promise<unknown> {
  const { 'content-type': type = '', 'content-encoding': encoding = 'identity' } = request.headers;
  const charset = /;\s*charset\s*=\s*"?([^;"\s]*)/i.exec(type)?.[1];
  if (
    encoding.toLowerCase() !== 'identity' ||
    (charset !== undefined && !/^utf-?8$/i.test(charset))
  ) {
    throw new AppError(
      'unsupportedMediaType',
      'The body must be application/json in UTF-8, not compressed.',
    );
  }
  const { operation } = request.routeOptions.config;
  const mayBeLeftOut = operation?.body === undefined || operation.isBodyOptional === true;
  if (bytes.length > 0) {
    const value = parseJson(bytes, { areNumbersExact: true });
    // To fastify it is the same as no body.
    if (value === null && mayBeLeftOut) throw invalid('', 'type', { allowed: ['object'] });
    return value;
  }
  if (mayBeLeftOut) return undefined;
  throw new AppError('malformedJson', 'The body is empty.');
}
