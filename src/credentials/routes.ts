// The HTTP face of credentials.
import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import type { Idempotency } from '../http/idempotency.ts';
import { addOperation } from '../http/operation.ts';
import { expectedRevision, sentRevision, setEtag } from '../http/preconditions.ts';
import { credentialPath, queryFlag, teamPath } from '../http/schemas.ts';
import * as schemas from './schemas.ts';
import {
  type CredentialInput,
  type CredentialsService,
  type OwningTeam,
  timesOf,
} from './service.ts';
import type { CredentialUpsert } from './upsert.ts';
import { showOne } from '../shared/showing.ts';
import type { CredentialRow } from './rows.ts';

/** Adds the operations on credentials and their types. */
export function registerCredentials(
  app: FastifyInstance,
  {
    service,
    upsert,
    idempotency,
  }: { service: CredentialsService; upsert: CredentialUpsert; idempotency: Idempotency },
): void {
  addOperation(app, {
    method: 'POST',
    url: '/v1/teams/:team/credentials',
    access: { team: 'credential.write', by: 'team' },
    operationId: 'createCredential',
    tag: 'credentials',
    summary: 'Store a credential',
    params: teamPath,
    body: schemas.credentialCreate,
    guards: { idempotencyKey: true, etag: true },
    success: {
      status: 201,
      schema: schemas.credential,
      location: true,
      links: { getCredential: { id: '$response.body#/id' } },
      description: 'The credential, without its secrets.',
    },
    problems: ['nameTaken', 'limitReached', 'oauthUnavailable', 'keyBusy', 'keyUnavailable'],
    handler: async ({ scope, body, caller, request, reply }) => {
      const input = { ...body, ...timesOf(body) } as CredentialInput;
      const row = await idempotency.run({
        request,
        caller,
        execute: (claim) =>
          service.createCredential(caller, scope.resource as OwningTeam, input, claim),
        load: (made) => service.getCredential(scope.team, made),
      });
      setEtag(reply, row.revision);
      void reply.header('Location', `/v1/credentials/${row.id}`);
      return schemas.showCredential(row);
    },
  });
  addOperation(app, {
    method: 'PUT',
    url: '/v1/teams/:team/credentials/:name',
    access: { team: 'credential.write', by: 'team' },
    operationId: 'putCredential',
    tag: 'credentials',
    summary: 'Store a credential under its name, or change the one that has it',
    description:
      'For infrastructure as code. If-Match is needed where there is one of the name. What is ' +
      'omitted stays; secrets that are sent make a version even when they are the same. ' +
      'A dry run passes every check and is rolled back.',
    params: schemas.credentialNamePath,
    query: z.strictObject({ dryRun: queryFlag }),
    body: schemas.credentialPut,
    guards: { ifMatch: 'existing', etag: true },
    success: {
      status: 200,
      schema: schemas.credentialUpsert,
      description: 'What was done, and the credential.',
    },
    problems: [
      'nameTaken',
      'limitReached',
      'secretRequired',
      'undecryptable',
      'oauthUnavailable',
      'keyBusy',
      'keyUnavailable',
      'stateConflict',
    ],
    handler: async ({ scope, params, query, body, caller, request, reply }) => {
      // What was left out of an existing one stays; of a new one it is empty.
      const input = { ...body, name: params.name, ...timesOf(body) } as CredentialInput;
      const isDryRun = query.dryRun === true;
      const { action, row } = await upsert.put(caller, scope.resource as OwningTeam, scope.role, {
        input,
        expected: sentRevision(request),
        isDryRun,
      });
      setEtag(reply, row.revision);
      return { action, isDryRun, credential: schemas.showCredential(row) };
    },
  });
  addOperation(app, {
    method: 'GET',
    url: '/v1/credentials/:id',
    access: { team: 'credential.read', by: 'credential' },
    operationId: 'getCredential',
    tag: 'credentials',
    summary: 'Read the metadata of a credential',
    params: credentialPath,
    guards: { etag: true },
    success: {
      status: 200,
      schema: schemas.credentialSeen,
      description: 'The credential, without its secrets.',
    },
    handler: async ({ scope, reply }) => {
      const row = scope.resource as CredentialRow;
      setEtag(reply, row.revision);
      return showOne(row, (each) => schemas.showSeen(each, scope.resolved));
    },
  });
  addOperation(app, {
    method: 'PATCH',
    url: '/v1/credentials/:id',
    access: { team: 'credential.write', by: 'credential' },
    operationId: 'updateCredential',
    tag: 'credentials',
    summary: 'Change a credential',
    description:
      'Omitted = keep, null = clear. A change of fields or policy makes a version. A new ' +
      'destination or a wider policy needs new values for all secret fields, a wider policy, ' +
      'and another `url` of a `webhook`, the right `credential.manage` besides.',
    params: credentialPath,
    body: schemas.credentialUpdate,
    guards: { ifMatch: true, etag: true },
    success: {
      status: 200,
      schema: schemas.credential,
      description: 'The credential as it is now.',
    },
    problems: [
      'nameTaken',
      'limitReached',
      'secretRequired',
      'undecryptable',
      'oauthUnavailable',
      'keyBusy',
      'keyUnavailable',
      'stateConflict',
    ],
    handler: async ({ scope, body, caller, request, reply }) => {
      const change = { ...body, ...timesOf(body) } as Parameters<
        CredentialsService['updateCredential']
      >[3];
      const row = await service.updateCredential(
        caller,
        scope.resource as CredentialRow,
        scope.role,
        change,
        expectedRevision(request),
      );
      setEtag(reply, row.revision);
      return schemas.showCredential(row);
    },
  });
  addOperation(app, {
    method: 'DELETE',
    url: '/v1/credentials/:id',
    access: { team: 'credential.write', by: 'credential' },
    operationId: 'deleteCredential',
    tag: 'credentials',
    summary: 'Delete a credential',
    description: 'Its name is free at once; its rows are destroyed after 30 days.',
    params: credentialPath,
    guards: { ifMatch: true },
    success: { status: 204, description: 'Deleted.' },
    handler: async ({ scope, caller, request }) => {
      await service.deleteCredential(
        caller,
        scope.resource as CredentialRow,
        expectedRevision(request),
      );
      return undefined;
    },
  });
  for (const [verb, state] of [
    ['enable', 'enabled'],
    ['disable', 'disabled'],
  ] as const) {
    addOperation(app, {
      method: 'POST',
      url: `/v1/credentials/:id/${verb}`,
      access: { team: 'credential.write', by: 'credential' },
      operationId: `${verb}Credential`,
      tag: 'credentials',
      summary:
        verb === 'enable'
          ? 'Enable a credential'
          : 'Disable a credential: nobody can use it until it is enabled',
      params: credentialPath,
      guards: { idempotencyKey: true, etag: true },
      success: {
        status: 200,
        schema: schemas.credential,
        description: 'The credential as it is now.',
      },
      problems: ['stateConflict'],
      handler: async ({ scope, caller, request, reply }) => {
        const resolved = scope.resource as CredentialRow;
        const row = await idempotency.run({
          request,
          caller,
          execute: (claim) => service.setState(caller, resolved, state, claim),
          load: () => service.getCredential(scope.team, resolved.id),
        });
        setEtag(reply, row.revision);
        return schemas.showCredential(row);
      },
    });
  }
}
