// What the document says beside its operations: tags, parameters and headers that many have in
// common, and the broker.
import { problemsOfBroker } from './operation.ts';
import { problems } from './problem.ts';

export const tags = {
  service: 'Probes of the service itself.',
  account: 'Who you are to the vault.',
  teams: 'Teams own credentials and keys.',
  members: 'Who may do what in a team.',
  'credential types': 'What kinds of credentials there are.',
  credentials: 'Third-party credentials: metadata out, secrets only in.',
  sharing: 'Credentials that a team lets others read or use, or gives away.',
  engines: 'Workflow engines and their public keys.',
  oauth:
    'Accounts at providers, connected by their owners; tokens come in and are refreshed, none ' +
    'comes out.',
  leases: 'Delivery of secrets to an engine, sealed to its key.',
  broker:
    'Use of a credential without holding it: the vault makes the call and puts the secret in.',
  keys: "A team's encryption keys and their rotation.",
  'root keys': "The keys outside the database that wrap all others; the operator's.",
  webhooks: "Notifications, signed and sent to receivers of the team's.",
  notifications:
    'What a receiver gets: messages that the vault sends at least once, to the URL of a ' +
    'credential of type `webhook`, signed with its secret. ' +
    '`timestamp` is when it happened or was noticed. `webhook-id` is the same at every ' +
    'attempt, `webhook-timestamp` is of the attempt, in seconds since 1970; ' +
    '`webhook-signature` is one or two of `v1,` and the base64 of HMAC-SHA256 over ' +
    '`{webhook-id}.{webhook-timestamp}.{body}`, separated by a space. ' +
    'After 410 nothing more is sent until somebody puts the webhook again; after anything but ' +
    '2xx the message is tried again later, as `Retry-After` says or by itself.',
  audit: 'What was done and refused.',
};

const ifMatch = {
  name: 'If-Match',
  in: 'header',
  required: true,
  description: 'The ETag that you read, or `*` for whatever it is.',
  schema: { type: 'string', maxLength: 14, pattern: '^(\\*|"[1-9][0-9]{0,9}")$' },
  example: '"7"',
};
const idempotencyKey = {
  name: 'Idempotency-Key',
  in: 'header',
  required: false,
  description:
    'Your own unique text: a repetition within 24 hours answers with what the first request ' +
    'made, as it is now.',
  schema: { type: 'string', minLength: 1, maxLength: 128, pattern: '^[\\x21-\\x7e]{1,128}$' },
  example: 'b3f1c2de-5a7f-4c0e-9d41-0e2f6a7b8c9d',
};
export const parameters = {
  IdempotencyKey: idempotencyKey,
  IfMatch: ifMatch,
  IfMatchExisting: {
    ...ifMatch,
    required: false,
    description: `${ifMatch.description} Needed when it is there already.`,
  },
};
/**
 * Of every message that is sent; said with each, because generators lose a webhook whose parameters
 * are references.
 */
export const webhookParameters = [
  {
    name: 'webhook-id',
    in: 'header',
    required: true,
    schema: { type: 'string', format: 'uuid', maxLength: 36 },
  },
  {
    name: 'webhook-timestamp',
    in: 'header',
    required: true,
    schema: { type: 'string', maxLength: 12, pattern: '^[0-9]{1,12}$' },
  },
  {
    name: 'webhook-signature',
    in: 'header',
    required: true,
    schema: {
      type: 'string',
      maxLength: 100,
      pattern: '^v1,[A-Za-z0-9+/]{43}=( v1,[A-Za-z0-9+/]{43}=)?$',
    },
  },
];
export const headers = {
  Allow: {
    description: 'The methods that the path takes.',
    schema: { type: 'string', maxLength: 100, pattern: '^[A-Z]+(, [A-Z]+)*$' },
    example: 'GET, PATCH',
  },
  ETag: {
    description: 'The quoted revision.',
    schema: { type: 'string', maxLength: 14, pattern: '^"[1-9][0-9]{0,9}"$' },
    example: '"7"',
  },
  Location: {
    description: 'Where to read it; only for those who may.',
    schema: { type: 'string', format: 'uri-reference', maxLength: 500 },
    example: '/v1/teams/payments',
  },
  RequestId: {
    description: 'Names this request in the log and the audit.',
    schema: { type: 'string', format: 'uuid', maxLength: 36 },
    example: '019aa7c2-5b1e-7c3a-9d52-0a4f6e1b2c3d',
  },
  RetryAfter: {
    description: 'Seconds to wait.',
    schema: { type: 'integer', format: 'int32', minimum: 1, maximum: 86_400 },
    example: 7,
  },
  WwwAuthenticate: {
    description: 'How to authenticate.',
    schema: { type: 'string', enum: ['Bearer'] },
    example: 'Bearer',
  },
};

/** The listener that no path here is about: what goes through it is the upstream's. */
export const broker = {
  description:
    'The broker listens on an origin of its own, and only where the configuration turns it on. ' +
    'It answers nothing but `{baseUrl}{path}` with the `baseUrl` of a ticket, which is the ' +
    'address of the credential: ' +
    '`/{team}/{name}`, or `/-/{id}`, or `{id}` as a host where the configuration has a suffix ' +
    'for these. The address has to be that of the credential that the ticket is for; any other ' +
    'one is `ticketInvalid`. A call goes ' +
    "to the credential's own destination, or to the host that the ticket names; the secret is " +
    'put in as the type says; what the upstream answers comes back as it is, status and body, ' +
    'but for the secret, in whatever form it is recognised, and for headers that belong to a ' +
    "connection or to a browser's origin. Ticket, engine, roles, person, credential, and the " +
    'policy ' +
    'of the current version are asked at every call, and the call is in the audit log before ' +
    'it goes out.\n\n' +
    'No operation above takes a ticket, and the broker takes no other token. An answer of its ' +
    'own carries `vault-error: true` and is a problem document; an answer without that header ' +
    "is the upstream's.",
  path: '/{team}/{name}/{path}',
  methods: ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'],
  ticketIn: [
    'Authorization (alone, behind a word, as a half of Basic, as the key in a signature of AWS)',
    'x-api-key',
    'x-goog-api-key',
    'api-key',
    'the header that the type injects',
  ],
  problems: Object.fromEntries(
    [...problemsOfBroker]
      .sort((a, b) => problems[a].status - problems[b].status || (a < b ? -1 : 1))
      .map((code) => [code, problems[code].status]),
  ),
  rules: {
    brokerRefused: [
      'notFound',
      'deleted',
      'disabled',
      'expired',
      'exposed',
      'undecryptable',
      'deliveryNotAllowed',
      'onBehalfOfRequired',
      'onBehalfOfRefused',
      'notBrokerable',
      'hostNotAllowed',
      'methodNotAllowed',
      'pathNotAllowed',
      'ticketPlace',
      'notConnected',
      'refreshFailed',
      'refreshUnavailable',
      'rejectedByUpstream',
    ],
    upstreamUnreachable: ['name', 'connect', 'tls'],
    upstreamTimeout: ['timeout'],
    rangeRefused: ['minBytes'],
    upstreamUnusable: ['response', 'size', 'secretInPart'],
  },
};
