// A look into an app while it is composed: hooks of a test, in before the app's own.
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import type { FastifyInstance } from 'fastify';

/**
 * Runs `start` and hands every fastify app that it makes to `hook` before anything is registered on
 * it.
 */
export async function hooked<T>(
  hook: (app: FastifyInstance) => void,
  start: () => Promise<T>,
): Promise<T> {
  const listener = (message: unknown): void => {
    hook((message as { fastify: FastifyInstance }).fastify);
  };
  subscribe('fastify.initialization', listener);
  try {
    return await start();
  } finally {
    unsubscribe('fastify.initialization', listener);
  }
}
