// Every type, the whole way: a form drawn from its schema and nothing else, stored, read, leased
// and opened by an engine, its destination changed, and a call through the broker where the type
// injects.
import { createHash, createHmac } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import t, { type Test } from 'tap';
import { parseAllowRules } from '../../src/egress/allow.ts';
import { Egress } from '../../src/egress/index.ts';
import { credentialTypes, findType } from '../../src/credentials/types/registry.ts';
import { askTicket, callBroker } from '../helpers/broker.ts';
import { tlsUpstream } from '../helpers/egress.ts';
import { takes } from '../helpers/json-schema.ts';
import {
  askLease,
  demand,
  openAnswer,
  registerEngine,
  rulesOf,
  type TestEngine,
} from '../helpers/leases.ts';
import {
  besides,
  fillShortest,
  fillWhole,
  type Form,
  plainSecret,
  secretNames,
  valueFor,
} from '../helpers/schema-form.ts';
import { startVault, type TestVault } from '../helpers/vault.ts';

const any = { 'if-match': '*' };
const list = '/v1/teams/payments/credentials';

/** What the platform has: none of it may be missing. */
const platformTypes = [
  'openai',
  'google',
  'cohere',
  'customLlm',
  'bearer',
  'header',
  'telegram',
  'slack',
  'slackTrigger',
  'imap',
  'smtp',
  'redis',
  'qdrant',
  'grist',
  'rabbitmq',
  'flaresolverr',
  'googleSheets',
  'bigquery',
  'github',
  'jira',
  'linear',
  'notion',
  'discord',
  'discordTrigger',
  'supabase',
  'sentry',
  's3',
  'elevenlabs',
  'clickhouse',
  'googleDrive',
  'anthropic',
];
/**
 * Where the broker puts which secret, as the types were asked for: what the upstream has to see.
 */
type Binding =
  | { readonly header: string; readonly is: (form: Form) => string }
  | { readonly url: (form: Form) => string }
  | 'signature';
const header = (name: string, field: string, prefix = ''): Binding => ({
  header: name,
  is: (form) => `${prefix}${form[field]}`,
});
const bearer = (field: string): Binding => header('authorization', field, 'Bearer ');
const basic = (user: string, password: string): Binding => ({
  header: 'authorization',
  is: (form) => `Basic ${Buffer.from(`${form[user]}:${form[password]}`).toString('base64')}`,
});
const places: Readonly<Record<string, Binding>> = {
  openai: bearer('apiKey'),
  google: header('x-goog-api-key', 'apiKey'),
  cohere: bearer('apiKey'),
  customLlm: bearer('apiKey'),
  bearer: bearer('token'),
  grist: bearer('apiKey'),
  github: bearer('apiKey'),
  notion: bearer('apiToken'),
  sentry: bearer('apiToken'),
  googleSheets: bearer('accessToken'),
  googleDrive: bearer('accessToken'),
  bigquery: bearer('accessToken'),
  oauth2: bearer('accessToken'),
  qdrant: header('api-key', 'apiKey'),
  linear: header('authorization', 'apiKey'),
  supabase: header('apikey', 'key'),
  elevenlabs: header('xi-api-key', 'apiKey'),
  anthropic: header('x-api-key', 'apiKey'),
  header: { header: 'a-name', is: (form) => `${form['value']}` },
  jira: basic('email', 'apiToken'),
  httpBasic: basic('username', 'password'),
  s3: 'signature',
  aws: 'signature',
  telegram: { url: (form) => `https://api.telegram.org/bot${form['botToken']}/v1/things?q=1` },
  azureOpenai: header('api-key', 'apiKey'),
  clickhouse: header('x-clickhouse-key', 'password'),
  pgvector: bearer('embeddingApiKey'),
  slackBot: bearer('botToken'),
  gitlab: header('private-token', 'token'),
  stripe: bearer('apiKey'),
  hubspot: bearer('accessToken'),
  twilio: basic('apiKeySid', 'apiKeySecret'),
  sendgrid: bearer('apiKey'),
  airtable: bearer('token'),
  decision: bearer('apiKey'),
  salesforce: bearer('accessToken'),
  slack: { url: (form) => `${form['webhookUrl']}?q=1` },
  discord: { url: (form) => `${form['webhookUrl']}?q=1` },
  httpQuery: { url: (form) => `https://service.example/v1/things?q=1&a-name=${form['value']}` },
};
/** Their secrets are whole URLs. */
const webhooks: readonly string[] = ['slack', 'discord'];

interface Stage {
  readonly vault: TestVault;
  readonly engine: TestEngine;
}
async function stageOf(t: Test, options: Parameters<typeof startVault>[1] = {}): Promise<Stage> {
  const vault = await startVault(t, options);
  await vault.team('payments');
  const engine = await registerEngine(vault, 'n8n');
  await vault.member('payments', 'n8n', 'engine');
  return { vault, engine };
}

const schemaOf = async ({ vault }: Stage, type: string): Promise<any> =>
  demand(vault.call('alice', 'GET', `/v1/credential-types/${type}`), 200);
const create = (
  { vault }: Stage,
  name: string,
  type: string,
  fields: Form,
  more: object = {},
): ReturnType<TestVault['call']> =>
  vault.call('alice', 'POST', list, { name, type, fields, ...more });
/** What a type needs that engines get only where it is said. */
const forEngines = (type: string): object =>
  findType(type)?.isForVault === true ? { policy: { delivery: ['lease'], allowedHosts: [] } } : {};
const leased = async ({ vault, engine }: Stage, id: string): Promise<unknown> => {
  const {
    credentials: [credential],
  } = await openAnswer(vault, engine, await askLease(vault, 'n8n', [{ id }]));
  if (credential === undefined || credential.notModified) throw new Error('nothing was leased');
  const schema = await schemaOf({ vault, engine }, credential.type);
  return withoutWritten(schema, { ...credential.fields } as Form);
};
/** What the vault wrote by itself stands beside the form; oauth-providers.test.ts looks at it. */
const withoutWritten = (schema: any, form: Form): Form => {
  const left = besides(schema);
  return Object.fromEntries(Object.entries(form).filter(([name]) => !left.has(name)));
};

/**
 * What an engine has to get of a form: of one whose tokens are stored, the access token and nothing
 * else that is secret.
 */
function deliveredOf(schema: any, form: Form, isHeld: boolean): Form {
  const filled = {
    ...Object.fromEntries(
      Object.entries(schema.properties as Record<string, any>).flatMap(([name, each]) =>
        each.default === undefined ? [] : [[name, each.default]],
      ),
    ),
    ...form,
  };
  if (!isHeld) return filled;
  const hidden = secretNames(schema).filter((name) => name !== 'accessToken');
  return Object.fromEntries(
    Object.entries(filled)
      .filter(([name]) => !hidden.includes(name))
      .map(([name, value]) => [
        name,
        typeof value === 'string' && /^\d{4}-.*Z$/.test(value)
          ? new Date(value).toISOString()
          : value,
      ]),
  );
}

t.test('by its schema, stored, read, leased, and held to its destination', async (t) => {
  const stage = await stageOf(t);
  const { vault } = stage;
  const { items: types } = await demand(vault.call('alice', 'GET', '/v1/credential-types'), 200);
  for (const name of platformTypes)
    t.ok(
      types.some((each: any) => each.name === name),
      `there is a type ${name}`,
    );
  for (const { name: type, fields, isOpen } of types) {
    await t.test(type, async (t) => {
      const schema = await schemaOf(stage, type);
      const form = fillWhole(schema);
      t.ok(
        takes(schema, form) && fillShortest(schema).every((each) => takes(schema, each)),
        'what was filled in is what the schema takes',
      );
      const secrets =
        isOpen === true
          ? ['field0']
          : secretNames(schema).filter((name) => Object.hasOwn(form, name));
      const isHeld = findType(type)?.oauth !== undefined;
      // A secret that a provider gave goes into a header.
      if (isHeld) form['accessToken'] = plainSecret();
      const openNames = (of: Form): object =>
        isOpen === true
          ? { publicFieldNames: Object.keys(of).filter((name) => !secrets.includes(name)) }
          : {};
      const made = await create(stage, type, type, form, {
        ...openNames(form),
        ...forEngines(type),
      });
      t.equal(made.status, 201, made.text);
      const { id } = made.json;
      const read = await vault.call('alice', 'GET', `/v1/credentials/${id}`);
      t.strictSame(
        withoutWritten(schema, { ...read.json.publicFields }),
        Object.fromEntries(Object.entries(form).filter(([name]) => !secrets.includes(name))),
        'what is public is read back',
      );
      t.strictSame(read.json.secretFields, secrets.toSorted(), 'of what is secret the names');
      for (const name of secrets)
        for (const answer of [made, read])
          t.notOk(answer.text.includes(JSON.stringify(form[name]).slice(1, -1)), `and not ${name}`);
      t.strictSame(
        await leased(stage, id),
        deliveredOf(schema, form, isHeld),
        'the engine has it to the byte',
      );

      const destinations =
        isOpen === true
          ? Object.keys(form).filter((name) => !secrets.includes(name))
          : fields
              .filter((each: any) => each.isDestination && !besides(schema).has(each.name))
              .map((each: any) => each.name);
      for (const name of destinations) {
        const change = {
          [name]:
            isOpen === true
              ? typeof form[name] === 'boolean'
                ? !form[name]
                : typeof form[name] === 'number'
                  ? form[name] + 1
                  : 'elsewhere'
              : valueFor(schema.properties[name], [form[name]]),
        };
        const again = Object.fromEntries(
          secrets.map((each) => [
            each,
            isHeld && each === 'accessToken'
              ? plainSecret()
              : valueFor(schema.properties[each] ?? { writeOnly: true }),
          ]),
        );
        const patch = (fields: object): ReturnType<TestVault['call']> =>
          vault.call('alice', 'PATCH', `/v1/credentials/${id}`, { fields }, any);
        if (secrets.length > 0) {
          const before = await leased(stage, id);
          const refused = await patch(change);
          t.match([refused.status, refused.json.code], [422, 'secretRequired'], `${name} alone`);
          t.strictSame(
            refused.json.errors,
            secrets
              .toSorted()
              .map((each) => ({ pointer: `/fields/${each}`, rule: 'secretRequired' })),
          );
          const { [secrets[0]!]: _, ...allButOne } = again;
          t.strictSame(
            rulesOf(await patch({ ...change, ...allButOne })),
            [`/fields/${secrets[0]} secretRequired`],
            `${name} with all secrets but one`,
          );
          t.strictSame(await leased(stage, id), before, 'and nothing was changed');
        }
        const accepted = await patch({ ...change, ...again });
        t.equal(accepted.status, 200, `${name} with all secrets: ${accepted.text}`);
        Object.assign(form, change, again);
        t.strictSame(await leased(stage, id), deliveredOf(schema, form, isHeld));
      }

      for (const [at, short] of fillShortest(schema).entries()) {
        let answer = await create(stage, `${type} ${at}`, type, short, openNames(short));
        // What no schema says, such as a field that one grant needs and another one does not, the
        // answer names.
        if (answer.status === 400) {
          for (const { pointer, rule } of answer.json.errors)
            if (rule === 'required')
              short[pointer.slice('/fields/'.length)] = valueFor(
                schema.properties[pointer.slice('/fields/'.length)],
              );
          answer = await create(stage, `${type} ${at}`, type, short);
        }
        t.equal(answer.status, 201, `as little as the schema wants: ${answer.text}`);
        t.strictSame(
          withoutWritten(schema, { ...answer.json.publicFields }),
          Object.fromEntries(
            Object.entries(deliveredOf(schema, short, false)).filter(
              ([name]) => !secrets.includes(name),
            ),
          ),
          'and its defaults',
        );
      }
    });
  }
});

interface Seen {
  readonly url: string;
  readonly headers: IncomingMessage['headers'];
  readonly host: string;
}

/** Ports that belong to somebody else stand at another one here: nobody needs to be root. */
class Moved extends Egress {
  readonly #to: number;
  constructor(parts: ConstructorParameters<typeof Egress>[0], to: number) {
    super(parts);
    this.#to = to;
  }
  override dispatcher(
    origin: Parameters<Egress['dispatcher']>[0],
    team: string,
  ): ReturnType<Egress['dispatcher']> {
    return super.dispatcher({ ...origin, port: this.#to }, team);
  }
}

t.test('one call through the broker, the secret in its place', async (t) => {
  const fixedHosts = credentialTypes.flatMap(({ broker }) =>
    broker?.upstream.kind === 'fixed' ? [new URL(broker.upstream.baseUrl).hostname] : [],
  );
  const hosts = [
    'service.example',
    'sts.eu-west-1.amazonaws.com',
    's3.eu-west-1.amazonaws.com',
    'a.my.salesforce.com',
    'hooks.example',
    ...fixedHosts,
  ];
  const seen: Seen[] = [];
  const upstream = await tlsUpstream(
    t,
    'service.example',
    (request, response) => {
      seen.push({
        url: request.url ?? '',
        headers: request.headers,
        host: String(request.headers.host).replace(/:\d+$/, ''),
      });
      request.resume().on('end', () => response.end('fine'));
    },
    { names: hosts },
  );
  const egress = new Moved(
    {
      allow: parseAllowRules(hosts.map((host) => `${host}:${upstream.port}=127.0.0.0/8`).join(',')),
      own: () => [],
      ca: upstream.certificate,
      resolve: async (name) => (hosts.includes(name) ? ['127.0.0.1'] : []),
    },
    upstream.port,
  );
  t.teardown(() => egress.close());
  let url = '';
  const stage = await stageOf(t, { egress, brokerUrl: () => url });
  const { vault } = stage;
  url = await vault.broker.listen({ host: '127.0.0.1', port: 0 });
  const { port } = vault.broker.server.address() as AddressInfo;
  t.strictSame(
    credentialTypes
      .filter(({ broker }) => broker !== undefined)
      .map(({ name }) => name)
      .sort(),
    Object.keys(places).sort(),
    'these inject',
  );

  for (const { name: type, broker, oauth } of credentialTypes) {
    await t.test(type, async (t) => {
      const schema = await schemaOf(stage, type);
      const form = fillWhole(schema);
      // What the broker carries has to fit its place: a header, a path, a URL; Unicode does not.
      for (const name of secretNames(schema))
        if (Object.hasOwn(form, name) && schema.properties[name].pattern === undefined)
          form[name] = plainSecret();
      const policy = { delivery: ['broker'], allowedHosts: [] as string[] };
      if (broker === undefined) {
        const publicFieldNames =
          schema.additionalProperties === false ? {} : { publicFieldNames: ['field2', 'field3'] };
        const refused = await create(stage, type, type, form, { policy, ...publicFieldNames });
        t.match(
          [refused.status, rulesOf(refused)],
          [400, ['/policy/delivery/0 notForType']],
          'it cannot be stored for the broker',
        );
        const { id } = await demand(create(stage, type, type, form, publicFieldNames), 201);
        const ticket = await askTicket(vault, 'n8n', { id });
        t.match(
          [ticket.status, ticket.json.code, rulesOf(ticket)],
          [422, 'ticketRefused', ['/credential deliveryNotAllowed']],
          'and there is no ticket for it',
        );
        return;
      }
      const place = places[type]!;
      const [isWebhook, isHeld] = [webhooks.includes(type), oauth !== undefined];
      const { upstream: target } = broker;
      if (target.kind === 'policy')
        policy.allowedHosts.push(
          (
            { aws: 'sts.eu-west-1.amazonaws.com', s3: 's3.eu-west-1.amazonaws.com' } as Record<
              string,
              string
            >
          )[type] ?? 'service.example',
        );
      if (target.kind === 'hostPort') form['host'] = 'service.example';
      if (isWebhook) form['webhookUrl'] = `https://hooks.example/services/${plainSecret()}`;
      const { id } = await demand(create(stage, type, type, form, { policy }), 201);
      const made = await askTicket(vault, 'n8n', { id });
      t.equal(made.status, 201, made.text);
      const answer = await callBroker(
        port,
        'GET',
        `/broker/${made.json.id}${isWebhook ? '' : '/v1/things'}?q=1`,
        { authorization: `Bearer ${made.json.ticket}` },
      );
      t.match(answer, { status: 200, text: 'fine' });
      t.equal(seen.length, 1, 'one call, one request');
      const [request] = seen.splice(0) as [Seen];
      const whole = `https://${request.host}${request.url}`;
      if (place === 'signature')
        t.equal(
          /Signature=([0-9a-f]{64})$/.exec(request.headers.authorization ?? '')?.[1],
          signatureOf(request, String(form['secretAccessKey'])),
        );
      else if ('url' in place) t.equal(whole, place.url(form));
      else {
        t.equal(request.headers[place.header], place.is(form));
        t.match(
          whole,
          /^https:\/\/[a-z0-9.]+(?:\/base)?\/v1\/things\?q=1$/,
          "and the URL is the caller's",
        );
      }
      // What is not what the upstream wants of it stays behind: the other secrets, those that
      // tokens are got with, the ticket.
      const shown = secretNames(schema).filter(
        (name) =>
          JSON.stringify(request).includes(String(form[name])) ||
          (isWebhook && name === 'webhookUrl'),
      );
      t.ok(
        shown.length <= 1 && !(isHeld && shown[0] !== 'accessToken'),
        `of its secrets the upstream sees ${shown.join() || 'none as it is'}`,
      );
      t.notOk(JSON.stringify(request).includes(made.json.ticket), 'and not the ticket');
    });
  }
});

/** AWS's signature of the request as it arrived, from the specification. */
function signatureOf({ url, headers, host }: Seen, secret: string): string {
  const [, date = '', region = '', service = '', names = ''] =
    /Credential=[^/]+\/(\d{8})\/([^/]+)\/([^/]+)\/aws4_request, SignedHeaders=([^,]+), /.exec(
      headers.authorization ?? '',
    ) ?? [];
  const [path, query = ''] = url.split('?');
  const all: Record<string, unknown> = { ...headers, host };
  const hash = String(headers['x-amz-content-sha256'] ?? createHash('sha256').digest('hex'));
  const canonical = [
    'GET',
    path,
    query,
    ...names.split(';').map((name) => `${name}:${String(all[name])}`),
    '',
    names,
    hash,
  ].join('\n');
  const toSign = [
    'AWS4-HMAC-SHA256',
    headers['x-amz-date'],
    `${date}/${region}/${service}/aws4_request`,
    createHash('sha256').update(canonical).digest('hex'),
  ].join('\n');
  const key = [date, region, service, 'aws4_request'].reduce<string | Buffer>(
    (signing, part) => createHmac('sha256', signing).update(part).digest(),
    `AWS4${secret}`,
  );
  return createHmac('sha256', key).update(toSign).digest('hex');
}
