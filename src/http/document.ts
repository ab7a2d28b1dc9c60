// From the list of operations to an OpenAPI 3.1 document. What an operation says of itself is all that goes in: nothing here
// knows a route by name.
import { z } from 'zod';
import { actionOf, operatorActions, rolesFor, type TeamAction, teamActions } from './access.ts';
import { type AnyOperation, problemCodesOf } from './operation.ts';
import { problemMediaType, problems } from './problem.ts';
import { problem as problemSchema } from './schemas.ts';
import type { ErrorCode } from '../shared/errors.ts';

type Json = Record<string, unknown>;

const tags = {
  service: 'Probes and keys of the service itself.', account: 'Who you are to the vault.', teams: 'Teams own credentials and keys.',
  members: 'Who may do what in a team.', 'credential types': 'What kinds of credentials there are.',
  credentials: 'Third-party credentials: metadata out, secrets only in.', engines: 'Workflow engines and their public keys.',
  leases: 'Delivery of secrets to an engine, sealed to its key.', keys: 'A team\'s encryption keys and their rotation.', audit: 'What was done and refused.',
};

const ifMatch = {
  name: 'If-Match', in: 'header', required: true, description: 'The ETag that you read, or `*` for whatever it is.',
  schema: { type: 'string', maxLength: 14, pattern: '^(\\*|"[1-9][0-9]{0,9}")$' }, example: '"7"',
};
const idempotencyKey = {
  name: 'Idempotency-Key', in: 'header', required: false,
  description: 'Your own unique text: a repetition within 24 hours answers with what the first request made, as it is now.',
  schema: { type: 'string', minLength: 1, maxLength: 128, pattern: '^[\\x21-\\x7e]{1,128}$' }, example: 'b3f1c2de-5a7f-4c0e-9d41-0e2f6a7b8c9d',
};
const headers = {
  ETag: { description: 'The quoted revision.', schema: { type: 'string', maxLength: 14, pattern: '^"[1-9][0-9]{0,9}"$' }, example: '"7"' },
  RequestId: { description: 'Names this request in the log and the audit.', schema: { type: 'string', format: 'uuid', maxLength: 36 } },
  RetryAfter: { description: 'Seconds to wait.', schema: { type: 'integer', format: 'int32', minimum: 1, maximum: 86_400 } },
};

/** The document; the same operations give the same document, member by member. */
export function openapiDocument(operations: readonly AnyOperation[]): Json {
  const components = new Components();
  const paths: Record<string, Json> = {};
  const sorted = [...operations].sort((a, b) => (a.url < b.url ? -1 : a.url > b.url ? 1 : methodRank(a) - methodRank(b)));
  for (const operation of sorted) {
    const path = operation.url.replaceAll(/:([A-Za-z]+)/g, '{$1}');
    (paths[path] ??= {})[operation.method.toLowerCase()] = operationObject(operation, components);
  }
  return {
    openapi: '3.1.1',
    info: {
      title: 'credential-vault', version: '1', license: { name: 'MIT', identifier: 'MIT' }, contact: { name: 'The operators of this vault', url: 'https://localhost/docs' },
      description: 'Keeps third-party credentials of a workflow platform. Secret values go in under `fields` and never come out of any operation but '
        + '`createLease`, where they are encrypted to the public key that the operator registered for the calling engine.\n\n' + accessTable(),
    },
    servers: [{ url: '/', description: 'The vault that serves this document.' }],
    tags: Object.entries(tags).map(([name, description]) => ({ name, description })),
    paths,
    components: {
      schemas: components.sorted(),
      headers,
      parameters: { IfMatch: ifMatch, IfMatchExisting: { ...ifMatch, required: false, description: `${ifMatch.description} Needed when it is there already.` }, IdempotencyKey: idempotencyKey },
      securitySchemes: {
        token: {
          type: 'http', scheme: 'bearer', bearerFormat: 'JWT',
          description: 'A JWT as in RFC8725 practice: pinned algorithms; `iss`, `aud`, `exp`, `iat` and `sub` demanded; a lifetime of at most 24 hours. '
            + 'Operators are named in the configuration or carry `vault:operate` in `scope`.',
        },
      },
    },
  };
}

const methodRank = ({ method }: AnyOperation): number => ['GET', 'POST', 'PUT', 'PATCH', 'DELETE'].indexOf(method);

function operationObject(operation: AnyOperation, components: Components): Json {
  const { access, success, guards } = operation;
  const parameters = [
    ...parametersOf(operation.params, 'path', components), ...parametersOf(operation.query, 'query', components),
    ...(guards?.ifMatch === undefined ? [] : [{ $ref: `#/components/parameters/${guards.ifMatch === true ? 'IfMatch' : 'IfMatchExisting'}` }]), ...(guards?.idempotencyKey ? [{ $ref: '#/components/parameters/IdempotencyKey' }] : []),
  ];
  const action = actionOf(access);
  return {
    operationId: operation.operationId,
    summary: operation.summary,
    description: [operation.description, `Action: \`${action}\`${rolesText(action)}.`].filter((text) => text !== undefined).join('\n\n'),
    tags: [operation.tag],
    'x-action': action,
    security: access === 'public' ? [] : [{ token: [] }],
    ...(parameters.length === 0 ? {} : { parameters }),
    ...(operation.body === undefined ? {} : { requestBody: { required: true, content: { 'application/json': { schema: components.schema(operation.body, 'input') } } } }),
    responses: {
      [success.status]: {
        description: success.description,
        headers: { ...(guards?.etag ? { ETag: ref('headers', 'ETag') } : {}), 'X-Request-Id': ref('headers', 'RequestId') },
        ...(success.schema === undefined ? {} : { content: { [success.mediaType ?? 'application/json']: { schema: components.schema(success.schema, 'output') } } }),
      },
      ...problemResponses(problemCodesOf(operation), components),
      default: problemResponse('Any other refusal.', components),
    },
  };
}

function problemResponses(codes: readonly ErrorCode[], components: Components): Json {
  const byStatus = new Map<number, ErrorCode[]>();
  for (const code of codes) byStatus.set(problems[code].status, [...byStatus.get(problems[code].status) ?? [], code]);
  return Object.fromEntries([...byStatus].sort(([a], [b]) => a - b).map(([status, each]) => [
    String(status), problemResponse(each.map((code) => `\`${code}\`: ${problems[code].title}.`).join('\n'), components, status === 429 || status === 503),
  ]));
}

function problemResponse(description: string, components: Components, isRetryable = false): Json {
  return {
    description,
    headers: { 'X-Request-Id': ref('headers', 'RequestId'), ...(isRetryable ? { 'Retry-After': ref('headers', 'RetryAfter') } : {}) },
    content: { [problemMediaType]: { schema: components.schema(problemSchema, 'output') } },
  };
}

function parametersOf(schema: z.ZodType | undefined, place: 'path' | 'query', components: Components): Json[] {
  if (schema === undefined) return [];
  const { properties = {}, required = [] } = components.inline(schema, 'input') as { properties?: Record<string, Json>; required?: string[] };
  return Object.entries(properties).map(([name, property]) => {
    const { description, examples, ...rest } = property as { description?: string; examples?: unknown[] };
    return {
      name, in: place, required: place === 'path' || required.includes(name), ...(description === undefined ? {} : { description }),
      schema: rest, ...(examples?.[0] === undefined ? {} : { example: examples[0] }),
    };
  });
}

/** zod's JSON Schemas with their named parts hoisted to components/schemas; a name used for two shapes is a fault of ours. */
class Components {
  readonly #schemas = new Map<string, Json>();

  schema(schema: z.ZodType, io: 'input' | 'output'): Json {
    const { $defs, ...json } = toJsonSchema(schema, io) as Json & { $defs?: Record<string, Json> };
    const prepared = this.#hoist($defs, json);
    const { id } = schema.meta() ?? {};
    if (typeof id !== 'string') return prepared;
    this.#add(id, prepared);
    return ref('schemas', id);
  }

  /** The schema itself, its named parts hoisted all the same. */
  inline(schema: z.ZodType, io: 'input' | 'output'): Json {
    const { $defs, ...json } = toJsonSchema(schema, io) as Json & { $defs?: Record<string, Json> };
    return this.#hoist($defs, json);
  }

  sorted(): Record<string, Json> {
    return Object.fromEntries([...this.#schemas].sort(([a], [b]) => (a < b ? -1 : 1)));
  }

  #hoist(parts: Record<string, Json> | undefined, json: Json): Json {
    for (const [id, part] of Object.entries(parts ?? {})) this.#add(id, tidy(part) as Json);
    return tidy(json) as Json;
  }

  #add(id: string, schema: Json): void {
    const known = this.#schemas.get(id);
    if (known !== undefined && JSON.stringify(known) !== JSON.stringify(schema)) throw new Error(`two schemas are named ${id}`);
    this.#schemas.set(id, schema);
  }
}

function toJsonSchema(schema: z.ZodType, io: 'input' | 'output'): unknown {
  return z.toJSONSchema(schema, {
    io, target: 'draft-2020-12', reused: 'inline', unrepresentable: 'any',
    override: ({ zodSchema, jsonSchema }) => {
      const { override } = (zodSchema as unknown as z.ZodType).meta() as { override?: object } | undefined ?? {};
      delete (jsonSchema as Json)['override'];
      if (override !== undefined) {
        for (const key of Object.keys(jsonSchema)) if (key !== 'description' && key !== 'examples') delete (jsonSchema as Json)[key];
        Object.assign(jsonSchema, override);
      }
    },
  });
}

/** References into components, no $schema and no repeated ids. */
function tidy(node: unknown): unknown {
  if (Array.isArray(node)) return node.map(tidy);
  if (typeof node !== 'object' || node === null) return node;
  return Object.fromEntries(Object.entries(node).filter(([key]) => key !== '$schema' && key !== 'id').map(([key, value]) => [
    key, key === '$ref' && typeof value === 'string' ? value.replace('#/$defs/', '#/components/schemas/') : key === 'properties' ? tidyProperties(value) : tidy(value),
  ]));
}

// A property may be called id; only schema nodes lose that member.
const tidyProperties = (properties: unknown): unknown => Object.fromEntries(Object.entries(properties as Json).map(([name, schema]) => [name, tidy(schema)]));

const ref = (kind: string, name: string): Json => ({ $ref: `#/components/${kind}/${name}` });

function rolesText(action: string): string {
  if ((operatorActions as readonly string[]).includes(action)) return ', for operators';
  if ((teamActions as readonly string[]).includes(action)) return `, for the role${rolesFor(action as TeamAction).length === 1 ? '' : 's'} ${rolesFor(action as TeamAction).join(', ')}`;
  return '';
}

function accessTable(): string {
  const rows = teamActions.map((action) => `| \`${action}\` | ${rolesFor(action).join(', ')} |`);
  return ['| action | roles in the team |', '|---|---|', ...rows].join('\n');
}
