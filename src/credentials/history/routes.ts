// The HTTP face of what was before: versions, and deleted credentials.
import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import type { Idempotency } from '../../http/idempotency.ts';
import { addOperation } from '../../http/operation.ts';
import type { Cursors } from '../../http/paging.ts';
import { setEtag } from '../../http/preconditions.ts';
import { credentialPath, pageQuery } from '../../http/schemas.ts';
import type { CredentialHistory } from './history.ts';
import * as schemas from '../schemas.ts';
import type { CredentialsService } from '../service.ts';
import { showEach } from '../../shared/showing.ts';
import type { CredentialRow } from '../rows.ts';

/** Adds the operations on versions and on deleted credentials. */
export function registerCredentialHistory(
  app: FastifyInstance,
  {
    service,
    history,
    idempotency,
    cursors,
  }: {
    service: CredentialsService;
    history: CredentialHistory;
    idempotency: Idempotency;
    cursors: Cursors;
  },
): void {
  addOperation(app, {
    method: 'GET',
    url: '/v1/credentials/:id/versions',
    access: { team: 'credential.read', by: 'credential' },
    operationId: 'listCredentialVersions',
    tag: 'credentials',
    summary: 'List the versions of a credential',
    description:
      'A page may hold less than its limit, where the fields are long: only `nextCursor` says ' +
      'whether there is more.',
    params: credentialPath,
    query: z.strictObject(pageQuery),
    problems: ['invalidCursor'],
    success: {
      status: 200,
      schema: schemas.credentialVersionPage,
      description: 'A page of versions, newest first.',
    },
    handler: async ({ scope, query, caller }) => {
      const row = scope.resource as CredentialRow;
      const identity = { list: 'versions', subject: caller.sub, filters: { credential: row.id } };
      const page = cursors.page(query, identity);
      const { rows, end } = await service.listVersions(row, {
        limit: page.limit,
        before: page.after === undefined ? undefined : Number(page.after[0]),
      });
      const { items, nextCursor } = cursors.cut(
        rows,
        page,
        identity,
        (each) => [String(each.version)],
        end === undefined ? undefined : [String(end)],
      );
      return {
        items: showEach(items, (each) => schemas.showVersion(each, row)),
        nextCursor,
      };
    },
  });
  addOperation(app, {
    method: 'POST',
    url: '/v1/credentials/:id/versions/:version/restore',
    access: { team: 'credential.write', by: 'credential' },
    operationId: 'restoreCredentialVersion',
    tag: 'credentials',
    summary: 'Restore an earlier version as a new one',
    description:
      'With its secrets, its public fields and its policy; where these are others than the ' +
      'current ones it needs the right `credential.manage`.',
    params: schemas.versionPath,
    guards: { idempotencyKey: true, etag: true },
    success: {
      status: 200,
      schema: schemas.credential,
      description: 'The credential as it is now.',
    },
    problems: [
      'notFound',
      'stateConflict',
      'limitReached',
      'undecryptable',
      'keyBusy',
      'keyUnavailable',
    ],
    handler: async ({ scope, params, caller, request, reply }) => {
      const resolved = scope.resource as CredentialRow;
      const row = await idempotency.run({
        request,
        caller,
        execute: (claim) =>
          history.restoreVersion(caller, resolved, scope.role, Number(params.version), claim),
        load: () => service.getCredential(scope.team, resolved.id),
      });
      setEtag(reply, row.revision);
      return schemas.showCredential(row);
    },
  });
  addOperation(app, {
    method: 'DELETE',
    url: '/v1/credentials/:id/versions/:version',
    access: { team: 'credential.manage', by: 'credential' },
    operationId: 'destroyCredentialVersion',
    tag: 'credentials',
    summary: 'Destroy an earlier version',
    description: 'Its values are gone at once, but for backups. Not the current one.',
    params: schemas.versionPath,
    success: { status: 204, description: 'Destroyed.' },
    problems: ['notFound', 'stateConflict'],
    handler: async ({ scope, params, caller }) => {
      await history.destroyVersion(caller, scope.resource as CredentialRow, Number(params.version));
      return undefined;
    },
  });
  addOperation(app, {
    method: 'POST',
    url: '/v1/credentials/:id/restore',
    access: { team: 'credential.write', by: 'anyCredential' },
    operationId: 'restoreCredential',
    tag: 'credentials',
    summary: 'Restore a deleted credential',
    description: 'As it was when it was deleted, within 30 days. Its name must be free.',
    params: credentialPath,
    guards: { idempotencyKey: true, etag: true },
    success: {
      status: 200,
      schema: schemas.credential,
      description: 'The credential as it is now.',
    },
    problems: ['nameTaken', 'stateConflict', 'limitReached'],
    handler: async ({ scope, caller, request, reply }) => {
      const resolved = scope.resource as CredentialRow;
      const row = await idempotency.run({
        request,
        caller,
        execute: (claim) => history.restoreCredential(caller, resolved, claim),
        load: () => service.getCredential(scope.team, resolved.id),
      });
      setEtag(reply, row.revision);
      return schemas.showCredential(row);
    },
  });
}
