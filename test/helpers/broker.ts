// Tickets of a test vault, and a broker that listens before a real upstream of the test's own.
import { once } from 'node:events';
import {
  type ClientRequest,
  type IncomingMessage,
  type OutgoingHttpHeaders,
  request as httpRequest,
  type RequestListener,
  type Server,
} from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { randomBytes } from 'node:crypto';
import type { BrokerAddress } from '../../src/broker/addresses.ts';
import { type Presented, extractTicket } from '../../src/broker/ticket-extraction.ts';
import type { Egress } from '../../src/egress/index.ts';
import type { Policy } from '../../src/credentials/policy.ts';
import { egressTo, plainUpstream, tlsUpstream } from './egress.ts';
import { demand, registerEngine, type TestEngine } from './leases.ts';
import { until } from './processes.ts';
import { type Answer, startVault, type TestVault } from './vault.ts';

interface Teardown {
  teardown(action: () => unknown): unknown;
}

/**
 * Asks for a ticket; `purpose` is there, `onBehalfOf` is alice unless said otherwise (null leaves
 * it out).
 */
export function askTicket(
  vault: TestVault,
  engine: string,
  credential: object,
  { onBehalfOf = 'alice', ...more }: { onBehalfOf?: string | null } & Record<string, unknown> = {},
): Promise<Answer> {
  return vault.call(engine, 'POST', '/v1/broker-tickets', {
    credential,
    purpose: 'a test',
    ...(onBehalfOf === null ? {} : { onBehalfOf }),
    ...more,
  });
}

export interface Ticket {
  readonly id: string;
  readonly ticket: string;
  readonly baseUrl: string;
}
/** A call's own words: where it goes, and the ticket that it presents. */
export const presenting = (
  { id }: Pick<Ticket, 'id'>,
  ticket: string,
): { readonly at: BrokerAddress; readonly presented: Presented | undefined } => ({
  at: { kind: 'name', team: 'broker', name: id },
  presented: extractTicket(['Authorization', `Bearer ${ticket}`]),
});
export interface BrokerAnswer {
  readonly status: number;
  readonly headers: IncomingMessage['headers'];
  readonly rawHeaders: string[];
  readonly text: string;
  readonly json: any;
  readonly bytes: Buffer;
  readonly trailers: object;
}
export interface BrokerStage {
  readonly vault: TestVault;
  readonly egress: Egress;
  readonly engine: TestEngine;
  readonly secret: string;
  readonly credential: string;
  readonly ticket: Ticket;
  /** Where the broker listens, and where the upstream does. */
  readonly port: number;
  readonly upstream: { readonly host: string; readonly port: number; readonly server: Server };
  /** A ticket for a credential, the stage's own otherwise. */
  newTicket(more?: Record<string, unknown>, credential?: string): Promise<Ticket>;
  /** Stores another credential of the team with the upstream as its base URL. */
  store(name: string, policy?: Partial<Policy>, more?: object): Promise<any>;
  /** One call through the broker with a ticket in the Authorization header. */
  call(
    method: string,
    path: string,
    options?: { ticket?: Ticket; headers?: OutgoingHttpHeaders; body?: string | Buffer },
  ): Promise<BrokerAnswer>;
}

/**
 * A vault whose broker listens, with a team, an engine, a credential whose base URL is an upstream
 * on loopback (TLS unless `plain`), and a ticket.
 */
export async function startBroker(
  t: Teardown,
  handler: RequestListener,
  {
    policy = {},
    plain = false,
    vault: options = {},
    basePath = '',
    egress: egressParts = {},
  }: {
    policy?: Partial<Policy>;
    plain?: boolean;
    vault?: Parameters<typeof startVault>[1];
    basePath?: string;
    egress?: Parameters<typeof egressTo>[2];
  } = {},
): Promise<BrokerStage> {
  const host = 'upstream.test';
  const upstream = plain
    ? await plainUpstream(t, host, handler)
    : await tlsUpstream(t, host, handler);
  const egress = egressTo(t, [upstream], egressParts);
  let url = '';
  const vault = await startVault(t, { egress, brokerUrl: () => url, ...options });
  url = await vault.broker.listen({ host: '127.0.0.1', port: 0 });
  const { port } = vault.broker.server.address() as AddressInfo;
  await vault.team('payments');
  await vault.member('payments', 'eddie', 'editor');
  const engine = await registerEngine(vault, 'n8n');
  await vault.member('payments', 'n8n', 'engine');
  const secret = `sk-${randomBytes(24).toString('hex')}`;
  const store = (name: string, more: Partial<Policy> = {}, rest: object = {}): Promise<any> =>
    demand(
      vault.call('alice', 'POST', '/v1/teams/payments/credentials', {
        name,
        type: 'openai',
        fields: { apiKey: secret, baseUrl: `${upstream.url}${basePath}` },
        policy: { delivery: ['broker'], allowedHosts: [], ...more },
        ...rest,
      }),
      201,
    );
  const { id: credential } = await store('main', policy);
  const newTicket = (more: Record<string, unknown> = {}, of = credential): Promise<Ticket> =>
    demand(askTicket(vault, 'n8n', { id: of }, more), 201);
  const ticket = await newTicket();
  return {
    vault,
    egress,
    engine,
    secret,
    credential,
    ticket,
    port,
    upstream: upstream as unknown as BrokerStage['upstream'],
    store,
    newTicket,
    call: (method, path, { ticket: with_ = ticket, headers = {}, body } = {}) =>
      callBroker(
        port,
        method,
        `/broker/${with_.id}${path}`,
        { authorization: `Bearer ${with_.ticket}`, ...headers },
        body,
      ),
  };
}

/** One request on a connection of its own, its answer whole. */
export async function callBroker(
  port: number,
  method: string,
  path: string,
  headers: OutgoingHttpHeaders = {},
  body?: string | Buffer,
): Promise<BrokerAnswer> {
  const request = httpRequest({
    host: '127.0.0.1',
    port,
    method,
    path,
    headers: {
      ...(body === undefined ? {} : { 'content-length': Buffer.byteLength(body) }),
      ...headers,
    },
    agent: false,
  });
  request.end(body);
  const [response] = (await once(request, 'response')) as [IncomingMessage];
  return readAnswer(response);
}

/** Reads an answer to its end; rejects when it is cut off. */
export async function readAnswer(response: IncomingMessage): Promise<BrokerAnswer> {
  const chunks: Buffer[] = [];
  for await (const chunk of response) chunks.push(chunk as Buffer);
  const bytes = Buffer.concat(chunks);
  const text = bytes.toString('utf8');
  const { headers, rawHeaders, trailers } = response;
  return {
    status: response.statusCode ?? 0,
    headers,
    rawHeaders,
    bytes,
    text,
    trailers,
    json: /json/.test(headers['content-type'] ?? '') && text !== '' ? JSON.parse(text) : undefined,
  };
}

/** What comes back for these bytes until the other side hangs up. */
export async function rawCall(port: number, bytes: string): Promise<string> {
  const socket = connect(port, '127.0.0.1');
  let text = '';
  socket.on('data', (chunk: Buffer) => {
    text += chunk.toString('latin1');
  });
  socket.on('error', () => undefined);
  socket.write(bytes);
  await once(socket, 'close');
  return text;
}

export interface SwitchableStage extends BrokerStage {
  /** What the upstream does from now on. */
  on(handler: RequestListener): void;
  /** A call whose body and answer the test handles itself. */
  begin(method: string, path: string, headers?: Record<string, string | number>): ClientRequest;
}

/** A stage whose upstream can be changed. */
export async function stageOf(
  t: Teardown,
  options: Parameters<typeof startBroker>[2] = {},
): Promise<SwitchableStage> {
  let handler: RequestListener = (_request, response) => {
    response.end('fine');
  };
  const stage = await startBroker(
    t,
    (request, response) => {
      handler(request, response);
    },
    options,
  );
  return {
    ...stage,
    on: (next) => {
      handler = next;
    },
    begin: (method, path, headers = {}) =>
      httpRequest({
        host: '127.0.0.1',
        port: stage.port,
        method,
        path: `/broker/${stage.ticket.id}${path}`,
        headers: { authorization: `Bearer ${stage.ticket.ticket}`, ...headers },
        agent: false,
      }),
  };
}

/** The answer to a request, when its head has come. */
export const responseOf = async (request: ClientRequest): Promise<IncomingMessage> =>
  (await once(request, 'response'))[0] as IncomingMessage;

/**
 * The details of the first outcome in the audit log that is the one asked for, when it is there.
 */
export const lastOutcome = (stage: BrokerStage, isIt: (details: any) => boolean): Promise<any> =>
  until(async () => {
    const events = await stage.vault.db
      .selectFrom('audit_event')
      .select('details')
      .where('action', '=', 'credential.used')
      .execute();
    return events.map(({ details }) => details).find(isIt);
  });
