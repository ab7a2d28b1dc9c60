// The HTTP face of types: those of the vault's own, and those that the platform operator declares.
import type { FastifyInstance } from 'fastify';
import type { z } from 'zod';
import { addOperation } from '../../http/operation.ts';
import { expectedRevision, sentRevision, setEtag } from '../../http/preconditions.ts';
import { notFound } from '../../shared/errors.ts';
import { showEach } from '../../shared/showing.ts';
import * as schemas from '../schemas.ts';
import { buildType } from './build.ts';
import {
  type credentialTypeInfo,
  credentialTypeList,
  declaration,
  declaredPath,
  declaredType,
  showDeclared,
} from './schemas.ts';
import type { DeclaredTypes } from './service.ts';
import type { DeclaredRow } from './rows.ts';
import type { Declaration } from './declaration.ts';
import { isDeclaredName } from './names.ts';
import { credentialTypes, findType, typeSchema } from '../types/registry.ts';
import type { CredentialType } from '../types/define.ts';

/** Adds the operations on types. */
export function registerDeclaredTypes(
  app: FastifyInstance,
  { service }: { service: DeclaredTypes },
): void {
  addOperation(app, {
    method: 'GET',
    url: '/v1/credential-types',
    access: 'authenticated',
    operationId: 'listCredentialTypes',
    tag: 'credential types',
    summary: 'List the types of credentials',
    description: "The vault's own, then those that the platform operator declared, by name.",
    success: { status: 200, schema: credentialTypeList, description: 'Every type.' },
    handler: async ({ request }) => ({
      items: [
        ...credentialTypes.map((type) => showType(type, undefined)),
        ...showEach(await service.listTypes(request.id), (row) =>
          showType(buildType(row.name, row.declaration), row),
        ),
      ],
    }),
  });
  addOperation(app, {
    method: 'GET',
    url: '/v1/credential-types/:type',
    access: 'authenticated',
    operationId: 'getCredentialType',
    tag: 'credential types',
    summary: "Read the JSON Schema of a type's fields",
    params: schemas.typePath,
    success: {
      status: 200,
      schema: schemas.fieldsSchema,
      description: 'A JSON Schema.',
      mediaType: 'application/schema+json',
    },
    problems: ['notFound'],
    handler: async ({ params, request }) => {
      const type = isDeclaredName(params.type)
        ? await service
            .getType(params.type, request.id)
            .then((row) => buildType(row.name, row.declaration))
        : findType(params.type);
      if (type === undefined) throw notFound();
      return typeSchema(type) as unknown as z.output<typeof schemas.fieldsSchema>;
    },
  });
  addOperation(app, {
    method: 'PUT',
    url: '/v1/credential-types/:type',
    access: { operator: 'credentialType.manage' },
    operationId: 'putCredentialType',
    tag: 'credential types',
    summary: "Add a type of the platform's own, or change it",
    description:
      'If-Match is needed when the type is there already. While a credential is of the type, ' +
      'deleted ones among them, fields may be added that are optional, without a default, no ' +
      'destination and not named by injection, upstream or test; everything else is 409 ' +
      '`stateConflict`.',
    params: declaredPath,
    body: declaration,
    guards: { ifMatch: 'existing', etag: true },
    success: { status: 200, schema: declaredType, description: 'The declared type.' },
    problems: ['stateConflict', 'limitReached'],
    handler: async ({ params, body, caller, request, reply }) => {
      const row = await service.putType(
        caller,
        params.type,
        body as Declaration,
        sentRevision(request),
      );
      setEtag(reply, row.revision);
      return showDeclared(row);
    },
  });
  addOperation(app, {
    method: 'DELETE',
    url: '/v1/credential-types/:type',
    access: { operator: 'credentialType.manage' },
    operationId: 'deleteCredentialType',
    tag: 'credential types',
    summary: 'Remove a declared type that no credential is of',
    params: declaredPath,
    guards: { ifMatch: true },
    success: { status: 204, description: 'Removed.' },
    problems: ['notFound', 'stateConflict'],
    handler: async ({ params, caller, request }) => {
      await service.deleteType(caller, params.type, expectedRevision(request));
      return undefined;
    },
  });
}

const targets = {
  fixed: 'fixed',
  field: 'fields',
  optionalField: 'fields',
  hostPort: 'fields',
  secret: 'secret',
  policy: 'policy',
} as const;

const showType = (
  type: CredentialType,
  row: DeclaredRow | undefined,
): z.output<typeof credentialTypeInfo> => ({
  name: type.name,
  title: type.title,
  description: type.description,
  isOpen: type.isOpen === true,
  isTestable: type.test !== undefined,
  noTest: type.noTest ?? null,
  isInjectable: type.broker !== undefined,
  noBroker: type.noBroker ?? null,
  target: type.broker === undefined ? null : targets[type.broker.upstream.kind],
  declaration: row === undefined ? null : showDeclared(row).declaration,
  revision: row?.revision ?? null,
  fields: Object.entries(type.fields).map(([name, field]) => ({
    name,
    title: field.title,
    class: field.class,
    isRequired: field.isRequired,
    isDestination: field.isDestination,
  })),
});
