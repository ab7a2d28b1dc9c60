// From the list of operations to an OpenAPI 3.1 document. What an operation says of itself is all
// that goes in: nothing here knows a route by name.
import type { z } from 'zod';
import {
  actionOf,
  operatorActions,
  rolesFor,
  type TeamAction,
  teamActions,
} from '../access/decide.ts';
import { type Json, ref, Schemas } from './json-schemas.ts';
import {
  type AnyOperation,
  problemCodesOf,
  problemsOfBroker,
  problemsOfNoOperation,
  takesHead,
} from './operation.ts';
import { problemMediaType, problems } from './problem.ts';
import { problem as problemSchema } from './schemas.ts';
import type { ErrorCode } from '../shared/errors.ts';

const tags = {
  service: 'Probes of the service itself.',
  account: 'Who you are to the vault.',
  teams: 'Teams own credentials and keys.',
  members: 'Who may do what in a team.',
  'credential types': 'What kinds of credentials there are.',
  credentials: 'Third-party credentials: metadata out, secrets only in.',
  sharing: 'Credentials that a team lets others read or use, or gives away.',
  engines: 'Workflow engines and their public keys.',
  oauth:
    'Accounts at providers, connected by their owners; tokens come in and are refreshed, none comes out.',
  leases: 'Delivery of secrets to an engine, sealed to its key.',
  broker:
    'Use of a credential without holding it: the vault makes the call and puts the secret in.',
  keys: "A team's encryption keys and their rotation.",
  'root keys': "The keys outside the database that wrap all others; the operator's.",
  webhooks: "Notifications, signed and sent to receivers of the team's.",
  audit: 'What was done and refused.',
};

const ifMatch = {
  name: 'If-Match',
  in: 'header',
  required: true,
  description: 'The ETag that you read, or `*` for whatever it is.',
  schema: { type: 'string', maxLength: 14, pattern: '^(\\*|"[1-9][0-9]{0,9}")$' },
  example: '"7"',
};
const idempotencyKey = {
  name: 'Idempotency-Key',
  in: 'header',
  required: false,
  description:
    'Your own unique text: a repetition within 24 hours answers with what the first request made, as it is now.',
  schema: { type: 'string', minLength: 1, maxLength: 128, pattern: '^[\\x21-\\x7e]{1,128}$' },
  example: 'b3f1c2de-5a7f-4c0e-9d41-0e2f6a7b8c9d',
};
const parameters = {
  WebhookId: {
    name: 'webhook-id',
    in: 'header',
    required: true,
    description: 'Of the message; the same at every attempt.',
    schema: { type: 'string', format: 'uuid', maxLength: 36 },
    example: '019aa7c2-5b1e-7c3a-9d52-0a4f6e1b2c3d',
  },
  WebhookTimestamp: {
    name: 'webhook-timestamp',
    in: 'header',
    required: true,
    description: 'Of the attempt, in seconds since 1970.',
    schema: { type: 'string', maxLength: 12, pattern: '^[0-9]{1,12}$' },
    example: '1795341600',
  },
  WebhookSignature: {
    name: 'webhook-signature',
    in: 'header',
    required: true,
    description:
      'One or two, separated by a space: `v1,` and the base64 of HMAC-SHA256 over `{webhook-id}.{webhook-timestamp}.{body}`.',
    schema: {
      type: 'string',
      maxLength: 100,
      pattern: '^v1,[A-Za-z0-9+/]{43}=( v1,[A-Za-z0-9+/]{43}=)?$',
    },
    example: 'v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=',
  },
  IdempotencyKey: idempotencyKey,
  IfMatch: ifMatch,
  IfMatchExisting: {
    ...ifMatch,
    required: false,
    description: `${ifMatch.description} Needed when it is there already.`,
  },
};
const headers = {
  Allow: {
    description: 'The methods that the path takes.',
    schema: { type: 'string', maxLength: 100, pattern: '^[A-Z]+(, [A-Z]+)*$' },
    example: 'GET, PATCH',
  },
  ETag: {
    description: 'The quoted revision.',
    schema: { type: 'string', maxLength: 14, pattern: '^"[1-9][0-9]{0,9}"$' },
    example: '"7"',
  },
  Location: {
    description: 'Where to read it; only for those who may.',
    schema: { type: 'string', format: 'uri-reference', maxLength: 500 },
    example: '/v1/teams/payments',
  },
  RequestId: {
    description: 'Names this request in the log and the audit.',
    schema: { type: 'string', format: 'uuid', maxLength: 36 },
    example: '019aa7c2-5b1e-7c3a-9d52-0a4f6e1b2c3d',
  },
  RetryAfter: {
    description: 'Seconds to wait.',
    schema: { type: 'integer', format: 'int32', minimum: 1, maximum: 86_400 },
    example: 7,
  },
  WwwAuthenticate: {
    description: 'How to authenticate.',
    schema: { type: 'string', enum: ['Bearer'] },
    example: 'Bearer',
  },
};

/** The listener that no path here is about: what goes through it is the upstream's. */
const broker = {
  description:
    'The broker listens on an origin of its own, and only where the configuration turns it on. It answers nothing but `{baseUrl}{path}` with the `baseUrl` of a ticket. A call goes ' +
    "to the credential's own destination, or to the host that the ticket names; the secret is put in as the type says; what the upstream answers comes back as it is, status and body, " +
    "but for the secret, in whatever form it is recognised, and for headers that belong to a connection or to a browser's origin. Ticket, engine, roles, person, credential, and the policy " +
    'of the current version are asked at every call, and the call is in the trail before it goes out.\n\n' +
    "No operation above takes a ticket, and the broker takes no other token. An answer of its own carries `vault-error: true` and is a problem document; an answer without that header is the upstream's.",
  path: '/broker/{id}/{path}',
  methods: ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'],
  ticketIn: [
    'Authorization (Bearer; the password of Basic)',
    'x-api-key',
    'x-goog-api-key',
    'api-key',
  ],
  problems: Object.fromEntries(
    [...problemsOfBroker]
      .sort((a, b) => problems[a].status - problems[b].status || (a < b ? -1 : 1))
      .map((code) => [code, problems[code].status]),
  ),
  rules: {
    brokerRefused: [
      'notFound',
      'deleted',
      'disabled',
      'expired',
      'exposed',
      'undecryptable',
      'deliveryNotAllowed',
      'onBehalfOfRequired',
      'onBehalfOfRefused',
      'notBrokerable',
      'hostNotAllowed',
      'methodNotAllowed',
      'pathNotAllowed',
      'notConnected',
      'refreshFailed',
      'refreshUnavailable',
    ],
    upstreamUnreachable: ['name', 'connect', 'tls'],
    upstreamTimeout: ['timeout'],
    rangeRefused: ['minBytes:4096'],
    upstreamUnusable: ['response', 'size', 'secretInPart'],
  },
};

/**
 * The document; the same operations give the same document, member by member, in whatever order
 * they come.
 */
export function openapiDocument(operations: readonly AnyOperation[]): Json {
  const schemas = new Schemas();
  const responses = new Responses(schemas);
  const paths: Record<string, Json> = {};
  const sorted = [...operations].sort((a, b) =>
    a.url < b.url ? -1 : a.url > b.url ? 1 : methodRank(a) - methodRank(b),
  );
  for (const operation of sorted) {
    const path = operation.url.replaceAll(/:([A-Za-z]+)/g, '{$1}');
    const item = (paths[path] ??= {});
    const described = operationObject(operation, schemas, responses);
    item[operation.method.toLowerCase()] = described;
    if (takesHead(operation)) item['head'] = headObject(operation, described, responses);
  }
  const webhooks = Object.fromEntries(
    sorted.flatMap(({ sends = {}, tag }) =>
      Object.entries(sends).map(([type, sent]) => [type, webhookObject(type, tag, sent, schemas)]),
    ),
  );
  return {
    openapi: '3.1.1',
    info: {
      title: 'credential-vault',
      version: '1',
      license: { name: 'MIT', identifier: 'MIT' },
      description:
        'Keeps third-party credentials of a workflow platform. Secret values go in under `fields` and come out of no operation but `createLease`, there ' +
        'encrypted to the public key that an operator registered for the calling engine.\n\n' +
        `Each operation says its action as \`x-action\`; these are the roles that may do it in a team:\n\n${accessTable()}\n\n` +
        'What goes through the broker is described under `x-broker`. Beside the operations there are `/openapi.json`, this document, and `/docs`, a page that shows it.\n\n' +
        'A path that is asked for with a method that it does not take answers 405 with `Allow`, to whoever is authenticated where its operations demand that. ' +
        'A header of which there may be one (`Host`, `Content-Type` …) is refused when it comes twice; the only `Expect` is `100-continue`. ' +
        'A number in a body is refused when its text is not the value that would be kept (`inexactNumber`): more digits than a double holds. Times are kept to the millisecond.',
    },
    servers: [{ url: '/', description: 'The vault that serves this document.' }],
    tags: Object.entries(tags).map(([name, description]) => ({ name, description })),
    paths,
    webhooks,
    'x-broker': broker,
    components: {
      schemas: schemas.sorted(),
      responses: responses.sorted(),
      parameters,
      headers,
      securitySchemes: {
        token: {
          type: 'http',
          scheme: 'bearer',
          bearerFormat: 'JWT',
          description:
            'A JWT as in RFC8725 practice: pinned algorithms; `iss`, `aud`, `exp`, `iat` and `sub` demanded; a lifetime of at most 24 hours. ' +
            'Operators are named in the configuration or carry `vault:operate` in `scope`.',
        },
      },
    },
  };
}

const methodRank = ({ method }: AnyOperation): number =>
  ['GET', 'POST', 'PUT', 'PATCH', 'DELETE'].indexOf(method);

function operationObject(operation: AnyOperation, schemas: Schemas, responses: Responses): Json {
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
    description: [operation.description, `Action: \`${action}\`${rolesText(action)}.`]
      .filter((text) => text !== undefined)
      .join('\n\n'),
    tags: [operation.tag],
    'x-action': action,
    security: access === 'public' ? [] : [{ token: [] }],
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
              schemas,
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
        ...(success.schema === undefined
          ? {}
          : {
              content: content(
                success.mediaType ?? 'application/json',
                schemas.add(success.schema, 'output'),
                `the answer of ${operationId}`,
                schemas,
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
                schemas,
              ),
            },
          }),
      ...responses.ofProblems(problemCodesOf(operation)),
      default: responses.ofAnyProblem(),
    },
  };
}

/** HEAD where GET is public: the same answers without a body. */
function headObject({ operationId, summary }: AnyOperation, get: Json, responses: Responses): Json {
  return {
    ...get,
    operationId: operationId.replace(/^get/, 'head'),
    summary: `${summary}, by the headers alone`,
    responses: Object.fromEntries(
      Object.entries(get['responses'] as Record<string, Json>).map(([status, answer]) => {
        const { content: _, ...headers } = responses.resolve(answer);
        return [status, headers];
      }),
    ),
  };
}

/** A message to a receiver, with the headers of the standard-webhooks specification. */
function webhookObject(
  type: string,
  tag: string,
  { summary, schema }: NonNullable<AnyOperation['sends']>[string],
  schemas: Schemas,
): Json {
  return {
    post: {
      operationId: `receive${type
        .split('.')
        .map((word) => `${word.charAt(0).toUpperCase()}${word.slice(1)}`)
        .join('')}`,
      summary,
      tags: [tag],
      security: [],
      description:
        'Sent at least once, to the URL of a credential of type `webhook`, and signed with its secret.',
      parameters: [
        ref('parameters', 'WebhookId'),
        ref('parameters', 'WebhookTimestamp'),
        ref('parameters', 'WebhookSignature'),
      ],
      requestBody: {
        required: true,
        content: content(
          'application/json',
          schemas.add(schema, 'output'),
          `the message ${type}`,
          schemas,
        ),
      },
      responses: {
        '2XX': { description: 'Taken.' },
        410: { description: 'Gone: nothing more is sent until somebody puts the webhook again.' },
        default: { description: 'Tried again later, as `Retry-After` says or by itself.' },
      },
    },
  };
}

const content = (mediaType: string, schema: Json, place: string, schemas: Schemas): Json => ({
  [mediaType]: { schema, example: schemas.exampleOf(schema, place) },
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

/** The refusals. A status that one code alone gives is the same everywhere, so it is named once. */
class Responses {
  readonly #schemas: Schemas;
  readonly #named = new Map<string, Json>();
  constructor(schemas: Schemas) {
    this.#schemas = schemas;
  }

  ofProblems(codes: readonly ErrorCode[]): Json {
    const byStatus = Map.groupBy(codes, (code) => problems[code].status);
    return Object.fromEntries(
      [...byStatus]
        .sort(([a], [b]) => a - b)
        .map(([status, each]) => [
          String(status),
          each.length === 1
            ? this.#name(each[0]!, refusal(each, this.#schemas))
            : refusal(each, this.#schemas),
        ]),
    );
  }

  ofAnyProblem(): Json {
    const { description, ...response } = refusal(problemsOfNoOperation, this.#schemas);
    return this.#name('anyProblem', {
      description: `Before there is an operation, or while the vault stops:\n${String(description)}`,
      ...response,
    });
  }

  sorted(): Record<string, Json> {
    return Object.fromEntries([...this.#named].sort(([a], [b]) => (a < b ? -1 : 1)));
  }

  /** What a reference stands for. */
  resolve(response: Json): Json {
    const name =
      String(response['$ref'] ?? '')
        .split('/')
        .at(-1) ?? '';
    return this.#named.get(name) ?? response;
  }

  #name(code: string, response: Json): Json {
    const name = code.charAt(0).toUpperCase() + code.slice(1);
    this.#named.set(name, response);
    return ref('responses', name);
  }
}

function refusal(codes: readonly ErrorCode[], schemas: Schemas): Json {
  const statuses = codes.map((code) => problems[code].status);
  return {
    description: codes.map((code) => `\`${code}\`: ${problems[code].title}.`).join('\n'),
    headers: {
      'X-Request-Id': ref('headers', 'RequestId'),
      ...(statuses.includes(405) ? { Allow: ref('headers', 'Allow') } : {}),
      ...(statuses.includes(401) ? { 'WWW-Authenticate': ref('headers', 'WwwAuthenticate') } : {}),
      ...(statuses.includes(429) || statuses.includes(503)
        ? { 'Retry-After': ref('headers', 'RetryAfter') }
        : {}),
    },
    'x-problems': codes,
    content: problemContent(schemas),
  };
}

const problemContent = (schemas: Schemas): Json => ({
  [problemMediaType]: { schema: schemas.add(problemSchema, 'output') },
});

function rolesText(action: string): string {
  if ((operatorActions as readonly string[]).includes(action)) return ', for operators';
  if (!(teamActions as readonly string[]).includes(action)) return '';
  const held = rolesFor(action as TeamAction);
  return `, for the role${held.length === 1 ? '' : 's'} ${held.join(', ')}`;
}

function accessTable(): string {
  const rows = teamActions.map((action) => `| \`${action}\` | ${rolesFor(action).join(', ')} |`);
  return ['| action | roles |', '|---|---|', ...rows].join('\n');
}
