// The ticket as a caller presents it: in a header in which an SDK sends its API key, and nowhere
// else.
import { ticketHeaders } from './headers.ts';
import { ticketForm } from './tickets.ts';

/**
 * The one ticket in the headers (name, value, name, value); undefined for none, or several that
 * differ. A key of another kind beside it is nobody's.
 */
export function extractTicket(rawHeaders: readonly string[]): string | undefined {
  const found = new Set<string>();
  let authorizations = 0;
  for (let at = 0; at + 1 < rawHeaders.length; at += 2) {
    const name = rawHeaders[at]!.toLowerCase();
    if (!(ticketHeaders as readonly string[]).includes(name)) continue;
    if (name === 'authorization') authorizations += 1;
    const ticket =
      name === 'authorization' ? ofAuthorization(rawHeaders[at + 1]!) : rawHeaders[at + 1]!;
    if (ticket !== undefined && ticketForm.test(ticket)) found.add(ticket);
  }
  // SECURITY: of several, a proxy in front may have looked at another one.
  return found.size === 1 && authorizations <= 1 ? found.values().next().value : undefined;
}

/** A bearer; or the password of Basic, for SDKs that know nothing else. */
function ofAuthorization(value: string): string | undefined {
  const [, scheme = '', rest = ''] = /^([A-Za-z]+) +([^\s]+)$/.exec(value) ?? [];
  if (scheme.toLowerCase() === 'bearer') return rest;
  if (scheme.toLowerCase() !== 'basic') return undefined;
  const pair = Buffer.from(rest, 'base64').toString('utf8');
  return pair.slice(pair.indexOf(':') + 1);
}
