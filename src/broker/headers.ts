// Which headers go out and which come back. What belongs to a connection, to the caller's way to
// the vault or to its authentication stays behind; what would make a browser believe the upstream
// about the broker's origin too. Pure.
import { isTakenHeader } from '../credentials/index.ts';
import { privateCaching, steersCaches, varying } from './caching.ts';
import { type Coding, codingOf } from './codings.ts';
import type { Rendered } from './injection.ts';
import { linkedValue, type Seen } from './links.ts';
import { shapeOf } from './named.ts';
import { tellsOfBody } from './ranges.ts';
import type { Redactor } from './redaction/redactor.ts';
import { foldedName, isSteering } from './steering.ts';
import { charsetOf, type Width } from './redaction/wide.ts';

/** Name, value, name, value, as Node gives them. */
export type RawHeaders = readonly string[];
/** As undici gives an answer's headers. */
export type AnswerHeaders = Readonly<Record<string, string | readonly string[] | undefined>>;

/** The headers in which a ticket may travel. */
export const ticketHeaders = ['authorization', 'x-api-key', 'x-goog-api-key', 'api-key'] as const;

const hopByHop = [
  'connection',
  'keep-alive',
  'proxy-connection',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
  'http2-settings',
];
/** Of the caller's: also what steers (steering.ts), and what the broker says itself. */
const staysBehind: ReadonlySet<string> = new Set([
  ...hopByHop,
  ...ticketHeaders,
  'host',
  'cookie',
  'cookie2',
  'content-length',
  'expect',
  'accept-encoding',
]);
const ticketText = /vbt_[A-Za-z0-9_-]{20}/;
/** What says where the caller's page is. */
const tellsOfPage: ReadonlySet<string> = new Set(['origin', 'referer']);

/**
 * Whether an injection that somebody declares may set a header of this name, however it is written:
 * none that the connection is made of, that the broker sets itself, or by which an upstream is
 * steered or told of a resource.
 */
export function isInjectableHeader(name: string): boolean {
  const folded = foldedName(name);
  const isOfTickets = (ticketHeaders as readonly string[]).includes(folded);
  return (
    (isOfTickets || !staysBehind.has(folded)) &&
    !isTakenHeader(folded) &&
    !isSteering(folded) &&
    shapeOf(folded) === undefined
  );
}

/** How long the caller's body is: bytes, or unknown until it ends. */
export type BodyLength = number | 'unknown';

/**
 * The headers for the upstream: the caller's, without those that stay behind, then what the type
 * injects, which wins. Content-Length is said anew from what the parser understood; an upstream is
 * never asked for an encoding that could not be scanned.
 */
export function requestHeaders(
  raw: RawHeaders,
  rendered: Pick<Rendered, 'headers' | 'defaults' | 'dropHeaders'>,
  body: BodyLength,
  isOwnUrl: (text: string) => boolean = () => false,
): Record<string, string | string[]> {
  const named = connectionNamed(valuesOf(raw, 'connection'));
  const injected = new Set(
    [...rendered.dropHeaders, ...Object.keys(rendered.headers)].map(foldedName),
  );
  const out: Record<string, string | string[]> = Object.create(null) as Record<
    string,
    string | string[]
  >;
  for (let i = 0; i + 1 < raw.length; i += 2) {
    const [name, value] = [raw[i]!.toLowerCase(), raw[i + 1]!];
    const plain = foldedName(name);
    // SECURITY: what says another method, path or address than the policy was asked about.
    if (staysBehind.has(plain) || isSteering(plain) || named.has(name)) continue;
    if (injected.has(plain)) continue; // SECURITY: the injected one is the only one of its name
    if (ticketText.test(value)) continue; // SECURITY: a ticket is for the vault only
    if (tellsOfPage.has(plain) && isOwnUrl(value)) continue; // the broker's address neither
    const before = out[name];
    out[name] =
      before === undefined ? value : [...(typeof before === 'string' ? [before] : before), value];
  }
  for (const [name, value] of Object.entries(rendered.defaults)) out[name] ??= value;
  Object.assign(out, rendered.headers);
  out['accept-encoding'] = 'identity';
  if (body !== 'unknown' && (body > 0 || valuesOf(raw, 'content-length').length > 0))
    out['content-length'] = String(body);
  return out;
}

const valuesOf = (raw: RawHeaders, wanted: string): string[] =>
  raw.flatMap((name, i) =>
    i % 2 === 0 && name.toLowerCase() === wanted ? [raw[i + 1] ?? ''] : [],
  );
const connectionNamed = (values: readonly string[]): Set<string> =>
  new Set(
    values
      .flatMap((value) => value.split(','))
      .map((name) => name.trim().toLowerCase())
      .filter((name) => name !== ''),
  );

const staysAway: ReadonlySet<string> = new Set([
  ...hopByHop,
  'set-cookie',
  'set-cookie2',
  'alt-svc',
  'clear-site-data',
  'strict-transport-security',
  'service-worker-allowed',
  'vault-error',
  'content-length',
  'content-encoding',
  'content-security-policy',
  'content-security-policy-report-only',
  'x-content-type-options',
  'nel',
  'report-to',
  'reporting-endpoints',
  'x-sendfile',
]);
const staysAwayPrefix = /^(?:access-control-|proxy-|x-accel-|[a-z0-9-]+-cache-control$)/;

/**
 * The headers for the caller: the upstream's, without those that stay away, each value without the
 * secret. URLs of the target lead back through the broker; what leads elsewhere is left out
 * (links.ts). Other than of a store of objects, what tells the length of a body is left out too.
 */
export function answerHeaders(
  headers: AnswerHeaders,
  redactor: Redactor,
  seen: Seen,
  hasBody: boolean,
): Record<string, string | string[]> {
  const listed = (name: string): readonly string[] =>
    headers[name] === undefined ? [] : ([headers[name]].flat() as string[]);
  const named = connectionNamed(listed('connection'));
  const out: Record<string, string | string[]> = Object.create(null) as Record<
    string,
    string | string[]
  >;
  for (const [given, value] of Object.entries(headers)) {
    const name = given.toLowerCase();
    if (
      value === undefined ||
      staysAway.has(name) ||
      staysAwayPrefix.test(name) ||
      steersCaches(name) ||
      named.has(name) ||
      (seen.isObjectStore !== true && tellsOfBody(foldedName(name), value)) ||
      redactor.text(name) !== name
    )
      continue;
    const values = [value].flat().flatMap((each) => linkedValue(name, each, seen) ?? []);
    if (values.length === 0) continue;
    // SECURITY: of several, clients take different ones.
    const kept = name === 'location' ? values.slice(0, 1) : values;
    const clean = kept.map((each) => redactor.text(each));
    out[name] = typeof value === 'string' || name === 'location' ? clean[0]! : clean;
  }
  const [length] = listed('content-length');
  // SECURITY: to HEAD it is the length of what GET would bring, before redaction.
  if (!hasBody && seen.isObjectStore === true && /^\d{1,15}$/.test(length ?? ''))
    out['content-length'] = length!;
  // SECURITY: a cache that several share would give one's answer to another.
  out['cache-control'] = privateCaching([out['cache-control'] ?? []].flat());
  out['vary'] = varying([out['vary'] ?? []].flat(), seen.ticketNames);
  return Object.assign(out, {
    'x-content-type-options': 'nosniff',
    'content-security-policy': 'sandbox',
  });
}

/**
 * Whether a secret can be looked for in the body: it is bytes as they are, or in one coding that
 * can be taken off, and text in a form that can be read.
 */
export const isScannable = (headers: AnswerHeaders): boolean =>
  !isTransferCoded(headers) &&
  bodyCoding(headers) !== 'unknown' &&
  charsetOf(textOf(headers, 'content-type')).kind !== 'unreadable';

/** What the body is coded with. */
export const bodyCoding = (headers: AnswerHeaders): Coding =>
  codingOf(textOf(headers, 'content-encoding'));

/** Whether the connection has a coding, which nobody takes off. */
export const isTransferCoded = (headers: AnswerHeaders): boolean =>
  textOf(headers, 'transfer-encoding')
    .split(',')
    .some((coding) => !['', 'chunked'].includes(coding.trim()));

/** Sums over a body as it is coded: of another one than comes, once the coding is off. */
export const sumsUp = (name: string): boolean =>
  /^x-(?:amz-checksum-|goog-hash|goog-stored-content-|ms-content-(?:md5|crc64)$)/.test(name) ||
  /^(?:content-md5|(?:content-|repr-)?digest)$/.test(name);

/** The wide forms of Unicode that the headers say. */
export const widthsOf = (headers: AnswerHeaders): readonly Width[] =>
  charsetOf(textOf(headers, 'content-type')).widths;

const textOf = (headers: AnswerHeaders, name: string): string =>
  [headers[name] ?? ''].flat().join(',').toLowerCase();
