// Upstreams that answer as the services of docs/recipes.md do, as far as the recipes go. Each wants
// the secret where the service has it.
import { spawn } from 'node:child_process';
import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http';

/** A request as it arrived. */
export interface Seen {
  readonly request: IncomingMessage;
  readonly url: URL;
  readonly body: Buffer;
}
type Service = (seen: Seen, response: ServerResponse) => void;

export const secretOf: Readonly<Record<string, string>> = {
  'api.openai.com': 'sk-openai-0123456789',
  'api.anthropic.com': 'sk-ant-0123456789',
  'api.github.com': 'ghp_0123456789abcdef',
  'slack.com': 'xoxb-0123456789-abcdef',
  'api.stripe.com': 'sk_test_0123456789abcdef',
  's3.us-east-1.amazonaws.com': 'secret/access+key0123456789',
  'api.notion.com': 'ntn_0123456789abcdef',
  'api.linear.app': 'lin_api_0123456789abcdef',
  'www.googleapis.com': 'ya29.0123456789abcdef',
  'api.example.com': 'a-token-0123456789',
  'git.example.com': 'glpat-0123456789abcdef',
};
export const accessKeyId = 'AKIAEXAMPLE000000000';

const json = (response: ServerResponse, body: unknown, headers: object = {}): void => {
  response
    .writeHead(200, { 'content-type': 'application/json', ...headers })
    .end(JSON.stringify(body));
};
const secretIn = ({ headers }: IncomingMessage): string =>
  String(headers['x-api-key'] ?? headers.authorization ?? '').replace(/^Bearer /, '');

const objects = new Map<string, Buffer>();
/** Where the repositories lie that git is served from. */
export const repositories = { folder: '' };

const services: Readonly<Record<string, Service>> = {
  'api.openai.com': ({ body }, response) => {
    const { messages } = JSON.parse(body.toString()) as { messages: { content: string }[] };
    json(response, {
      id: 'c1',
      object: 'chat.completion',
      choices: [
        { index: 0, message: { role: 'assistant', content: `you said ${messages[0]!.content}` } },
      ],
    });
  },
  'api.anthropic.com': (_seen, response) => {
    json(response, {
      id: 'm1',
      type: 'message',
      role: 'assistant',
      model: 'm',
      content: [{ type: 'text', text: 'hello' }],
      stop_reason: 'end_turn',
      usage: { input_tokens: 1, output_tokens: 1 },
    });
  },
  'api.github.com': ({ url }, response) => {
    if (url.pathname.startsWith('/repos/acme/site/contents/')) {
      const path = decodeURIComponent(url.pathname.slice('/repos/acme/site/contents/'.length));
      return json(response, { type: 'file', path });
    }
    const page = Number(url.searchParams.get('page') ?? 1);
    const next = `<https://api.github.com/repositories/1/issues?page=${page + 1}>; rel="next"`;
    return json(response, [{ number: page }], page < 3 ? { link: next } : {});
  },
  'slack.com': ({ url, body }, response) => {
    const { channel, text } = Object.fromEntries(new URLSearchParams(body.toString()));
    json(response, { ok: true, method: url.pathname, channel, message: { text } });
  },
  'api.stripe.com': ({ url, body, request }, response) => {
    if (request.method === 'POST') {
      const { email } = Object.fromEntries(new URLSearchParams(body.toString()));
      return json(response, { id: 'cus_1', object: 'customer', email });
    }
    const isFirst = url.searchParams.get('starting_after') === null;
    return json(response, {
      object: 'list',
      url: '/v1/customers',
      has_more: isFirst,
      data: [{ id: isFirst ? 'cus_1' : 'cus_2', object: 'customer' }],
    });
  },
  's3.us-east-1.amazonaws.com': ({ request, url, body }, response) => {
    if (request.method === 'PUT') {
      objects.set(url.pathname, body);
      response.writeHead(200, { etag: '"1"' }).end();
    } else if (url.searchParams.get('list-type') === '2') {
      const keys = [...objects.keys()].map((key) => key.split('/').slice(2).join('/'));
      const contents = keys.map((key) => `<Contents><Key>${key}</Key></Contents>`).join('');
      response
        .writeHead(200, { 'content-type': 'application/xml' })
        .end(
          `<?xml version="1.0"?><ListBucketResult><Name>b</Name><IsTruncated>false</IsTruncated>${contents}</ListBucketResult>`,
        );
    } else response.writeHead(200, { etag: '"1"' }).end(objects.get(url.pathname));
  },
  'api.notion.com': ({ url }, response) => {
    json(response, { object: 'user', id: url.pathname, type: 'bot', bot: {} });
  },
  'api.linear.app': ({ url }, response) => {
    json(response, { data: { viewer: { id: url.pathname, name: 'Ada', __typename: 'User' } } });
  },
  'www.googleapis.com': ({ url }, response) => {
    const isFirst = url.searchParams.get('pageToken') === null;
    json(response, {
      kind: 'drive#fileList',
      ...(isFirst ? { nextPageToken: 'more' } : {}),
      files: [{ id: isFirst ? 'f1' : 'f2', name: url.pathname }],
    });
  },
  'api.example.com': ({ url }, response) => {
    json(response, { path: `${url.pathname}${url.search}` });
  },
  'git.example.com': ({ request, url, body }, response) => {
    const backend = spawn('git', ['http-backend'], {
      env: {
        PATH: process.env['PATH'],
        GIT_PROJECT_ROOT: repositories.folder,
        GIT_HTTP_EXPORT_ALL: '1',
        PATH_INFO: url.pathname,
        QUERY_STRING: url.search.slice(1),
        REQUEST_METHOD: request.method,
        CONTENT_TYPE: request.headers['content-type'] ?? '',
        HTTP_CONTENT_ENCODING: request.headers['content-encoding'] ?? '',
        GIT_PROTOCOL: String(request.headers['git-protocol'] ?? ''),
      },
    });
    const chunks: Buffer[] = [];
    backend.stdout
      .on('data', (chunk: Buffer) => chunks.push(chunk))
      .on('end', () => {
        const all = Buffer.concat(chunks);
        const end = all.indexOf('\r\n\r\n');
        for (const line of all.subarray(0, end).toString().split('\r\n')) {
          const [name = '', value = ''] = line.split(/: (.*)/s);
          if (name === 'Status') response.statusCode = Number(value.slice(0, 3));
          else response.setHeader(name, value);
        }
        response.end(all.subarray(end + 4));
      });
    backend.stdin.end(body);
  },
};
/** Whether the secret is where the service wants it. */
const isIn = (host: string, request: IncomingMessage): boolean => {
  const secret = secretOf[host]!;
  if (host === 'git.example.com')
    return (
      request.headers.authorization === `Basic ${Buffer.from(`git:${secret}`).toString('base64')}`
    );
  if (host.startsWith('s3.'))
    return String(request.headers.authorization).startsWith(
      `AWS4-HMAC-SHA256 Credential=${accessKeyId}/`,
    );
  return secretIn(request) === secret;
};

/** The services at one address, told apart by Host; `seen` has all that arrived. */
export const answering =
  (seen: Seen[]): RequestListener =>
  (request, response) => {
    const chunks: Buffer[] = [];
    request
      .on('data', (chunk: Buffer) => chunks.push(chunk))
      .on('end', () => {
        const host = String(request.headers.host).replace(/:.*/, '');
        const at = {
          request,
          url: new URL(request.url!, `https://${host}`),
          body: Buffer.concat(chunks),
        };
        seen.push(at);
        if (isIn(host, request)) services[host]!(at, response);
        else response.writeHead(401).end('{"message":"the secret is not where it should be"}');
      });
  };
