// Where a request comes from: the peer of its connection, or the address that a trusted proxy says.
// Whatever is no address is never taken for one: what comes out goes into events, limits and logs.
import type { IncomingMessage } from 'node:http';
import { BlockList, isIP, isIPv6, type Server, type Socket } from 'node:net';

/** Finds the address of a request; null where the peer was gone before it was known. */
export type AddressOf = (request: Pick<IncomingMessage, 'socket' | 'headers'>) => string | null;

const mappedBits = 96;
const portMax = 65_535;

/**
 * Looks through `X-Forwarded-For` from its end, for as long as the one who wrote an entry is a
 * trusted proxy: an address or a CIDR block.
 */
export function addressFinder(trustedProxies: readonly string[]): AddressOf {
  if (trustedProxies.length === 0) return (request) => peerOf(request.socket);
  const isTrusted = trust(trustedProxies);
  return (request) => {
    let address = peerOf(request.socket);
    const forwarded = request.headers['x-forwarded-for'];
    if (typeof forwarded !== 'string') return address;
    const entries = forwarded.split(',');
    while (address !== null && entries.length > 0 && isTrusted(address)) {
      const said = forwardedAddress(entries.pop()!.trim());
      // SECURITY: nothing to the left of what is no address is believed either: nobody knows who
      // wrote it.
      if (said === undefined) break;
      address = said;
    }
    return address;
  };
}

/**
 * Asks for each connection's peer while there is one: after a reset nobody can tell any more, and
 * what is asked then is answered by what was asked now.
 */
export function rememberPeers(server: Server): void {
  const remember = ({ remoteAddress }: Socket): void => {
    void remoteAddress; // Node keeps what it has answered
  };
  server.on('connection', remember);
  server.on('secureConnection', remember);
}

function peerOf({ remoteAddress = '' }: Pick<Socket, 'remoteAddress'>): string | null {
  const zone = remoteAddress.indexOf('%'); // of this machine's interfaces: nobody else's business
  const address = zone < 0 ? remoteAddress : remoteAddress.slice(0, zone);
  return address === '' ? null : canonical(address);
}

/**
 * The address in an entry, in its one spelling; some proxies write the port behind it, and IPv6 in
 * brackets. Undefined for `unknown`, for names, for a zone, and for everything else.
 */
function forwardedAddress(entry: string): string | undefined {
  const [, ofSix, ofFour, port = '0'] =
    /^(?:\[([^\]]*)\]|([\d.]+)(?=:))(?::(\d{1,5}))?$/.exec(entry) ?? [];
  if (Number(port) > portMax || (ofSix !== undefined && !isIPv6(ofSix))) return undefined;
  const address = ofSix ?? ofFour ?? entry;
  return isIP(address) === 0 || address.includes('%') ? undefined : canonical(address);
}

/** One address, one text: IPv6 as RFC 5952 writes it, IPv4 inside IPv6 as the IPv4 that it is. */
function canonical(address: string): string {
  if (!address.includes(':')) return address;
  const shown = new URL(`http://[${address}]`).hostname.slice(1, -1);
  const [, high, low] = /^::ffff:([0-9a-f]{1,4}):([0-9a-f]{1,4})$/.exec(shown) ?? [];
  if (high === undefined || low === undefined) return shown;
  return [high, low]
    .map((group) => Number.parseInt(group, 16))
    .flatMap((group) => [group >> 8, group & 0xff])
    .join('.');
}

/** Whether an address, in its one spelling, is one of those that the operator names. */
function trust(entries: readonly string[]): (address: string) => boolean {
  // SECURITY: apart, because Node finds every IPv4 address in an IPv6 block that holds ::ffff:0:0.
  const lists = { ipv4: new BlockList(), ipv6: new BlockList() };
  for (const entry of entries) {
    const [given = '', length] = entry.split('/');
    const address = canonical(given);
    const family = isIPv6(address) ? 'ipv6' : 'ipv4';
    const isMapped = family === 'ipv4' && given.includes(':');
    if (length === undefined) lists[family].addAddress(address, family);
    else if (!isMapped || Number(length) > mappedBits)
      lists[family].addSubnet(address, Number(length) - (isMapped ? mappedBits : 0), family);
  }
  return (address) => {
    const family = isIPv6(address) ? 'ipv6' : 'ipv4';
    return lists[family].check(address, family);
  };
}
