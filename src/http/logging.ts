// What is logged of a request: an allow-list. No URL with its query, no header, no body, no row.
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import type { Logger } from 'pino';
import type { JwksNews } from './jwks.ts';

/**
 * One line for each exchange; `status` is null where the caller was gone before there was an
 * answer. The request's id is in every line of its logger.
 */
export function registerRequestLog(app: FastifyInstance): void {
  app.addEnding(logRequest);
}

/** The line itself, for answers that no hook sees. */
export function logRequest(request: FastifyRequest, reply: FastifyReply, isCut = false): void {
  request.log.info(
    {
      event: 'request',
      method: request.method,
      route: request.routeOptions.url ?? null, // the template: a path can hold a name
      status: isCut && isUndecided(reply) ? null : reply.statusCode,
      ...(isCut ? { isCut } : {}),
      durationMs: Math.round(reply.elapsedTime * 1000) / 1000,
      subject: request.caller?.sub ?? request.sub ?? null,
    },
    'request',
  );
}

/** Whether nothing has been said yet of how the request ends: 200 is what Node begins with. */
const isUndecided = ({ raw }: FastifyReply): boolean => !raw.headersSent && raw.statusCode === 200;

/**
 * Tokens and broker tickets that let nobody in, one by one or counted: a reason from a closed list,
 * and no part of them. Where none came there is nothing to tell of.
 */
export function logTokenRefused(
  logger: Logger,
  failed: {
    readonly reason: string | null;
    readonly count: number;
    readonly action: string;
    readonly requestId: string;
  },
): void {
  const { reason, count, action, requestId } = failed;
  if (reason === null && count === 1) return;
  if (reason === 'ticket')
    logger.info({ event: 'ticketRefused', count, requestId }, 'a broker ticket was refused');
  else
    logger.info({ event: 'tokenRefused', reason, count, action, requestId }, 'a token was refused');
}

/** Told of system keys that do not unwrap; names them when they are others than before. */
export function tellOfDamagedSystemKeys(logger: Logger): (
  keys: readonly {
    readonly id: string;
    readonly purpose: string;
    readonly version: number;
    readonly rootFingerprint: string;
  }[],
) => void {
  let told = '';
  return (keys) => {
    const now = keys.map(({ id }) => id).join();
    if (now === told) return;
    told = now;
    for (const { id, purpose, version, rootFingerprint } of keys)
      logger.error(
        { event: 'systemKeyDamaged', key: id, purpose, version, rootKey: rootFingerprint },
        'a system key does not unwrap: its row was changed',
      );
  };
}

/** What happens to the keys that verify tokens. */
export function logJwks(logger: Logger, news: JwksNews, issuer: string | undefined): void {
  const { kind, ...told } = news;
  const event = `jwks${kind[0]?.toUpperCase()}${kind.slice(1)}`;
  const line = { event, issuer: issuer ?? 'none', ...told };
  if (kind === 'available' || kind === 'left') logger.info(line, jwksTexts[kind]);
  else logger.warn(line, jwksTexts[kind]);
}

const jwksTexts: Readonly<Record<JwksNews['kind'], string>> = {
  unavailable: 'the keys that verify tokens cannot be fetched',
  available: 'the keys that verify tokens can be fetched again',
  cutOff: 'published keys are not taken: too many, of no use here, or under an id of another',
  left: 'keys are published no longer and verify nothing from now on',
};

/**
 * What failed beside the requests. Our own words are logged; of what others throw the name and the
 * code, because its text can quote values.
 */
export function logBackgroundFailure(logger: Logger, error: Error): void {
  const isOurs = error.constructor === Error;
  logger.error(
    {
      event: 'background',
      name: error.name,
      code: codeOf(error),
      cause: error.cause instanceof Error ? error.cause.name : undefined,
      causeCode: codeOf(error.cause),
    },
    isOurs ? error.message : 'work in the background failed',
  );
}

function codeOf(error: unknown): string | undefined {
  const { code } = (typeof error === 'object' && error !== null ? error : {}) as { code?: unknown };
  return typeof code === 'string' ? code : undefined;
}
