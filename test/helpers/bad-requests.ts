// Requests that are wrong in one way each, all with a secret in them: what has to be refused
// without a word of it coming back.
import { once } from 'node:events';
import { connect } from 'node:net';

const deep = (value: unknown, depth: number): unknown =>
  depth === 0 ? value : { a: deep(value, depth - 1) };

/** Bodies for storing a credential, each wrong in its own way and each with the secret in it. */
export function badBodies(secret: string): [string, unknown][] {
  const good = { name: 'n', type: 'openai', fields: { apiKey: secret } };
  const text = JSON.stringify(good);
  return [
    ['cut short', text.slice(0, -2)],
    ['a comma too many', text.replace('}', ',}')],
    ['bare', secret],
    ['a string', JSON.stringify(secret)],
    ['a list', [secret]],
    ['a name that comes twice', text.replace('{', `{"name":"${secret}",`)],
    ['NUL', text.replace(secret, `${secret}\\u0000`)],
    ['a lone surrogate', text.replace(secret, `${secret}\\ud800`)],
    ['a bad escape', text.replace(secret, `${secret}\\x`)],
    ['__proto__', text.replace('{', `{"__proto__":{"x":"${secret}"},`)],
    ['too deep', deep(secret, 40)],
    ['far too deep', `${'['.repeat(50_000)}"${secret}"`],
    ['a value as an object', { ...good, fields: { apiKey: { value: secret } } }],
    ['as a list', { ...good, fields: { apiKey: [secret] } }],
    ['fields as text', { ...good, fields: secret }],
    ['fields as a list', { ...good, fields: [secret] }],
    ['an unknown field', { ...good, fields: { apiKey: 'x', secret: secret } }],
    ['as the name of a field', { ...good, fields: { apiKey: 'x', [secret]: 'x' } }],
    ['as a long name of a field', { ...good, fields: { apiKey: 'x', [secret.repeat(3)]: 'x' } }],
    ['an unknown member', { ...good, password: secret }],
    ['as the name of a member', { ...good, [secret]: true }],
    ['as the name and the value', { ...good, [secret]: secret }],
    ['as the type', { ...good, type: secret }],
    ['a name with a control character', { ...good, name: `${secret}\u0007` }],
    ['a name that is too long', { ...good, name: secret.repeat(5) }],
    ['a name that is no text', { ...good, name: { [secret]: secret } }],
    ['a description with NUL', { ...good, description: `${secret}\u0000` }],
    ['a description that is too long', { ...good, description: secret.repeat(50) }],
    ['as a time', { ...good, expiresAt: secret }],
    ["as a label's name", { ...good, labels: { [`${secret} !`]: 'x' } }],
    ['as a label with a line break', { ...good, labels: { env: `${secret}\n` } }],
    ['as a delivery', { ...good, policy: { delivery: [secret], allowedHosts: [] } }],
    ['as a host', { ...good, policy: { delivery: [], allowedHosts: [`${secret}/x`] } }],
    [
      'as a member of the policy',
      { ...good, policy: { delivery: [], allowedHosts: [], [secret]: 1 } },
    ],
    ['as a public name', { ...good, publicFieldNames: [secret] }],
    [
      'as a URL with a password',
      { ...good, fields: { apiKey: 'x', baseUrl: `https://u:${secret}@x.example` } },
    ],
    [
      'as a URL with a query',
      { ...good, fields: { apiKey: 'x', baseUrl: `https://x.example/?key=${secret}` } },
    ],
    [
      'as a port',
      {
        name: 'n',
        type: 'smtp',
        fields: { host: 'h.example', username: 'u', port: secret, password: secret },
      },
    ],
    [
      'as a host name',
      { name: 'n', type: 'smtp', fields: { host: `${secret}!`, username: 'u', password: secret } },
    ],
    ['too long', { ...good, fields: { apiKey: secret + 'x'.repeat(65_536) } }],
    ['far too large', { ...good, fields: { apiKey: secret.repeat(16_000) } }],
    ['a required field missing', { name: 'n', type: 'smtp', fields: { password: secret } }],
    [
      'a public field of a custom credential that is none',
      {
        name: 'n',
        type: 'custom',
        fields: { note: `${secret}\u0001` },
        publicFieldNames: ['note'],
      },
    ],
  ];
}

/** What is no request, or only the beginning of one. */
export function badBytes(secret: string, url: string, token: string): string[] {
  const head = (more: string, length: number): string =>
    `POST ${url} HTTP/1.1\r\nHost: v\r\nAuthorization: Bearer ${token}\r\nContent-Type: application/json\r\nContent-Length: ${length}\r\n${more}\r\n`;
  const body = `{"name":"n","type":"openai","fields":{"apiKey":"${secret}"`;
  return [
    `${secret}\r\n\r\n`,
    `GET /${secret} HTTP/9.9\r\n\r\n`,
    `GET /v1/teams/${secret} HTTP/1.1\r\n${secret}\r\n\r\n`,
    `GET / HTTP/1.1\r\nHost: v\r\nX-Long: ${secret.repeat(3_000)}\r\n\r\n`,
    `${head('', 1)}${body}`,
    `${head('', 5_000)}${body}`,
    `${head(`Transfer-Encoding: chunked\r\nX: ${secret}\r\n`, 10)}5\r\n${body}`,
    `POST /${secret} HTTP/1.1\r\nHost: v\r\nTransfer-Encoding: chunked\r\n\r\n${secret}\r\n`,
  ];
}

/** What comes back for these bytes before the sender hangs up. */
export async function rawAnswer(port: number, bytes: string): Promise<string> {
  const socket = connect(port, '127.0.0.1');
  let text = '';
  socket.on('data', (chunk: Buffer) => {
    text += chunk.toString('latin1');
  });
  socket.on('error', () => undefined); // the other side may be the first to close
  await once(socket, 'connect');
  socket.end(bytes);
  await once(socket, 'close');
  return text;
}
