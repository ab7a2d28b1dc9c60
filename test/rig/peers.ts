// The services that credentials are for, on one port of loopback: an API that wants a key, a
// provider of OAuth 2.0, and a receiver of webhooks. What they saw is what the checker compares.
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import { testCertificate } from '../helpers/certificate.ts';

/** How the API and the provider answer. */
export type PeerMode = 'ok' | 'hanging' | 'failing' | 'slow';

const slowMs = 1_500;

export class Peers {
  /** How often the API saw each marked call, by its mark. */
  readonly calls = new Map<string, number>();
  /** The last key with which each marked call came. */
  readonly keys = new Map<string, string>();
  /** Ids of the webhook messages that came. */
  readonly messages = new Map<string, number>();
  mode: PeerMode = 'ok';
  /** What callers have to trust, in PEM. */
  readonly certificate: string;
  readonly #server: Server;
  readonly #goodTokens = new Set<string>();
  #tokens = 0;

  private constructor() {
    const { certificate, key } = testCertificate(['localhost']);
    this.certificate = certificate;
    this.#server = createServer({ cert: certificate, key }, (request, response) => {
      void this.#answer(request, response);
    });
    this.#server.keepAliveTimeout = 2_000;
  }

  static async start(): Promise<Peers> {
    const peers = new Peers();
    await new Promise<void>((resolve) => {
      peers.#server.listen(0, '127.0.0.1', resolve);
    });
    return peers;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  get url(): string {
    return `https://localhost:${this.port}`;
  }

  /** Cuts every connection, those that hang among them. */
  reset(): void {
    this.#server.closeAllConnections();
  }

  async stop(): Promise<void> {
    this.reset();
    await new Promise((resolve) => {
      this.#server.close(resolve);
    });
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    response.on('error', () => undefined);
    const chunks: Buffer[] = [];
    try {
      for await (const chunk of request) chunks.push(chunk as Buffer);
    } catch {
      return; // the caller hung up
    }
    const body = Buffer.concat(chunks).toString('utf8');
    const mark = request.headers['x-mark'];
    if (typeof mark === 'string') {
      this.calls.set(mark, (this.calls.get(mark) ?? 0) + 1);
      this.keys.set(mark, String(request.headers.authorization).replace(/^Bearer /, ''));
    }
    if (this.mode === 'hanging') return;
    if (this.mode === 'slow') await new Promise((resolve) => setTimeout(resolve, slowMs));
    if (this.mode === 'failing') return void response.writeHead(500).end();
    const { pathname } = new URL(request.url ?? '/', this.url);
    if (pathname === '/v1/stream') return this.#stream(response);
    if (pathname === '/token') return this.#token(new URLSearchParams(body), response);
    if (pathname === '/hook') {
      const id = String(request.headers['webhook-id']);
      this.messages.set(id, (this.messages.get(id) ?? 0) + 1);
      return void response.writeHead(204).end();
    }
    json(response, 200, { data: [], mark: mark ?? null });
  }

  // An answer that never ends.
  #stream(response: ServerResponse): void {
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    const timer = setInterval(() => response.write('data: 1\n\n'), 1_000);
    response.once('close', () => clearInterval(timer));
  }

  // Refresh tokens rotate and are good once, as OAuth 2.1 wants.
  #token(asked: URLSearchParams, response: ServerResponse): void {
    const old = asked.get('refresh_token') ?? '';
    if (asked.get('grant_type') === 'refresh_token' && !this.#goodTokens.delete(old)) {
      json(response, 400, { error: 'invalid_grant' });
      return;
    }
    this.#tokens += 1;
    const refreshToken = `rt-${this.#tokens}`;
    this.#goodTokens.add(refreshToken);
    json(response, 200, {
      access_token: `at-${this.#tokens}`,
      token_type: 'Bearer',
      expires_in: 70,
      refresh_token: refreshToken,
    });
  }
}

function json(response: ServerResponse, status: number, value: unknown): void {
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(value));
}
