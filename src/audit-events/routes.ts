// Reading the audit log, and the access records that reading (of anything) leaves.
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { z } from 'zod';
import type { Keyring } from '../crypto/index.ts';
import type { Db } from '../db/client.ts';
import { addOperation } from '../http/operation.ts';
import type { Cursors } from '../http/paging.ts';
import { pageOf, pageQuery, teamPath, timeInput } from '../http/schemas.ts';
import type { JsonObject } from '../shared/json.ts';
import { findEndOfEvents, hasEventFilters, listEvents } from './repository.ts';
import { action, event, showEvent, targetId } from './schemas.ts';
import { showEach } from '../shared/showing.ts';
import { actionOf } from '../access/index.ts';
import type { AuditLog } from '../audit/index.ts';

const listQuery = z.strictObject({
  ...pageQuery,
  action: action.optional(),
  target: targetId.min(1).optional().meta({ description: 'The id of the target.' }),
  decision: z.enum(['allow', 'deny']).optional(),
  from: timeInput.optional(),
  until: timeInput.optional(),
});

/** So many events a page looks at, where its filters ask more than when they were. */
const walkedMaxDefault = 10_000;

/** Adds the reading of audit events. */
export function registerAudit(
  app: FastifyInstance,
  {
    db,
    keyring,
    cursors,
    walkedMax = walkedMaxDefault,
  }: { db: Db; keyring: Keyring; cursors: Cursors; walkedMax?: number },
): void {
  addOperation(app, {
    method: 'GET',
    url: '/v1/teams/:team/audit-events',
    access: { team: 'audit.read', by: 'team' },
    operationId: 'listAuditEvents',
    tag: 'audit',
    summary: 'List the audit events of a team',
    description:
      'Newest first. With `action`, `target` or `decision` a page looks at a bounded number of ' +
      'events: it may hold fewer than `limit`, or none, and still have a `nextCursor`.',
    params: teamPath,
    query: listQuery,
    problems: ['invalidCursor'],
    success: {
      status: 200,
      schema: pageOf(event).meta({ id: 'AuditEventPage' }),
      description: 'A page of events.',
    },
    handler: async ({ scope, query, caller }) => {
      const { limit, cursor, ...filters } = query;
      const identity = {
        list: 'auditEvents',
        subject: caller.sub,
        filters: JSON.parse(JSON.stringify({ ...filters, team: scope.team.slug })) as JsonObject,
      };
      const page = cursors.page({ limit, cursor }, identity);
      const [at, last] = page.after ?? [];
      const before =
        at === undefined || last === undefined ? undefined : { at: new Date(at), id: last };
      const asked = {
        action: filters.action,
        target: filters.target,
        decision: filters.decision,
        from: filters.from === undefined ? undefined : new Date(filters.from),
        until: filters.until === undefined ? undefined : new Date(filters.until),
      };
      const wanted = page.limit + 1;
      const rows = await listEvents(db, scope.team.id, asked, { limit: wanted, before, walkedMax });
      const end =
        rows.length < wanted && hasEventFilters(asked)
          ? await findEndOfEvents(db, scope.team.id, asked, { before, walkedMax })
          : undefined;
      const placeOf = (row: { at: Date; id: string }): readonly string[] => [
        row.at.toISOString(),
        row.id,
      ];
      const { items, nextCursor } = cursors.cut(
        rows,
        page,
        identity,
        placeOf,
        end === undefined ? undefined : placeOf(end),
      );
      return { items: showEach(items, (row) => showEvent(row, keyring)), nextCursor };
    },
  });
}

/**
 * Leaves an access record for every authenticated read of which anything has left the vault,
 * whether or not the caller stayed to the end. A request whose event found no month has the months
 * made, so that the next one finds it.
 */
export function registerAccessRecords(app: FastifyInstance, audit: AuditLog): void {
  app.addHook('onError', (_request, _reply, error, done) => {
    audit.notice(error);
    done();
  });
  app.addEnding((request, reply) => {
    if (reply.raw.headersSent) recordRead(audit, request, reply);
  });
}

function recordRead(audit: AuditLog, request: FastifyRequest, reply: FastifyReply): void {
  const { caller, resolved } = request;
  const { access } = request.routeOptions.config;
  if (caller === undefined || access === undefined || request.method !== 'GET') return;
  const { id: target } = request.params as { id?: string };
  audit.access({
    subject: caller.strangerOf === undefined ? caller.subject : null,
    team: resolved?.team.id ?? null,
    action: actionOf(access),
    target: resolved === undefined ? null : (target ?? null),
    status: reply.statusCode,
    requestId: request.id,
    address: caller.address,
  });
}
