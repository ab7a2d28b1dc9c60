// A service of somebody else's, played on loopback for the demo: it tells what it was sent, as a
// real one never should.
import { createServer } from 'node:http';

export interface DemoUpstream {
  /** As a credential names it. */
  readonly url: string;
  /** What lets the vault dial it. */
  readonly allow: string;
  /** The Authorization header of the last request. */
  lastAuthorization(): string | undefined;
  stop(): Promise<void>;
}

/** Listens on a free port of loopback. */
export async function startDemoUpstream(): Promise<DemoUpstream> {
  let last: string | undefined;
  const server = createServer((request, response) => {
    last = request.headers.authorization;
    request.resume().on('end', () => {
      response
        .setHeader('content-type', 'application/json')
        .end(JSON.stringify({ answer: 42, youSent: last }));
    });
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject).listen(0, '127.0.0.1', resolve);
  });
  const { port } = server.address() as { port: number };
  return {
    url: `http://localhost:${port}`,
    allow: `localhost:${port}=127.0.0.1/32,localhost:${port}=::1/128`,
    lastAuthorization: () => last,
    stop: () =>
      new Promise((resolve) => {
        server.close(() => {
          resolve();
        });
        server.closeAllConnections();
      }),
  };
}
