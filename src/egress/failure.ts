// The one failure of dialling out. It says at which step, and nothing that the other side sent.

/**
 * `name` is one answer for a name that does not resolve and for a target that may not be dialled.
 */
export type EgressStep = 'name' | 'connect' | 'tls' | 'timeout' | 'response';

const messages: Readonly<Record<EgressStep, string>> = {
  name: 'the host cannot be reached',
  connect: 'the connection was not made',
  tls: 'the certificate or the TLS of the other side was not accepted',
  timeout: 'the other side took too long',
  response: 'the answer broke off, was not well-formed or was too large',
};

/** Nothing came back, or nothing that may be used. The message is fixed text. */
export class EgressFailed extends Error {
  readonly step: EgressStep;
  /** For `timeout`: what was being waited for. */
  readonly during: Exclude<EgressStep, 'timeout'>;
  constructor(
    step: EgressStep,
    options: { cause?: unknown; during?: Exclude<EgressStep, 'timeout'> } = {},
  ) {
    super(messages[step], options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'EgressFailed';
    this.step = step;
    this.during = options.during ?? (step === 'timeout' ? 'response' : step);
  }
}

const timeouts: ReadonlySet<string> = new Set([
  'UND_ERR_HEADERS_TIMEOUT',
  'UND_ERR_BODY_TIMEOUT',
  'UND_ERR_CONNECT_TIMEOUT',
]);

/** What a dispatcher of the egress threw, as the failure that it is. */
export function egressFailure(error: unknown): EgressFailed {
  if (error instanceof EgressFailed) return error;
  const { code, name } = (error ?? {}) as { code?: unknown; name?: unknown };
  const isTimeout = timeouts.has(String(code)) || name === 'TimeoutError';
  return new EgressFailed(isTimeout ? 'timeout' : 'response', { cause: error });
}
