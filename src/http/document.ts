// From the list of operations to an OpenAPI 3.1 document. What an operation says of itself is all
// that goes in: nothing here knows a route by name.
import type { z } from 'zod';
import { actionOf, operatorActions, rolesFor, teamActions } from '../access/index.ts';
import { broker, headers, parameters, tags, webhookParameters } from './document-parts.ts';
import { Refusals } from './document-refusals.ts';
import { nameParameters } from './document-sharing.ts';
import { type Json, ref, Schemas } from './json-schemas.ts';
import { type AnyOperation, takesHead } from './operation.ts';
import { recordedAnswers } from './recorded-answers.ts';

/** What operations put their parts into. */
interface Parts {
  readonly schemas: Schemas;
  readonly refusals: Refusals;
}

/**
 * The document; the same operations give the same document, member by member, in whatever order
 * they come.
 */
export function openapiDocument(operations: readonly AnyOperation[]): Json {
  const schemas = new Schemas(recordedAnswers);
  const parts: Parts = {
    schemas,
    refusals: new Refusals(schemas),
  };
  const paths: Record<string, Json> = {};
  const sorted = [...operations].sort((a, b) =>
    a.url < b.url ? -1 : a.url > b.url ? 1 : methodRank(a) - methodRank(b),
  );
  for (const operation of sorted) {
    const path = operation.url.replaceAll(/:([A-Za-z]+)/g, '{$1}');
    const item = (paths[path] ??= {});
    const described = operationObject(operation, parts);
    item[operation.method.toLowerCase()] = described;
    if (takesHead(operation)) item['head'] = headObject(operation, described, parts);
  }
  const webhooks = Object.fromEntries(
    sorted.flatMap(({ sends = {} }) =>
      Object.entries(sends).map(([type, sent]) => [type, webhookObject(type, sent, parts)]),
    ),
  );
  const named = nameParameters(paths);
  const document: Json = {
    openapi: '3.1.1',
    info: {
      title: 'credential-vault',
      version: '0.2.0',
      license: { name: 'MIT', identifier: 'MIT' },
      contact: { name: 'The operator of this vault' },
      description:
        'Keeps third-party credentials of a workflow platform. Secret values go in under ' +
        '`fields` and come out of no operation but `createLease`, there ' +
        'encrypted to the public key that an operator registered for the calling engine.\n\n' +
        `Each operation says its action as \`x-action\`; these are the roles that may do it in ` +
        `a team:\n\n${accessTable()}\n\n` +
        `These are for operators: ${operatorActions.map((each) => `\`${each}\``).join(', ')}.\n\n` +
        'What goes through the broker is described under `x-broker`. Beside the operations ' +
        'there are `/openapi.json`, this document, and `/docs`, a page that shows it.\n\n' +
        'A path that is asked for with a method that it does not take answers 405 with ' +
        '`Allow`, to whoever is authenticated where its operations demand that. ' +
        'A header of which there may be one (`Host`, `Content-Type` …) is refused when it ' +
        'comes twice; the only `Expect` is `100-continue`. ' +
        'A number in a body is refused when its text is not the value that would be kept ' +
        '(`inexactNumber`): more digits than a double holds. Times are kept to the millisecond.',
    },
    servers: [{ url: '/', description: 'The vault that serves this document.' }],
    security: [{ token: [] }],
    tags: Object.entries(tags).map(([name, description]) => ({ name, description })),
    paths,
    webhooks,
    'x-broker': broker,
    components: {
      schemas: schemas.sorted(),
      responses: parts.refusals.responses(),
      parameters: { ...parameters, ...named },
      examples: parts.refusals.examples(),
      headers,
      securitySchemes: {
        token: {
          type: 'http',
          scheme: 'bearer',
          bearerFormat: 'JWT',
          description:
            'A JWT as in RFC8725 practice: pinned algorithms; `iss`, `aud`, `exp`, `iat` and ' +
            '`sub` demanded; a lifetime of at most 24 hours. ' +
            'Operators are named in the configuration or carry `vault:operate` in `scope`.',
        },
      },
    },
  };
  return schemas.trimmed(document) as Json;
}

const methodRank = ({ method }: AnyOperation): number =>
  ['GET', 'POST', 'PUT', 'PATCH', 'DELETE'].indexOf(method);

function operationObject(operation: AnyOperation, parts: Parts): Json {
  const { schemas, refusals } = parts;
  const { access, guards, body, success, otherwise, operationId } = operation;
  const action = actionOf(access);
  const each = [
    ...parametersOf(operation.params, 'path', operationId, schemas),
    ...parametersOf(operation.query, 'query', operationId, schemas),
    ...(guards?.ifMatch === undefined
      ? []
      : [ref('parameters', guards.ifMatch === true ? 'IfMatch' : 'IfMatchExisting')]),
    ...(guards?.idempotencyKey ? [ref('parameters', 'IdempotencyKey')] : []),
  ];
  return {
    operationId,
    summary: operation.summary,
    description: operation.description ?? `Action \`${action}\`.`,
    tags: [operation.tag],
    'x-action': action,
    ...(access === 'public' ? { security: [] } : {}),
    ...(each.length === 0 ? {} : { parameters: each }),
    ...(body === undefined
      ? {}
      : {
          requestBody: {
            required: operation.isBodyOptional !== true,
            content: content(
              'application/json',
              schemas.add(body, 'input'),
              `the body of ${operationId}`,
              parts,
            ),
          },
        }),
    responses: {
      [success.status]: {
        description: success.description,
        headers: {
          ...(guards?.etag ? { ETag: ref('headers', 'ETag') } : {}),
          ...(success.location !== undefined ? { Location: ref('headers', 'Location') } : {}),
          'X-Request-Id': ref('headers', 'RequestId'),
        },
        ...(success.links === undefined ? {} : { links: linksOf(success.links) }),
        ...(success.schema === undefined
          ? {}
          : {
              content: content(
                success.mediaType ?? 'application/json',
                schemas.add(success.schema, 'output'),
                `the answer of ${operationId}`,
                parts,
              ),
            }),
      },
      ...(otherwise === undefined
        ? {}
        : {
            [otherwise.status]: {
              description: otherwise.description,
              headers: { 'X-Request-Id': ref('headers', 'RequestId') },
              content: content(
                'application/json',
                schemas.add(otherwise.schema, 'output'),
                `the other answer of ${operationId}`,
                parts,
              ),
            },
          }),
      ...refusals.of(operation),
    },
  };
}

/** From what an answer says to the parameters of an operation that reads it. */
const linksOf = (links: NonNullable<AnyOperation['success']['links']>): Json =>
  Object.fromEntries(
    Object.entries(links).map(([operationId, from]) => [
      operationId,
      {
        operationId,
        parameters: from,
      },
    ]),
  );

/** HEAD where GET is public: the same answers without a body. */
function headObject({ operationId, summary }: AnyOperation, get: Json, { refusals }: Parts): Json {
  return {
    ...get,
    operationId: operationId.replace(/^get/, 'head'),
    summary: `${summary}, by the headers alone`,
    responses: Object.fromEntries(
      Object.entries(get['responses'] as Record<string, Json>).map(([status, answer]) => [
        status,
        refusals.withoutContent(answer),
      ]),
    ),
  };
}

/** A message to a receiver, with the headers of the standard-webhooks specification. */
function webhookObject(
  type: string,
  { summary, schema }: NonNullable<AnyOperation['sends']>[string],
  parts: Parts,
): Json {
  return {
    post: {
      operationId: `receive${type
        .split('.')
        .map((word) => `${word.charAt(0).toUpperCase()}${word.slice(1)}`)
        .join('')}`,
      summary,
      tags: ['notifications'],
      security: [],
      parameters: webhookParameters,
      requestBody: {
        required: true,
        content: messageContent(parts.schemas.add(schema, 'output'), `the message ${type}`, parts),
      },
      responses: {
        '2XX': { description: 'Taken.' },
        410: { description: 'Gone.' },
        default: { description: 'To be tried again.' },
      },
    },
  };
}

/** Every part of a schema has an example, or one is put together from its parts. */
function content(mediaType: string, schema: Json, place: string, { schemas }: Parts): Json {
  schemas.exampleOf(schema, place);
  return { [mediaType]: { schema } };
}

/** A message that receivers get, with an example of it. */
const messageContent = (schema: Json, place: string, { schemas }: Parts): Json => ({
  'application/json': { schema, example: schemas.exampleOf(schema, place) },
});

function parametersOf(
  schema: z.ZodType | undefined,
  place: 'path' | 'query',
  operationId: string,
  schemas: Schemas,
): Json[] {
  if (schema === undefined) return [];
  return schemas.membersOf(schema).map(({ name, schema: member, isRequired }) => {
    const { description = schemas.resolve(member)['description'], examples: _, ...rest } = member;
    return {
      name,
      in: place,
      required: place === 'path' || isRequired,
      ...(description === undefined ? {} : { description }),
      schema: rest,
      example: schemas.exampleOf(member, `${name} of ${operationId}`),
    };
  });
}

function accessTable(): string {
  const rows = teamActions.map((action) => `| \`${action}\` | ${rolesFor(action).join(', ')} |`);
  return ['| action | roles |', '|---|---|', ...rows].join('\n');
}
