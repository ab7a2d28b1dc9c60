// The bare server: limits, the one parser of bodies, headers on every answer, problems for whatever
// goes wrong before, in and after a route. It knows no route.
import { randomUUIDv7 } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import fastify, {
  type FastifyInstance,
  type FastifyReply,
  type FastifyRequest,
  LogController,
} from 'fastify';
import type { Logger } from 'pino';
import { z } from 'zod';
import { AppError, notFound } from '../shared/errors.ts';
import { answerClientError } from './client-errors.ts';
import { parseJson } from './json.ts';
import {
  bodyBytesMax,
  connectionTimeoutMs,
  headerBytesMax,
  paramLengthMax,
  requestTimeoutMs,
  stopGraceMs,
  timeoutCheckMs,
} from './limits.ts';
import { logRequest } from './logging.ts';
import { sendProblem } from './problem.ts';
import { schemaErrorFormatter, serializerCompiler, validatorCompiler } from './validation.ts';

export interface ServerParts {
  readonly logger: Logger;
  readonly trustedProxies: readonly string[];
  readonly tls: { readonly cert: string; readonly key: string } | undefined;
  /** Once true, requests that still arrive on open connections are refused. */
  readonly isStopping: () => boolean;
  /** On every answer that is made here. */
  readonly headers?: Readonly<Record<string, string>>;
  /** What is said where there is no route. */
  readonly refusal?: (request: FastifyRequest) => AppError;
  readonly paramLengthMax?: number;
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

/** A fastify app without routes. */
export function createServer({
  logger,
  trustedProxies,
  tls,
  isStopping,
  headers = {},
  timeouts,
  ...parts
}: ServerParts): FastifyInstance {
  const ofNode = {
    maxHeaderSize: headerBytesMax,
    connectionsCheckingInterval: timeoutCheckMs,
    ...(timeouts === undefined ? {} : { headersTimeout: timeouts.headersMs }),
  };
  const addHeaders = (request: FastifyRequest, reply: FastifyReply): void => {
    void reply.headers({
      'X-Request-Id': request.id,
      'X-Content-Type-Options': 'nosniff',
      'Referrer-Policy': 'no-referrer',
      ...headers,
    });
    if (reply.getHeader('Cache-Control') === undefined)
      void reply.header('Cache-Control', 'no-store');
    if (reply.getHeader('Content-Security-Policy') === undefined)
      void reply.header('Content-Security-Policy', "default-src 'none'; frame-ancestors 'none'");
    if (tls !== undefined) void reply.header('Strict-Transport-Security', 'max-age=31536000');
  };
  const app = fastify({
    loggerInstance: logger,
    logController: new LogController({
      disableRequestLogging: true,
      requestIdLogLabel: 'requestId',
    }), // fastify's own lines carry the URL with its query
    genReqId: () => randomUUIDv7(),
    requestIdHeader: false,
    trustProxy: trustedProxies.length === 0 ? false : [...trustedProxies],
    bodyLimit: bodyBytesMax,
    requestTimeout: timeouts?.requestMs ?? requestTimeoutMs,
    connectionTimeout: timeouts?.connectionMs ?? connectionTimeoutMs,
    routerOptions: {
      maxParamLength: parts.paramLengthMax ?? paramLengthMax,
      ignoreTrailingSlash: false,
      caseSensitive: true,
    },
    exposeHeadRoutes: false,
    forceCloseConnections: 'idle',
    return503OnClosing: false, // its answer is no problem document; the hook below gives one
    clientErrorHandler: (error, socket) => {
      answerClientError(error, socket, logger, headers);
    },
    // What is refused before a route is found (bad URL, over-long parameter) meets no hook.
    frameworkErrors: (error, request, reply) => {
      addHeaders(request, reply);
      sendProblem(error, request, reply);
      logRequest(request, reply);
    },
    schemaErrorFormatter,
    ...(tls === undefined
      ? { http: ofNode }
      : { https: { ...ofNode, cert: tls.cert, key: tls.key, minVersion: 'TLSv1.2' as const } }),
  }) as unknown as FastifyInstance;
  app.decorate('operations', []);
  app.decorate('closeGently', gentleClose(app));
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
  // Hooks that wait for nothing are callbacks: a promise for each, at each request, is felt.
  app.addHook('onRequest', (request, _reply, done) => {
    if (isStopping() && request.routeOptions.config.isProbe !== true)
      done(new AppError('notReady', 'The vault is stopping.', { retryAfterSeconds: 1 }));
    else done();
  });
  app.addHook('onSend', (request, reply, _payload, done) => {
    addHeaders(request, reply);
    done();
  });
  return app;
}

declare module 'fastify' {
  interface FastifyInstance {
    /** Takes nothing new, answers what has arrived whole, for as long as the grace lasts, then closes every connection. */ closeGently(
      graceMs?: number,
    ): Promise<void>;
  }
}

// Node closes connections that rest between two requests. One on which nothing, or half a request,
// has come would hold up the stop until its time is over, and anybody can open one.
function gentleClose(app: FastifyInstance): (graceMs?: number) => Promise<void> {
  const running = new Map<ServerResponse, IncomingMessage>();
  let done = (): void => {
    /* nobody waits yet */
  };
  app.server.on('request', (request, response) => {
    running.set(response, request);
    response.once('close', () => {
      running.delete(response);
      if (running.size === 0) done();
    });
  });
  return async (graceMs = stopGraceMs) => {
    const closed = app.close();
    for (const request of running.values()) if (!request.complete) request.destroy();
    if (running.size > 0) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, graceMs);
        done = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
    app.server.closeAllConnections();
    await closed;
  };
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
  if (bytes.length > 0) return parseJson(bytes);
  const { operation } = request.routeOptions.config;
  if (operation?.body === undefined || operation.isBodyOptional === true) return undefined;
  throw new AppError('malformedJson', 'The body is empty.');
}
