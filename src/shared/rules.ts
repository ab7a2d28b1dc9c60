// Every rule that a refusal can name, each with a sentence: the document prints them, and a rule
// without a sentence does not compile.

/** What input can break. Beside `rule` a fault may say `allowed`, `pattern`, `min` and `max`. */
export const inputRules = {
  required: 'It has to be there.',
  requiredAnyOf: 'One of the fields in `allowed` has to be there.',
  type: 'It is of another type than those in `allowed`.',
  oneOf: 'It fits none of the shapes that are possible.',
  enum: 'It is none of the words in `allowed`.',
  format: 'It is not written in the form that `pattern` says.',
  pattern: 'It does not match `pattern`.',
  min: 'It is less, shorter or fewer than `min`.',
  max: 'It is more, longer or more of them than `max`.',
  minBytes: 'It is shorter than `min` bytes in UTF-8.',
  maxBytes: 'It is longer than `max` bytes in UTF-8.',
  size: 'All of it together is too large.',
  unique: 'An item comes twice.',
  once: 'What may come once came twice.',
  unknownField: 'There is no such member; `allowed` lists those that there are.',
  name:
    'The name of a member does not read as `pattern` says; of an upstream: there is none of this ' +
    'name, or it may not be reached.',
  memberName: 'A name of a member cannot be kept.',
  'name.normalized': 'The name is not in the form NFC.',
  'name.invisible': 'The name has characters that cannot be seen.',
  'name.blanks': 'The name has blanks other than single spaces inside.',
  'name.combining': 'The name has a combining mark without a letter before it.',
  'name.dots': 'The name is `.` or `..`.',
  utf8: 'The body is not UTF-8.',
  json: 'The body is not JSON.',
  depth: 'The body is nested deeper than `max`.',
  duplicateMember: 'An object names a member twice.',
  loneSurrogate: 'A text has half of a character.',
  inexactNumber: 'A number has more digits than would be kept.',
  range: 'The year is not from 1970 to 9999.',
  time: 'There is no such time.',
  nul: 'It has a NUL character.',
  invisible: 'It has characters that cannot be seen.',
  blank: 'Nothing in it can be seen: it is no secret.',
  mask: 'It is a mask in place of a value: leave the field out to keep what is stored.',
  placeholder: 'It is a placeholder in place of a secret.',
  reference: 'It is a reference to another store, and not the secret.',
  encrypted: 'It is a ciphertext of another store, and not the secret.',
  url: 'It is not an http(s) URL without user, query and fragment.',
  plainHttpsUrl: 'It is not an https URL without user and fragment, with the default port.',
  query: 'The query is not well-formed.',
  reserved: 'A name in it is set by the vault.',
  dotSegment: 'A segment of the path is `.` or `..`.',
  signingSecret: 'It is not `whsec_` and 24 to 64 bytes in canonical base64.',
  credentialOrCredentials:
    'Either `credential`, perhaps with `host`, or `credentials` has to be there, and not both.',
  codeOrError: 'Send either `code` or `error`, not both.',
  privateKey: 'It is a private member of a key: discard the key.',
  curve: '`kty`, `crv`, `x` and `y` do not go together.',
  point: 'The point is not on the curve.',
  weakKey: 'No secret can be agreed with this key.',
  thumbprint: '`kid` is not the RFC 7638 thumbprint of the key.',
  etag: 'It is not one strong entity tag, nor `*`.',
  token: 'It is not a valid token of this vault.',
  subject: 'It speaks of another subject than the request does.',
  issuer: 'It is a subject of none of the issuers that are configured.',
  immutable: 'It cannot be changed.',
  unknownType: 'There is no type of this name.',
  customOnly: 'Only credentials of an open type take it.',
  notInFields: 'It names a field that is not in `fields`.',
  notWith: 'It does not go with the field in `allowed`.',
  publicOnly: 'Only a public field takes it.',
  choiceOnly: 'Only a field of the form `choice` takes it.',
  fieldUnfit: 'What it names or asks for does not fit its place.',
  needsInjection: 'It goes only with an injection.',
  notForType: 'The type of the credential has no use for it.',
  secretRequired: 'It needs a new value in the same request.',
  engineOnly: 'Only the role `engine` takes it.',
  notWithView: 'It does not go with `view=names`.',
  notWithDeleted: 'It does not go with `deleted=true`.',
  notAWebhook: 'The credential is not of the type `webhook`.',
  ownTeam: 'The team has the credential already.',
  unknownTeam: 'There is no such team.',
  discovery: 'The document of the issuer cannot be used.',
  unknown: 'There is no such provider.',
  current: 'It is not the current revision of the entry.',
  notWithProvider: 'It is written out of `provider`, and cannot be sent beside it.',
  needsProvider: 'It goes only with `provider`.',
  notForProvider: 'The provider has no use for it.',
  endpoint: 'What the provider needs does not make an address.',
  needsClientSecret: 'It goes only with `clientSecret`.',
  needsIssuer: 'It goes only with `issuer`.',
  noColon: 'It has a colon.',
  givesCredentials: 'It is a host of AWS that gives out credentials, which outlive a ticket.',
  headerTaken: 'The broker sets this header itself.',
  headerUnsafe: 'It cannot stand in a header as it is.',
  pathUnsafe: 'It cannot stand in a path as it is.',
  chunked: 'The body comes neither with its length nor in chunks.',
  label: 'It is not one label of a host name.',
  segment: 'It is not one segment of a path.',
  host: 'It is not a host name, or not one of the provider.',
  callerGone: 'The caller went away before there was an answer.',
} as const;

/** Why something that is asked for is refused. */
export const refusalRules = {
  notFound: 'Not found, or you do not have access.',
  duplicate: 'It is asked for twice.',
  onBehalfOfRequired: 'It has to be said for whom.',
  onBehalfOfRefused: 'The person in `onBehalfOf` may not use the credential.',
  issuerTeams: 'The issuer of the subject keeps its subjects out of this team.',
  deleted: 'The credential is deleted.',
  disabled: 'The credential is disabled.',
  expired: 'The credential has expired.',
  deliveryNotAllowed: 'The policy does not allow this way of delivery.',
  exposed: 'Its value was under a compromised key, and the team refuses such.',
  undecryptable: 'The stored value does not open.',
  notConnected: 'No account is connected.',
  refreshFailed: 'The provider refused to refresh: connect the account again.',
  refreshUnavailable: 'The provider gives no usable answer at this moment.',
  rejectedByUpstream: 'Three fresh access tokens in a row were refused where they were used.',
  notInLease: 'The token is of none of the credentials that are asked for.',
  notBrokerable: 'The broker cannot put this credential into a request.',
  hostRequired: 'The policy names several hosts, and `host` none of them.',
  hostNotAllowed: 'The policy does not allow this host.',
  methodNotAllowed: 'The policy does not allow this method.',
  pathNotAllowed: 'The policy does not allow this path.',
  ticketPlace: 'The ticket stands where it would go on to the upstream.',
  response: 'The answer of the upstream broke off or was not well-formed.',
  secretInPart: 'The part of the answer holds a part of a secret.',
  connect: 'No connection to the upstream.',
  tls: 'No TLS with the upstream.',
  timeout: 'The upstream took too long.',
} as const;

/** All of them, in the order of the alphabet. */
export const rules: Readonly<Record<RuleName, string>> = Object.fromEntries(
  Object.entries({ ...inputRules, ...refusalRules }).sort(([a], [b]) => (a < b ? -1 : 1)),
) as Record<RuleName, string>;

export type InputRule = keyof typeof inputRules;
export type RuleName = InputRule | keyof typeof refusalRules;

/** Whether a text is the name of a rule. */
export const isRule = (text: string): text is RuleName => Object.hasOwn(rules, text);

/**
 * What is allowed in place of what was sent: names of fields and types, bounds, a form in words.
 * SECURITY: never anything that was sent, or that is stored.
 */
export interface Allowed {
  readonly allowed?: readonly string[];
  /** In words, for people. */
  readonly pattern?: string;
  readonly min?: number;
  readonly max?: number;
}
