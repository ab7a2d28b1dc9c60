// The outside world of the tests: real servers on loopback under names that only the test's
// resolver knows, and an egress that may reach them.
import { createServer, type RequestListener } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo, Server as TcpServer } from 'node:net';
import { parseAllowRules } from '../../src/egress/allow.ts';
import { Egress, type EgressParts } from '../../src/egress/index.ts';
import { testCertificate } from './certificate.ts';

interface Teardown {
  teardown(action: () => unknown): unknown;
}

export interface Upstream {
  readonly host: string;
  readonly port: number;
  readonly certificate: string;
  readonly server: TcpServer;
  readonly url: string;
}

/** Listens on a free port of loopback (or of another address) until the test ends. */
export async function listening<S extends TcpServer>(
  t: Teardown,
  server: S,
  address = '127.0.0.1',
  port = 0,
): Promise<number> {
  const sockets = new Set<{ destroy(): void }>();
  server.on('connection', (socket) => {
    sockets.add(socket);
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject).listen(port, address, resolve);
  });
  t.teardown(
    () =>
      new Promise((resolve) => {
        server.close(resolve);
        for (const socket of sockets) socket.destroy();
      }),
  );
  return (server.address() as AddressInfo).port;
}

/**
 * An HTTPS server whose certificate, its own authority, is for `host` (or for the names given
 * instead).
 */
export async function tlsUpstream(
  t: Teardown,
  host: string,
  handler: RequestListener,
  { names = [host], address = '127.0.0.1' }: { names?: string[]; address?: string } = {},
): Promise<Upstream> {
  const { certificate, key } = testCertificate(names);
  const server = createTlsServer({ cert: certificate, key }, handler);
  const port = await listening(t, server, address);
  return { host, port, certificate, server, url: `https://${host}:${port}` };
}

/** The same without TLS. */
export async function plainUpstream(
  t: Teardown,
  host: string,
  handler: RequestListener,
): Promise<Omit<Upstream, 'certificate'>> {
  const server = createServer(handler);
  const port = await listening(t, server);
  return { host, port, server, url: `http://${host}:${port}` };
}

/** An egress for which the hosts lie on 127.0.0.1 and are allowed there, at their ports. */
export function egressTo(
  t: Teardown,
  targets: readonly { host: string; port: number; certificate?: string }[],
  parts: Partial<EgressParts> = {},
): Egress {
  const allow = targets.map(({ host, port }) => `${host}:${port}=127.0.0.0/8`).join(',');
  const ca = targets.flatMap(({ certificate }) => certificate ?? []).join('');
  const egress = new Egress({
    allow: allow === '' ? [] : parseAllowRules(allow),
    own: () => [],
    ...(ca === '' ? {} : { ca }),
    resolve: async (name) => (targets.some(({ host }) => host === name) ? ['127.0.0.1'] : []),
    ...parts,
  });
  t.teardown(() => egress.close());
  return egress;
}

/** Hosts whose own port lies at another one here: nobody needs to be root. */
export class MovedEgress extends Egress {
  readonly #to: Readonly<Record<string, number>>;
  constructor(parts: EgressParts, to: Readonly<Record<string, number>>) {
    super(parts);
    this.#to = to;
  }
  override dispatcher(
    origin: Parameters<Egress['dispatcher']>[0],
    team: string,
  ): ReturnType<Egress['dispatcher']> {
    return super.dispatcher({ ...origin, port: this.#to[origin.host] ?? origin.port }, team);
  }
}
