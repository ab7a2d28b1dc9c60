// Parts of an answer. Where the caller says what part, an upstream that gives back what it got
// gives the secret back in pieces, and every length that it tells tells the secret's. Stores of
// objects are spared: what they serve is not what was sent. Pure.
import { awsScope, isAwsHost } from './aws-hosts.ts';
import { BrokerRefusal } from './refusal.ts';
import { foldedName } from './steering.ts';
import type { CredentialType } from '../credentials/index.ts';

/** Whether what the host serves for a credential of this type are stored objects. */
export function isObjectStore({ broker }: CredentialType, host: string): boolean {
  if (broker?.objectStore === 'always') return true;
  return (
    broker?.objectStore === 'byHost' &&
    isAwsHost(host) &&
    /^s3(?:-|$)/.test(awsScope(host, undefined).service)
  );
}

export const rangeBytesMin = 4096;

/** Throws BrokerRefusal `range` for a part that may be a part of a secret. */
export function checkRange(rawHeaders: readonly string[], method: string): void {
  let count = 0;
  for (let i = 0; i + 1 < rawHeaders.length; i += 2) {
    if (!isRange(foldedName(rawHeaders[i]!), method)) continue;
    count += 1;
    // SECURITY: of several, nobody knows which counts.
    if (count > 1 || !isLarge(rawHeaders[i + 1]!.trim())) throw new BrokerRefusal('range');
  }
}

/** Azure's own says with PUT where the bytes go that are sent. */
const isRange = (name: string, method: string): boolean =>
  name === 'range' ||
  name === 'request-range' ||
  name === 'x-range' ||
  (/^x-(?:ms|amz|goog|oss|cos|obs|tos|playback)-range$/.test(name) && method !== 'PUT');

/** What counts rows and not bytes: PostgREST's bare numbers, `items=`, Heroku's `id a..b`. */
const counting = /^(?:items\s*=\s*)?\d+-\d*$|^[a-z_]+ [^=\s]*\.\.[^=\s]*(?:;.*)?$/i;

/** No client writes a longer one, and comparing takes time by the square of the length. */
const rangeLengthMax = 512;

function isLarge(value: string): boolean {
  // SECURITY: before it is compared with anything: a call must cost more than its refusal.
  if (value.length > rangeLengthMax) return false;
  if (counting.test(value)) return true;
  // One part: several could be put together.
  const [, first = '', last = ''] = /^bytes\s*=\s*(\d{0,15})\s*-\s*(\d{0,15})$/i.exec(value) ?? [];
  if (first === '') return last !== '' && Number(last) >= rangeBytesMin;
  return last === '' || Number(last) - Number(first) + 1 >= rangeBytesMin;
}

/** Whether an answer is a part of something. */
export const isPart = (status: number, headers: Readonly<Record<string, unknown>>): boolean =>
  status === 206 || headers['content-range'] !== undefined || isInParts(headers);

/** Several parts in one body: each begins somewhere. */
export const isInParts = (headers: Readonly<Record<string, unknown>>): boolean =>
  /multipart\/byteranges/i.test(String(headers['content-type'] ?? ''));

const lengths =
  /(?:^|-)(?:content-(?:length|range)|uncompressed-(?:length|size)|body-(?:length|size))$/;
const digests =
  /^(?:content-md5|(?:content-|repr-)?digest|x-(?:content|body|response)-(?:md5|sha-?\d*|digest|hash))$/;
/** The length of the body, then a hash of it: what many servers make by themselves. */
const lengthInTag = /^(?:W\/)?"[0-9a-f]+-[A-Za-z0-9+/]{20,}={0,2}"$/i;

/**
 * Whether an answer's header tells how long its body is, or lets a guess of its text be checked: of
 * an echo both are about the secret.
 */
export function tellsOfBody(folded: string, value: string | readonly string[]): boolean {
  if (lengths.test(folded) || digests.test(folded)) return true;
  return folded === 'etag' && [value].flat().some((tag) => lengthInTag.test(tag));
}
