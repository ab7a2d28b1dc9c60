// Where Node would answer by itself, or hand over a socket and forget about it, the request becomes
// one like any other: it meets the hooks, is counted, logged, and answered with a problem document.
import { type IncomingMessage, type Server, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { FastifyInstance } from 'fastify';
import type { Logger } from 'pino';
import { hangUp } from './client-errors.ts';
import type { UnderWay } from './exchanges.ts';
import { bodyBytesMax, connectionTimeoutMs } from '../shared/limits.ts';

declare module 'fastify' {
  interface FastifyInstance {
    /** Answers whose request waits for leave to send its body. */
    awaitingContinue: WeakSet<ServerResponse>;
    /** Requests with whose connection Node has nothing more to do. */
    handedOver: WeakMap<IncomingMessage, HandedOver>;
  }
}

/** A connection that Node has let go of, while its request is answered. */
export interface HandedOver {
  /** What came right behind the request. */
  readonly head: Buffer;
  /**
   * The connection, for who answers with something else than an answer; the exchange is over when
   * it is closed.
   */
  take(): Socket;
}

/** Takes over the events for which Node has an answer of its own. */
export function takeOverAnswers(
  app: FastifyInstance,
  {
    logger,
    underWay,
    takesUpgrades,
  }: { logger: Logger; underWay: UnderWay; takesUpgrades: boolean },
): void {
  const server = app.server as Server;
  // SECURITY: all header lines are looked at, not the first thousand: a second Host could stand
  // behind them. How long they may be together is limited.
  server.maxHeadersCount = 0;
  const awaiting = new WeakSet<ServerResponse>();
  app.decorate('awaitingContinue', awaiting);
  const handedOver = new WeakMap<IncomingMessage, HandedOver>();
  app.decorate('handedOver', handedOver);
  server.on('checkContinue', (request: IncomingMessage, response: ServerResponse) => {
    awaiting.add(response);
    server.emit('request', request, response);
  });
  server.on('checkExpectation', (request: IncomingMessage, response: ServerResponse) => {
    server.emit('request', request, response);
  });
  const handOver = (request: IncomingMessage, socket: Socket, head: Buffer): void => {
    answerHandedOver(server, { request, socket, head }, { underWay, handedOver });
  };
  server.on('connect', handOver);
  // A Node that does not ask which upgrades are wanted would hand over all of them.
  if (takesUpgrades && 'shouldUpgradeCallback' in server) server.on('upgrade', handOver);
  const guard = (socket: Socket): void => {
    // SECURITY: Node takes its own listener away from sockets that it hands over; a reset of one
    // without any would end the process.
    socket.on('error', () => undefined);
  };
  server.on('connection', guard);
  server.on('secureConnection', guard);
  server.on('error', (error: NodeJS.ErrnoException) => {
    // Before it listens, the start fails by it. Afterwards a connection could not be accepted.
    if (server.listening)
      logger.error({ event: 'listenerFailed', code: error.code ?? null }, 'a listener failed');
  });
}

/**
 * Lets a caller that waits for it send its body, when the request has been let through. A body that
 * would be too long is not sent for.
 */
export function addContinue(app: FastifyInstance): void {
  app.addHook('preParsing', (request, reply, payload, done) => {
    if (
      app.awaitingContinue.delete(reply.raw) &&
      !(Number(request.headers['content-length']) > bodyBytesMax)
    )
      reply.raw.writeContinue();
    done(null, payload);
  });
}

/**
 * What Node hands over (CONNECT, Upgrade) is answered as a request, after those that came before it
 * on the connection.
 */
function answerHandedOver(
  server: Server,
  { request, socket, head }: { request: IncomingMessage; socket: Socket; head: Buffer },
  { underWay, handedOver }: { underWay: UnderWay; handedOver: FastifyInstance['handedOver'] },
): void {
  // Node has let go of the connection: what it did at its end is done here, and before anybody is
  // told of that end. Answers that wait for their turn would otherwise never hear of it.
  let taken: ServerResponse | undefined;
  socket.prependOnceListener('close', () => {
    for (const [answer, earlier] of underWay(socket)) {
      earlier.destroy();
      if (answer.socket === null && answer !== taken) answer.emit('close');
    }
  });
  // Nor does it look after the connection any more: whoever takes nothing of their answers would
  // have it, and them, for ever.
  socket.once('timeout', () => socket.destroy()).setTimeout(server.timeout);
  const response = new ServerResponse(request);
  response.shouldKeepAlive = false;
  const answer = (): void => {
    const [[earlier] = []] = underWay(socket);
    if (earlier !== undefined) {
      earlier.once('close', answer);
      return;
    }
    if (socket.destroyed) return;
    if (server.timeout === 0) socket.setTimeout(connectionTimeoutMs);
    response.assignSocket(socket);
    handedOver.set(request, {
      head,
      take: () => {
        taken = response;
        response.detachSocket(socket);
        response.statusCode = 101;
        socket.setTimeout(0);
        socket.once('close', () => {
          response.emit('finish');
          setImmediate(() => response.emit('close'));
        });
        return socket;
      },
    });
    server.emit('request', request, response);
    response.once('finish', () => {
      if (taken === response) return;
      response.detachSocket(socket);
      hangUp(socket);
      setImmediate(() => response.emit('close'));
    });
  };
  answer();
}
