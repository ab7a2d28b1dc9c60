// The broker beside its floor: the same calls to the same upstream over TLS, in turn.
import { connect } from 'node:net';
import { testCertificate } from '../test/helpers/certificate.ts';
import { ask, requestText } from './load.ts';
import { compare, type Comparison, type Effort, median } from './measures.ts';
import { freePort, type Server, startServer } from './processes.ts';
import { person, purpose, type Setting, teams, thinkingMs } from './setting.ts';

/** Where the upstream is, and what the vault has to be told about it. */
export interface BrokerStage {
  readonly environment: Readonly<Record<string, string>>;
  readonly brokerPort: number;
  readonly url: string;
  readonly ca: string;
  stop(): Promise<void>;
}

export interface BrokerFigures {
  /**
   * Calls to an upstream that takes its time, as they are; and to one that answers at once, where
   * nothing but the broker's own part is left.
   */
  readonly thinking: readonly Comparison[];
  readonly atOnce: readonly Comparison[];
  /** Milliseconds from the request to the first event of a stream. */
  readonly firstMs: { readonly vault: number; readonly floor: number; readonly ratio: number };
}

/** Starts the upstream; the vault is started with the environment. */
export async function startUpstream(): Promise<BrokerStage> {
  const { certificate, key } = testCertificate(['localhost']);
  const [tlsPort, brokerPort] = [await freePort(), await freePort()];
  const server = await startServer(
    ['bench/broker-upstream.ts'],
    { TLS_PORT: String(tlsPort), TLS_CERT: certificate, TLS_KEY: key },
    '/',
  );
  return {
    brokerPort,
    url: `https://localhost:${tlsPort}`,
    ca: certificate,
    stop: () => server.stop(),
    environment: {
      CREDVAULT_BROKER_PORT: String(brokerPort),
      CREDVAULT_EGRESS_CA: certificate,
      CREDVAULT_EGRESS_ALLOW: `localhost:${tlsPort}=127.0.0.0/8,localhost:${tlsPort}=::1/128`,
    },
  };
}

/** Measures calls with one and with sixteen connections, and the first event of streams. */
export async function measureBroker({
  vault,
  stage,
  setting,
  effort,
}: {
  vault: Server;
  stage: BrokerStage;
  setting: Setting;
  effort: Effort;
}): Promise<BrokerFigures> {
  const tickets = await makeTickets(vault, stage, setting);
  const floor = await startServer(
    ['bench/broker-floor.ts'],
    { DATABASE_URL: setting.databaseUrl, UPSTREAM_URL: stage.url, UPSTREAM_CA: stage.ca },
    '/readyz',
  );
  try {
    const broker = { ...vault, port: stage.brokerPort, cpuSeconds: () => vault.cpuSeconds() };
    const body = {
      model: 'bench',
      messages: [{ role: 'user', content: 'Say a sentence, and another one. '.repeat(10) }],
    };
    let turn = 0;
    const against = (path: string, name: string, connections: number): Promise<Comparison> => {
      const next = (): string => {
        const { id, ticket } = tickets[turn++ % tickets.length]!;
        return requestText('POST', `/broker/${id}${path}`, ticket, body);
      };
      return compare(`${name}, c=${connections}`, {
        vault: { server: broker, next },
        other: { server: floor, next },
        connections,
        effort,
      });
    };
    const both = async (path: string, name: string): Promise<Comparison[]> => [
      await against(path, name, 1),
      await against(path, name, 16),
    ];
    return {
      thinking: await both('/v1/thinking', `broker, upstream takes ${thinkingMs} ms`),
      atOnce: await both('/v1/chat/completions', 'broker, upstream answers at once'),
      firstMs: await firstEvents(broker, floor, tickets[0]!, effort),
    };
  } finally {
    await floor.stop();
  }
}

interface Ticket {
  readonly id: string;
  readonly ticket: string;
}

async function makeTickets(
  vault: Server,
  { url }: BrokerStage,
  { tokens }: Setting,
): Promise<Ticket[]> {
  const call = async (
    token: keyof Setting['tokens'],
    method: string,
    path: string,
    body: object,
  ): Promise<any> =>
    JSON.parse(await ask(vault.port, requestText(method, path, tokens[token], body)));
  const tickets: Ticket[] = [];
  for (let i = 0; i < 16; i += 1) {
    const { id } = await call('person', 'POST', `/v1/teams/${teams.read}/credentials`, {
      name: `brokered-${i}`,
      type: 'openai',
      fields: { apiKey: `sk-bench-${'0123456789abcdef'.repeat(3)}-${i}`, baseUrl: url },
      policy: {
        delivery: ['broker'],
        allowedHosts: [],
        limits: { requestsPerMinute: 1_000_000, concurrency: 1_000 },
      },
    });
    tickets.push(
      await call('engine', 'POST', '/v1/broker-tickets', {
        credential: { id },
        purpose,
        onBehalfOf: person,
        ttlSeconds: 3_600,
      }),
    );
  }
  return tickets;
}

/** A stream's first event is there long before its end, and as soon as through the bare proxy. */
async function firstEvents(
  vault: Server,
  floor: Server,
  { id, ticket }: Ticket,
  { rounds }: Effort,
): Promise<BrokerFigures['firstMs']> {
  const request = requestText('GET', `/broker/${id}/v1/stream`, ticket);
  const times: { vault: number; floor: number }[] = [];
  for (let i = 0; i < rounds * 4; i += 1) {
    const first = i % 2 === 0 ? await firstEvent(vault.port, request) : undefined;
    const second = await firstEvent(floor.port, request);
    times.push({ vault: first ?? (await firstEvent(vault.port, request)), floor: second });
  }
  const of = (side: 'vault' | 'floor'): number => median(times.map((time) => time[side]));
  return { vault: of('vault'), floor: of('floor'), ratio: of('vault') / of('floor') };
}

function firstEvent(port: number, request: string): Promise<number> {
  return new Promise((resolve, reject) => {
    const socket = connect({ port, host: '127.0.0.1', noDelay: true });
    let [begun, first, text] = [0, 0, ''];
    socket
      .once('connect', () => {
        begun = performance.now();
        socket.write(request);
      })
      .once('error', reject);
    socket.on('data', (chunk: Buffer) => {
      text += chunk.toString('latin1');
      if (first === 0 && text.includes('first')) first = performance.now();
      if (!text.includes('[DONE]')) return;
      socket.destroy();
      resolve(first - begun);
    });
  });
}
