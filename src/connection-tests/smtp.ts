// Logs in to a mail server, and sends nothing. The conversation is nodemailer's, the socket is the
// egress's.
import SMTPConnection from 'nodemailer/lib/smtp-connection';
import { TestFailed } from './report.ts';
import { type ConnectionTarget, connectTo, reach } from './target.ts';

/** The port on which TLS comes before everything else; on others it is asked for (STARTTLS). */
const tlsPort = 465;
const responseBytesMax = 64 * 1024;

/** Throws TestFailed, EgressFailed. */
export async function testSmtp(target: ConnectionTarget): Promise<void> {
  const { egress, fields, wire, timeoutMs } = target;
  const reached = await reach(target);
  const { host, port } = reached;
  const says = fields['tls'];
  const isSecure = says === undefined ? port === tlsPort : says === 'implicit';
  const isPlain = says === 'none';
  const socket = await connectTo(target, reached, { isTls: isSecure });
  const connection = new SMTPConnection({
    host,
    port,
    connection: socket,
    secure: isSecure,
    secured: isSecure,
    name: '[127.0.0.1]',
    logger: false,
    maxResponseSize: responseBytesMax,
    greetingTimeout: timeoutMs,
    socketTimeout: timeoutMs,
    connectionTimeout: timeoutMs,
    socketCloseTimeout: 0,
    // SECURITY: the password waits for TLS, except where the operator has named the target; the
    // certificate is checked, whatever the environment says.
    requireTLS: !isPlain && (says === 'startTls' || !reached.isAllowedPlain),
    ignoreTLS: isPlain,
    tls: { servername: host, secureContext: egress.trust, rejectUnauthorized: true },
  });
  const { promise: late, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => {
    reject(new TestFailed('login', 'timeout'));
  }, timeoutMs);
  connection.on('error', (error: unknown) => {
    reject(error as Error);
  });
  try {
    await Promise.race([
      late,
      done((callback) => {
        connection.connect(callback);
      }),
    ]);
    wire.isTls = connection.secure;
    if (!connection.secure && !reached.isAllowedPlain) throw new TestFailed('tls', 'failed');
    await Promise.race([
      late,
      done((callback) => {
        connection.login(
          { user: String(fields['username'] ?? ''), pass: String(fields['password'] ?? '') },
          callback,
        );
      }),
    ]);
    connection.quit();
  } catch (error) {
    wire.isTls ||= connection.secure;
    throw failureOf(error);
  } finally {
    clearTimeout(timer);
    connection.close();
    socket.destroy();
  }
}

function done(start: (callback: (error?: Error | null) => void) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    start((error) => {
      if (error === undefined || error === null) resolve();
      else reject(error);
    });
  });
}

/** By nodemailer's codes; what the server said is in the error too, and goes no further. */
function failureOf(error: unknown): TestFailed {
  if (error instanceof TestFailed) return error;
  const { code, syscall } = error as { code?: unknown; syscall?: unknown };
  // An error of the socket that is none of the system's is one of TLS.
  if (code === 'ETLS' || (code === 'ESOCKET' && syscall === undefined))
    return new TestFailed('tls', 'failed');
  if (code === 'EAUTH') return new TestFailed('login', 'refused');
  if (code === 'ETIMEDOUT') return new TestFailed('login', 'timeout');
  return new TestFailed('login', 'unexpected');
}
