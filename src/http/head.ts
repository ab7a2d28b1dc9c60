// What of a request's head is refused before anything else is asked: what could be read in two
// ways, by the vault and by a proxy in front of it or an upstream behind it. Pure.
import type { InputRule } from '../shared/rules.ts';
import type { IncomingMessage } from 'node:http';
import { AppError } from '../shared/errors.ts';

/** The part of a request that is looked at. */
export type Head = Pick<IncomingMessage, 'rawHeaders' | 'headers' | 'httpVersion'>;

/** Why the request cannot be taken, if it cannot. */
export function faultOfHead(head: Head): AppError | undefined {
  const { headers, httpVersion } = head;
  const isOld = httpVersion === '1.0';
  if (!isOld && httpVersion !== '1.1')
    return new AppError('malformedHttp', 'The version of HTTP must be 1.1 or 1.0.');
  const repeated = repeatedHeader(head);
  if (repeated !== undefined)
    return malformed('A header that may come once came twice.', repeated, 'once');
  if (headers.host === undefined && !isOld)
    return malformed('A request of HTTP/1.1 needs a Host header.', 'host', 'required');
  const coding = headers['transfer-encoding'];
  // SECURITY: the parser hands over a request whose body it will not find the end of, and of which
  // HTTP/1.0 knows nothing.
  if (coding !== undefined && (isOld || coding.toLowerCase() !== 'chunked'))
    return malformed(
      'A body comes with its length, or in chunks under HTTP/1.1.',
      'transfer-encoding',
      'chunked',
    );
  if (headers.expect === undefined || isOld || /^100-continue$/i.test(headers.expect))
    return undefined; // HTTP/1.0 has no expectations: what it says of them is ignored (RFC 9110, 10.1.1)
  return new AppError('expectationFailed', 'The only expectation is 100-continue.', {
    errors: [{ pointer: '/headers/Expect', rule: 'enum', allowed: ['100-continue'] }],
  });
}

/**
 * The header that came more than once and of which Node has kept the first. SECURITY: what stands
 * in front of the vault may have gone by the last.
 */
function repeatedHeader({ rawHeaders, headers }: Head): string | undefined {
  // Lines that are all of different names give as many names.
  if (rawHeaders.length === 2 * Object.keys(headers).length) return undefined;
  const firsts = new Map<string, string>();
  for (let at = 0; at + 1 < rawHeaders.length; at += 2) {
    const name = rawHeaders[at]!.toLowerCase();
    const first = firsts.get(name);
    if (first === undefined) firsts.set(name, rawHeaders[at + 1]!);
    // Authenticated routes and the broker take two Authorization headers for none.
    else if (headers[name] === first && name !== 'authorization') return name;
  }
  return undefined;
}

/** Only names that Node knows come here: nothing of the caller's text is in the pointer. */
function malformed(message: string, name: string, rule: InputRule): AppError {
  const shown = name.replaceAll(/(?<=^|-)[a-z]/g, (letter) => letter.toUpperCase());
  return new AppError('malformedHttp', message, {
    errors: [{ pointer: `/headers/${shown}`, rule }],
  });
}
