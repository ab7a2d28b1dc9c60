// The official SDKs, as they come from npm, unchanged but for base URL and key: they work, streams
// included, and never see the secret.
import { once } from 'node:events';
import type { IncomingMessage, RequestListener } from 'node:http';
import Anthropic from '@anthropic-ai/sdk';
import OpenAI, { toFile } from 'openai';
import t from 'tap';
import { type BrokerStage, startBroker } from '../helpers/broker.ts';

interface Recorded {
  readonly method: string;
  readonly url: string;
  readonly headers: IncomingMessage['headers'];
  readonly body: Buffer;
}

/** Whoever speaks next waits for the other side to have heard. */
function signal(): { readonly given: Promise<void>; give(): void } {
  const { promise, resolve } = Promise.withResolvers<void>();
  return {
    given: promise,
    give: () => {
      resolve();
    },
  };
}

/** Records every request whole, then lets `answer` speak. */
const recording =
  (
    seen: Recorded[],
    answer: (request: Recorded, response: Parameters<RequestListener>[1]) => unknown,
  ): RequestListener =>
  (request, response) => {
    const chunks: Buffer[] = [];
    request
      .on('data', (chunk: Buffer) => chunks.push(chunk))
      .on('end', () => {
        const recorded = {
          method: request.method!,
          url: request.url!,
          headers: request.headers,
          body: Buffer.concat(chunks),
        };
        seen.push(recorded);
        void answer(recorded, response);
      });
  };
const json = (response: Parameters<RequestListener>[1], status: number, body: object): void => {
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
};
/** What an SDK says of a call that failed. */
const statusOf = (call: PromiseLike<unknown>): Promise<number> =>
  Promise.resolve(call).then(
    () => 200,
    (error: { status: number }) => error.status,
  );
const isClean = (stage: BrokerStage, seen: readonly Recorded[]): boolean =>
  !seen.some(({ url, headers, body }) =>
    `${url}${JSON.stringify(headers)}${body.toString('latin1')}`.includes('vbt_'),
  ) && !stage.vault.logs.join('').includes(stage.secret);

t.test('openai', async (t) => {
  const seen: Recorded[] = [];
  const heard = signal();
  const stage = await startBroker(
    t,
    recording(seen, async ({ url, body }, response) => {
      if (url.startsWith('/v1/models'))
        return json(response, 200, { object: 'list', data: [{ id: 'model-1', object: 'model' }] });
      if (url === '/v1/files')
        return json(response, 200, { id: 'file-1', object: 'file', bytes: body.length });
      if (url === '/v1/embeddings')
        return json(response, 429, { error: { message: 'slow down', type: 'rate_limit' } });
      const { stream } = JSON.parse(body.toString()) as { stream?: boolean };
      if (stream !== true)
        return json(response, 200, {
          id: 'c1',
          object: 'chat.completion',
          choices: [
            { index: 0, message: { role: 'assistant', content: 'whole' }, finish_reason: 'stop' },
          ],
        });
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      const event = (content: string): string =>
        `data: ${JSON.stringify({ id: 'c1', object: 'chat.completion.chunk', choices: [{ index: 0, delta: { content } }] })}\n\n`;
      response.write(event('Hel'));
      await heard.given; // the caller has the first event before there is a second
      response.write(event('lo'));
      return response.end('data: [DONE]\n\n');
    }),
  );
  const { secret, ticket } = stage;
  const client = new OpenAI({
    apiKey: ticket.ticket,
    baseURL: `${ticket.baseUrl}v1`,
    maxRetries: 0,
  });

  t.same(
    (await client.models.list()).data.map(({ id }) => id),
    ['model-1'],
  );
  const message = { model: 'model-1', messages: [{ role: 'user' as const, content: 'grüße' }] };
  t.equal((await client.chat.completions.create(message)).choices[0]?.message.content, 'whole');
  const parts: string[] = [];
  for await (const chunk of await client.chat.completions.create({ ...message, stream: true })) {
    parts.push(chunk.choices[0]?.delta.content ?? '');
    heard.give();
  }
  t.same(parts, ['Hel', 'lo'], 'the first event was here before the upstream ended');
  const file = await client.files.create({
    purpose: 'batch',
    file: await toFile(Buffer.alloc(300_000, 'x'), 'big.jsonl'),
  });
  t.ok(file.bytes > 300_000, 'an upload');
  t.equal(
    await statusOf(client.embeddings.create({ model: 'm', input: 'x' })),
    429,
    "the upstream's own errors are the upstream's",
  );
  t.equal(
    await statusOf(
      new OpenAI({
        apiKey: `${ticket.ticket.slice(0, -1)}!`,
        baseURL: `${ticket.baseUrl}v1`,
        maxRetries: 0,
      }).models.list(),
    ),
    401,
    "the vault's own",
  );

  t.same(
    seen.map(({ method, url }) => `${method} ${url}`),
    [
      'GET /v1/models',
      'POST /v1/chat/completions',
      'POST /v1/chat/completions',
      'POST /v1/files',
      'POST /v1/embeddings',
    ],
  );
  for (const { headers } of seen) {
    t.equal(headers.authorization, `Bearer ${secret}`);
    t.match(headers['user-agent'], /^OpenAI/);
    t.ok('x-stainless-lang' in headers, 'what the SDK says of itself goes on');
  }
  t.equal(JSON.parse(seen[1]!.body.toString()).messages[0].content, 'grüße');
  t.ok(isClean(stage, seen), 'no ticket went out, no secret was logged');
});

t.test('anthropic', async (t) => {
  const seen: Recorded[] = [];
  const heard = signal();
  const whole = {
    id: 'm1',
    type: 'message',
    role: 'assistant',
    model: 'model-1',
    content: [{ type: 'text', text: 'whole' }],
    stop_reason: 'end_turn',
    stop_sequence: null,
    usage: { input_tokens: 1, output_tokens: 1 },
  };
  const stage = await startBroker(
    t,
    recording(seen, async ({ body }, response) => {
      const { stream } = JSON.parse(body.toString()) as { stream?: boolean };
      if (stream !== true) return json(response, 200, whole);
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      const event = (type: string, more: object): string =>
        `event: ${type}\ndata: ${JSON.stringify({ type, ...more })}\n\n`;
      const text = (part: string): string =>
        event('content_block_delta', { index: 0, delta: { type: 'text_delta', text: part } });
      response.write(
        event('message_start', { message: { ...whole, content: [] } }) +
          event('content_block_start', { index: 0, content_block: { type: 'text', text: '' } }) +
          text('Hel'),
      );
      await heard.given;
      response.write(text('lo'));
      return response.end(
        event('content_block_stop', { index: 0 }) +
          event('message_delta', {
            delta: { stop_reason: 'end_turn' },
            usage: { output_tokens: 2 },
          }) +
          event('message_stop', {}),
      );
    }),
  );
  const { secret, upstream } = stage;
  const { id } = await stage.store(
    'claude',
    {},
    {
      type: 'anthropic',
      fields: { apiKey: secret, baseUrl: `https://${upstream.host}:${upstream.port}` },
    },
  );
  const ticket = await stage.newTicket({}, id);
  const client = new Anthropic({ apiKey: ticket.ticket, baseURL: ticket.baseUrl, maxRetries: 0 });
  const message = {
    model: 'model-1',
    max_tokens: 10,
    messages: [{ role: 'user' as const, content: 'hi' }],
  };

  t.match((await client.messages.create(message)).content, [{ text: 'whole' }]);
  const stream = client.messages.stream(message);
  const parts: string[] = [];
  stream.on('text', (part) => {
    parts.push(part);
    heard.give();
  });
  t.match((await stream.finalMessage()).content, [{ text: 'Hello' }]);
  t.same(parts, ['Hel', 'lo'], 'the first event was here before the upstream ended');
  t.equal(
    await statusOf(
      new Anthropic({
        apiKey: 'sk-ant-wrong',
        baseURL: ticket.baseUrl,
        maxRetries: 0,
      }).messages.create(message),
    ),
    401,
  );

  t.equal(seen.length, 2);
  for (const { method, url, headers } of seen) {
    t.equal(`${method} ${url}`, 'POST /v1/messages');
    t.equal(headers['x-api-key'], secret);
    t.match(headers['anthropic-version'], /^\d{4}-\d{2}-\d{2}$/);
    t.notOk('authorization' in headers);
  }
  t.ok(isClean(stage, seen), 'no ticket went out, no secret was logged');
});

t.test('a caller that goes away ends the call at the upstream', async (t) => {
  const gone = signal();
  const stage = await startBroker(t, (request, response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    response.write(
      `data: ${JSON.stringify({ id: 'c1', choices: [{ index: 0, delta: { content: 'first' } }] })}\n\n`,
    );
    void once(request.socket, 'close').then(() => {
      gone.give();
    });
  });
  const client = new OpenAI({
    apiKey: stage.ticket.ticket,
    baseURL: `${stage.ticket.baseUrl}v1`,
    maxRetries: 0,
  });
  const stream = await client.chat.completions.create({ model: 'm', messages: [], stream: true });
  for await (const chunk of stream) {
    t.equal(chunk.choices[0]?.delta.content, 'first');
    break;
  }
  await gone.given;
});
