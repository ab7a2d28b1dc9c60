// Where a call says it goes, and what is written about that to callers: the address of a credential
// at the broker. It says no host and no destination; it is compared with what the ticket is for.
import type { CredentialId, TicketId } from '../shared/ids.ts';
import { AppError, notFound } from '../shared/errors.ts';

/**
 * `{team}/{name}`, or `-/{id}`, which a rename does not move. A name is undefined where it is not
 * one that can stand in an address.
 */
export type BrokerAddress =
  | { readonly kind: 'name'; readonly team: string; readonly name: string | undefined }
  | { readonly kind: 'id'; readonly id: string };

/** A call's address, and what is behind it: the upstream's, to the byte. */
export interface Addressed {
  readonly address: BrokerAddress;
  readonly pathAndQuery: string;
  /** Where the upstream's root lies for the caller, on the broker's origin: no slash at its end. */
  readonly brokerPath: string;
  /** The same as a URL, from the configuration and not from what the caller says of the host. */
  readonly brokerUrl: string;
}

/** What an address can name. */
export interface Addressable {
  readonly ticket: TicketId;
  readonly credential: CredentialId;
  /** Undefined where it has none any more: it is deleted, or its team is. */
  readonly named: { readonly team: string; readonly name: string } | undefined;
}

/**
 * Whether the address is one of what the ticket is for, now. A name is compared exactly, so that a
 * credential that took over the name of another one is another one.
 */
export function isAt(address: BrokerAddress, { ticket, credential, named }: Addressable): boolean {
  if (address.kind === 'id') return address.id === credential;
  const { team, name } = address;
  // `/broker/{id of the ticket}` is what the release before gave out.
  if (team === 'broker' && name === ticket) return true;
  return named !== undefined && team === named.team && name === named.name;
}

/**
 * Whether a name can stand in an address. SECURITY: of those that cannot, proxies and clients make
 * other paths.
 */
const isPlainName = (name: string): boolean =>
  !/[/\\%]/.test(name) && name !== '.' && name !== '..';

const form = /^\/([^/?#]+)\/([^/?#]+)([/?#].*)?$/s;
const hostForm = /^([^:]+|\[[^\]]*\])(?::(\d{1,5}))?$/;
const idForm = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/** Where callers reach the broker. */
export interface Sites {
  /** Undefined where the broker is off. */
  readonly url: () => string | undefined;
  /** `{id}.{suffix}` is a host for each credential. */
  readonly hostSuffix: string | undefined;
}

/** A request's own words about where it goes. */
export interface Aimed {
  /** As it stands in the request line. */
  readonly url: string;
  readonly host: string | undefined;
}

/** Reads and writes the addresses of credentials at the broker. */
export class Addresses {
  readonly #sites: Sites;
  constructor(sites: Sites) {
    this.#sites = sites;
  }

  /**
   * The address of a request. Throws misdirected for a host that is not the broker's where there
   * are hosts for credentials, and notFound for a path that has no form of an address. Nothing is
   * looked up.
   */
  read({ url, host }: Aimed): Addressed {
    const { hostSuffix } = this.#sites;
    const absolute = /^https?:\/\/([^/?#]*)(.*)$/is.exec(url);
    if (hostSuffix === undefined) {
      // SECURITY: what was matched is what was written, so that the rest is the caller's path to
      // the byte.
      if (absolute !== null) throw notFound();
      return this.#readPath(url);
    }
    const broker = this.#url();
    const aimed = authorityOf(host, broker);
    // SECURITY: exactly two readings. Any other host would be a third one, and a page on a name
    // that was made to point here would be of it.
    if (aimed === undefined || (absolute !== null && authorityOf(absolute[1], broker) !== aimed))
      throw misdirected();
    const target = absolute === null ? url : (absolute[2] ?? '');
    if (aimed === authorityOf(broker.host, broker)) return this.#readPath(target);
    const [, id] = new RegExp(`^([^.]+)\\.${escaped(hostSuffix)}$`).exec(hostOf(aimed)) ?? [];
    if (id === undefined || !idForm.test(id) || portOf(aimed) !== portOf(broker.host))
      throw misdirected();
    return {
      address: { kind: 'id', id },
      pathAndQuery: fromRoot(target),
      brokerPath: '',
      brokerUrl: `${broker.protocol}//${aimed}`,
    };
  }

  /**
   * The base URL of a credential: by its name, where that stands in a URL as it is, else by its id.
   * SDKs escape the path of their base URL once more, and would miss an escaped name.
   */
  baseUrl({ id, team, name }: { id: CredentialId; team: string; name: string }): string {
    const isAsItIs = isPlainName(name) && encodeURIComponent(name) === name;
    const path = isAsItIs ? `${team}/${name}` : `-/${id}`;
    return `${this.#sites.url() ?? ''}/${path}/`;
  }

  /** The same as a host of its own; undefined where there are none. */
  hostUrl(id: CredentialId): string | undefined {
    const { hostSuffix } = this.#sites;
    if (hostSuffix === undefined) return undefined;
    const { protocol, port } = this.#url();
    return `${protocol}//${id}.${hostSuffix}${port === '' ? '' : `:${port}`}/`;
  }

  /** Whether a URL that a caller sends along names the broker. */
  isOwn(text: string, host: string | undefined): boolean {
    const named = URL.parse(text)?.hostname;
    if (named === undefined || named === '') return false;
    const { hostSuffix } = this.#sites;
    return (
      named === URL.parse(this.#sites.url() ?? '')?.hostname ||
      named === URL.parse(`http://${host ?? ''}`)?.hostname ||
      (hostSuffix !== undefined && (named === hostSuffix || named.endsWith(`.${hostSuffix}`)))
    );
  }

  #url(): URL {
    return new URL(this.#sites.url() ?? 'http://broker.invalid');
  }

  #readPath(path: string): Addressed {
    const [, first, second, rest = ''] = form.exec(path) ?? [];
    if (first === undefined || second === undefined) throw notFound();
    const address: BrokerAddress =
      first === '-'
        ? { kind: 'id', id: second }
        : { kind: 'name', team: first, name: nameOf(second) };
    const { origin, pathname } = this.#url();
    const below = pathname.replace(/\/+$/, '');
    return {
      address,
      pathAndQuery: fromRoot(rest),
      brokerPath: `${below}/${first}/${second}`,
      brokerUrl: `${origin}${below}/${first}/${second}`,
    };
  }
}

const fromRoot = (rest: string): string => (rest.startsWith('/') ? rest : `/${rest}`);

/** SECURITY: decoded once; what would still be an escape is none of the names of addresses. */
function nameOf(segment: string): string | undefined {
  try {
    const name = decodeURIComponent(segment);
    return isPlainName(name) ? name : undefined;
  } catch {
    return undefined; // no name is written like this
  }
}

const misdirected = (): AppError =>
  new AppError('misdirected', 'This is none of the hosts of the broker.');

/** Host and port in one spelling; undefined for what is none. */
function authorityOf(text: string | undefined, { protocol }: URL): string | undefined {
  const [, host, port] = hostForm.exec((text ?? '').toLowerCase()) ?? [];
  if (host === undefined) return undefined;
  const isStandard = port === undefined || Number(port) === (protocol === 'https:' ? 443 : 80);
  return isStandard ? host : `${host}:${Number(port)}`;
}
const hostOf = (authority: string): string => authority.replace(/:\d+$/, '');
const portOf = (authority: string): string => /:(\d+)$/.exec(authority)?.[1] ?? '';
const escaped = (text: string): string => text.replaceAll('.', '\\.');
