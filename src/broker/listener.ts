// The broker's listener: an origin of its own, with one route and no other; nothing of what an
// upstream sends is served where the vault's own pages are.
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import type { Logger } from 'pino';
import { HangUp } from '../shared/hang-up.ts';
import {
  brokerPathLengthMax,
  connectionTimeoutMs,
  headerTimeoutMs,
  lingerMs,
} from '../shared/limits.ts';
import { registerRequestLog } from '../http/logging.ts';
import { logFailure } from '../http/problem.ts';
import type { RateLimits } from '../http/rate-limits.ts';
import { createServer } from '../http/server.ts';
import { notFound } from '../shared/errors.ts';
import type { Addresses } from './addresses.ts';
import type { Calls } from './call.ts';
import { isWebSocket } from './handshake.ts';
import { extractTicket } from './ticket-extraction.ts';
import type { BrokerProxy } from './proxy.ts';
import { BrokerRefusal } from './refusal.ts';
import { refusalOf } from './refusals.ts';
import type { Tunnel } from './tunnel.ts';
import type { Call } from './types.ts';

export interface ListenerParts {
  readonly logger: Logger;
  readonly calls: Calls;
  readonly proxy: BrokerProxy;
  readonly addresses: Addresses;
  readonly rateLimits: Pick<RateLimits, 'address'>;
  readonly trustedProxies: readonly string[];
  readonly tls: { readonly cert: string; readonly key: string } | undefined;
  readonly isStopping: () => boolean;
  /** Told when a call begins and when it ends. */
  readonly onTraffic: () => void;
}

/** What marks an answer as the vault's own and not the upstream's. */
const own = { 'vault-error': 'true' };
const methods = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'] as const;

/**
 * A fastify app that answers at the addresses of credentials and nowhere else. Bodies are not
 * looked at before the call is admitted.
 */
export async function createBrokerListener({
  logger,
  calls,
  proxy,
  addresses,
  rateLimits,
  trustedProxies,
  tls,
  isStopping,
  onTraffic,
}: ListenerParts): Promise<FastifyInstance> {
  const app = await createServer({
    logger,
    trustedProxies,
    addressLimit: rateLimits.address,
    tls,
    isStopping,
    headers: own,
    refusal: (request) =>
      isCarried(request) ? notFound() : refusalOf(new BrokerRefusal('unsupported')),
    paramLengthMax: brokerPathLengthMax,
    takesUpgrade: isWebSocket,
    // A body or an answer may take as long as it moves; how long it may rest is the credential's
    // limit.
    // SECURITY: a connection without a call that was let out rests as little as anywhere: nobody
    // has to have a ticket to leave answers lying.
    timeouts: { requestMs: 0, connectionMs: connectionTimeoutMs, headersMs: headerTimeoutMs },
  });
  app.decorateRequest('caller', undefined);
  app.removeAllContentTypeParsers();
  app.addContentTypeParser('*', (_request, _payload, done) => {
    done(null);
  });
  app.decorateRequest('sub', undefined);
  registerRequestLog(app);
  app.addHook('onRequest', (_request, _reply, done) => {
    onTraffic();
    done();
  });
  app.addEnding((request) => {
    onTraffic();
    endLater(request);
  });

  const open = new Set<Pick<Tunnel, 'close'>>();
  app.addHook('preClose', (done) => {
    for (const tunnel of open)
      tunnel.close({ code: 1001, reason: 'the vault is stopping' }, 'stopping');
    done();
  });

  const handler = async (request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> => {
    const { url = '', headers } = request.raw;
    const { address, pathAndQuery, brokerPath, brokerUrl } = addresses.read({
      url,
      host: headers.host,
    });
    const presented = extractTicket(request.raw.rawHeaders);
    const handedOver = app.handedOver.get(request.raw);
    const call: Call = {
      at: address,
      presented,
      method: request.method,
      pathAndQuery,
      isUpgrade:
        handedOver !== undefined && isWebSocket(request) ? 'webSocket' : isUpgrade(request),
      rawHeaders: request.raw.rawHeaders,
      requestId: request.id,
      address: request.address,
      hangUp: new HangUp(reply.raw),
    };
    const admitted = await calls.admit(call);
    request.caller = admitted.caller;
    const settle = letRest(app.server, request.raw.socket);
    try {
      await proxy.carry(admitted, {
        request: request.raw,
        response: reply.raw,
        seenAt: {
          brokerPath,
          brokerUrl,
          ticketNames: presented?.places.map(({ name }) => name) ?? [],
        },
        isOwnUrl: (text) => addresses.isOwn(text, headers.host),
        take: () => {
          reply.hijack();
        },
        ...(handedOver === undefined
          ? {}
          : {
              webSocket: {
                head: handedOver.head,
                takeSocket: () => handedOver.take(),
                isAllowed: () => calls.stillStands(call, admitted),
                onOpen: (tunnel) => {
                  open.add(tunnel);
                  if (isStopping()) tunnel.close({ code: 1001, reason: 'stopping' }, 'stopping');
                  return () => open.delete(tunnel);
                },
              },
            }),
        log: (failure) => {
          logFailure(request.log, failure);
        },
      });
    } finally {
      settle();
    }
    return reply;
  };
  app.route({ method: [...methods], url: '/*', exposeHeadRoute: false, handler });

  await app.ready();
  return app;
}

type Socket = FastifyRequest['raw']['socket'];

/** Calls that are carried over a connection: several where the caller does not wait for answers. */
const carried = new WeakMap<Socket, number>();

/** The connection may rest until what is returned is called: a call has a clock of its own. */
function letRest({ timeout }: { readonly timeout: number }, socket: Socket): () => void {
  carried.set(socket, (carried.get(socket) ?? 0) + 1);
  socket.setTimeout(0);
  return () => {
    const left = (carried.get(socket) ?? 1) - 1;
    carried.set(socket, left);
    // Where the answer has left, Node has set how long it waits for the next request.
    if (left === 0 && socket.timeout === 0) socket.setTimeout(timeout);
  };
}

/** Whether the method is one that the broker carries at all. */
const isCarried = ({ method }: FastifyRequest): boolean =>
  (methods as readonly string[]).includes(method);

/**
 * A change to HTTP/2 is offered by clients that live well without it; any other is what the caller
 * came for.
 */
function isUpgrade({ headers }: FastifyRequest): boolean {
  return headers.upgrade !== undefined && headers.upgrade.toLowerCase() !== 'h2c';
}

/**
 * A caller that goes on sending after it was answered is listened to for a little while, and no
 * longer.
 */
function endLater({ raw }: FastifyRequest): void {
  if (raw.complete || raw.destroyed) return;
  const timer = setTimeout(() => {
    raw.destroy();
  }, lingerMs).unref();
  raw
    .once('close', () => {
      clearTimeout(timer);
    })
    .once('end', () => {
      clearTimeout(timer);
    });
}
