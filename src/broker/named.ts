// Resources that a call names beside its path: the source of a copy, the place of a move. Under a
// policy with path prefixes each of them is judged as the path is. Pure.
import { bucketOf } from './bucket-hosts.ts';
import { decoded, isPlainText } from './plain-path.ts';
import { BrokerRefusal } from './refusal.ts';
import { isMetadata } from './steering.ts';
import { hostHeader, type Target } from './target.ts';
import { isUnder, type Policy } from '../credentials/index.ts';

/**
 * What stands in a value. `url`: an address, absolute or relative. `object`: bucket and key. `key`:
 * a key in the bucket of the call. `container`: container and object of an account (Swift). `root`:
 * a name at the root. `concat`: what tus joins. `tagged`: the If of WebDAV. `json`: arguments,
 * paths among them (Dropbox). `route`: a path below WordPress's own. `unknown`: nothing that could
 * be judged: another account, another root.
 */
type Shape =
  | 'url'
  | 'object'
  | 'key'
  | 'container'
  | 'root'
  | 'concat'
  | 'tagged'
  | 'json'
  | 'route'
  | 'unknown';

const shapes: Readonly<Record<string, Shape>> = {
  'content-location': 'url',
  destination: 'url',
  'x-destination': 'url',
  'x-file-path': 'url',
  if: 'tagged',
  'upload-concat': 'concat',
  'x-copy-from': 'container',
  'x-history-location': 'container',
  'x-object-manifest': 'container',
  'x-symlink-target': 'container',
  'x-versions-location': 'container',
  'x-bz-file-name': 'root',
  'dropbox-api-arg': 'json',
  'rest-route': 'route',
  'destination-account': 'unknown',
  'dropbox-api-path-root': 'unknown',
  'x-copy-from-account': 'unknown',
  'x-symlink-target-account': 'unknown',
};
const families: readonly (readonly [name: RegExp, shape: Shape])[] = [
  [/^x-(?:[a-z]+-)?(?:file-)?(?:copy|rename|move)-source$/, 'object'],
  [/^x-[a-z]+-symlink-target$/, 'key'],
  [/^x-[a-z]+-(?:source|deleted)-(?:bucket|container|share|filesystem)-name$/, 'root'],
  [
    new RegExp(
      '^x-(?:[a-z]+-)?(?:source|src|destination|dest|target|copy|move|rename|' +
        'sync)-(?:from|to|path|file|key|object|url|uri|destination|dest)$',
    ),
    'url',
  ],
];

/** What stands in the values of this name, folded; undefined where no resource does. */
export function shapeOf(folded: string): Shape | undefined {
  if (Object.hasOwn(shapes, folded)) return shapes[folded];
  return isMetadata(folded) ? undefined : families.find(([name]) => name.test(folded))?.[1];
}

/** Where a resource is looked for. */
export interface Whereabouts {
  readonly target: Target;
  /** Of the call, as the caller wrote it. */
  readonly path: string;
}

/** Whether the policy has prefixes that leave anything out. */
export const hasPrefixes = ({ pathPrefixes }: Policy): boolean =>
  pathPrefixes !== undefined && !pathPrefixes.includes('/');

/**
 * Throws BrokerRefusal `pathPrefix` for a value that names something beyond the policy's prefixes,
 * or nobody can say what.
 */
export function checkNamed(
  { pathPrefixes = ['/'] }: Policy,
  where: Whereabouts,
  { shape, value }: { readonly shape: Shape; readonly value: string },
): void {
  const isAllowed = (path: string | undefined): boolean =>
    path !== undefined && pathPrefixes.some((prefix) => isUnder(path, prefix));
  if (!resourcesOf[shape](value.trim(), where).every(isAllowed))
    throw new BrokerRefusal('pathPrefix');
}

type Paths = (string | undefined)[];

/** Paths as the caller would write them, decoded; undefined for what has none. */
const resourcesOf: Readonly<Record<Shape, (value: string, where: Whereabouts) => Paths>> = {
  url: (value, where) => urlPaths(value, where),
  object: (value, where) => [objectPath(value, where)],
  key: (value, { target, path }) => {
    const key = plain(`/${withoutSlash(value)}`);
    if (key === undefined || bucketOf(target.origin.host) !== undefined) return [key];
    return [key, plain(`/${path.split('/')[1] ?? ''}/${withoutSlash(value)}`)];
  },
  container: (value, { target, path }) => {
    const [, version = '', account = ''] = `${target.basePath}${path}`.split('/');
    const isSwift = /^v1(?:\.0)?$/.test(version) && account !== '';
    const root = isSwift ? `/${version}/${account}/` : '/';
    return [below(target, plain(`${root}${withoutSlash(value)}`))];
  },
  root: (value, { target }) => [below(target, plain(`/${withoutSlash(value)}`))],
  concat: (value, where) => {
    const [kind = '', list = ''] = value.split(/;(.*)/s);
    const urls = list.split(' ').filter((url) => url !== '');
    return kind.trim().toLowerCase() === 'partial' && urls.length === 0
      ? []
      : urls.length === 0
        ? [undefined]
        : urls.flatMap((url) => urlPaths(url, where));
  },
  tagged: (value, where) =>
    [...value.matchAll(/<([^>]*)>/g)].flatMap(([, tag = '']) =>
      /^(?:https?:|\/)/i.test(tag) ? urlPaths(tag, where) : [],
    ),
  json: (value) => {
    try {
      return jsonPaths(JSON.parse(value));
    } catch {
      return [undefined]; // what cannot be read cannot be judged
    }
  },
  route: (value) => [plain(`/wp-json/${withoutSlash(value)}`)],
  unknown: () => [undefined],
};

const withoutSlash = (text: string): string => text.replace(/^\//, '');

/** A path, undone, without its query; undefined where it has a second reading. */
function plain(encoded: string): string | undefined {
  const text = decoded(encoded.split(/[?#]/, 1)[0]!);
  return text !== undefined && isPlainText(text) ? text : undefined;
}

/** The upstream's path as the caller writes it: without the base path. */
function below({ basePath }: Target, path: string | undefined): string | undefined {
  const base = basePath === '' ? '' : decoded(basePath);
  if (path === undefined || base === undefined) return undefined;
  if (base === '' || path.startsWith(`${base}/`)) return path.slice(base.length);
  return path === base ? '/' : undefined;
}

/** The path of a URL of the target's own origin; undefined for any other. */
function ownPath(url: string, { origin }: Target): string | undefined {
  const [, scheme = '', host = '', path = ''] =
    /^([a-z][a-z0-9+.-]*):\/\/([^/?#]*)([^?#]*)/i.exec(url) ?? [];
  const port = origin.protocol === 'https:' ? ':443' : ':80';
  const isOwn =
    `${scheme.toLowerCase()}:` === origin.protocol &&
    host.toLowerCase().replace(new RegExp(`${port}$`), '') === hostHeader(origin);
  return isOwn ? plain(path === '' ? '/' : path) : undefined;
}

const isAbsolute = (text: string): boolean => /^(?:[a-z][a-z0-9+.-]*:|\/\/)/i.test(text);

function urlPaths(value: string, { target, path }: Whereabouts): Paths {
  if (isAbsolute(value)) return [below(target, ownPath(value, target))];
  if (value.startsWith('/')) return [below(target, plain(value))];
  // Relative to the call for some servers, to the root for others.
  const here = path.slice(0, path.lastIndexOf('/') + 1);
  return [plain(`${here}${value}`), below(target, plain(`/${value}`))];
}

function objectPath(value: string, { target }: Whereabouts): string | undefined {
  if (isAbsolute(value)) return below(target, ownPath(value, target));
  const path = plain(`/${withoutSlash(value)}`);
  if (path === undefined) return undefined;
  const [, first = '', ...rest] = path.split('/');
  const { host } = target.origin;
  if (first.toLowerCase() === host) return `/${rest.join('/')}`;
  const bucket = bucketOf(host);
  if (bucket === undefined) return below(target, path);
  return first === bucket ? `/${rest.join('/')}` : undefined;
}

/** Members that say where something is. */
const telling = /path|url|link|^id$|file_?id/i;

function jsonPaths(value: unknown, name = ''): Paths {
  if (Array.isArray(value)) return value.flatMap((each) => jsonPaths(each, name));
  if (typeof value === 'object' && value !== null)
    return Object.entries(value).flatMap(([key, each]) => jsonPaths(each, key));
  if (typeof value !== 'string' || !telling.test(name)) return [];
  const path = value === '' ? '/' : value;
  return [isPlainText(path) ? path : undefined];
}
