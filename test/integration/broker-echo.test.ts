// An upstream that gives back everything that it gets, in every disguise that the broker promises
// to see through: the secret never reaches the caller. And redirects: they are never followed, and
// lead no caller past the broker.
import type { IncomingMessage, ServerResponse } from 'node:http';
import { brotliCompressSync, deflateSync, gzipSync, zstdCompressSync } from 'node:zlib';
import t from 'tap';
import { type BrokerAnswer, startBroker, type Ticket } from '../helpers/broker.ts';
import { tlsUpstream } from '../helpers/egress.ts';

const escaped = (text: string): string =>
  text
    .split('')
    .map((unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`)
    .join('');
const percentAll = (text: string): string =>
  [...Buffer.from(text)].map((byte) => `%${byte.toString(16).padStart(2, '0')}`).join('');
/** What an upstream may make of what it got. */
const disguises: Readonly<Record<string, (text: string) => string>> = {
  plain: (text) => text,
  lower: (text) => text.toLowerCase(),
  upper: (text) => text.toUpperCase(),
  base64: (text) => Buffer.from(text).toString('base64'),
  'base64, one further': (text) => Buffer.from(`.${text}`).toString('base64'),
  'base64, two further': (text) => Buffer.from(`..${text}`).toString('base64'),
  base64url: (text) => Buffer.from(text).toString('base64url'),
  hex: (text) => Buffer.from(text).toString('hex'),
  HEX: (text) => Buffer.from(text).toString('hex').toUpperCase(),
  percent: encodeURIComponent,
  'percent, all': percentAll,
  'percent, ALL': (text) => percentAll(text).toUpperCase(),
  JSON: (text) => JSON.stringify({ echo: text }),
  'JSON in JSON': (text) => JSON.stringify(JSON.stringify({ echo: text })),
  'JSON, \\u': (text) => `"${escaped(text)}"`,
  'JSON, \\/': (text) => JSON.stringify(text).replaceAll('/', '\\/'),
};
const everything = (request: IncomingMessage, body: Buffer): string =>
  `${request.method} ${request.url}\n${request.rawHeaders.join('\n')}\n${body.toString()}`;

/** `/{disguise}/{how}`: in the body at once or in one-byte chunks, in headers, or compressed. */
function echo(request: IncomingMessage, response: ServerResponse): void {
  const chunks: Buffer[] = [];
  request
    .on('data', (chunk: Buffer) => chunks.push(chunk))
    .on('end', () => {
      const query = new URL(request.url!, 'http://h').searchParams;
      const [disguise = 'plain', how = 'whole'] = [
        query.get('disguise') ?? undefined,
        query.get('how') ?? undefined,
      ];
      const text = disguises[disguise]!(everything(request, Buffer.concat(chunks)));
      if (how === 'headers') {
        const one = disguises[disguise]!(
          String(request.headers.authorization ?? request.headers['x-api-key'] ?? request.url),
        ).replaceAll(/[^\t -~]/g, ' ');
        response
          .writeHead(200, one, {
            'x-echo': one,
            'x-list': ['a', one],
            'set-cookie': `k=${one}`,
            link: `<${one}>`,
          })
          .end('echoed in headers');
      } else if (how === 'bytes') {
        const bytes = Buffer.from(text);
        response.writeHead(200, { 'content-type': 'text/plain' });
        let at = 0;
        const next = (): void => {
          if (at === bytes.length) response.end();
          else response.write(bytes.subarray(at, (at += 1)), next);
        };
        next();
      } else {
        response
          .writeHead(200, {
            'content-type': 'text/plain',
            'content-length': Buffer.byteLength(text),
          })
          .end(text);
      }
    });
}

/** Everything that a caller can see of an answer. */
const all = ({ status, rawHeaders, bytes, trailers }: BrokerAnswer): string =>
  `${status}\n${rawHeaders.join('\n')}\n${bytes.toString('latin1')}\n${JSON.stringify(trailers)}`;
/** What of a secret stands in a text: itself, or what comes of undoing an encoding. */
function traces(text: string, secret: string): string[] {
  const unescaped = text
    .replaceAll(/\\+u([0-9a-f]{4})/gi, (_, code: string) =>
      String.fromCharCode(Number.parseInt(code, 16)),
    )
    .replaceAll('\\', '');
  const unpercent = text.replaceAll(/%([0-9a-f]{2})/gi, (_, code: string) =>
    String.fromCharCode(Number.parseInt(code, 16)),
  );
  const readings = {
    text,
    unescaped,
    unpercent,
    ...Object.fromEntries(
      [0, 1, 2, 3].map((skip) => [
        `base64 ${skip}`,
        [...text.matchAll(/[A-Za-z0-9+/_-]{8,}/g)]
          .map(([run]) => Buffer.from(run.slice(skip), 'base64').toString('latin1'))
          .join('\n'),
      ]),
    ),
    ...Object.fromEntries(
      [0, 1].map((skip) => [
        `hex ${skip}`,
        [...text.matchAll(/[0-9a-f]{8,}/gi)]
          .map(([run]) => Buffer.from(run.slice(skip), 'hex').toString('latin1'))
          .join('\n'),
      ]),
    ),
  };
  return Object.entries(readings)
    .filter(([, reading]) => reading.toLowerCase().includes(secret.toLowerCase()))
    .map(([name]) => name);
}

t.test('the search itself finds the secret in every disguise', async (t) => {
  const secret = 'sk-Trace/0+1=2-abcdefgh';
  for (const [name, disguise] of Object.entries(disguises))
    t.not(traces(`x ${disguise(`a ${secret} b`)} y`, secret).length, 0, name);
  t.same(traces('nothing of the kind', secret), []);
});

t.test('the secret never comes back', async (t) => {
  const stage = await startBroker(t, echo);
  const baseUrl = `https://${stage.upstream.host}:${stage.upstream.port}`;
  const secret = 'Key/0+1=2-abcdefgh~IJKL';
  const types: Readonly<Record<string, { fields: object; path: string; secret: string }>> = {
    openai: { fields: { apiKey: secret, baseUrl }, path: '/echo', secret },
    anthropic: { fields: { apiKey: secret, baseUrl }, path: '/echo', secret },
    jira: { fields: { email: 'me@example.com', apiToken: secret, baseUrl }, path: '/echo', secret },
    slack: {
      fields: { webhookUrl: `${baseUrl}/services/T0000/${secret.replace('/', '')}` },
      path: '/',
      secret: secret.replace('/', ''),
    },
  };
  for (const [type, { fields, path, secret: hidden }] of Object.entries(types)) {
    const ticket = await stage.newTicket({}, (await stage.store(type, {}, { type, fields })).id);
    for (const disguise of Object.keys(disguises)) {
      for (const how of ['whole', 'bytes', 'headers']) {
        const answer = await stage.call(
          'POST',
          `${path}?disguise=${encodeURIComponent(disguise)}&how=${how}`,
          { ticket, body: 'the body' },
        );
        t.equal(answer.status, 200, `${type} ${disguise} ${how}`);
        const basic =
          type === 'jira'
            ? traces(all(answer), Buffer.from(`me@example.com:${secret}`).toString('base64'))
            : [];
        t.same([...traces(all(answer), hidden), ...basic], [], `${type} ${disguise} ${how}`);
        t.match(all(answer), /\[redacted\]/, 'and was there to be found');
        if (disguise === 'plain' && how !== 'headers')
          t.match(answer.text, /the body$/, 'what is no secret stays');
      }
    }
  }
});

t.test('502: what cannot be scanned does not come back at all', async (t) => {
  const codings = {
    gzip: gzipSync,
    deflate: deflateSync,
    br: brotliCompressSync,
    zstd: zstdCompressSync,
  };
  const stage = await startBroker(t, (request, response) => {
    const { coding = '', charset = '' } = Object.fromEntries(
      new URL(request.url!, 'http://h').searchParams,
    );
    const text = Buffer.from(
      everything(request, Buffer.alloc(0)),
      charset === 'utf-16le' ? 'utf16le' : 'utf8',
    );
    if (charset !== '')
      response
        .writeHead(200, { 'content-type': `text/plain; charset=${charset}` })
        .end(charset === 'utf-16le' ? Buffer.from(text.toString(), 'utf16le') : text);
    else
      response
        .writeHead(200, {
          'content-encoding': coding,
          'x-asked': String(request.headers['accept-encoding']),
        })
        .end(coding in codings ? codings[coding as 'gzip'](text) : text);
  });
  for (const query of [...Object.keys(codings), 'x-unknown', 'GZIP', 'identity, gzip']
    .map((coding) => `coding=${encodeURIComponent(coding)}`)
    .concat('charset=utf-16le')) {
    const answer = await stage.call('GET', `/echo?${query}`, {
      headers: { 'accept-encoding': 'gzip, br' },
    });
    t.equal(answer.status, 502, query);
    t.equal(answer.headers['vault-error'], 'true');
    t.match(answer.headers['content-type'], /^application\/problem\+json/);
    t.same(traces(all(answer), stage.secret), []);
    t.notOk('x-asked' in answer.headers);
  }
  const plain = await stage.call('GET', '/echo?coding=identity', {
    headers: { 'accept-encoding': 'gzip' },
  });
  t.match(
    { status: plain.status, asked: plain.headers['x-asked'] },
    { status: 200, asked: 'identity' },
  );
});

t.test('an answer that is cut off does not give the beginning of the secret', async (t) => {
  const stage = await startBroker(t, (request, response) => {
    const key = String(request.headers.authorization).replace('Bearer ', '');
    response.writeHead(200, { 'content-type': 'text/plain' });
    response.write(`0123456789${key.slice(0, -1)}`, () => {
      setImmediate(() => {
        if (request.url === '/end') response.end();
        else response.destroy();
      });
    });
  });
  const ended = await stage.call('GET', '/end');
  t.equal(ended.text, '0123456789[redacted]');
  const { port, ticket } = stage;
  const cut = await fetch(`http://127.0.0.1:${port}/broker/${ticket.id}/cut`, {
    headers: { authorization: `Bearer ${ticket.ticket}` },
  }).then(async (response) => {
    let text = '';
    try {
      for await (const chunk of response.body ?? [])
        text += Buffer.from(chunk as Uint8Array).toString();
    } catch {
      /* the broker hangs up, as the upstream did */
    }
    return text;
  });
  t.notMatch(cut, stage.secret.slice(0, 6));
  const { id } = await stage.store('small', { limits: { responseBytes: 20 } });
  const limited = await fetch(
    `http://127.0.0.1:${port}/broker/${(await stage.newTicket({}, id)).id}/end`,
    { headers: { authorization: 'Bearer x' } },
  );
  t.equal(limited.status, 401);
});

t.test('redirects are not followed, whatever the header that holds the secret', async (t) => {
  const visits: string[] = [];
  const elsewhere = await tlsUpstream(t, 'elsewhere.test', (request, response) => {
    visits.push(JSON.stringify(request.headers));
    response.end('arrived');
  });
  const stage = await startBroker(t, (request, response) => {
    const [, status = '', where = ''] = request.url!.split('/');
    const location = {
      off: `${elsewhere.url}/there`,
      on: '/there?x=y',
      whole: `https://${request.headers.host}/there`,
      scheme: '//elsewhere.test/there',
      plain: `http://${request.headers.host}/there`,
    }[where.split('?')[0]!]!;
    response
      .writeHead(Number(status), { location, refresh: `0; url=${elsewhere.url}` })
      .end('moved');
  });
  const baseUrl = `https://${stage.upstream.host}:${stage.upstream.port}`;
  const { id } = await stage.store(
    'claude',
    {},
    { type: 'anthropic', fields: { apiKey: stage.secret, baseUrl } },
  );
  const tickets: Ticket[] = [stage.ticket, await stage.newTicket({}, id)];
  for (const ticket of tickets) {
    for (const status of [301, 302, 303, 307, 308]) {
      for (const where of ['off', 'scheme', 'plain']) {
        const answer = await stage.call('POST', `/${status}/${where}`, { ticket, body: 'x' });
        t.same(
          [answer.status, answer.headers.location, answer.headers['refresh'], answer.text],
          [status, undefined, undefined, 'moved'],
          `${status} ${where}`,
        );
      }
      for (const where of ['on', 'whole']) {
        const answer = await stage.call('GET', `/${status}/${where}`, { ticket });
        t.equal(
          answer.headers.location,
          `/broker/${ticket.id}/there${where === 'on' ? '?x=y' : ''}`,
          `${status} ${where}: back to the broker`,
        );
      }
    }
  }
  t.same(visits, []);
});
