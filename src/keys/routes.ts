// The HTTP face of a team's keys and of their life.
import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import { canShow } from '../http/answers.ts';
import { addOperation } from '../http/operation.ts';
import type { Cursors } from '../http/paging.ts';
import { pageOf, pageQuery, teamPath } from '../http/schemas.ts';
import type { ErrorCode } from '../shared/errors.ts';
import type { DataKeyId } from '../shared/ids.ts';
import type { KeyLifeService } from './life.ts';
import * as schemas from './schemas.ts';
import type { KeysService } from './service.ts';
import { showEach, showOne } from '../shared/showing.ts';
import type { Caller, TeamRef } from '../access/index.ts';
import type { KeyRow } from './types.ts';

/** Adds the operations on keys. */
export function registerKeys(
  app: FastifyInstance,
  {
    service,
    life,
    cursors,
    now,
  }: { service: KeysService; life: KeyLifeService; cursors: Cursors; now: () => number },
): void {
  const show = (row: KeyRow): ReturnType<typeof schemas.showKey> => schemas.showKey(row, now());
  const isReadable = canShow(schemas.key, show);
  addOperation(app, {
    method: 'GET',
    url: '/v1/teams/:team/keys',
    access: { team: 'key.read', by: 'team' },
    operationId: 'listKeys',
    tag: 'keys',
    summary: 'List the keys of a team',
    params: teamPath,
    query: z.strictObject(pageQuery),
    success: {
      status: 200,
      schema: pageOf(schemas.key).meta({ id: 'KeyPage' }),
      description: 'A page of keys, newest first.',
    },
    problems: ['invalidCursor'],
    handler: async ({ scope, query, caller }) => {
      const identity = { list: 'keys', subject: caller.sub, filters: { team: scope.team.slug } };
      const page = cursors.page(query, identity);
      const { items, nextCursor } = cursors.cut(
        await service.listKeys(scope.team, page),
        page,
        identity,
        (row) => [String(row.version)],
      );
      return { items: showEach(items, show), nextCursor };
    },
  });
  addOperation(app, {
    method: 'GET',
    url: '/v1/teams/:team/keys/:key',
    access: { team: 'key.read', by: 'team' },
    operationId: 'getKey',
    tag: 'keys',
    summary: 'Read a key of a team',
    params: schemas.keyPath,
    success: { status: 200, schema: schemas.key, description: 'The key; never its material.' },
    handler: async ({ scope, params }) =>
      showOne(await service.getKey(scope.team, params.key as DataKeyId), show),
  });
  const change = <B>(
    of: {
      verb: string;
      isBodyOptional?: true;
      operationId: string;
      summary: string;
      description?: string;
      body: z.ZodType<B>;
      problems?: ErrorCode[];
      answer: string;
    },
    run: (caller: Caller, team: TeamRef, id: DataKeyId, body: B) => Promise<KeyRow>,
  ): void => {
    addOperation(app, {
      method: 'POST',
      url: `/v1/teams/:team/keys/:key/${of.verb}`,
      access: { team: 'key.rotate', by: 'team' },
      operationId: of.operationId,
      tag: 'keys',
      summary: of.summary,
      ...(of.description === undefined ? {} : { description: of.description }),
      params: schemas.keyPath,
      body: of.body,
      ...(of.isBodyOptional === undefined ? {} : { isBodyOptional: of.isBodyOptional }),
      success: { status: 200, schema: schemas.key, description: of.answer },
      problems: ['keyStateConflict', 'keyBusy', ...(of.problems ?? [])],
      handler: async ({ scope, params, caller, body }) => {
        const id = params.key as DataKeyId;
        // Before the change: what cannot be answered with is not changed.
        if (!isReadable(await service.getKey(scope.team, id)))
          throw await service.unreadable(caller, scope.team, { type: 'key', id });
        return show(await run(caller, scope.team, id, body));
      },
    });
  };
  change(
    {
      verb: 'retire',
      operationId: 'retireKey',
      summary: 'Retire a key that no token needs',
      body: schemas.reasonBody,
      isBodyOptional: true,
      problems: ['keyInUse'],
      answer: 'The retired key.',
    },
    (caller, team, id, body) => life.retireKey(caller, team, id, body?.reason),
  );
  change(
    {
      verb: 'restore',
      operationId: 'restoreKey',
      summary: 'Restore a retired key',
      description: 'It opens again, for a backup whose tokens need it; it never seals again.',
      body: schemas.reasonBody,
      isBodyOptional: true,
      answer: 'The restored key.',
    },
    (caller, team, id, body) => life.restoreKey(caller, team, id, body?.reason),
  );
  change(
    {
      verb: 'schedule-destroy',
      operationId: 'scheduleKeyDestruction',
      summary: 'Schedule the destruction of a retired key',
      description:
        'After the days its material is erased from the database; id and fingerprints stay. ' +
        'That does not reach into backups: one taken until ' +
        '`lastBackupWithKey` stays readable to whoever has one of `rootFingerprints`. A fresh ' +
        'root key, a rewrap, a fresh backup, and then the old root keys destroyed make all ' +
        'older backups noise.',
      body: schemas.destroyBody,
      answer: 'The key with the time of its destruction.',
    },
    (caller, team, id, { days, reason }) => life.scheduleDestroy(caller, team, id, days, reason),
  );
  change(
    {
      verb: 'cancel-destroy',
      operationId: 'cancelKeyDestruction',
      summary: 'Cancel the destruction of a key',
      body: schemas.reasonBody,
      isBodyOptional: true,
      answer: 'The retired key.',
    },
    (caller, team, id, body) => life.cancelDestroy(caller, team, id, body?.reason),
  );
  change(
    {
      verb: 'mark-compromised',
      operationId: 'markKeyCompromised',
      summary: 'Mark a key compromised and move everything off it',
      description:
        'The mark is permanent. A rotation with priority starts where tokens are under it. Every ' +
        'credential whose value was ever under it is `exposed` until the value is replaced: ' +
        're-encrypting does not un-leak a copied row.',
      body: schemas.compromiseBody,
      answer: 'The marked key.',
    },
    (caller, team, id, { reason }) => life.markCompromised(caller, team, id, reason),
  );
}
