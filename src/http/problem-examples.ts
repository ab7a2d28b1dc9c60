// One refusal of each code, as an operation could answer it: what the document shows. The texts are
// those that stand where each is thrown; a test looks for them there.
import { AppError, type ErrorCode, type AppErrorExtras } from '../shared/errors.ts';

const said: Readonly<
  Record<ErrorCode, string | readonly [message: string, extras: AppErrorExtras]>
> = {
  invalidRequest: [
    'The request breaks a rule.',
    { errors: [{ pointer: '/fields/apiKey', rule: 'mask' }] },
  ],
  invalidUrl: 'The URL is malformed.',
  malformedHttp: 'The body is not as long as it says.',
  malformedJson: [
    'The body names a member of an object twice.',
    { errors: [{ pointer: '/fields/apiKey', rule: 'duplicateMember' }] },
  ],
  invalidCursor: 'The cursor does not belong to this list.',
  subjectTokenInvalid: [
    'The subject token belongs to somebody else.',
    { errors: [{ pointer: '/subjectToken', rule: 'subject' }] },
  ],
  oauthStateInvalid: 'This state is not yours, or it has expired: begin again.',
  unauthenticated: 'Send a valid token in the Authorization header.',
  ticketInvalid: 'Send a valid ticket as the API key.',
  forbidden: 'Your role does not allow this.',
  brokerRefused: [
    'The credential does not allow this call.',
    { errors: [{ pointer: '', rule: 'pathNotAllowed' }] },
  ],
  notFound: 'Not found, or you do not have access.',
  methodNotAllowed: 'This path takes other methods: those in Allow.',
  misdirected: 'This is none of the hosts of the broker.',
  requestTimeout: 'The request took too long to arrive.',
  nameTaken: 'A credential of the team has this name.',
  slugTaken: 'A team has this slug; slugs are never given again.',
  subjectTaken: 'The subject is an engine already.',
  engineNameTaken: 'An engine has this name.',
  engineKeyTaken: 'The engine has this key already.',
  lastAdmin: 'A team keeps at least one admin.',
  issuerTeams: [
    'The issuer of this subject is kept to other teams.',
    { errors: [{ pointer: '/admins/0', rule: 'issuerTeams' }] },
  ],
  notAnEngine: 'The role engine is given only to the subject of an enabled engine.',
  isAnEngine: 'An engine holds no other role, anywhere.',
  holdsARole: 'The subject holds a role in a team; an engine holds none but its own.',
  teamNotEmpty: 'Delete or move the credentials of the team first.',
  undecryptable: 'The stored value does not open: send all secret fields to repair it.',
  stateConflict: 'What was asked for keeps changing; try again.',
  limitReached: [
    'A team has at most this many members.',
    { details: { limit: 'members', max: 10_000 } },
  ],
  brokerOff: 'The broker is not turned on here.',
  rotationRunning: [
    'A rotation of this team is running; follow or cancel it.',
    { details: { rotationId: '019aa7c2-5b1e-7c3a-9d52-0a4f6e1b2c3d' } },
  ],
  rotationNotRunning: 'The rotation has ended.',
  keyInUse: [
    'Tokens are still under this key: rotate, or remove what does not open.',
    { details: { rows: { credential_version: 41 } } },
  ],
  keyBusy: 'The key of the team keeps changing; try again.',
  keyStateConflict: 'The key is destroyed, or marked already.',
  oauthNotConfigured:
    'The vault does not know the page to which providers send people back: ' +
    'CREDVAULT_OAUTH_REDIRECT_URI is not set.',
  preconditionFailed: 'It has changed since you read it.',
  payloadTooLarge: 'The body is too large.',
  unsupportedMediaType: 'The body must be application/json.',
  rangeRefused: [
    'Ask for a part of at least 4096 bytes, or for all.',
    { errors: [{ pointer: '', rule: 'minBytes', min: 4096 }] },
  ],
  expectationFailed: [
    'The only expectation is 100-continue.',
    { errors: [{ pointer: '/headers/Expect', rule: 'enum', allowed: ['100-continue'] }] },
  ],
  secretRequired: [
    'A new destination or a wider policy needs new values for all secret fields in the same ' +
      'request.',
    { errors: [{ pointer: '/fields/apiKey', rule: 'secretRequired' }] },
  ],
  notTestable: 'Credentials of this type have no test.',
  leaseRefused: [
    'Not all of this can be leased, so nothing is.',
    { errors: [{ pointer: '/credentials/0', rule: 'expired' }] },
  ],
  ticketRefused: [
    'The credential cannot be used through the broker like this.',
    { errors: [{ pointer: '/host', rule: 'hostNotAllowed' }] },
  ],
  oauthRefused: ['The provider refused.', { details: { reason: 'access_denied' } }],
  idempotencyKeyReused: 'This idempotency key came with another request.',
  preconditionRequired: 'Send If-Match with the ETag that you read, or * for whatever it is.',
  rateLimited: 'Too many requests; wait as Retry-After says.',
  headersTooLarge: 'The header fields are too large.',
  internal: 'Something went wrong: the log has more under this request id.',
  unsupportedCall:
    'The broker carries requests and answers, and WebSockets where the policy says ' +
    '`webSockets: true`: no CONNECT, no TRACE, no other change of protocol.',
  upstreamUnreachable: [
    'The upstream cannot be reached.',
    { errors: [{ pointer: '', rule: 'connect' }] },
  ],
  upstreamUnusable: [
    'The requested part contains part of a secret: request the whole answer.',
    { errors: [{ pointer: '', rule: 'secretInPart' }] },
  ],
  notReady: 'The vault is stopping.',
  keyUnavailable: 'A root key that is needed is not configured.',
  databaseUnavailable: 'The database does not answer.',
  commitUnknown:
    'The database did not confirm that the change is kept: repeat the request to find out.',
  upstreamTimeout: ['The upstream took too long.', { errors: [{ pointer: '', rule: 'timeout' }] }],
  oauthUnavailable: 'The provider gives no usable answer: begin again later.',
  identityProviderUnavailable: 'The keys that verify tokens cannot be fetched.',
};

/** An error of the code, with a text and details that it can have. */
export function problemExample(code: ErrorCode): AppError {
  const each = said[code];
  const [message, extras] = typeof each === 'string' ? [each, {}] : each;
  return new AppError(code, message, extras);
}
