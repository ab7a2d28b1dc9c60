// Host names and targets in one spelling. A target is a DNS name; an address, in whatever spelling
// a URL parser would take for one, is none.
import { isIP } from 'node:net';

export interface Origin {
  readonly protocol: 'https:' | 'http:';
  readonly host: string;
  readonly port: number;
}

const label = /^[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?$/;

/**
 * The name as it is compared and dialled: ASCII, lower case, no trailing dot; undefined for an
 * address and for what is no DNS name.
 */
export function hostName(text: string): string | undefined {
  // SECURITY: the parser decodes, cuts and reinterprets these; what is checked has to be what was
  // written.
  if (text.length > 253 || /[\p{Cc}\p{Cs}\s%/\\?#@:[\]<>^|]/u.test(text)) return undefined;
  const host = URL.parse(`https://${text}/`)?.hostname;
  // SECURITY: an address would never pass the pinned resolution; the parser has turned 127.1,
  // 0x7f000001 and ①②⑦.0.0.1 into one by now.
  if (host === undefined || host.length > 253 || isIP(host) !== 0) return undefined;
  return host.split('.').every((part) => label.test(part)) ? host : undefined;
}

/**
 * The same for an address that stands in the configuration: there it may be a literal, in the one
 * spelling that it has on the wire.
 */
export function configuredHost(text: string): string | undefined {
  const bare = text.replace(/^\[(.*)\]$/, '$1');
  return isIP(bare) === 0 || bare.includes('%') ? hostName(text) : bare;
}

export interface DialTarget {
  readonly origin: Origin;
  readonly path: string;
}

/**
 * Where a URL points, with its path and query; undefined for what is not plainly an http(s) URL of
 * a DNS name.
 */
export function parseTarget(
  text: string,
  hostOf: (text: string) => string | undefined = hostName,
): DialTarget | undefined {
  // SECURITY: a backslash, a blank or a user name would have one reader see another host than the
  // next one.
  const match = /^(https?:)\/\/([^/?#@%\\\s\p{Cc}\p{Cs}]+)([/?][^#\\\s\p{Cc}\p{Cs}]*)?$/iu.exec(
    text,
  );
  const url = match === null ? null : URL.parse(text);
  if (match === null || url === null || url.username !== '' || url.password !== '')
    return undefined;
  const host = hostOf(url.hostname);
  const protocol = url.protocol;
  if (host === undefined || (protocol !== 'https:' && protocol !== 'http:') || url.port === '0')
    return undefined;
  return {
    origin: { protocol, host, port: url.port === '' ? standardPorts[protocol] : Number(url.port) },
    path: `${url.pathname}${url.search}`,
  };
}

const standardPorts = { 'https:': 443, 'http:': 80 } as const;
