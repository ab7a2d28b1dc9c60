// Headers of an answer that say where to go on: what leads to the target below its base leads back
// through the broker; what leads elsewhere is left out, for whoever follows it takes the ticket
// along. Pure.
import { isMetadata } from './steering.ts';
import { originText, type Target } from './target.ts';

/** How the upstream is seen through the broker. */
export interface Seen {
  readonly target: Target;
  /** The credential's address at the broker as a path, which ends in no slash. */
  readonly brokerPath: string;
  /** The same as a whole URL. SECURITY: from the configuration, never from a Host. */
  readonly brokerUrl: string;
  /** The headers in which the ticket came, in lower case. */
  readonly ticketNames: readonly string[];
  /** Path and query of the request at the upstream, which a relative reference is read by. */
  readonly path?: string;
  /** The upstream's path in which the caller's paths lie; the target's base path without it. */
  readonly root?: string;
  /** What comes back is stored, and no echo: its length and its parts are its own. */
  readonly isObjectStore?: boolean;
}

/** One reference each, whatever it looks like. */
const references: ReadonlySet<string> = new Set([
  'location',
  'content-location',
  'operation-location',
  'azure-asyncoperation',
  'odata-entityid',
  'content-base',
  'uri',
]);
/** Names of what clients follow; their values may be a URL, links, a text with URLs, or a word. */
const followed = new RegExp(
  '(?:^|-)(?:location|url|uri|href|links?|pagination|paging|next|prev|previous|' +
    'first|last|self|endpoint|operation|monitor|asyncoperation)(?:-(?:page|url|uri|' +
    'link))?$|^(?:www-authenticate|alternates|sourcemap)$',
);
const absolute = /\b(?:https?|wss?):(?:\\?\/){2}[^\s"'<>^`{|}]*/gi;

/**
 * The header's value as the caller gets it; undefined where nothing of it is left. A name that is
 * not one of a header with links keeps its value, but for URLs of the target.
 */
export function linkedValue(name: string, value: string, seen: Seen): string | undefined {
  if (references.has(name)) return reference(value, seen, name === 'location');
  if (name === 'refresh') return refresh(value, seen);
  if (name === 'link') return links(value, seen);
  if (isMetadata(name)) return value;
  // SECURITY: not `-location` of a store: what an object says of itself is not followed there.
  const isFollowed = seen.isObjectStore !== true && followed.test(name);
  if (!isFollowed) return value.includes('://') ? text(value, seen, (url) => url) : value;
  const trimmed = value.trimStart();
  if (trimmed.startsWith('<')) return links(value, seen);
  if (trimmed.startsWith('/') || trimmed.startsWith('\\')) return reference(value, seen, false);
  const left = text(value, seen, () => '');
  return left === '' && value !== '' ? undefined : left;
}

/** A URL of the target as one of the broker; undefined for every other. */
function reference(value: string, seen: Seen, asPath: boolean): string | undefined {
  const { target, brokerPath, brokerUrl } = seen;
  const origin = originText(target.origin);
  const root = URL.parse(`${origin}${seen.root ?? target.basePath}`)?.pathname.replace(/\/+$/, '');
  const url = URL.parse(value, `${origin}${seen.path ?? `${target.basePath}/`}`);
  if (
    root === undefined ||
    url === null ||
    url.origin !== origin ||
    url.username !== '' ||
    url.password !== ''
  )
    return undefined;
  if (url.pathname !== root && !url.pathname.startsWith(`${root}/`)) return undefined;
  const rest = `${url.pathname.slice(root.length)}${url.search}${url.hash}`;
  // An empty one would be read as this very request.
  return `${asPath ? brokerPath : brokerUrl}${rest}` || '/';
}

/** A text with its absolute URLs: those of the target lead back, the others are what is said. */
function text(value: string, seen: Seen, elsewhere: (url: string) => string): string {
  return value.replace(absolute, (found) => {
    let end = found.length;
    while (',;).]'.includes(found[end - 1]!)) end -= 1;
    const url = found.slice(0, end);
    // As PHP writes JSON.
    const there = reference(url.replaceAll('\\/', '/'), seen, false);
    return `${there ?? elsewhere(url)}${found.slice(end)}`;
  });
}

function refresh(value: string, seen: Seen): string | undefined {
  const [, seconds, url] =
    /^\s*(\d+)(?:\.[\d.]*)?\s*(?:$|[;,\s]\s*(?:url\s*=)?\s*["']?([^"']*))/i.exec(value) ?? [];
  if (seconds === undefined) return undefined;
  if (url === undefined || url === '') return seconds;
  const there = reference(url.trim(), seen, false);
  return there === undefined ? undefined : `${seconds}; url=${there}`;
}

const parameter = /\s*;\s*([!#$%&'*+.^_`|~0-9A-Za-z-]*)\s*(?:=\s*("(?:[^"\\]|\\.)*"|[^\s,;"]*))?/y;

/** The links of RFC 8288 that lead back; undefined for none, and for what is no list of links. */
function links(value: string, seen: Seen): string | undefined {
  const kept: string[] = [];
  let at = 0;
  for (;;) {
    at += /^[\s,]*/.exec(value.slice(at))![0].length;
    if (at >= value.length) break;
    const [whole, url] = /^<([^<>]*)>/.exec(value.slice(at)) ?? [];
    if (whole === undefined || url === undefined) return undefined;
    at += whole.length;
    const parts: string[] = [];
    let there = reference(url, seen, false);
    parameter.lastIndex = at;
    for (
      let found = parameter.exec(value);
      found !== null && found[0] !== '';
      found = parameter.exec(value)
    ) {
      at = parameter.lastIndex;
      const [, name = '', said] = found;
      if (name === '') continue;
      // What the link is about is a URL as well.
      const anchor = name.toLowerCase() === 'anchor' ? unquoted(said ?? '') : undefined;
      const about = anchor === undefined ? undefined : reference(anchor, seen, false);
      if (anchor !== undefined && about === undefined) there = undefined;
      const told = about === undefined ? said : `"${about}"`;
      parts.push(told === undefined ? name : `${name}=${told}`);
    }
    at += /^\s*/.exec(value.slice(at))![0].length;
    if (at < value.length && value[at] !== ',') return undefined;
    if (there !== undefined) kept.push([`<${there}>`, ...parts].join('; '));
  }
  return kept.length === 0 ? undefined : kept.join(', ');
}

const unquoted = (value: string): string =>
  value.startsWith('"') ? value.slice(1, -1).replace(/\\(.)/gs, '$1') : value;
