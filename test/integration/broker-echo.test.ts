// An upstream that gives back everything that it gets, in every disguise that the broker promises
// to see through: the secret never reaches the caller. And redirects: they are never followed, and
// lead no caller past the broker.
import type { IncomingMessage, ServerResponse } from 'node:http';
import { gzipSync } from 'node:zlib';
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
  HTML: (text) => text.replaceAll(/[^A-Za-z0-9 \n]/g, (sign) => `&#${sign.charCodeAt(0)};`),
  'HTML, all in hex': (text) =>
    [...Buffer.from(text)].map((byte) => `&#x${byte.toString(16)};`).join(''),
  'quoted-printable': (text) =>
    [...Buffer.from(text)]
      .map(
        (byte, i) =>
          `=${byte.toString(16).padStart(2, '0').toUpperCase()}${i % 20 === 19 ? '=\r\n' : ''}`,
      )
      .join(''),
  'base64 in lines': (text) => Buffer.from(text).toString('base64').replaceAll(/.{76}/g, '$&\r\n'),
  'base64 in lines, in JSON': (text) =>
    JSON.stringify(Buffer.from(text).toString('base64').replaceAll(/.{64}/g, '$&\n')),
  'escapes of C': (text) =>
    [...Buffer.from(text)].map((byte) => `\\${byte.toString(8).padStart(3, '0')}`).join(''),
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
        )
          .replaceAll(/(?:(?<=[0-9A-F]{2})=)?\r\n/g, '') // a header is one line
          .replaceAll(/[^\t -~]/g, ' ');
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
  const character = (digits: string, base: number): string =>
    String.fromCharCode(Number.parseInt(digits, base));
  const joined = text.replaceAll(/\r\n|\n|\\r|\\n/g, '');
  const readings = {
    text,
    unescaped,
    unpercent,
    references: text
      .replaceAll(/&#x([0-9a-f]+);/gi, (_, digits: string) => character(digits, 16))
      .replaceAll(/&#(\d+);/g, (_, digits: string) => character(digits, 10)),
    octal: text.replaceAll(/\\([0-7]{3})/g, (_, digits: string) => character(digits, 8)),
    printable: text
      .replaceAll(/=\r?\n/g, '')
      .replaceAll(/=([0-9A-F]{2})/g, (_, digits: string) => character(digits, 16)),
    'base64 in lines': [0, 1, 2, 3]
      .flatMap((skip) =>
        [...joined.matchAll(/[A-Za-z0-9+/]{8,}/g)].map(([run]) =>
          Buffer.from(run.slice(skip), 'base64').toString('latin1'),
        ),
      )
      .join('\n'),
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
  const stage = await startBroker(t, (request, response) => {
    const { coding = '', charset = '' } = Object.fromEntries(
      new URL(request.url!, 'http://h').searchParams,
    );
    const text = Buffer.from(everything(request, Buffer.alloc(0)));
    if (charset !== '')
      response.writeHead(200, { 'content-type': `text/plain; charset=${charset}` }).end(text);
    else
      response
        .writeHead(200, {
          'content-encoding': coding,
          'x-asked': String(request.headers['accept-encoding']),
        })
        .end(coding.includes('gzip') ? gzipSync(gzipSync(text)) : text);
  });
  for (const query of ['x-unknown', 'compress', 'gzip, gzip', 'br, gzip', 'gzip, x-unknown']
    .map((coding) => `coding=${encodeURIComponent(coding)}`)
    .concat('charset=utf-7', 'charset=ibm500')) {
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

t.test('what names a body as it was does not name one that was changed', async (t) => {
  const stage = await startBroker(t, (request, response) => {
    const body = request.url === '/echo' ? String(request.headers.authorization) : 'fine';
    response.writeHead(200, { etag: '"v1"', 'content-length': Buffer.byteLength(body) }).end(body);
  });
  t.notOk('etag' in (await stage.call('GET', '/echo')).headers);
  t.equal((await stage.call('GET', '/other')).headers.etag, '"v1"');
});

t.test('UTF-16 and UTF-32 are searched, known by their charset or their mark', async (t) => {
  const wide = (text: string, size: number): Buffer => {
    const out = Buffer.alloc(text.length * size);
    for (let i = 0; i < text.length; i += 1) out[i * size] = text.charCodeAt(i);
    return out;
  };
  const stage = await startBroker(t, (request, response) => {
    const {
      charset,
      mark = '',
      size = '2',
      order = 'le',
    } = Object.fromEntries(new URL(request.url!, 'http://h').searchParams);
    const little = Buffer.concat([
      ...(mark === '' ? [] : [wide('\u00ff', Number(size))]),
      wide(everything(request, Buffer.alloc(0)), Number(size)),
    ]);
    // U+FEFF is no Latin-1: its second byte.
    if (mark !== '') little.set([0xff, 0xfe]);
    const body = order === 'le' ? little : little.swap16();
    response
      .writeHead(200, {
        'content-type':
          charset === undefined ? 'application/octet-stream' : `text/plain; charset=${charset}`,
      })
      .end(body);
  });
  for (const query of [
    'charset=utf-16',
    'charset=UTF-16LE',
    'charset=utf-16be&order=be',
    'charset=utf-32&size=4',
    'mark=1',
    'mark=1&order=be',
    'mark=1&size=4',
  ]) {
    const answer = await stage.call('GET', `/echo?${query}`);
    t.equal(answer.status, 200, query);
    const narrow = answer.bytes.toString('latin1').replaceAll('\0', '');
    t.same(traces(narrow, stage.secret), [], query);
    t.match(narrow, /\[redacted\]/, query);
  }
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
