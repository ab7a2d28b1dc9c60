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
/** What undici says of how it was asked, and not of the other side. */
const misuse: ReadonlySet<string> = new Set([
  'UND_ERR_INVALID_ARG',
  'UND_ERR_INVALID_RETURN_VALUE',
  'UND_ERR_NOT_SUPPORTED',
  'UND_ERR_REQ_CONTENT_LENGTH_MISMATCH',
]);

/**
 * What a dispatcher of the egress threw, as the failure of the other side that it is; anything
 * else, a fault of ours among it, as it was thrown.
 */
export function egressFailure(error: unknown): unknown {
  if (error instanceof EgressFailed) return error;
  const { code, name, syscall } = (error ?? {}) as {
    code?: unknown;
    name?: unknown;
    syscall?: unknown;
  };
  const said = typeof code === 'string' ? code : '';
  if (timeouts.has(said) || name === 'TimeoutError')
    return new EgressFailed('timeout', { cause: error });
  const isOfTheOtherSide =
    (said.startsWith('UND_ERR_') && !misuse.has(said)) ||
    name === 'HTTPParserError' ||
    name === 'AbortError' ||
    typeof syscall === 'string' ||
    /^ERR_(?:SSL|TLS)_/.test(said) ||
    /^E[A-Z]+$/.test(said); // of a socket
  return isOfTheOtherSide ? new EgressFailed('response', { cause: error }) : error;
}
