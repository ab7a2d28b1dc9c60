// A connection to addresses that were checked, to them and no others; TLS by the name.
import { connect as connectTcp, isIP, type LookupFunction, type Socket } from 'node:net';
import {
  checkServerIdentity,
  connect as connectTls,
  createSecureContext,
  getCACertificates,
  type SecureContext,
} from 'node:tls';
import { type EgressStep, EgressFailed } from './failure.ts';

export interface Dial {
  readonly host: string;
  readonly port: number;
  readonly addresses: readonly string[];
  /** What is trusted; undefined for a plain connection. */
  readonly trust: SecureContext | undefined;
  readonly protocols: readonly string[];
  readonly timeoutMs: number;
  /** Ends what is not connected yet. */
  readonly closed: AbortSignal;
}

/**
 * What certificates are checked against: the authorities that Node trusts, and those that the
 * operator adds.
 */
export function trustedAuthorities(ca: string | undefined): SecureContext {
  return createSecureContext({
    minVersion: 'TLSv1.2',
    ...(ca === undefined ? {} : { ca: [...getCACertificates('default'), ca] }),
  });
}

/**
 * Turns a plain connection to TLS, by the name that was dialled. Throws EgressFailed; the socket is
 * closed then.
 */
export function secure(
  socket: Socket,
  {
    host,
    trust,
    timeoutMs,
    closed,
  }: Pick<Dial, 'host' | 'timeoutMs' | 'closed'> & {
    trust: SecureContext;
  },
): Promise<Socket> {
  // SECURITY: said outright, because an environment variable turns the default off.
  return settled(
    connectTls({ socket, servername: host, secureContext: trust, rejectUnauthorized: true }),
    { ready: 'secureConnect', from: 'tls', timeoutMs, closed },
  );
}

/**
 * Connects, in the order in which the addresses stand, with a head start for each. Throws
 * EgressFailed; no socket stays open then.
 */
export function dial({
  host,
  port,
  addresses,
  trust,
  protocols,
  timeoutMs,
  closed,
}: Dial): Promise<Socket> {
  // SECURITY: the answer of the check stands in for the resolver, so that a second answer of the
  // name server is never asked for.
  const lookup: LookupFunction = (_name, { all }, done) => {
    const found = addresses.map((address) => ({ address, family: address.includes(':') ? 6 : 4 }));
    if (all === true) done(null, found);
    else done(null, found[0]!.address, found[0]!.family);
  };
  const common = { host, port, lookup, autoSelectFamily: true, noDelay: true, keepAlive: true };
  const socket =
    trust === undefined
      ? connectTcp(common)
      : connectTls({
          // SECURITY: the same as above.
          ...common,
          // An address is no name to ask for; it is what the certificate has to be for all the
          // same.
          servername: isIP(host) === 0 ? host : '',
          checkServerIdentity: (_name, certificate) => checkServerIdentity(host, certificate),
          secureContext: trust,
          rejectUnauthorized: true,
          ALPNProtocols: [...protocols],
        });
  return settled(socket, {
    ready: trust === undefined ? 'connect' : 'secureConnect',
    from: 'connect',
    timeoutMs,
    closed,
  });
}

/** The socket when it is ready; else it is destroyed. */
function settled(
  socket: Socket,
  {
    ready,
    from,
    timeoutMs,
    closed,
  }: Pick<Dial, 'timeoutMs' | 'closed'> & {
    ready: 'connect' | 'secureConnect';
    from: 'connect' | 'tls';
  },
): Promise<Socket> {
  // SECURITY: also between the moment when it is ready and the one when its user listens, and after
  // a failure: an error that nobody takes ends the process.
  socket.on('error', () => undefined);
  return new Promise((resolve, reject) => {
    let step: Exclude<EgressStep, 'timeout'> = from;
    const release = (): void => {
      clearTimeout(timer);
      closed.removeEventListener('abort', onClose);
      socket.off('error', onError).off('close', onClose);
    };
    const fail = (failure: EgressStep, cause?: unknown): void => {
      release();
      socket.destroy();
      reject(new EgressFailed(failure, { cause, during: step }));
    };
    const timer = setTimeout(() => {
      fail('timeout');
    }, timeoutMs);
    const onError = (error: Error): void => {
      fail(step, error);
    };
    const onClose = (): void => {
      fail(step);
    };
    socket.once('error', onError).once('close', onClose);
    closed.addEventListener('abort', onClose, { once: true });
    socket.once('connect', () => {
      step = 'tls';
    });
    socket.once(ready, () => {
      release();
      resolve(socket);
    });
  });
}
