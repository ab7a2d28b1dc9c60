// What may be dialled, over real sockets: names, addresses, rules, the vault's own. The control
// beside a guard shows that the guard is what helps.
import { get } from 'node:http';
import { networkInterfaces } from 'node:os';
import { createServer } from 'node:net';
import t from 'tap';
import {
  Egress,
  EgressFailed,
  type Origin,
  type OwnEndpoint,
  type Resolve,
} from '../../src/egress/index.ts';
import { parseAllowRules } from '../../src/egress/allow.ts';
import { egressTo, listening, plainUpstream, tlsUpstream } from '../helpers/egress.ts';

t.setTimeout(120_000);

const https = (host: string, port = 443): Origin => ({ protocol: 'https:', host, port });
const failureOf = async (promise: Promise<unknown>): Promise<EgressFailed> => {
  try {
    await promise;
  } catch (error) {
    if (error instanceof EgressFailed) return error;
    throw error;
  }
  throw new Error('nothing was refused');
};
const resolving =
  (addresses: Record<string, readonly string[]>): Resolve =>
  async (name) =>
    addresses[name] ?? [];
const get200 = { method: 'GET', team: 'payments', timeoutMs: 5_000, responseBytesMax: 1_000 };

t.test('a name is dialled only when each of its addresses is global', async (t) => {
  const names = {
    'public.test': ['93.184.216.34', '2606:4700::1111'],
    'private.test': ['10.0.0.1'],
    'mixed.test': ['93.184.216.34', '10.0.0.1'],
    'mixed6.test': ['93.184.216.34', '::1'],
    'mapped.test': ['::ffff:93.184.216.34'],
    'metadata.test': ['169.254.169.254'],
    'broken.test': ['93.184.216.34', 'fe80::1%eth0'],
    'none.test': [],
  };
  const egress = egressTo(t, [], { resolve: resolving(names) });
  t.same(await egress.check(https('Public.test'), 'payments'), {
    protocol: 'https:',
    host: 'public.test',
    port: 443,
    addresses: names['public.test'],
    isAllowedPlain: false,
  });
  for (const host of [
    'private.test',
    'mixed.test',
    'mixed6.test',
    'mapped.test',
    'metadata.test',
    'broken.test',
    'none.test',
    'unknown.test',
    '127.0.0.1',
    '93.184.216.34',
    '[::1]',
    '0x7f000001',
    'public.test.',
    '',
  ]) {
    t.equal((await failureOf(egress.check(https(host), 'payments'))).step, 'name', host);
  }
});

t.test('without TLS nothing public is dialled, rule or not', async (t) => {
  const egress = new Egress({
    allow: parseAllowRules('grist.test:80=10.0.0.0/8'),
    own: () => [],
    resolve: resolving({ 'grist.test': ['93.184.216.34'], 'inside.test': ['10.0.0.1'] }),
  });
  t.teardown(() => egress.close());
  t.equal(
    (await failureOf(egress.check({ protocol: 'http:', host: 'grist.test', port: 80 }, 'a'))).step,
    'name',
    'named, but no longer where the rule says',
  );
  t.equal(
    (await failureOf(egress.check({ protocol: 'http:', host: 'inside.test', port: 80 }, 'a'))).step,
    'name',
  );
  t.match(
    await egress.check(https('grist.test', 80), 'a'),
    { isAllowedPlain: false },
    'with TLS it is a public host like others',
  );
});

t.test('a refused address and a name that does not resolve fail in the same way', async (t) => {
  const upstream = await plainUpstream(t, 'inside.test', (_request, response) => {
    response.end();
  });
  const egress = egressTo(t, [], { resolve: resolving({ 'inside.test': ['127.0.0.1'] }) });
  const shown = (error: EgressFailed): object => ({
    name: error.name,
    message: error.message,
    step: error.step,
    during: error.during,
    cause: error.cause,
    own: Object.keys(error),
  });
  for (const fail of [
    (host: string) => egress.request({ ...get200, url: `http://${host}:${upstream.port}/` }),
    (host: string) => egress.request({ ...get200, url: `https://${host}:${upstream.port}/` }),
    (host: string) =>
      egress.connect(host, upstream.port, { team: 'payments', tls: false, timeoutMs: 1_000 }),
    (host: string) => egress.dispatcher(https(host), 'payments'),
  ])
    t.same(
      shown(await failureOf(fail('inside.test'))),
      shown(await failureOf(fail('unknown.test'))),
    );
});

t.test(
  'the address that was checked is the one that is connected to, though the name server says another one next',
  async (t) => {
    const seen = { good: 0, bad: 0 };
    const port = await listening(
      t,
      createServer((socket) => {
        seen.good += 1;
        socket.end('HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\ngood');
      }),
      '127.0.0.2',
    );
    await listening(
      t,
      createServer((socket) => {
        seen.bad += 1;
        socket.end('HTTP/1.1 200 OK\r\ncontent-length: 3\r\nconnection: close\r\n\r\nbad');
      }),
      '127.0.0.3',
      port,
    );
    const rebinding = (): Resolve => {
      let asked = 0;
      return async () => ((asked += 1) === 1 ? ['127.0.0.2'] : ['127.0.0.3']);
    };
    const allow = parseAllowRules(`rebind.test:${port}=127.0.0.2`);
    const egress = new Egress({ allow, own: () => [], resolve: rebinding(), rememberNamesMs: 0 });
    t.teardown(() => egress.close());
    const origin = { protocol: 'http:', host: 'rebind.test', port } as const;
    const dispatcher = await egress.dispatcher(origin, 'payments');
    for (let call = 0; call < 3; call += 1)
      t.equal(
        await (await dispatcher.request({ method: 'GET', path: '/' })).body.text(),
        'good',
        'each connection of a dispatcher',
      );
    t.equal(
      (await failureOf(egress.dispatcher(origin, 'payments'))).step,
      'name',
      'asked again, the name is refused',
    );
    t.same(seen, { good: 3, bad: 0 });

    // The control: check, and leave the connection to resolve for itself.
    const resolve = rebinding();
    t.same(
      await resolve('rebind.test', { isOperators: false }),
      ['127.0.0.2'],
      'what a check would see',
    );
    const answer = await new Promise<string>((done, reject) => {
      const lookup = (
        _name: string,
        _options: object,
        found: (error: null, list: { address: string; family: number }[]) => void,
      ): void => {
        void resolve('rebind.test', { isOperators: false }).then((addresses) => {
          found(
            null,
            addresses.map((address) => ({ address, family: 4 })),
          );
        });
      };
      get({ host: 'rebind.test', port, lookup: lookup as never }, (response) => {
        response.setEncoding('utf8').on('data', done);
      }).on('error', reject);
    });
    t.equal(answer, 'bad');
  },
);

t.test('a name that answers with several addresses is tried at each', async (t) => {
  const upstream = await plainUpstream(t, 'two.test', (_request, response) => {
    response.end('here');
  });
  const egress = egressTo(t, [upstream], {
    resolve: resolving({ 'two.test': ['127.0.0.9', '127.0.0.1'] }),
  });
  t.equal((await egress.request({ ...get200, url: upstream.url })).body.toString(), 'here');
});

t.test('a rule opens one host and port, for its addresses and its team', async (t) => {
  const upstream = await tlsUpstream(
    t,
    'grist.test',
    (_request, response) => {
      response.end('ok');
    },
    { names: ['grist.test', 'other.test'] },
  );
  const resolve = resolving({
    'grist.test': ['127.0.0.1'],
    'other.test': ['127.0.0.1'],
    'moved.test': ['127.0.0.2'],
  });
  const egress = egressTo(t, [upstream], {
    resolve,
    allow: parseAllowRules(
      `grist.test:${upstream.port}=127.0.0.1@payments,moved.test:${upstream.port}=127.0.0.1`,
    ),
  });
  const asking = (host: string, team: string, port = upstream.port): Promise<{ status: number }> =>
    egress.request({ ...get200, url: `https://${host}:${port}/`, team });
  t.equal((await asking('grist.test', 'payments')).status, 200);
  for (const [host, team, port] of [
    ['grist.test', 'others', upstream.port],
    ['other.test', 'payments', upstream.port],
    ['grist.test', 'payments', upstream.port + 1],
    ['moved.test', 'payments', upstream.port],
  ] as const) {
    t.equal((await failureOf(asking(host, team, port))).step, 'name', `${host} ${team}`);
  }
});

t.test('teams share no connection, and one team uses its own again', async (t) => {
  const sockets = new Map<unknown, Set<unknown>>();
  const upstream = await plainUpstream(t, 'grist.test', (request, response) => {
    sockets.set(
      request.socket,
      (sockets.get(request.socket) ?? new Set()).add(request.headers['x-team']),
    );
    response.end('ok');
  });
  const egress = egressTo(t, [upstream]);
  for (let call = 0; call < 7; call += 1)
    for (const team of ['payments', 'others', 'others'])
      await egress.request({ ...get200, url: upstream.url, team, headers: { 'x-team': team } });
  t.ok([...sockets.values()].every((teams) => teams.size === 1));
  t.ok(sockets.size >= 2 && sockets.size < 10, `${sockets.size} connections for 21 requests`);
});

t.test(
  "the vault's own database and listeners are never a target, whatever a rule says",
  async (t) => {
    const upstream = await plainUpstream(t, 'sneaky.test', (_request, response) => {
      response.end('ok');
    });
    const outside = Object.values(networkInterfaces())
      .flatMap((list) => list ?? [])
      .find(({ internal, family }) => !internal && family === 'IPv4')?.address;
    const resolve: Resolve = async (name) =>
      ({
        'sneaky.test': ['127.0.0.1'],
        'database.test': ['127.0.0.1'],
        'outside.test': outside === undefined ? [] : [outside],
      })[name] ?? [];
    const { port } = upstream;
    const stepFor = async (
      own: OwnEndpoint[],
      host = 'sneaky.test',
      range = '127.0.0.0/8',
    ): Promise<string> => {
      const egress = egressTo(t, [], {
        allow: parseAllowRules(`${host}:${port}=${range}`),
        own: () => own,
        resolve,
      });
      return egress.request({ ...get200, url: `http://${host}:${port}/` }).then(
        ({ status }) => String(status),
        (error: EgressFailed) => error.step,
      );
    };
    t.equal(await stepFor([]), '200', 'the control: without them it is reached');
    t.equal(
      await stepFor([
        { host: '127.0.0.1', port: port + 1 },
        { host: '127.0.0.2', port },
      ]),
      '200',
      'others do not count',
    );
    t.equal(
      await stepFor([{ host: 'front.test', port, byName: true }]),
      '200',
      'a shared address does not count',
    );
    for (const own of [
      { host: '127.0.0.1', port },
      { host: '0.0.0.0', port },
      { host: '::', port },
      { host: '[::]', port },
      { host: 'sneaky.test', port },
      { host: 'SNEAKY.test', port, byName: true as const },
      { host: 'database.test', port },
    ]) {
      t.equal(await stepFor([own]), 'name', own.host);
    }
    if (outside !== undefined)
      t.equal(
        await stepFor([{ host: '0.0.0.0', port }], 'outside.test', outside),
        'name',
        'a listener on every address is reached by each of them',
      );
  },
);

t.test('a rule cannot reach link-local or metadata, though its block holds them', async (t) => {
  const allow = parseAllowRules(
    'a.test:80=168.0.0.0/8,b.test:80=100.0.0.0/8,c.test:80=64:ff9b::/96,d.test:80=fd00::/8,e.test:80=::/8',
  );
  const resolve = resolving({
    'a.test': ['168.63.129.16'],
    'b.test': ['100.100.100.200'],
    'c.test': ['64:ff9b::a9fe:a9fe'],
    'd.test': ['fd00:ec2::254'],
    'e.test': ['::ffff:127.0.0.1'],
  });
  const egress = egressTo(t, [], { allow, resolve });
  for (const host of ['a.test', 'b.test', 'c.test', 'd.test', 'e.test'])
    t.equal(
      (await failureOf(egress.check({ protocol: 'http:', host, port: 80 }, 'payments'))).step,
      'name',
      host,
    );
});

t.test('a name is asked for once where many ask, and not remembered when it failed', async (t) => {
  let asked = 0;
  let answer: readonly string[] = [];
  const egress = egressTo(t, [], {
    resolve: async () => {
      asked += 1;
      return answer;
    },
    rememberNamesMs: 60_000,
  });
  await failureOf(egress.check(https('late.test'), 'payments'));
  answer = ['93.184.216.34'];
  await Promise.all(Array.from({ length: 20 }, () => egress.check(https('late.test'), 'payments')));
  t.equal(asked, 2);
});

t.test(
  "names are asked of the machine: the operator's by hosts file, people's of DNS alone",
  async (t) => {
    const upstream = await plainUpstream(t, 'localhost', (_request, response) => {
      response.end('ok');
    });
    const allow = parseAllowRules(
      `localhost:${upstream.port}=127.0.0.1,localhost:${upstream.port}=::1`,
    );
    const egress = new Egress({ allow, own: () => [] });
    t.teardown(() => egress.close());
    t.equal((await egress.request({ ...get200, url: upstream.url })).status, 200);
    t.equal(
      (await failureOf(egress.check(https('localhost', upstream.port + 1), 'payments'))).step,
      'name',
      'no rule, no loopback',
    );
  },
);

t.test('ports of other protocols are no targets, but where a rule names them', async (t) => {
  const resolve = async (): Promise<readonly string[]> => ['93.184.216.34'];
  const egress = new Egress({ allow: [], own: () => [], resolve });
  t.teardown(() => egress.close());
  const check = (port: number, of = egress): Promise<unknown> =>
    of.check({ protocol: 'https:', host: 'api.example', port }, 'payments').then(
      () => 'checked',
      (error: EgressFailed) => error.step,
    );
  for (const port of [0, 22, 25, 110, 143, 389, 465, 587, 636, 993, 995, 6000, 6379, 6667, 10_080])
    t.equal(await check(port), 'name', String(port));
  for (const port of [80, 443, 8080, 8443, 9000, 5432, 6380])
    t.equal(await check(port), 'checked', String(port));
  const named = new Egress({
    allow: parseAllowRules('api.example:6379=93.184.216.0/24'),
    own: () => [],
    resolve,
  });
  t.teardown(() => named.close());
  t.equal(await check(6379, named), 'checked');
  t.equal(await check(25, named), 'name');
});

t.test("the hosts of credentials at the broker are the vault's own", async (t) => {
  const egress = new Egress({
    allow: [],
    own: () => [{ host: 'creds.example', port: 443, byName: true, hasHosts: true }],
    resolve: async () => ['93.184.216.34'],
  });
  t.teardown(() => egress.close());
  const check = (host: string, port = 443): Promise<unknown> =>
    egress.check({ protocol: 'https:', host, port }, 'payments').then(
      () => 'checked',
      (error: EgressFailed) => error.step,
    );
  for (const host of [
    'creds.example',
    '019aa7c2-5b1e-7c3a-9d52-0a4f6e1b2c3d.creds.example',
    'a.b.creds.example',
  ])
    t.equal(await check(host), 'name', host);
  for (const host of ['xcreds.example', 'creds.example.org'])
    t.equal(await check(host), 'checked', host);
});
