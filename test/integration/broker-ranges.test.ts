// Parts and lengths: from an upstream that gives back what it got, and serves any part of it, a
// caller gets neither a piece of the secret nor its length. Of a store of objects they get what
// they ask for.
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { createHash } from 'node:crypto';
import t from 'tap';
import { parseAllowRules } from '../../src/egress/allow.ts';
import { askTicket, callBroker, type BrokerAnswer, startBroker } from '../helpers/broker.ts';
import { MovedEgress, tlsUpstream } from '../helpers/egress.ts';
import { demand } from '../helpers/leases.ts';

/** Serves the text, or the one part of it that is asked for. */
function serve(text: string, request: IncomingMessage, response: ServerResponse): void {
  const body = Buffer.from(text);
  const hash = createHash('sha1').update(body).digest('base64');
  const headers = {
    'content-type': 'text/plain',
    etag: `W/"${body.length.toString(16)}-${hash.slice(0, 27)}"`,
    'content-md5': createHash('md5').update(body).digest('base64'),
    'repr-digest': `sha=:${hash}:`,
    'x-uncompressed-content-length': String(body.length),
    'accept-ranges': 'bytes',
  };
  const [, first, last] = /^bytes=(\d*)-(\d*)$/.exec(request.headers.range ?? '') ?? [];
  if (first === undefined || last === undefined) {
    response.writeHead(200, { ...headers, 'content-length': body.length });
    response.end(request.method === 'HEAD' ? undefined : body);
    return;
  }
  const from = first === '' ? Math.max(0, body.length - Number(last)) : Number(first);
  const to =
    first === '' || last === '' ? body.length - 1 : Math.min(Number(last), body.length - 1);
  if (from >= body.length) {
    response.writeHead(416, { ...headers, 'content-range': `bytes */${body.length}` }).end();
    return;
  }
  const part = body.subarray(from, to + 1);
  response
    .writeHead(206, {
      ...headers,
      'content-length': part.length,
      'content-range': `bytes ${from}-${to}/${body.length}`,
    })
    .end(part);
}
const telling = [
  'content-range',
  'content-md5',
  'repr-digest',
  'x-uncompressed-content-length',
  'etag',
];

t.test('an upstream that gives back what it got', async (t) => {
  const padding = '~'.repeat(6000);
  const stage = await startBroker(t, (request, response) => {
    const text = `${padding}${request.headers.authorization}\n${padding}`;
    serve(request.url === '/plain' ? padding : text, request, response);
  });
  const { secret } = stage;
  const start = padding.length + 'Bearer '.length;
  const end = start + secret.length;
  const get = (range: string, method = 'GET', path = '/echo'): Promise<BrokerAnswer> =>
    stage.call(method, path, { headers: { range } });

  await t.test('416 for a small part, and nothing is dialled for it', async (t) => {
    for (const range of [
      'bytes=0-9',
      `bytes=${start}-${start + 4094}`,
      'bytes=-1',
      'bytes=0-1,5-6',
    ]) {
      const answer = await get(range);
      t.match(answer, {
        status: 416,
        headers: { 'vault-error': 'true', 'content-type': /problem\+json/ },
        json: { code: 'rangeRefused', errors: [{ rule: 'minBytes', min: 4096 }] },
      });
    }
  });

  await t.test('of a large part no piece of the secret, wherever it is cut', async (t) => {
    const known = (text: string): boolean => {
      for (let at = 0; at + 8 <= secret.length; at += 1)
        if (text.includes(secret.slice(at, at + 8))) return true;
      return false;
    };
    t.ok(known(secret.slice(5, 13)), 'the search itself');
    for (const from of [start - 10, start - 1, start, start + 1, start + 20, end - 8, end - 4]) {
      const answer = await get(`bytes=${from}-${from + 4999}`).catch(() => undefined);
      t.match(
        answer,
        { status: 502, json: { errors: [{ rule: 'secretInPart' }] } },
        `from ${from}`,
      );
    }
    for (const to of [start + 3, start + 20, end - 1, end + 5]) {
      const answer = await get(`bytes=${to - 4999}-${to}`).catch(() => undefined);
      t.notOk(known(JSON.stringify(answer)), `up to ${to}`);
      t.not(answer?.status, 206);
    }
    const tail = await get(`bytes=${end}-`);
    t.equal(tail.status, 206);
    t.match((await get('bytes=0-4095')).text, /^~{4096}$/, 'what holds none of it is given');
  });

  await t.test('no header tells how long it is, with a body or without', async (t) => {
    for (const [method, range] of [
      ['GET', undefined],
      ['HEAD', undefined],
      ['GET', 'bytes=0-4999'],
      ['HEAD', 'bytes=0-4999'],
      ['GET', 'bytes=99999-'],
    ] as const) {
      const answer = await stage.call(
        method,
        '/echo',
        range === undefined ? {} : { headers: { range } },
      );
      for (const name of telling) t.notOk(name in answer.headers, `${method} ${range}: ${name}`);
      if (method === 'HEAD') t.notOk('content-length' in answer.headers);
      else
        t.match(
          answer.headers['content-length'] ?? `${answer.text.length}`,
          `${answer.text.length}`,
        );
      t.notMatch(JSON.stringify(answer.rawHeaders), String(2 * padding.length + 8 + secret.length));
    }
    const whole = await stage.call('GET', '/echo');
    t.equal(whole.text, `${padding}Bearer [redacted]\n${padding}`);
    t.equal(
      whole.headers['content-length'] ?? String(whole.text.length),
      String(whole.text.length),
    );
  });

  await t.test('nor does the audit log', async (t) => {
    await stage.call('GET', '/echo');
    const { json } = await stage.vault.call('alice', 'GET', '/v1/teams/payments/audit-events');
    t.ok(json.items.length > 0);
    await stage.vault.stop();
    const rows = await stage.vault.db
      .selectFrom('audit_event')
      .select('details')
      .where('action', '=', 'credential.used')
      .execute();
    const lengths = rows.map(
      ({ details }) => (details as { receivedBytes?: number }).receivedBytes,
    );
    t.ok(lengths.includes(2 * padding.length + 'Bearer [redacted]\n'.length));
    t.notOk(lengths.includes(2 * padding.length + 'Bearer \n'.length + secret.length));
  });
});

t.test('a store of objects gives every part, and its length', async (t) => {
  const hosts = ['s3.eu-west-1.amazonaws.com', 'minio.example'];
  const object = 'x'.repeat(100_000);
  const upstream = await tlsUpstream(
    t,
    hosts[0]!,
    (request, response) => {
      serve(object, request, response);
    },
    { names: hosts },
  );
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
  const { vault } = await startBroker(t, () => undefined, { vault: { egress } });
  const { port } = vault.broker.server.address() as AddressInfo;
  for (const [type, host, isStore] of [
    ['s3', 'minio.example', true],
    ['aws', hosts[0]!, true],
    ['bearer', 'minio.example', false],
  ] as const) {
    const fields =
      type === 'bearer'
        ? { token: 'a-token-0001' }
        : { accessKeyId: 'AKIA1', secretAccessKey: 'a-secret-0001' };
    const { id } = await demand(
      vault.call('alice', 'POST', '/v1/teams/payments/credentials', {
        name: `${type}-1`,
        type,
        fields,
        policy: { delivery: ['broker'], allowedHosts: [host] },
      }),
      201,
    );
    const ticket = await demand(askTicket(vault, 'n8n', { id }), 201);
    const call = (method: string, headers = {}): Promise<BrokerAnswer> =>
      callBroker(port, method, `/broker/${ticket.id}/bucket/key`, {
        'x-api-key': ticket.ticket,
        ...headers,
      });
    const head = await call('HEAD');
    t.equal(head.headers['content-length'], isStore ? '100000' : undefined, type);
    const part = await call('GET', { range: 'bytes=0-9' });
    t.equal(part.status, isStore ? 206 : 416, type);
    if (isStore)
      t.match(part, { text: 'xxxxxxxxxx', headers: { 'content-range': 'bytes 0-9/100000' } });
  }
});
