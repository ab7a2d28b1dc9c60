// The exchanges of a listener: which are under way, what is done when one is over, and a stop that
// lets them end.
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { stopGraceMs } from '../shared/limits.ts';

/** What is done when an exchange is over; `isCut` where its connection went away before. */
export type ExchangeEnd = (request: FastifyRequest, reply: FastifyReply, isCut: boolean) => void;

declare module 'fastify' {
  interface FastifyRequest {
    isOver: boolean;
  }
  interface FastifyInstance {
    /** Calls at the end of each exchange, answered or not, once. */
    addEnding(action: ExchangeEnd): void;
    /**
     * Takes nothing new, answers what has arrived whole, for as long as the grace lasts, then
     * closes every connection.
     */
    closeGently(graceMs?: number): Promise<void>;
  }
}

/** Requests that have come over a socket and are not answered yet, with their answers to be. */
export type UnderWay = (socket: Socket) => readonly (readonly [ServerResponse, IncomingMessage])[];

/** Follows the exchanges of an app. Its hooks are to come before all others. */
export function followExchanges(app: FastifyInstance): UnderWay {
  const underWay = new Map<ServerResponse, IncomingMessage>();
  let onNone = (): void => {
    /* nobody waits yet */
  };
  app.server.on('request', (request, response) => {
    underWay.set(response, request);
    // Whoever writes to an answer learns by its end that nobody is there.
    response.on('error', () => undefined);
    response.once('close', () => {
      underWay.delete(response);
      if (underWay.size === 0) onNone();
    });
  });
  addEndings(app);
  // Node closes connections that rest between two requests. One on which nothing, or half a
  // request, has come would hold up the stop until its time is over, and anybody can open one.
  app.decorate('closeGently', async (graceMs = stopGraceMs) => {
    const closed = app.close();
    for (const request of underWay.values()) if (!request.complete) request.destroy();
    if (underWay.size > 0) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, graceMs);
        onNone = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
    app.server.closeAllConnections();
    // Of connections that Node has handed over (CONNECT) it knows nothing more.
    for (const request of underWay.values()) request.socket.destroy();
    await closed;
  });
  return (socket) => [...underWay].filter(([, request]) => request.socket === socket);
}

function addEndings(app: FastifyInstance): void {
  const actions: ExchangeEnd[] = [];
  app.decorate('addEnding', (action: ExchangeEnd) => {
    actions.push(action);
  });
  app.decorateRequest('isOver', false);
  const end = (request: FastifyRequest, reply: FastifyReply, isCut: boolean): void => {
    if (request.isOver) return;
    request.isOver = true;
    for (const action of actions) action(request, reply, isCut);
  };
  app.addHook('onRequest', (request, reply, done) => {
    reply.raw.once('close', () => {
      end(request, reply, true);
    });
    done();
  });
  app.addHook('onResponse', (request, reply, done) => {
    end(request, reply, false);
    done();
  });
}
