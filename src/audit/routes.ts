// Reading the trail, and the access records that reading (of anything) leaves.
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { z } from 'zod';
import type { Keyring } from '../crypto/index.ts';
import type { Db } from '../db/client.ts';
import { actionOf } from '../http/access.ts';
import { addOperation } from '../http/operation.ts';
import type { Cursors } from '../http/paging.ts';
import { id, line, pageOf, pageQuery, subject, teamPath, time, timeInput, version } from '../http/schemas.ts';
import type { JsonObject } from '../shared/json.ts';
import { verifyAddress, verifyEvent } from './event.ts';
import type { AuditLog } from './record.ts';
import { type EventRow, listEvents } from './repository.ts';

const action = z.string().min(3).max(60).regex(/^[a-zA-Z]+(?:\.[a-zA-Z]+)+$/).meta({ examples: ['credential.create'] });
const targetId = line(64).meta({ examples: ['019aa7c2-5b1e-7c3a-9d52-0a4f6e1b2c3d'] });
const text = line(255);
const detail = z.union([text, z.int().meta({ format: 'int64' }), z.boolean(), z.array(text).max(200)]);
const event = z.strictObject({
  id, at: time,
  actor: subject.nullable().meta({ description: 'Who; null when the subject was erased.' }),
  action,
  target: z.strictObject({ type: z.string().max(40).regex(/^[a-zA-Z]+$/).meta({ examples: ['credential'] }), id: targetId, subject: subject.nullable().meta({ description: 'When the target is a subject.' }) }),
  decision: z.enum(['allow', 'deny']), reason: line(60).nullable(), requestId: line(64).meta({ examples: ['019aa7c2-5b1e-7c3a-9d52-0a4f6e1b2c3d'] }),
  key: id.nullable(), credentialVersion: version.nullable(), address: line(64).nullable(),
  onBehalfOf: subject.nullable(), purpose: line(200).nullable(), runId: line(200).nullable(),
  details: z.record(z.string().max(60).regex(/^[a-zA-Z]+$/), detail).meta({ maxProperties: 30, description: 'Names, ids and counts; never a value.', examples: [{ type: 'openai' }] }),
  intact: z.boolean().meta({ description: 'Whether the event is as it was written; an address that was erased does not count.' }),
}).meta({ id: 'AuditEvent' });

const listQuery = z.strictObject({
  ...pageQuery, action: action.optional(), target: targetId.min(1).optional().meta({ description: 'The id of the target.' }),
  decision: z.enum(['allow', 'deny']).optional(), from: timeInput.optional(), until: timeInput.optional(),
});

/** Adds the reading of audit events. */
export function registerAudit(app: FastifyInstance, { db, keyring, cursors }: { db: Db; keyring: Keyring; cursors: Cursors }): void {
  addOperation(app, {
    method: 'GET', url: '/v1/teams/:team/audit-events', access: { team: 'audit.read', by: 'team' }, operationId: 'listAuditEvents', tag: 'audit',
    summary: 'List the audit events of a team', description: 'Newest first.', params: teamPath, query: listQuery, problems: ['invalidCursor'],
    success: { status: 200, schema: pageOf(event).meta({ id: 'AuditEventPage' }), description: 'A page of events.' },
    handler: async ({ scope, query, caller }) => {
      const { limit, cursor, ...filters } = query;
      const identity = { list: 'auditEvents', subject: caller.sub, filters: JSON.parse(JSON.stringify({ ...filters, team: scope.team.slug })) as JsonObject };
      const page = cursors.page({ limit, cursor }, identity);
      const [at, last] = page.after ?? [];
      const rows = await listEvents(db, scope.team.id, {
        action: filters.action, target: filters.target, decision: filters.decision,
        from: filters.from === undefined ? undefined : new Date(filters.from), until: filters.until === undefined ? undefined : new Date(filters.until),
      }, { limit: page.limit + 1, before: at === undefined || last === undefined ? undefined : { at: new Date(at), id: last } });
      const { items, nextCursor } = cursors.cut(rows, page, identity, (row) => [row.at.toISOString(), row.id]);
      return { items: items.map((row) => show(row, keyring)), nextCursor };
    },
  });
}

type Shown = z.output<typeof event>;

function show(row: EventRow, keyring: Keyring): Shown {
  const { onBehalfOf, purpose, runId, ...details } = (row.details as JsonObject | null) ?? {};
  const { grantee } = details;
  const textOf = (value: unknown): string | null => (typeof value === 'string' ? value : null);
  const isAddressTrue = row.address === null || row.salt === null || verifyAddress(row, { address: row.address, salt: row.salt });
  const shown: Shown = {
    id: row.id, at: row.at, actor: row.actorSub, action: row.action,
    target: { type: row.targetType, id: row.targetId, subject: row.targetType === 'subject' ? row.people[row.targetId] ?? null : null },
    decision: row.decision, reason: row.reason, requestId: row.requestId, key: row.key, credentialVersion: row.credentialVersion,
    address: isAddressTrue ? row.address : null,
    onBehalfOf: typeof onBehalfOf === 'string' ? row.people[onBehalfOf] ?? null : null, purpose: textOf(purpose), runId: textOf(runId),
    details: { ...details, ...(typeof grantee === 'string' ? { grantee: row.people[grantee] ?? grantee } : {}) } as Shown['details'], intact: isAddressTrue && verifyEvent(row, keyring),
  };
  return shown.intact || event.safeParse(shown).success ? shown : unreadable(row);
}

/** What is shown of a row that somebody bent until it does not fit: one such row must not hide the others. */
function unreadable({ id: held, at }: EventRow): Shown {
  return {
    id: id.safeParse(held).success ? held : noId, at, actor: null, action: 'audit.unreadable', target: { type: 'unknown', id: 'unknown', subject: null },
    decision: 'deny', reason: null, requestId: 'unknown', key: null, credentialVersion: null, address: null, onBehalfOf: null, purpose: null, runId: null,
    details: {}, intact: false,
  };
}

const noId = '00000000-0000-7000-8000-000000000000' as EventRow['id'];

/** Leaves an access record for every authenticated read. */
export function registerAccessRecords(app: FastifyInstance, audit: AuditLog): void {
  app.addHook('onResponse', (request, reply, done) => {
    recordRead(audit, request, reply);
    done();
  });
}

function recordRead(audit: AuditLog, request: FastifyRequest, reply: FastifyReply): void {
  const { caller, located } = request;
  const { access } = request.routeOptions.config;
  if (caller === undefined || access === undefined || request.method !== 'GET') return;
  const { id: target } = request.params as { id?: string };
  audit.access({
    subject: caller.subject, team: located?.team.id ?? null, action: actionOf(access), target: located === undefined ? null : target ?? null,
    status: reply.statusCode, requestId: request.id, address: caller.address,
  });
}
