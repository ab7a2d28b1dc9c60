// What the broker's parts refuse, as errors of the vault. Messages are fixed text; what is wrong is
// said by a rule.
import { failureOfKeys } from '../crypto/index.ts';
import { failureOfDatabase } from '../db/failures.ts';
import { EgressFailed } from '../egress/index.ts';
import { AppError, internal } from '../shared/errors.ts';
import { rangeBytesMin } from './ranges.ts';
import { BrokerRefusal, type RefusalReason } from './refusal.ts';
import type { Rule } from '../leases/index.ts';
import { NoAccessToken } from '../oauth/index.ts';

type CallRule =
  | Rule
  | 'notBrokerable'
  | 'hostNotAllowed'
  | 'methodNotAllowed'
  | 'pathNotAllowed'
  | 'ticketPlace';

const refused = (rule: CallRule): AppError =>
  new AppError('brokerRefused', 'The credential does not allow this call.', {
    errors: [{ pointer: '', rule }],
  });
const ofReason: Readonly<Record<RefusalReason, () => AppError>> = {
  method: () => refused('methodNotAllowed'),
  pathPrefix: () => refused('pathNotAllowed'),
  ticket: () => refused('ticketPlace'),
  host: () => refused('hostNotAllowed'),
  secretUnusable: () => refused('notBrokerable'),
  path: () => new AppError('invalidUrl', 'The path could be read in more than one way.'),
  unsupported: () =>
    new AppError(
      'unsupportedCall',
      'The broker carries requests and answers, and WebSockets where the policy says ' +
        '`webSockets: true`: no CONNECT, no TRACE, no other change of protocol.',
    ),
  handshake: () =>
    new AppError('malformedHttp', 'The handshake is not that of WebSockets in version 13.', {
      errors: [{ pointer: '/headers/Upgrade', rule: 'format' }],
    }),
  upstreamHandshake: () =>
    new AppError(
      'upstreamUnusable',
      "The upstream's handshake is not the answer to the one that was sent.",
      { errors: [{ pointer: '', rule: 'response' }] },
    ),
  bodyTooLarge: () =>
    new AppError('payloadTooLarge', "The body is larger than the credential's limit."),
  unscannable: () =>
    new AppError(
      'upstreamUnusable',
      'The answer came in an encoding in which no secret could be looked for.',
    ),
  range: () =>
    new AppError('rangeRefused', `Ask for a part of at least ${rangeBytesMin} bytes, or for all.`, {
      errors: [{ pointer: '', rule: 'minBytes', min: rangeBytesMin }],
    }),
  piece: () =>
    new AppError(
      'upstreamUnusable',
      'The requested part contains part of a secret: request the whole answer.',
      { errors: [{ pointer: '', rule: 'secretInPart' }] },
    ),
};

/**
 * The error behind a rule, or behind what was thrown. What is neither a refusal of one of the parts
 * nor a failure of the way out is the vault's own: `databaseUnavailable`, `keyUnavailable` and
 * their like, and `internal` for everything unknown.
 */
export function refusalOf(thrown: unknown): AppError {
  if (typeof thrown === 'string') return refused(thrown as CallRule);
  if (thrown instanceof BrokerRefusal) return ofReason[thrown.reason]();
  if (thrown instanceof NoAccessToken) return refused(thrown.rule);
  if (thrown instanceof EgressFailed) return ofEgress(thrown);
  if (thrown instanceof AppError) return thrown;
  return failureOfKeys(thrown) ?? failureOfDatabase(thrown) ?? internal(thrown);
}

function ofEgress(failed: EgressFailed): AppError {
  const extras = { cause: failed, errors: [{ pointer: '', rule: failed.step }] };
  if (failed.step === 'timeout')
    return new AppError('upstreamTimeout', 'The upstream took too long.', extras);
  if (failed.step === 'response')
    return new AppError(
      'upstreamUnusable',
      "The upstream's answer broke off or was not well-formed.",
      extras,
    );
  return new AppError('upstreamUnreachable', 'The upstream cannot be reached.', extras);
}
