// npm run test:peers:recipes: each block of docs/recipes.md as it stands there, with the real SDK,
// through a broker to an upstream that speaks like the service. SDKs are pinned by the lock files of
// this folder.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import t from 'tap';
import { parseAllowRules } from '../../src/egress/allow.ts';
import { askTicket, type Ticket } from '../helpers/broker.ts';
import { MovedEgress, tlsUpstream } from '../helpers/egress.ts';
import { demand, registerEngine } from '../helpers/leases.ts';
import { startVault } from '../helpers/vault.ts';
import { npmPeers, pythonPeers } from './installed.ts';
import { accessKeyId, answering, repositories, secretOf, type Seen } from './recipes/services.ts';

const folder = mkdtempSync(join(tmpdir(), 'vault-recipes-'));
t.teardown(() => {
  rmSync(folder, { recursive: true, force: true });
});
const text = readFileSync(join(import.meta.dirname, '../../docs/recipes.md'), 'utf8');

interface Recipe {
  readonly title: string;
  readonly language: string;
  readonly code: string;
}
const recipes: readonly Recipe[] = text
  .split(/^## /m)
  .slice(1)
  .map((section) => {
    const [, language = '', code = ''] = /^```(\w+)\n(.*?)^```$/ms.exec(section) ?? [];
    return { title: section.split('\n', 1)[0]!, language, code };
  });

/** How each is used: the credential, and what is done with what the recipe makes. */
interface Use {
  readonly host: string;
  readonly type: string;
  readonly fields: object;
  readonly use: (made: any, run: Run) => Promise<unknown>;
  readonly gives: unknown;
}
type Run = (program: string, args: readonly string[]) => Promise<string>;

const secret = (host: string): string => secretOf[host]!;
const bearerAt = (host: string): Pick<Use, 'host' | 'type' | 'fields'> => ({
  host,
  type: 'bearer',
  fields: { token: secret(host) },
});
const s3: Pick<Use, 'host' | 'type' | 'fields'> = {
  host: 's3.us-east-1.amazonaws.com',
  type: 's3',
  fields: {
    accessKeyId,
    secretAccessKey: secret('s3.us-east-1.amazonaws.com'),
    region: 'us-east-1',
  },
};
const python = (then: string): Use['use'] => {
  return async (home: string, run) =>
    JSON.parse(
      await run(join(pythonPeers('recipes.txt'), 'bin/python'), [
        '-c',
        `import json, os, sys\nsys.path.insert(0, ${JSON.stringify(home)})\nfrom recipe import connect\nmade = connect(os.environ["TICKET"], os.environ["BASE_URL"])\n${then}`,
      ]),
    );
};

const uses: Readonly<Record<string, Use>> = {
  OpenAI: {
    host: 'api.openai.com',
    type: 'openai',
    fields: { apiKey: secret('api.openai.com') },
    use: async (made) =>
      (
        await made.chat.completions.create({
          model: 'm',
          messages: [{ role: 'user', content: 'hi' }],
        })
      ).choices[0].message.content,
    gives: 'you said hi',
  },
  Anthropic: {
    host: 'api.anthropic.com',
    type: 'anthropic',
    fields: { apiKey: secret('api.anthropic.com') },
    use: async (made) =>
      (
        await made.messages.create({
          model: 'm',
          max_tokens: 1,
          messages: [{ role: 'user', content: 'hi' }],
        })
      ).content[0].text,
    gives: 'hello',
  },
  GitHub: {
    host: 'api.github.com',
    type: 'github',
    fields: { apiKey: secret('api.github.com') },
    use: async (made) => {
      const repo = { owner: 'acme', repo: 'site' };
      const issues = await made.paginate('GET /repos/{owner}/{repo}/issues', repo);
      const file = await made.rest.repos.getContent({ ...repo, path: 'dir/file.txt' });
      return [issues.map(({ number }: { number: number }) => number), file.data.path];
    },
    gives: [[1, 2, 3], 'dir/file.txt'],
  },
  Slack: {
    ...bearerAt('slack.com'),
    use: async (made) => {
      const { method, message } = await made.chat.postMessage({ channel: 'C1', text: 'grüße' });
      return [method, message.text];
    },
    gives: ['/api/chat.postMessage', 'grüße'],
  },
  Stripe: {
    ...bearerAt('api.stripe.com'),
    use: async (made) => {
      const ids = [(await made.customers.create({ email: 'a@example.com' })).email];
      for await (const { id } of made.customers.list()) ids.push(id);
      return ids;
    },
    gives: ['a@example.com', 'cus_1', 'cus_2'],
  },
  S3: {
    ...s3,
    use: async (made) => {
      const { PutObjectCommand, GetObjectCommand, ListObjectsV2Command } = await import(
        pathToFileURL(join(npmPeers(), 'node_modules/@aws-sdk/client-s3/dist-cjs/index.js')).href
      );
      await made.send(new PutObjectCommand({ Bucket: 'b', Key: 'dir/a.txt', Body: 'an object' }));
      const { Body } = await made.send(new GetObjectCommand({ Bucket: 'b', Key: 'dir/a.txt' }));
      const { Contents } = await made.send(new ListObjectsV2Command({ Bucket: 'b' }));
      return [await Body.transformToString(), Contents[0].Key];
    },
    gives: ['an object', 'dir/a.txt'],
  },
  Notion: {
    host: 'api.notion.com',
    type: 'notion',
    fields: { apiToken: secret('api.notion.com') },
    use: async (made) => (await made.users.me({})).id,
    gives: '/v1/users/me',
  },
  Linear: {
    host: 'api.linear.app',
    type: 'linear',
    fields: { apiKey: secret('api.linear.app') },
    use: async (made) => {
      const { id, name } = await made.viewer;
      return [id, name];
    },
    gives: ['/graphql', 'Ada'],
  },
  'Google Drive': {
    ...bearerAt('www.googleapis.com'),
    use: async (made) => {
      const first = await made.files.list({ pageSize: 1 });
      const { nextPageToken: pageToken } = first.data;
      const second = await made.files.list({ pageSize: 1, pageToken });
      return [first, second].map(({ data }) => data.files[0].id);
    },
    gives: ['f1', 'f2'],
  },
  axios: {
    ...bearerAt('api.example.com'),
    use: async (made) => (await made.get('v1/items', { params: { page: 1 } })).data.path,
    gives: '/v1/items?page=1',
  },
  got: {
    ...bearerAt('api.example.com'),
    use: async (made) => (await made('v1/items', { searchParams: { page: 1 } }).json()).path,
    gives: '/v1/items?page=1',
  },
  'S3 with boto3': {
    ...s3,
    use: python(
      'made.put_object(Bucket="b", Key="dir/b.txt", Body=b"another")\n' +
        'print(json.dumps([made.get_object(Bucket="b", Key="dir/b.txt")["Body"].read().decode(), made.list_objects_v2(Bucket="b")["Contents"][-1]["Key"]]))',
    ),
    gives: ['another', 'dir/b.txt'],
  },
  httpx: {
    ...bearerAt('api.example.com'),
    use: python('print(json.dumps(made.get("v1/items", params={"page": 1}).json()["path"]))'),
    gives: '/v1/items?page=1',
  },
  curl: {
    ...bearerAt('api.example.com'),
    use: async (home: string, run) => JSON.parse(await run('sh', [join(home, 'recipe.sh')])).path,
    gives: '/v1/items?page=1',
  },
  git: {
    host: 'git.example.com',
    type: 'httpBasic',
    fields: { username: 'git', password: secret('git.example.com') },
    use: async (home: string, run) => {
      await run('sh', [join(home, 'recipe.sh')]);
      return readFileSync(join(home, 'project/README'), 'utf8');
    },
    gives: 'a project\n',
  },
};

t.test('each recipe has its test, and each test its recipe', async (t) => {
  t.strictSame(recipes.map(({ title }) => title).toSorted(), Object.keys(uses).toSorted());
  for (const { title, code } of recipes) {
    t.ok(code.length > 40, title);
    t.ok(
      text.includes(`](#${title.toLowerCase().replaceAll(' ', '-')})`),
      `${title}: in the table`,
    );
  }
});

t.test('the recipes', async (t) => {
  const seen: Seen[] = [];
  const hosts = Object.keys(secretOf);
  const upstream = await tlsUpstream(t, hosts[0]!, answering(seen), { names: hosts });
  const egress = new MovedEgress(
    {
      allow: parseAllowRules(hosts.map((host) => `${host}:${upstream.port}=127.0.0.0/8`).join(',')),
      own: () => [],
      ca: upstream.certificate,
      resolve: async (name) => (hosts.includes(name) ? ['127.0.0.1'] : []),
    },
    Object.fromEntries(hosts.map((host) => [host, upstream.port])),
  );
  t.teardown(() => egress.close());
  let brokerUrl = '';
  const vault = await startVault(t, { egress, brokerUrl: () => brokerUrl });
  brokerUrl = await vault.broker.listen({ host: '127.0.0.1', port: 0 });
  await vault.team('payments');
  await registerEngine(vault, 'n8n');
  await vault.member('payments', 'n8n', 'engine');
  await makeRepository();

  for (const [i, recipe] of recipes.entries()) {
    const { title } = recipe;
    await t.test(title, async (t) => {
      const { host, type, fields, use, gives } = uses[title]!;
      const credential = await demand(
        vault.call('alice', 'POST', '/v1/teams/payments/credentials', {
          name: `recipe ${i}`,
          type,
          fields,
          policy: { delivery: ['broker'], allowedHosts: [host] },
        }),
        201,
      );
      const ticket: Ticket = await demand(askTicket(vault, 'n8n', { id: credential.id }), 201);
      seen.length = 0;
      t.strictSame(await used(recipe, ticket, use), gives);
      t.not(seen.length, 0);
      for (const { request, body } of seen) {
        const all = `${request.url}${request.rawHeaders.join(' ')}${body.toString('latin1')}`;
        t.notMatch(all, /vbt_/, 'the ticket goes no further than the broker');
      }
      t.notOk(vault.logs.join('').includes(secret(host)));
    });
  }
});

/** The recipe in a folder of its own, run with this ticket. */
async function used(
  { title, language, code }: Recipe,
  { ticket, baseUrl }: Ticket,
  use: Use['use'],
): Promise<unknown> {
  const home = join(folder, title.replaceAll(' ', '-'));
  mkdirSync(home);
  const run: Run = async (program, args) => {
    const child: ChildProcess = spawn(program, args, {
      cwd: home,
      env: { PATH: process.env['PATH'], HOME: home, TICKET: ticket, BASE_URL: baseUrl },
    });
    const chunks: Buffer[] = [];
    const failed: Buffer[] = [];
    child.stdout!.on('data', (chunk: Buffer) => chunks.push(chunk));
    child.stderr!.on('data', (chunk: Buffer) => failed.push(chunk));
    const [status] = (await once(child, 'close')) as [number];
    if (status !== 0) throw new Error(`${title}: ${status} ${Buffer.concat(failed).toString()}`);
    return Buffer.concat(chunks).toString();
  };
  const name = { js: 'recipe.mjs', python: 'recipe.py', sh: 'recipe.sh' }[language];
  if (name === undefined) throw new Error(`${title}: a block in ${language}`);
  if (language !== 'js') {
    writeFileSync(join(home, name), code);
    return use(home, run);
  }
  // Where the SDKs are found.
  const installed = join(npmPeers(), 'recipes');
  mkdirSync(installed, { recursive: true });
  const file = join(installed, `${title.replaceAll(' ', '-')}.mjs`);
  writeFileSync(join(home, name), code);
  cpSync(join(home, name), file);
  const { connect } = await import(pathToFileURL(file).href);
  return use(connect({ ticket, baseUrl }), run);
}

/** A repository that git can be served from. */
async function makeRepository(): Promise<void> {
  repositories.folder = join(folder, 'repositories');
  const work = join(folder, 'work');
  mkdirSync(work);
  writeFileSync(join(work, 'README'), 'a project\n');
  const git = async (...args: string[]): Promise<void> => {
    const identity = ['-c', 'user.name=a', '-c', 'user.email=a@example.com'];
    const [status] = (await once(spawn('git', [...identity, ...args], { cwd: work }), 'close')) as [
      number,
    ];
    if (status !== 0) throw new Error(`git ${args[0]}: ${status}`);
  };
  await git('init', '--quiet');
  await git('add', '.');
  await git('commit', '--quiet', '-m', 'first');
  await git('clone', '--quiet', '--bare', '.', join(repositories.folder, 'group/project.git'));
}
