// A hop between the vault and PostgreSQL, on real sockets: it can watch, end TLS, and cut the line
// at a chosen word.
import { createConnection, createServer, type Socket } from 'node:net';
import { TLSSocket } from 'node:tls';
import { parseDatabaseUrl } from '../../src/db/url.ts';
import type { TestCertificate } from './certificate.ts';

export interface DatabaseProxy {
  readonly port: number;
  /** What the clients sent, startup packets included. */
  sent(): string;
  /** The texts of the statements among it, but of those that were prepared before. */
  statements(): readonly string[];
  /**
   * The next statement that holds the word reaches the server; its answer is dropped and the line
   * cut, after the last words if there are any.
   */
  cutAnswerTo(word: string, lastWords?: Buffer): void;
  /**
   * The nth statement from now on, on whichever line, reaches the server; its answer is dropped and
   * the line cut. Whether that has happened is what it returns; asked, it is given up.
   */
  cutNthAnswer(nth: number): () => boolean;
  /** The answer to the next statement that holds the word waits for the call of what is returned. */
  holdAnswerTo(word: string): () => void;
  /** The word's statement reaches nobody, and nothing more is answered on that line. */
  swallow(word: string): void;
}

interface ProxyOptions {
  readonly tls?: TestCertificate;
  readonly isTlsRefused?: boolean;
}

/** A simple query, or the beginning of an extended one, which pg sends whole. */
const isStatement = (chunk: Buffer): boolean => 'QPB'.includes(String.fromCharCode(chunk[0] ?? 0));
const sslRequest = Buffer.from([0, 0, 0, 8, 4, 210, 22, 47]);

/** Listens on 127.0.0.1 and forwards to the unix socket of the URL. Closed at teardown. */
export async function databaseProxy(
  t: { teardown(action: () => unknown): unknown },
  url: string,
  options: ProxyOptions = {},
): Promise<DatabaseProxy> {
  const { host, port } = parseDatabaseUrl(url).hosts[0]!;
  const sockets = new Set<Socket>();
  let sent = '';
  const statements: string[] = [];
  let cutAt: string | undefined;
  let lastWords: Buffer | undefined;
  let swallowAt: string | undefined;
  let holdAt: string | undefined;
  let letGo: () => void = () => undefined;
  /** How many statements are still let through before one loses its answer. */
  let statementsLeft: number | undefined;

  const relay = (near: Socket, first?: Buffer): void => {
    const far = createConnection(`${host}/.s.PGSQL.${port}`);
    let isCut = false;
    let isSwallowed = false;
    let held: Buffer[] | undefined;
    const forward = (chunk: Buffer): void => {
      const text = chunk.toString('latin1');
      sent += text;
      const statement = /^(?:Q[\s\S]{4}|P[\s\S]{4}[^\0]*\0)([^\0]+)\0/.exec(text)?.[1];
      if (statement !== undefined) statements.push(statement);
      if (swallowAt !== undefined && text.includes(swallowAt)) {
        isSwallowed = true;
        swallowAt = undefined;
      }
      if (holdAt !== undefined && text.includes(holdAt)) {
        held = [];
        holdAt = undefined;
        letGo = () => {
          for (const chunk of held ?? []) near.write(chunk);
          held = undefined;
        };
      }
      if (cutAt !== undefined && text.includes(cutAt)) {
        isCut = true;
        cutAt = undefined;
      }
      if (statementsLeft !== undefined && isStatement(chunk)) {
        statementsLeft -= 1;
        if (statementsLeft === 0) {
          isCut = true;
          statementsLeft = undefined;
        }
      }
      if (!isSwallowed) far.write(chunk);
    };
    near.on('data', forward);
    far.on('data', (chunk: Buffer) => {
      if (isCut) {
        if (lastWords === undefined) near.destroy();
        else near.end(lastWords);
        lastWords = undefined;
        far.end();
      } else if (held !== undefined) held.push(chunk);
      else near.write(chunk);
    });
    for (const [socket, other] of [
      [near, far],
      [far, near],
    ] as const) {
      sockets.add(socket);
      socket.on('error', () => other.destroy());
      socket.on('close', () => {
        sockets.delete(socket);
        other.destroy();
      });
    }
    if (first !== undefined) forward(first);
  };

  const server = createServer((raw) => {
    raw.on('error', () => raw.destroy());
    raw.once('data', (first: Buffer) => {
      if (!first.subarray(0, 8).equals(sslRequest)) return relay(raw, first);
      if (options.tls === undefined || options.isTlsRefused === true) return void raw.end('N');
      raw.write('S');
      relay(
        new TLSSocket(raw, { isServer: true, cert: options.tls.certificate, key: options.tls.key }),
      );
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.teardown(() => {
    for (const socket of sockets) socket.destroy();
    return new Promise((resolve) => server.close(resolve));
  });
  return {
    port: (server.address() as { port: number }).port,
    sent: () => sent,
    statements: () => statements,
    cutAnswerTo: (word, words) => {
      cutAt = word;
      lastWords = words;
    },
    cutNthAnswer: (nth) => {
      statementsLeft = nth;
      return () => {
        const isCut = statementsLeft === undefined;
        statementsLeft = undefined;
        return isCut;
      };
    },
    holdAnswerTo: (word) => {
      holdAt = word;
      return () => letGo();
    },
    swallow: (word) => {
      swallowAt = word;
    },
  };
}
