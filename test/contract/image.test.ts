// The image, as far as it can be known without an engine to build it: what it holds, who runs it,
// how its health is asked.
import { spawn } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import t from 'tap';
import { testCertificate } from '../helpers/certificate.ts';
import { importsOf, root, sourceFiles } from '../helpers/source-files.ts';

interface Instruction {
  readonly word: string;
  readonly rest: string;
}

const read = (name: string): string => readFileSync(join(root, name), 'utf8');

function stagesOf(text: string): readonly (readonly Instruction[])[] {
  const lines = text
    .replace(/^\s*#.*\n/gm, '')
    .replace(/\\\n/g, ' ')
    .split('\n')
    .filter((line) => line.trim() !== '');
  const instructions = lines.map((line) => ({
    word: line.split(/\s/, 1)[0]!,
    rest: line.replace(/^\S+\s+/, ''),
  }));
  const stages: Instruction[][] = [];
  for (const instruction of instructions) {
    if (instruction.word === 'FROM') stages.push([]);
    stages.at(-1)!.push(instruction);
  }
  return stages;
}

/**
 * The last rule that matches decides, as the builder has it; enough of its patterns for the list we
 * keep.
 */
function isIgnored(path: string, rules: string): boolean {
  let ignored = false;
  for (const rule of rules.split('\n').filter((line) => line !== '' && !line.startsWith('#'))) {
    const name = rule.replace(/^!/, '');
    if (name === '*' || path === name || path.startsWith(`${name}/`))
      ignored = !rule.startsWith('!');
  }
  return ignored;
}

const stages = stagesOf(read('Dockerfile'));
const last = stages.at(-1)!;
const restOf = (word: string): string | undefined =>
  last.filter((instruction) => instruction.word === word).at(-1)?.rest;
const copied = stages
  .flat()
  .filter(({ word, rest }) => word === 'COPY' && !rest.startsWith('--from='))
  .flatMap(({ rest }) => rest.split(/\s+/).slice(0, -1));

t.test(
  'the image is made in stages, runs on Node 24, and brings production packages only',
  async (t) => {
    t.ok(stages.length > 1);
    for (const [{ rest } = { rest: '' }] of stages) t.match(rest, /^node:24-[a-z]+-slim\b/);
    const installs = stages
      .flat()
      .filter(({ word, rest }) => word === 'RUN' && rest.includes('npm'));
    t.same(
      installs.map(({ rest }) => rest),
      ['npm ci --omit=dev --omit=optional --ignore-scripts'],
    );
    t.ok(stages.slice(0, -1).flat().includes(installs[0]!), 'npm runs in an earlier stage');
  },
);

t.test('it runs as an ordinary user who owns none of its files', async (t) => {
  const [user, group] = (restOf('USER') ?? '').split(':').map(Number);
  t.ok(user! > 0 && group! > 0);
  t.notOk(last.some(({ word, rest }) => word === 'COPY' && /--chown/.test(rest)));
});

t.test('it starts serve, without npm and without a signal that opens the inspector', async (t) => {
  t.same(JSON.parse(restOf('CMD')!), ['node', '--disable-sigusr1', 'src/main.ts', 'serve']);
  t.equal(restOf('ENTRYPOINT'), undefined);
});

t.test('what is copied exists and reaches the builder; nothing else does', async (t) => {
  t.same([...copied].sort(), [
    '.npmrc',
    'migrations',
    'openapi.yaml',
    'package-lock.json',
    'package.json',
    'package.json',
    'src',
  ]);
  const rules = read('.dockerignore');
  for (const path of copied) {
    t.ok(existsSync(join(root, path)), `${path} exists`);
    t.notOk(isIgnored(path, rules), `${path} is not ignored`);
  }
  for (const path of [
    'data',
    'data/root-keys',
    'node_modules',
    '.git',
    '.env',
    'test',
    'docs',
    'coverage',
  ])
    t.ok(isIgnored(path, rules), `${path} is ignored`);
});

t.test('no secret is baked in', async (t) => {
  for (const { word, rest } of stages.flat()) {
    if (word === 'ENV' || word === 'ARG')
      t.same(
        rest.split(/\s+/).map((pair) => pair.split('=')[0]),
        ['HOST', 'PORT'],
        rest,
      );
  }
});

t.test('every package that the source imports is a production dependency', async (t) => {
  const { dependencies } = JSON.parse(read('package.json')) as {
    dependencies: Record<string, string>;
  };
  const imported = new Set(
    [...sourceFiles('src')]
      .flatMap(([path, text]) => [...importsOf(path, text)])
      .filter(
        (name) => !name.startsWith('node:') && !name.startsWith('src/') && name !== 'computed',
      ),
  );
  for (const name of imported)
    t.ok(
      dependencies[
        name
          .split('/')
          .slice(0, name.startsWith('@') ? 2 : 1)
          .join('/')
      ] !== undefined,
      name,
    );
});

t.test('the health check follows /healthz, with and without TLS', async (t) => {
  const [, command] = /CMD (\[.*\])$/.exec(restOf('HEALTHCHECK')!)!;
  const [program, ...args] = JSON.parse(command!) as string[];
  t.equal(program, 'node');
  const certificate = testCertificate(['vault.example.com']);
  let status = 200;
  let path = '';
  const plain = createServer((request, response) => {
    path = request.url!;
    response.writeHead(status).end();
  });
  const secure = createTlsServer(
    { cert: certificate.certificate, key: certificate.key },
    (_, response) => {
      response.writeHead(status).end();
    },
  );
  const portOf = async (server: Server): Promise<string> => {
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    t.teardown(() => server.close());
    return String((server.address() as AddressInfo).port);
  };
  const [plainPort, securePort] = [await portOf(plain), await portOf(secure)];
  const ask = (env: Record<string, string>): Promise<number | null> =>
    new Promise((resolve) => {
      spawn(process.execPath, args, { env, stdio: 'inherit' }).once('exit', resolve);
    });
  t.equal(await ask({ HOST: '0.0.0.0', PORT: plainPort }), 0);
  t.equal(path, '/healthz');
  t.equal(await ask({ HOST: '::', PORT: plainPort }), 0);
  t.equal(
    await ask({
      HOST: '127.0.0.1',
      PORT: securePort,
      CREDVAULT_TLS_CERT_FILE: '/run/secrets/cert',
    }),
    0,
  );
  t.equal(await ask({ HOST: '0.0.0.0', PORT: securePort }), 1, 'plain HTTP to a TLS port');
  status = 503;
  t.equal(await ask({ HOST: '0.0.0.0', PORT: plainPort }), 1);
  t.equal(await ask({ HOST: '0.0.0.0', PORT: '1' }), 1, 'nobody listens');
});
