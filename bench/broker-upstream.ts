// The upstream of the broker's measurements: HTTPS on loopback. One route answers a completion at
// once, one takes its time first; the third is a stream whose first event is sent at once and whose
// end comes later. On PORT it says that it is ready.
import { createServer } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import { laterMs, thinkingMs } from './setting.ts';

const {
  PORT: port = '',
  TLS_PORT: tlsPort = '',
  TLS_CERT: cert = '',
  TLS_KEY: key = '',
} = process.env;

const completion = JSON.stringify({
  id: 'chatcmpl-bench',
  object: 'chat.completion',
  model: 'bench',
  usage: { prompt_tokens: 12, completion_tokens: 400, total_tokens: 412 },
  choices: [
    {
      index: 0,
      finish_reason: 'stop',
      message: {
        role: 'assistant',
        content: 'It is a "quoted" sentence,\nand another one. '.repeat(45),
      },
    },
  ],
});
const headers = {
  'content-type': 'application/json',
  'content-length': Buffer.byteLength(completion),
  'x-request-id': 'req_bench',
  'openai-processing-ms': '12',
};
const event = (content: string): string =>
  `data: ${JSON.stringify({ id: 'chatcmpl-bench', object: 'chat.completion.chunk', choices: [{ index: 0, delta: { content } }] })}\n\n`;

const upstream = createTlsServer({ cert, key, keepAliveTimeout: 60_000 }, (request, response) => {
  request.resume().on('end', () => {
    if (request.url !== '/v1/stream') {
      const answer = (): void => {
        response.writeHead(200, headers).end(completion);
      };
      if (request.url === '/v1/thinking') setTimeout(answer, thinkingMs);
      else answer();
      return;
    }
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    response.write(event('first'));
    setTimeout(() => {
      response.end(`${event('last')}data: [DONE]\n\n`);
    }, laterMs);
  });
});
const ready = createServer((_request, response) => {
  response.end('ready');
});
upstream.listen(Number(tlsPort), '127.0.0.1', () => {
  ready.listen(Number(port), '127.0.0.1');
});
process.once('SIGTERM', () => {
  process.exit(0);
});
