// The ticket as a caller presents it: in a header in which the SDK sends its secret. All headers
// are searched, because where a ticket stands beside that it would go on to the upstream, and of
// two that differ nobody can say which one was meant.
import { ticketHeaders } from './headers.ts';
import { foldedName } from './steering.ts';
import { ticketForm, ticketHash } from './tickets.ts';
import type { AllFields, CredentialType } from '../credentials/index.ts';

/**
 * How the ticket stands in a header. `whole`: alone or behind a word (`Bearer`, `token`). `half`:
 * as a half of Basic. `signature`: as the key's id in a signature of AWS. `elsewhere`: anywhere
 * else.
 */
interface Place {
  /** In lower case. */
  readonly name: string;
  readonly form: 'whole' | 'half' | 'signature' | 'elsewhere';
  /** The other half of Basic. */
  readonly beside?: string;
}

/** The one ticket of a request, and where it stands. */
export interface Presented {
  readonly ticket: string;
  readonly hash: Buffer;
  readonly places: readonly Place[];
}

/** Where a type puts its secret, and so where its ticket is taken. */
export interface Places {
  readonly names: ReadonlySet<string>;
  /** What may stand in the other half of Basic. */
  readonly users: ReadonlySet<string>;
  readonly isSigned: boolean;
}

// Whatever begins like one counts: somebody has put one there.
const ticketLike = /vbt_[A-Za-z0-9_-]{20,}/g;
/** Words that services give in place of a user, where the password is a token. */
const noUsers = ['x-access-token', 'x-token-auth', 'oauth2', 'api', 'apikey', 'token'];

/**
 * The one ticket in the headers (name, value, name, value); undefined for none, or for several that
 * differ. A key of another kind beside it is nobody's.
 */
export function extractTicket(rawHeaders: readonly string[]): Presented | undefined {
  const found = new Set<string>();
  const places: Place[] = [];
  const lines = new Map<string, number>();
  for (let at = 0; at + 1 < rawHeaders.length; at += 2) {
    const [name, value] = [rawHeaders[at]!.toLowerCase(), rawHeaders[at + 1]!];
    const folded = foldedName(name);
    lines.set(folded, (lines.get(folded) ?? 0) + 1);
    const pair = basicPair(value);
    const tickets = `${value}\n${pair ?? ''}`.match(ticketLike);
    if (tickets === null) continue;
    for (const ticket of tickets) found.add(ticket);
    places.push({ name, ...formOf(value, pair) });
  }
  const [ticket] = found;
  // SECURITY: of several, a proxy in front may have looked at another one.
  const isOne =
    found.size === 1 &&
    ticketForm.test(ticket ?? '') &&
    (lines.get('authorization') ?? 0) <= 1 &&
    places.every(({ name }) => lines.get(foldedName(name)) === 1);
  return isOne && ticket !== undefined ? { ticket, hash: ticketHash(ticket), places } : undefined;
}

function formOf(value: string, pair: string | undefined): Omit<Place, 'name'> {
  const [, whole = ''] = /^(?:[A-Za-z][A-Za-z0-9_-]* +)?(vbt_[^\s]+)$/.exec(value) ?? [];
  if (ticketForm.test(whole)) return { form: 'whole' };
  if (pair !== undefined) {
    const at = pair.indexOf(':');
    const halves = at < 0 ? ['', pair] : [pair.slice(0, at), pair.slice(at + 1)];
    const [user = '', password = ''] = halves;
    if (ticketForm.test(password)) return { form: 'half', beside: user === password ? '' : user };
    if (ticketForm.test(user)) return { form: 'half', beside: password };
  }
  const [, key = ''] =
    /^AWS4-[A-Z0-9-]+ +Credential=([^/,\s]+)\/[^,\s]*, *SignedHeaders=[^,\s]*, *Signature=[0-9a-f]+$/.exec(
      value,
    ) ?? [];
  return { form: ticketForm.test(key) ? 'signature' : 'elsewhere' };
}

function basicPair(value: string): string | undefined {
  const [, rest] = /^basic +([A-Za-z0-9+/_-]+={0,2})$/i.exec(value) ?? [];
  return rest === undefined ? undefined : Buffer.from(rest, 'base64').toString('utf8');
}

/** Where a ticket for a credential of the type is taken, by its public fields alone. */
export function placesOf(type: CredentialType, publicFields: Partial<AllFields>): Places {
  const { injection } = type.broker ?? {};
  const text = (field: string): string => String(publicFields[field] ?? '');
  // Whether a secret field is set is not known here: both ways count.
  const ways =
    injection === undefined
      ? []
      : injection.kind === 'whenSet'
        ? [injection.set, injection.unset]
        : [injection];
  const own = ways.flatMap((way) => {
    if (way.kind === 'header') return [way.name];
    if (way.kind === 'headers') return way.headers.map(({ name }) => name);
    if (way.kind === 'namedHeader') return [text(way.nameField)];
    return way.kind === 'sigv4' ? ['x-amz-security-token'] : [];
  });
  const users = ways.flatMap((way) => (way.kind === 'basic' ? [text(way.usernameField)] : []));
  return {
    names: new Set([...ticketHeaders, ...own].map((name) => name.toLowerCase())),
    users: new Set(['', ...users, ...noUsers]),
    isSigned: ways.some(({ kind }) => kind === 'sigv4'),
  };
}

/**
 * Whether a ticket is taken where it stands: everywhere where it does. SECURITY: never among the
 * subprotocols of a socket, which both sides repeat.
 */
export const isTakenAt = ({ places }: Presented, { names, users, isSigned }: Places): boolean =>
  places.every(
    ({ name, form, beside = '' }) =>
      names.has(name) &&
      name !== 'sec-websocket-protocol' &&
      (form === 'whole' ||
        (form === 'half' && users.has(beside)) ||
        (form === 'signature' && isSigned)),
  );
