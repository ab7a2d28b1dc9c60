// The HTTP face of exports: lines of JSON, as fast as the reader takes them.
import { Readable } from 'node:stream';
import type { FastifyInstance } from 'fastify';
import { addOperation, Streamed } from '../http/operation.ts';
import { teamPath } from '../http/schemas.ts';
import { exportLine, exportQuery, textOf } from './schemas.ts';
import type { ExportsService } from './service.ts';
import type { Line } from './kinds.ts';

/**
 * How long a reader may leave what there is to read; the snapshot holds the database back
 * meanwhile.
 */
const silentMsMax = 30_000;
/** How long an export may take in all. */
const exportMsMax = 30 * 60_000;
const bufferBytes = 64 * 1024;

/** Adds the export. */
export function registerExports(
  app: FastifyInstance,
  { service, onError }: { service: ExportsService; onError: (error: Error) => void },
): void {
  addOperation(app, {
    // SECURITY: who may read the audit log may read every other line of it one by one too; nobody
    // else may.
    method: 'GET',
    url: '/v1/teams/:team/export',
    access: { team: 'audit.read', by: 'team' },
    operationId: 'exportTeam',
    tag: 'teams',
    summary: 'Read everything that is known of a team, without values',
    description:
      'One JSON object a line (NDJSON), each with its `kind`, all of one moment. Deleted ' +
      'credentials are there until they are destroyed. ' +
      'The last line is of the kind `end`: without it the export broke off. One export of a ' +
      'team and two in all at a time on a replica; a reader that takes nothing for 30 seconds ' +
      'is let go.',
    params: teamPath,
    query: exportQuery,
    success: {
      status: 200,
      schema: exportLine,
      mediaType: 'application/x-ndjson',
      description: 'The lines.',
    },
    handler: async ({ caller, scope, query, reply }) => {
      const lines = await service.exportTeam(caller, scope.team, {
        withEvents: query.events !== false,
      });
      void reply.header('Content-Disposition', `attachment; filename="${scope.team.slug}.ndjson"`);
      return new Streamed(
        streamOf(lines, {
          onError,
          onUnreadable: (row) => {
            service.unreadable(caller, scope.team, row);
          },
        }),
      );
    },
  });
}

/** The lines as bytes. The iteration is ended with the stream, whoever ends it. */
function streamOf(
  lines: AsyncGenerator<readonly Line[]>,
  {
    onError,
    onUnreadable,
  }: { onError: (error: Error) => void; onUnreadable: Parameters<typeof textOf>[1] },
): Readable {
  const whole = setTimeout(() => {
    stream.destroy(new Error('the export takes too long'));
  }, exportMsMax).unref();
  const silent = setTimeout(() => {
    stream.destroy(new Error('nobody reads the export'));
  }, silentMsMax).unref();
  const stream = new Readable({
    highWaterMark: bufferBytes,
    read() {
      silent.refresh();
      lines
        .next()
        .then(({ done, value }) => {
          this.push(
            done === true ? null : value.map((line) => textOf(line, onUnreadable)).join(''),
          );
        })
        .catch((error: unknown) => {
          onError(new Error('an export broke off', { cause: error }));
          this.destroy(new Error('the export broke off')); // in our own words: this one is passed on
        });
    },
    destroy(error, done) {
      clearTimeout(whole);
      clearTimeout(silent);
      lines.return(undefined).then(
        () => {
          done(error);
        },
        () => {
          done(error);
        },
      );
    },
  });
  // Also where nobody has begun to read it, because the caller was gone before.
  return stream.on('error', () => undefined);
}
