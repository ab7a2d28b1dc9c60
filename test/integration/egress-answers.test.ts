// What comes of dialling, over real sockets: TLS by name, redirects left alone, proxies left aside,
// bounds of time and size.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:net';
import t from 'tap';
import { EgressFailed } from '../../src/egress/index.ts';
import { egressTo, listening, plainUpstream, tlsUpstream } from '../helpers/egress.ts';

t.setTimeout(120_000);

const stepOf = (promise: Promise<unknown>): Promise<string> =>
  promise.then(
    () => 'none',
    (error: unknown) =>
      error instanceof EgressFailed
        ? `${error.step}${error.step === 'timeout' ? ` ${error.during}` : ''}`
        : `not ours: ${String(error)}`,
  );
const ask = { method: 'GET', team: 'payments', timeoutMs: 5_000, responseBytesMax: 1_000 };

t.test(
  'a whole exchange: method, path, headers and body arrive, status, headers and body come back',
  async (t) => {
    const upstream = await tlsUpstream(t, 'api.test', (request, response) => {
      const chunks: Buffer[] = [];
      request
        .on('data', (chunk: Buffer) => chunks.push(chunk))
        .on('end', () => {
          response.writeHead(207, { 'x-two': ['a', 'b'], 'content-type': 'application/json' });
          response.end(
            JSON.stringify({
              method: request.method,
              url: request.url,
              host: request.headers.host,
              auth: request.headers.authorization,
              encoding: request.headers['accept-encoding'],
              body: Buffer.concat(chunks).toString(),
            }),
          );
        });
    });
    const egress = egressTo(t, [upstream]);
    const answer = await egress.request({
      ...ask,
      method: 'POST',
      url: `${upstream.url}/a%2Fb?c=d%20e&&f`,
      headers: {
        authorization: 'Bearer t',
        Host: 'evil.test',
        'Content-Length': '1',
        'Transfer-Encoding': 'chunked',
      },
      body: 'grüße',
    });
    t.equal(answer.status, 207);
    t.equal(answer.headers.get('x-two'), 'a, b');
    t.same(JSON.parse(answer.body.toString()), {
      method: 'POST',
      url: '/a%2Fb?c=d%20e&&f',
      host: `api.test:${upstream.port}`,
      auth: 'Bearer t',
      encoding: 'identity',
      body: 'grüße',
    });
  },
);

t.test(
  'a certificate that is not trusted, or of another name, ends it before anything is sent',
  async (t) => {
    let requests = 0;
    const good = await tlsUpstream(t, 'api.test', (_request, response) => {
      requests += 1;
      response.end('ok');
    });
    const wrongName = await tlsUpstream(
      t,
      'api.test',
      (_request, response) => {
        requests += 1;
        response.end('ok');
      },
      { names: ['other.test'] },
    );
    const untrusted = egressTo(t, [{ host: good.host, port: good.port }]);
    const trusting = egressTo(t, [good, wrongName]);
    t.equal(await stepOf(untrusted.request({ ...ask, url: good.url })), 'tls');
    t.equal(await stepOf(trusting.request({ ...ask, url: wrongName.url })), 'tls');
    t.equal(
      await stepOf(
        trusting.connect('api.test', wrongName.port, {
          team: 'payments',
          tls: true,
          timeoutMs: 2_000,
        }),
      ),
      'tls',
    );
    const dispatcher = await trusting.dispatcher(
      { protocol: 'https:', host: 'api.test', port: wrongName.port },
      'payments',
    );
    t.equal(
      await stepOf(
        dispatcher.request({ method: 'GET', path: '/', headers: { host: 'other.test' } }),
      ),
      'tls',
      'a Host header does not choose the name',
    );
    t.equal(requests, 0);
    t.equal((await trusting.request({ ...ask, url: good.url })).status, 200, 'the control');

    const { NODE_TLS_REJECT_UNAUTHORIZED: before } = process.env;
    process.env['NODE_TLS_REJECT_UNAUTHORIZED'] = '0';
    t.teardown(() => {
      if (before === undefined) delete process.env['NODE_TLS_REJECT_UNAUTHORIZED'];
      else process.env['NODE_TLS_REJECT_UNAUTHORIZED'] = before;
    });
    t.equal(
      await stepOf(untrusted.request({ ...ask, url: good.url })),
      'tls',
      'not even where the environment turns it off',
    );
    t.equal(await stepOf(trusting.request({ ...ask, url: wrongName.url })), 'tls');
    t.equal(requests, 1);
  },
);

t.test('the name goes out as SNI', async (t) => {
  const upstream = await tlsUpstream(t, 'api.test', (request, response) => {
    response.end(String((request.socket as unknown as { servername: string }).servername));
  });
  t.equal(
    (await egressTo(t, [upstream]).request({ ...ask, url: upstream.url })).body.toString(),
    'api.test',
  );
});

t.test('no redirect is followed', async (t) => {
  const visits: string[] = [];
  const elsewhere = await tlsUpstream(t, 'elsewhere.test', (request, response) => {
    visits.push(String(request.headers['x-api-key']));
    response.end('arrived');
  });
  const upstream = await tlsUpstream(t, 'api.test', (request, response) => {
    response.writeHead(Number(request.url?.slice(1)), { location: `${elsewhere.url}/there` }).end();
  });
  const egress = egressTo(t, [upstream, elsewhere]);
  const dispatcher = await egress.dispatcher(
    { protocol: 'https:', host: 'api.test', port: upstream.port },
    'payments',
  );
  for (const status of [301, 302, 303, 307, 308]) {
    const answer = await egress.request({
      ...ask,
      url: `${upstream.url}/${status}`,
      headers: { 'x-api-key': 'k', authorization: 'Bearer t' },
    });
    t.same([answer.status, answer.headers.get('location')], [status, `${elsewhere.url}/there`]);
    t.equal(
      (
        await dispatcher.request({
          method: 'POST',
          path: `/${status}`,
          headers: { 'x-api-key': 'k' },
          body: 'x',
        })
      ).statusCode,
      status,
    );
  }
  t.same(visits, []);
});

t.test('a proxy in the environment is left aside', async (t) => {
  const connections = { proxy: 0 };
  const proxyPort = await listening(
    t,
    createServer((socket) => {
      connections.proxy += 1;
      socket.end('HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nproxy');
    }),
  );
  const upstream = await plainUpstream(t, 'localhost', (_request, response) => {
    response.end('upstream');
  });
  const script = `
    import { get } from 'node:http';
    import { Egress } from './src/egress/index.ts';
    import { parseAllowRules } from './src/egress/allow.ts';
    const egress = new Egress({ allow: parseAllowRules('localhost:${upstream.port}=127.0.0.1,localhost:${upstream.port}=::1'), own: () => [] });
    const answer = await egress.request({ url: '${upstream.url}/', method: 'GET', team: 'payments', timeoutMs: 5000, responseBytesMax: 1000 });
    const plain = await new Promise((resolve, reject) => { get('${upstream.url}/', (response) => { response.setEncoding('utf8').on('data', resolve); }).on('error', reject); });
    console.log(answer.body.toString() + ' ' + plain);
    await egress.close();
  `;
  const proxy = `http://127.0.0.1:${proxyPort}`;
  const child = spawn(process.execPath, ['--input-type=module-typescript', '-e', script], {
    env: {
      PATH: process.env['PATH'],
      HTTP_PROXY: proxy,
      HTTPS_PROXY: proxy,
      ALL_PROXY: proxy,
      http_proxy: proxy,
      https_proxy: proxy,
      NODE_USE_ENV_PROXY: '1',
    },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let output = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    output += text;
  });
  await once(child, 'close');
  t.equal(output, 'upstream proxy\n', 'the control, the client of node, goes to the proxy');
  t.equal(connections.proxy, 1);
});

t.test('each wait has an end', async (t) => {
  const silent = {
    host: 'silent.test',
    port: await listening(
      t,
      createServer(() => undefined),
    ),
  };
  const noHeaders = await plainUpstream(t, 'headers.test', () => undefined);
  const noEnd = await plainUpstream(t, 'body.test', (_request, response) => {
    response.write('a bit');
  });
  const drops = await plainUpstream(t, 'drops.test', (request, response) => {
    const timer = setInterval(() => {
      response.write('.');
    }, 20);
    request.socket.once('close', () => {
      clearInterval(timer);
    });
  });
  const egress = egressTo(t, [silent, noHeaders, noEnd, drops], {
    connectMs: 1_000,
    headersMs: 150,
  });
  t.equal(
    await stepOf(egress.request({ ...ask, url: `https://silent.test:${silent.port}/` })),
    'timeout tls',
  );
  t.equal(
    await stepOf(
      egress.connect('silent.test', silent.port, { team: 'payments', tls: true, timeoutMs: 5_000 }),
    ),
    'timeout tls',
  );
  t.equal(
    await stepOf(egress.request({ ...ask, url: noHeaders.url, timeoutMs: 600_000 })),
    'timeout response',
  );
  t.equal(
    await stepOf(egress.request({ ...ask, url: noEnd.url, timeoutMs: 300 })),
    'timeout response',
  );
  t.equal(
    await stepOf(egress.request({ ...ask, url: drops.url, timeoutMs: 300 })),
    'timeout response',
    'a byte now and then keeps nothing open',
  );
  const nobody = egressTo(t, [], { connectMs: 100, resolve: () => new Promise(() => undefined) });
  t.equal(
    await stepOf(nobody.check({ protocol: 'https:', host: 'never.test', port: 443 }, 'payments')),
    'name',
    'a name server that does not answer',
  );
  const slowName = egressTo(t, [], { resolve: () => new Promise(() => undefined) });
  t.equal(
    await stepOf(slowName.request({ ...ask, url: 'https://never.test/', timeoutMs: 100 })),
    'name',
  );
});

t.test('an answer beyond the bound is not read on, and a broken one is none', async (t) => {
  let isClosed = false;
  const endless = await plainUpstream(t, 'endless.test', (request, response) => {
    request.socket.once('close', () => {
      isClosed = true;
    });
    const more = (): void => {
      if (!response.destroyed && response.write('x'.repeat(16_384))) setImmediate(more);
      else response.once('drain', more);
    };
    more();
  });
  const exact = await plainUpstream(t, 'exact.test', (_request, response) => {
    response.end('x'.repeat(1_000));
  });
  const broken = await listening(
    t,
    createServer((socket) => {
      socket.once('data', () => {
        socket.end('HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort');
      });
    }),
  );
  const noise = await listening(
    t,
    createServer((socket) => {
      socket.once('data', () => {
        socket.end('not http at all\r\n\r\n');
      });
    }),
  );
  const headers = await plainUpstream(t, 'headers.test', (_request, response) => {
    response.writeHead(200, { 'x-much': 'x'.repeat(60_000) }).end();
  });
  const egress = egressTo(t, [
    endless,
    exact,
    headers,
    { host: 'broken.test', port: broken },
    { host: 'noise.test', port: noise },
  ]);
  t.equal(await stepOf(egress.request({ ...ask, url: endless.url })), 'response');
  for (let turn = 0; turn < 200 && !isClosed; turn += 1)
    await new Promise((resolve) => setTimeout(resolve, 10));
  t.ok(isClosed, 'and its connection is closed');
  t.equal((await egress.request({ ...ask, url: exact.url })).body.length, 1_000);
  t.equal(
    await stepOf(egress.request({ ...ask, url: exact.url, responseBytesMax: 999 })),
    'response',
  );
  t.equal(
    await stepOf(egress.request({ ...ask, url: `http://broken.test:${broken}/` })),
    'response',
  );
  t.equal(await stepOf(egress.request({ ...ask, url: `http://noise.test:${noise}/` })), 'response');
  t.equal(await stepOf(egress.request({ ...ask, url: headers.url })), 'response');
});

t.test('nobody at the port is said so, and after the end nothing is dialled', async (t) => {
  const upstream = await plainUpstream(t, 'gone.test', (_request, response) => {
    response.end('ok');
  });
  const egress = egressTo(t, [upstream, { host: 'nobody.test', port: 1 }]);
  t.equal(await stepOf(egress.request({ ...ask, url: 'http://nobody.test:1/' })), 'connect');
  t.equal(
    await stepOf(
      egress.connect('nobody.test', 1, { team: 'payments', tls: false, timeoutMs: 1_000 }),
    ),
    'connect',
  );
  t.equal((await egress.request({ ...ask, url: upstream.url })).status, 200);
  await egress.close();
  t.equal(await stepOf(egress.request({ ...ask, url: upstream.url })), 'name');
});
