// The HTTP face of a team's keys and their rotations. Key material has no place in any answer: ids, states, counts, fingerprints.
import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import type { Idempotency } from '../http/idempotency.ts';
import { addOperation } from '../http/operation.ts';
import type { Cursors } from '../http/paging.ts';
import { count, fingerprint, id, pageOf, pageQuery, slug, subject, teamPath, time, tokenFormat, version } from '../http/schemas.ts';
import type { DataKeyId, RotationId } from '../shared/ids.ts';
import type { KeyRow, KeysService, Rotation, RotationFailure } from './service.ts';

const key = z.strictObject({
  id, version,
  state: z.enum(['active', 'decryptOnly', 'retired']).meta({ id: 'KeyState', description: '`active` seals; `decryptOnly` opens; `retired` does neither.' }),
  format: tokenFormat, fingerprint,
  rootFingerprint: fingerprint.meta({ description: 'The root key that wraps this key; a backup needs both.' }),
  rows: count.meta({ description: 'Tokens under this key, counted now.' }),
  createdAt: time, createdBy: subject, demotedAt: time.nullable().meta({ examples: [null] }), retiredAt: time.nullable().meta({ examples: [null] }),
}).meta({ id: 'Key' });
const rotationFields = {
  id,
  state: z.enum(['running', 'completed', 'completedWithFailures', 'cancelled']).meta({ id: 'KeyRotationState' }),
  toKey: id.meta({ description: 'The key that the rotation made.' }),
  total: count.meta({ description: 'Tokens to move, counted at the start.' }),
  done: count, failed: count,
  rowsPerSecond: z.number().min(0).max(1e9).meta({ format: 'double', examples: [5210.4] }),
  estimatedEnd: time.nullable().meta({ description: 'If it goes on like this; null when it has ended or not begun.' }),
  createdAt: time, createdBy: subject, endedAt: time.nullable().meta({ examples: [null] }),
};
const rotation = z.strictObject(rotationFields).meta({ id: 'KeyRotation' });
const rotationWithFailures = z.strictObject({
  ...rotationFields,
  failures: z.array(z.strictObject({ credential: id, version })).max(100)
    .meta({ description: 'Up to 100 of the versions that did not open. They stay under their key and block retiring it.' }),
}).meta({ id: 'KeyRotationWithFailures' });
const keyPath = z.strictObject({ team: slug, key: id });
const rotationPath = z.strictObject({ team: slug, rotation: id });

const showKey = (row: KeyRow): z.output<typeof key> => ({
  id: row.id, version: row.version, state: row.state, format: row.format, fingerprint: row.fingerprint, rootFingerprint: row.rootFingerprint,
  rows: row.rows, createdAt: row.createdAt, createdBy: row.createdBy, demotedAt: row.demotedAt, retiredAt: row.retiredAt,
});
const showRotation = (row: Rotation): z.output<typeof rotation> => ({
  id: row.id, state: row.state, toKey: row.toKey, total: row.total, done: row.done, failed: row.failed, rowsPerSecond: row.rowsPerSecond,
  estimatedEnd: row.estimatedEnd, createdAt: row.createdAt, createdBy: row.createdBy, endedAt: row.endedAt,
});
const showFailure = ({ credential, version: failed }: RotationFailure): { credential: string; version: number } => ({ credential, version: failed });

/** Adds the operations on keys and rotations. */
export function registerKeys(app: FastifyInstance, { service, idempotency, cursors }: { service: KeysService; idempotency: Idempotency; cursors: Cursors }): void {
  addOperation(app, {
    method: 'GET', url: '/v1/teams/:team/keys', access: { team: 'key.read', by: 'team' }, operationId: 'listKeys', tag: 'keys',
    summary: 'List the keys of a team', params: teamPath, query: z.strictObject(pageQuery),
    success: { status: 200, schema: pageOf(key).meta({ id: 'KeyPage' }), description: 'A page of keys, newest first.' }, problems: ['invalidCursor'],
    handler: async ({ scope, query, caller }) => {
      const identity = { list: 'keys', subject: caller.sub, filters: { team: scope.team.slug } };
      const page = cursors.page(query, identity);
      const { items, nextCursor } = cursors.cut(await service.listKeys(scope.team, page), page, identity, (row) => [String(row.version)]);
      return { items: items.map(showKey), nextCursor };
    },
  });
  addOperation(app, {
    method: 'GET', url: '/v1/teams/:team/keys/:key', access: { team: 'key.read', by: 'team' }, operationId: 'getKey', tag: 'keys',
    summary: 'Read a key of a team', params: keyPath, success: { status: 200, schema: key, description: 'The key; never its material.' },
    handler: async ({ scope, params }) => showKey(await service.getKey(scope.team, params.key as DataKeyId)),
  });
  addOperation(app, {
    method: 'POST', url: '/v1/teams/:team/keys/:key/retire', access: { team: 'key.rotate', by: 'team' }, operationId: 'retireKey', tag: 'keys',
    summary: 'Retire a key that no token needs', params: keyPath, success: { status: 200, schema: key, description: 'The retired key.' },
    problems: ['keyInUse', 'keyStateConflict', 'keyBusy'],
    handler: async ({ scope, params, caller }) => showKey(await service.retireKey(caller, scope.team, params.key as DataKeyId)),
  });
  addOperation(app, {
    method: 'POST', url: '/v1/teams/:team/key-rotations', access: { team: 'key.rotate', by: 'team' }, operationId: 'startRotation', tag: 'keys',
    summary: 'Start a key rotation',
    description: 'The new key is active at once; every token under another key is re-encrypted in the background. Values, versions and ETags do not change.',
    params: teamPath, guards: { idempotencyKey: true }, success: { status: 202, schema: rotation, location: true, description: 'The rotation; follow it by its id.' },
    problems: ['rotationRunning', 'keyBusy'],
    handler: async ({ scope, caller, request, reply }) => {
      const row = await idempotency.run<Rotation>({
        request, caller, execute: (claim) => service.startRotation(caller, scope.team, claim),
        load: (started) => service.getRotation(scope.team, started as RotationId),
      });
      void reply.header('Location', `/v1/teams/${scope.team.slug}/key-rotations/${row.id}`);
      return showRotation(row);
    },
  });
  addOperation(app, {
    method: 'GET', url: '/v1/teams/:team/key-rotations', access: { team: 'key.read', by: 'team' }, operationId: 'listRotations', tag: 'keys',
    summary: 'List the key rotations of a team', params: teamPath, query: z.strictObject(pageQuery),
    success: { status: 200, schema: pageOf(rotation).meta({ id: 'KeyRotationPage' }), description: 'A page of rotations, newest first.' }, problems: ['invalidCursor'],
    handler: async ({ scope, query, caller }) => {
      const identity = { list: 'keyRotations', subject: caller.sub, filters: { team: scope.team.slug } };
      const page = cursors.page(query, identity);
      const { items, nextCursor } = cursors.cut(await service.listRotations(scope.team, page), page, identity, (row) => [row.id]);
      return { items: items.map(showRotation), nextCursor };
    },
  });
  addOperation(app, {
    method: 'GET', url: '/v1/teams/:team/key-rotations/:rotation', access: { team: 'key.read', by: 'team' }, operationId: 'getRotation', tag: 'keys',
    summary: 'Read a key rotation with its progress', params: rotationPath,
    success: { status: 200, schema: rotationWithFailures, description: 'The rotation as it is now.' },
    handler: async ({ scope, params }) => {
      const row = await service.getRotation(scope.team, params.rotation as RotationId);
      return { ...showRotation(row), failures: row.failures.map(showFailure) };
    },
  });
  addOperation(app, {
    method: 'POST', url: '/v1/teams/:team/key-rotations/:rotation/cancel', access: { team: 'key.rotate', by: 'team' }, operationId: 'cancelRotation', tag: 'keys',
    summary: 'Cancel a running key rotation', description: 'The moving stops; the new key stays active. A later rotation moves what is left.',
    params: rotationPath, success: { status: 200, schema: rotation, description: 'The cancelled rotation.' }, problems: ['rotationNotRunning'],
    handler: async ({ scope, params, caller }) => showRotation(await service.cancelRotation(caller, scope.team, params.rotation as RotationId)),
  });
}
