import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { folded, type Rows } from '../helpers/folded.ts';
import { parse } from 'yaml';
import { openapiDocument } from '../../src/http/document.ts';
import {
  type AnyOperation,
  problemCodesOf,
  problemsOfNoOperation,
  takesHead,
} from '../../src/http/operation.ts';
import { problems } from '../../src/http/problem.ts';
import { problemExample } from '../../src/http/problem-examples.ts';
import { openapiYaml } from '../../src/openapi.ts';
import type { ErrorCode } from '../../src/shared/errors.ts';
import {
  findLeaks,
  type Json,
  openMaps,
  operationsOf,
  type Placed,
  resolve,
  soundsSecret,
  walk,
} from '../helpers/openapi.ts';
import { startVault } from '../helpers/vault.ts';
import {
  actionOf,
  operatorActions,
  rolesFor,
  type TeamAction,
  teamActions,
} from '../../src/access/roles.ts';

const root = join(import.meta.dirname, '../..');
const committed = readFileSync(join(root, 'openapi.yaml'), 'utf8');
const document = parse(committed) as Json;

t.test('openapi.yaml is what the operations make, byte by byte', async (t) => {
  t.equal(
    committed,
    await openapiYaml(),
    'run `npm run -s openapi > openapi.yaml`, then read the difference as an attacker would',
  );
});

t.test(
  'the document does not depend on the order in which operations are registered, and is the one at /openapi.json',
  async (t) => {
    const { app, call } = await startVault(t);
    const made = JSON.stringify(openapiDocument(app.operations));
    t.equal(JSON.stringify(openapiDocument(app.operations)), made);
    t.equal(JSON.stringify(openapiDocument([...app.operations].reverse())), made);
    t.equal(
      JSON.stringify(
        openapiDocument(app.operations.toSorted((a, b) => (a.summary < b.summary ? -1 : 1))),
      ),
      made,
    );
    const { text, json } = await call(null, 'GET', '/openapi.json');
    t.equal(text, made);
    t.same(json, document);
  },
);

t.test('redocly finds nothing to say about it, with every recommended rule on', (t) => {
  const { status, stdout, stderr } = spawnSync(
    join(root, 'node_modules/.bin/redocly'),
    ['lint', '--extends', 'recommended-strict', '--format', 'json', 'openapi.yaml'],
    {
      cwd: root,
      encoding: 'utf8',
      env: { ...process.env, REDOCLY_TELEMETRY: 'off', REDOCLY_SUPPRESS_UPDATE_NOTICE: 'true' },
    },
  );
  t.equal(status, 0, stderr);
  t.same(JSON.parse(stdout).totals, { errors: 0, warnings: 0, ignored: 0 }, stdout);
  t.end();
});

t.test(
  'every operation says what it is, who may call it, what it takes, what it answers and how it refuses',
  folded(async (t) => {
    const { app } = await startVault(t);
    const described = operationsOf(document);
    t.same(
      described.map(({ method, path }) => `${method} ${path}`).sort(),
      app.operations
        .flatMap((each) =>
          (takesHead(each) ? [each.method, 'HEAD'] : [each.method]).map(
            (method) => `${method} ${pathOf(each)}`,
          ),
        )
        .sort(),
    );
    const ids = described.map(({ operation }) => operation['operationId'] as string);
    t.equal(new Set(ids).size, ids.length, 'no operationId twice');
    const tags = new Set((document['tags'] as Json[]).map(({ name }) => name as string));
    t.same(
      new Set([...described.flatMap(({ operation }) => operation['tags']), 'notifications']),
      tags,
      'every tag is declared, and every declared tag is used',
    );
    for (const source of app.operations) {
      const operation = document['paths'][pathOf(source)]?.[source.method.toLowerCase()] as Json;
      const at = source.operationId;
      t.equal(operation['operationId'], at);
      t.match(at, /^[a-z]+([A-Z][a-z]+)*$/, at);
      t.match(
        operation['summary'],
        /^[A-Z][a-z]+.*[^.]$/,
        `${at}: the summary is a sentence without a full stop`,
      );
      t.ok(
        verbs.has((operation['summary'] as string).split(/[ ,]/)[0] ?? ''),
        `${at}: the summary starts with a verb that this test knows`,
      );
      t.same(operation['tags'], [source.tag], at);
      t.equal(operation['x-action'], actionOf(source.access), at);
      t.same(
        operation['security'] ?? document['security'],
        source.access === 'public' ? [] : [{ token: [] }],
        at,
      );
      checkProblems(t, source, operation);
      checkContent(t, source, operation);
      if (takesHead(source)) checkHead(t, source);
    }
    t.same(
      app.operations
        .filter(takesHead)
        .map(({ operationId }) => operationId)
        .sort(),
      ['getHealth', 'getLeaseKeys', 'getReadiness'],
      'HEAD is for probes and public documents',
    );
  }),
);

// The first words of summaries; whatever else starts one is looked at by whoever adds it here.
const verbs = new Set([
  'Accept',
  'Add',
  'Cancel',
  'Change',
  'Count',
  'Create',
  'Delete',
  'Destroy',
  'Extend',
  'Disable',
  'Enable',
  'Finish',
  'Lease',
  'List',
  'Offer',
  'Mark',
  'Read',
  'Register',
  'Remove',
  'Rename',
  'Restore',
  'Retire',
  'Rewrap',
  'Say',
  'Schedule',
  'Share',
  'Start',
  'Store',
  'Test',
]);

const pathOf = ({ url }: AnyOperation): string => url.replaceAll(/:([A-Za-z]+)/g, '{$1}');

/** What an operation answers besides, as the document lists it. */
function checkProblems(t: Rows, source: AnyOperation, operation: Json): void {
  const at = source.operationId;
  const answers = Object.entries(operation['responses'] as Json).filter(
    ([status]) =>
      status !== String(source.success.status) && status !== String(source.otherwise?.status),
  );
  const listed = answers.flatMap(([status, each]) => {
    const response = resolve(document, each as Json);
    t.same(Object.keys(response['content'] as Json), ['application/problem+json']);
    const { schema, examples } = response['content']['application/problem+json'];
    t.same(schema, { $ref: '#/components/schemas/Problem' });
    const codes = (response['x-problems'] ?? Object.keys(examples as Json)) as ErrorCode[];
    for (const code of codes) {
      const { status: shown, code: named } = document['components'].examples[code].value;
      t.same([named, shown], [code, problems[code].status], 'each has an example');
      t.ok(
        status === 'default' || problems[code].status === Number(status),
        `${at}: ${code} stands under its status`,
      );
    }
    const statuses = new Set(codes.map((code) => problems[code].status));
    t.same(
      Object.keys(response['headers'] as Json).sort(),
      [
        ...(statuses.has(405) ? ['Allow'] : []),
        ...(statuses.has(429) || statuses.has(503) ? ['Retry-After'] : []),
        ...(statuses.has(401) ? ['WWW-Authenticate'] : []),
        'X-Request-Id',
      ].sort(),
      `${at}: ${status} has the headers of each`,
    );
    return codes;
  });
  t.same(
    listed.sort(),
    [...problemCodesOf(source), ...problemsOfNoOperation].sort(),
    `${at}: every code that it can give, each once`,
  );
  t.same(
    answers.map(([status]) => status).includes('default'),
    true,
    `${at}: anything else is a problem document too`,
  );
}

/** HEAD answers as GET does, by the headers alone. */
function checkHead(t: Rows, source: AnyOperation): void {
  const item = document['paths'][pathOf(source)] as Json;
  const { get, head } = item as { get: Json; head: Json };
  t.equal(head['operationId'], source.operationId.replace(/^get/, 'head'));
  t.same([head['tags'], head['x-action'], head['security']], [get['tags'], get['x-action'], []]);
  t.same(Object.keys(head['responses'] as Json), Object.keys(get['responses'] as Json));
  for (const [status, answer] of Object.entries(head['responses'] as Json) as [string, Json][]) {
    const { content: _, ...rest } = resolve(document, get['responses'][status] as Json);
    t.same(resolve(document, answer), rest, `${source.operationId}: ${status} has no content`);
  }
}

function checkContent(t: Rows, source: AnyOperation, operation: Json): void {
  const at = source.operationId;
  const answer = resolve(document, operation['responses'][String(source.success.status)] as Json);
  t.equal(
    answer['content'] === undefined,
    source.success.status === 204,
    `${at}: 204 and only 204 has no content`,
  );
  for (const each of Object.values((answer['content'] ?? {}) as Json) as Json[])
    t.ok(hasExample(each['schema'] as Json), `${at}: the answer has an example`);
  t.equal(operation['requestBody'] === undefined, source.body === undefined);
  for (const each of Object.values((operation['requestBody']?.content ?? {}) as Json) as Json[])
    t.ok(hasExample(each['schema'] as Json), `${at}: the body has an example`);
  const inPath = [...pathOf(source).matchAll(/\{([^}]+)\}/g)].map(([, name]) => name);
  const parameters = ((operation['parameters'] ?? []) as Json[]).map((each) =>
    resolve(document, each),
  );
  t.same(
    parameters.filter((each) => each['in'] === 'path').map((each) => each['name']),
    inPath,
    `${at}: every part of the path is described`,
  );
  for (const each of parameters)
    t.not(each['example'], undefined, `${at}: ${each['name']} has an example`);
}

/** Whether one can be put together of what the schema and its parts say. */
function hasExample(schema: Json): boolean {
  const { examples, type, enum: words, ...more } = { ...resolve(document, schema), ...schema };
  if (examples !== undefined || words !== undefined || 'const' in more || 'default' in more)
    return true;
  const options = (more['anyOf'] ?? more['oneOf']) as Json[] | undefined;
  if (options !== undefined) return options.some(hasExample);
  switch (type) {
    case 'null':
    case 'boolean':
      return true;
    case 'array':
      return hasExample(more['items'] as Json);
    case 'object':
      return ((more['required'] ?? []) as string[]).every((name) =>
        hasExample(more['properties'][name] as Json),
      );
    default:
      return false;
  }
}

t.test('what says where to read it links to what reads it', (t) => {
  const byId = new Map(
    operationsOf(document).map(({ path, operation }) => [
      operation['operationId'] as string,
      { path, parameters: (operation['parameters'] ?? []) as Json[] },
    ]),
  );
  const linked: string[] = [];
  for (const { operation } of operationsOf(document)) {
    const at = operation['operationId'] as string;
    for (const answer of Object.values(operation['responses'] as Json) as Json[]) {
      const { headers = {}, links = {}, content } = resolve(document, answer) as Json;
      if (headers['Location'] !== undefined) t.not(Object.keys(links as Json).length, 0, at);
      for (const link of Object.values(links as Json) as Json[]) {
        linked.push(at);
        const target = byId.get(link['operationId'] as string);
        const inPath = [...(target?.path ?? '').matchAll(/\{([^}]+)\}/g)].map(([, name]) => name!);
        t.same(Object.keys(link['parameters'] as Json).sort(), inPath.sort(), at);
        for (const from of Object.values(link['parameters'] as Json) as string[]) {
          const [, member] = /^\$response\.body#\/(\w+)$/.exec(from) ?? [];
          const [, name] = /^\$request\.path\.(\w+)$/.exec(from) ?? [];
          const { schema } = content['application/json'];
          t.ok(
            member === undefined
              ? byId.get(at)?.path.includes(`{${name}}`)
              : resolve(document, schema as Json)['properties'][member],
            `${at}: ${from} is there`,
          );
        }
      }
    }
  }
  t.same(linked.sort(), [
    'addEngineKey',
    'createCredential',
    'createEngine',
    'createTeam',
    'startRotation',
  ]);
  t.end();
});

t.test('each union that a member tells apart says which', (t) => {
  const unions = [...everySchema()].filter(({ schema }) => schema['discriminator'] !== undefined);
  t.same(unions.map(({ place }) => place).sort(), [
    'CredentialBulk/items[]',
    'ExportLine',
    'PublicJwk',
    'PublicJwkInput',
  ]);
  for (const { place, schema } of unions)
    t.same(
      Object.values(schema['discriminator'].mapping as Json).sort(),
      (schema['oneOf'] as Json[]).map(({ $ref }) => $ref).sort(),
      place,
    );
  t.end();
});

t.test('webhooks have a tag of their own and name no parameter', (t) => {
  const sent = Object.values(document['webhooks'] as Json) as Json[];
  t.equal(sent.length, 9);
  for (const { post } of sent) {
    t.same(post.tags, ['notifications']);
    t.same(
      (post.parameters as Json[]).map(({ name, in: place, $ref }) => [name, place, $ref]),
      ['webhook-id', 'webhook-timestamp', 'webhook-signature'].map((name) => [
        name,
        'header',
        undefined,
      ]),
    );
  }
  t.end();
});

t.test('the text of each example of a problem is one that is thrown', (t) => {
  const sources = readdirSync(join(root, 'src'), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts') && !name.endsWith('problem-examples.ts'))
    .map((name) => readFileSync(join(root, 'src', name), 'utf8').replaceAll(/'\s*\+\s*'/g, ''))
    .join('\n');
  for (const code of Object.keys(problems) as ErrorCode[]) {
    const { message } = problemExample(code);
    const [before = '', after = ''] = message.split('4096'); // one has a number put in
    t.ok(sources.includes(before) && sources.includes(after), `${code}: ${message}`);
  }
  t.end();
});

t.test('everything has a limit: strings, numbers, lists, objects', (t) => {
  const found = [...everySchema()];
  t.ok(found.length > 400, 'the walk reaches the document');
  t.same(
    found.flatMap(({ place, schema }) => unlimited(schema).map((fault) => `${place} ${fault}`)),
    [],
  );
  const planted: [Json, string][] = [
    [{ type: 'string', maxLength: 5 }, 'has no form'],
    [{ type: 'string', pattern: '^a$' }, 'has no maxLength'],
    [{ type: 'integer', minimum: 0, maximum: 5 }, 'has no format'],
    [{ type: 'number', format: 'double', minimum: 0 }, 'has no bounds'],
    [{ type: 'array', items: {} }, 'has no maxItems'],
    [{ type: 'object', properties: {} }, 'is open'],
    [{ type: 'object', additionalProperties: { type: 'boolean' } }, 'is an unbounded map'],
    [{ type: 'object', additionalProperties: true }, 'is open'],
    [{}, 'takes anything'],
  ];
  for (const [schema, fault] of planted) t.same(unlimited(schema), [fault]);
  t.end();
});

function* everySchema(): Generator<Placed> {
  const { schemas, parameters, headers, responses } = document['components'] as Record<
    string,
    Json
  >;
  for (const [name, schema] of Object.entries(schemas ?? {})) yield* walk(schema as Json, name);
  for (const [name, each] of [
    ...Object.entries(parameters ?? {}),
    ...Object.entries(headers ?? {}),
  ])
    yield* walk((each as Json)['schema'] as Json, name);
  const content = function* (of: Json, place: string): Generator<Placed> {
    for (const { schema } of Object.values((of['content'] ?? {}) as Json) as Json[])
      yield* walk(schema as Json, place);
  };
  for (const [name, each] of Object.entries(responses ?? {})) yield* content(each as Json, name);
  for (const { operation } of operationsOf(document)) {
    const at = operation['operationId'] as string;
    for (const each of (operation['parameters'] ?? []) as Json[])
      if (each['schema'] !== undefined)
        yield* walk(each['schema'] as Json, `${at} ${each['name']}`);
    yield* content((operation['requestBody'] ?? {}) as Json, at);
    for (const each of Object.values(operation['responses'] as Json) as Json[])
      yield* content(each, at);
  }
}

function unlimited(schema: Json): string[] {
  if (
    schema['$ref'] !== undefined ||
    schema['anyOf'] !== undefined ||
    schema['oneOf'] !== undefined
  )
    return [];
  const { type } = schema;
  const isNamedValue = schema['enum'] !== undefined || schema['const'] !== undefined;
  switch (type) {
    case 'string':
      if (isNamedValue) return [];
      return [
        ...(schema['maxLength'] === undefined ? ['has no maxLength'] : []),
        ...(schema['pattern'] === undefined && schema['format'] === undefined
          ? ['has no form']
          : []),
      ];
    case 'integer':
    case 'number':
      return [
        ...(schema['format'] === undefined ? ['has no format'] : []),
        ...(schema['minimum'] === undefined || schema['maximum'] === undefined
          ? ['has no bounds']
          : []),
      ];
    case 'array':
      return schema['maxItems'] === undefined ? ['has no maxItems'] : [];
    case 'object': {
      const { additionalProperties: more, maxProperties, propertyNames } = schema;
      if (more === undefined || more === true) return ['is open'];
      return more === false || (maxProperties !== undefined && propertyNames !== undefined)
        ? []
        : ['is an unbounded map'];
    }
    case 'boolean':
    case 'null':
      return [];
    default:
      return isNamedValue ? [] : ['takes anything'];
  }
}

t.test('no answer has a place for a secret', (t) => {
  const { faults, usedNames, usedMaps } = findLeaks(document);
  t.same(faults, []);
  t.same([...usedNames].sort(), Object.keys(soundsSecret).sort(), 'no exception is left over');
  t.same([...usedMaps].sort(), Object.keys(openMaps).sort(), 'no exception is left over');
  t.end();
});

t.test('a place for a secret is found wherever it hides', (t) => {
  const plants: Record<string, (schemas: Json, copy: Json) => void> = {
    'a secret field of a type': (schemas) => {
      schemas['Credential'].properties.apiKey = { type: 'string' };
    },
    'the same in other letters': (schemas) => {
      schemas['Credential'].properties.WEBHOOKURL = { type: 'string' };
    },
    'a field deep in a page': (schemas) => {
      schemas['Engine'].properties.keys.items.properties.d = { type: 'string' };
    },
    'something for writing only': (schemas) => {
      schemas['TimeOrNull'].anyOf.push({ type: 'string', writeOnly: true });
    },
    'the shape that secrets come in with': (schemas) => {
      schemas['TeamPage'].properties.more = {
        type: 'array',
        items: { $ref: '#/components/schemas/FieldsInput' },
      };
    },
    'the shape of a whole request': (schemas) => {
      schemas['Member'].properties.was = { $ref: '#/components/schemas/CredentialCreate' };
    },
    'an open object': (schemas) => {
      schemas['Team'].additionalProperties = true;
    },
    'an object that does not say': (schemas) => {
      delete schemas['Team'].additionalProperties;
    },
    'a map': (schemas) => {
      schemas['Team'].properties.extra = {
        type: 'object',
        maxProperties: 3,
        additionalProperties: { type: 'string' },
      };
    },
    'anything at all': (schemas) => {
      schemas['Team'].properties.extra = { description: 'see there' };
    },
    'a refusal': (schemas) => {
      schemas['Problem'].properties.password = { type: 'string' };
    },
    'a header': (_schemas, copy) => {
      copy['components'].headers.ETag.schema = {
        type: 'object',
        properties: { token: { type: 'string' } },
        additionalProperties: false,
      };
    },
    'an answer of its own': (_schemas, copy) => {
      copy['paths']['/v1/whoami'].get.responses['200'].content['text/plain'] = {
        schema: { type: 'object', properties: { password: {} }, additionalProperties: false },
      };
    },
  };
  for (const [what, plant] of Object.entries(plants)) {
    const copy = structuredClone(document);
    plant(copy['components'].schemas as Json, copy);
    t.not(findLeaks(copy).faults.length, 0, what);
  }
  const copy = structuredClone(document);
  copy['components'].schemas.Team.patternProperties = { '.*': { type: 'string' } };
  t.throws(() => findLeaks(copy), /does not know/, 'a keyword that the walk does not know');
  t.end();
});

t.test('secrets go in only where they are marked as going in', (t) => {
  const marked = [...everySchema()]
    .filter(({ schema }) => schema['writeOnly'] === true)
    .map(({ place }) => place);
  t.same(marked.sort(), [
    'BrokerTicketCreate/subjectToken',
    'FieldsInput',
    'LeaseCreate/subjectToken',
    'OAuthCallback/code',
    'OAuthCallback/state',
  ]);
  t.end();
});

t.test(
  'every component is used',
  folded((t) => {
    const text = JSON.stringify(document);
    for (const kind of ['schemas', 'responses', 'parameters', 'headers', 'examples']) {
      for (const name of Object.keys(document['components'][kind] as Json))
        t.ok(text.includes(`"#/components/${kind}/${name}"`), `${kind}/${name}`);
    }
  }),
);

t.test('the table of access is printed whole', (t) => {
  const { description } = document['info'] as { description: string };
  for (const action of teamActions)
    t.match(description, `| \`${action}\` | ${rolesFor(action as TeamAction).join(', ')} |`);
  const printed = new Set(
    operationsOf(document).map(({ operation }) => operation['x-action'] as string),
  );
  for (const action of operatorActions) t.ok(printed.has(action), action);
  t.end();
});
