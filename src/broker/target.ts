// Where a call goes: to the credential's own destination or to a host of its policy, and below the
// base path. The caller supplies a path and a query, which arrive to the byte or not at all. Pure.
import { decoded, isFreePath, isPlainPath, withSlashes } from './plain-path.ts';
import { BrokerRefusal } from './refusal.ts';
import {
  type AllFields,
  type Authority,
  authorityOf,
  awsHosts,
  type CredentialType,
  isAwsTarget,
  isUnder,
  type Policy,
  takesAwsServices,
} from '../credentials/index.ts';
import { unknownMember } from '../shared/closed-sets.ts';

/** Scheme, host and port; the host in lower case. */
export interface TargetOrigin {
  readonly protocol: 'https:' | 'http:';
  readonly host: string;
  readonly port: number;
}
/** `basePath` ends in no slash. */
export interface Target {
  readonly origin: TargetOrigin;
  readonly basePath: string;
  /** The credential's own destination, and none of its policy's hosts. */
  readonly isOwn?: true;
}

const hostForm = /^(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?$/;

/**
 * The target of a ticket. `host` chooses a host of the policy, with a port where that is not 443;
 * it may be left out for a type that has a destination of its own, and where the policy allows
 * exactly one host. Throws BrokerRefusal `host`.
 */
export function targetOf(
  type: CredentialType,
  fields: AllFields,
  policy: Policy,
  host: string | undefined,
): Target {
  const own = ownTarget(type, fields);
  if (own !== undefined && (host === undefined || namesOwn(own, host))) return own;
  const services = takesAwsServices(type) ? (policy.awsServices ?? []) : [];
  const { region } = fields;
  const [only, ...others] = [...policy.allowedHosts, ...awsHosts(services, region)];
  const chosen = authorityOf(host ?? (others.length === 0 ? (only ?? '') : ''));
  // SECURITY: a secret that is a URL goes to its own host only; every other one to the hosts of the
  // policy, by exact name and port.
  if (
    chosen === undefined ||
    type.broker?.upstream.kind === 'secret' ||
    !hostForm.test(chosen.host) ||
    !(isAllowedHost(policy, chosen) || isAwsTarget(services, region, chosen))
  )
    throw new BrokerRefusal('host');
  return { origin: { protocol: 'https:', ...chosen }, basePath: '' };
}

/** By its name alone too: it goes nowhere else for that. */
const namesOwn = ({ origin }: Target, host: string): boolean =>
  host === origin.host || host === authorityText(origin);

/** What of the target a ticket remembers: null where the type says all of it. */
export const hostOfTicket = ({ origin, isOwn }: Target, host: string | undefined): string | null =>
  host === undefined && isOwn === true ? null : authorityText(origin);

/** Whether the policy names host and port: exactly, or by `*.` for exactly one label. */
export function isAllowedHost({ allowedHosts }: Policy, target: Authority): boolean {
  return allowedHosts.some((entry) => {
    const allowed = authorityOf(entry);
    if (allowed === undefined || allowed.port !== target.port) return false;
    const { host } = target;
    return (
      allowed.host === host ||
      (allowed.host.startsWith('*.') &&
        host.indexOf('.') > 0 &&
        host.slice(host.indexOf('.')) === allowed.host.slice(1))
    );
  });
}

/** Whether type and fields name a target by themselves. */
export const hasOwnTarget = (type: CredentialType, fields: AllFields): boolean =>
  ownTarget(type, fields) !== undefined;

function ownTarget(type: CredentialType, fields: AllFields): Target | undefined {
  const { upstream, injection } = type.broker ?? {};
  switch (upstream?.kind) {
    case undefined:
      throw new BrokerRefusal('unsupported');
    case 'policy':
      return undefined;
    case 'fixed':
      return targetOfUrl(upstream.baseUrl);
    case 'field':
      return targetOfUrl(String(fields[upstream.field] ?? ''));
    case 'optionalField':
      return fields[upstream.field] === undefined
        ? undefined
        : targetOfUrl(String(fields[upstream.field]));
    case 'hostPort': {
      const { hostField, portField, secureField } = upstream;
      const isPlain = secureField !== undefined && fields[secureField] === false;
      return targetOfUrl(
        `${isPlain ? 'http' : 'https'}://${String(fields[hostField])}:${String(fields[portField])}`,
      );
    }
    case 'secret': {
      const { origin } = targetOfUrl(
        injection?.kind === 'url' ? String(fields[injection.field]) : '',
      );
      return { origin, basePath: '', isOwn: true };
    }
  }
  throw unknownMember(upstream satisfies never);
}

function targetOfUrl(text: string): Target {
  const url = URL.parse(text);
  const [host, protocol] = [url?.hostname ?? '', url?.protocol];
  if (url === null || (protocol !== 'https:' && protocol !== 'http:') || !hostForm.test(host))
    throw new BrokerRefusal('host');
  return {
    origin: {
      protocol,
      host,
      port: url.port === '' ? (protocol === 'https:' ? 443 : 80) : Number(url.port),
    },
    basePath: url.pathname.replace(/\/+$/, ''),
    isOwn: true,
  };
}

/** The origin as a URL's beginning, without the scheme's own port. */
export function originText({ protocol, host, port }: TargetOrigin): string {
  return `${protocol}//${host}${port === (protocol === 'https:' ? 443 : 80) ? '' : `:${port}`}`;
}

/** Host and port in one spelling: without the port of TLS. */
const authorityText = ({ host, port }: Authority): string =>
  port === 443 ? host : `${host}:${port}`;

/** What the Host header says. */
export const hostHeader = (origin: TargetOrigin): string =>
  originText(origin).slice(origin.protocol.length + 2);

/**
 * Whether a call's path is put behind something that it must not climb out of: a base path, or what
 * the type injects there. Of the target without secrets.
 */
export function isBehindPath(type: CredentialType, target: () => Target): boolean {
  const kind = type.broker?.injection.kind;
  return kind === 'path' || kind === 'url' || target().basePath !== '';
}

/**
 * Throws BrokerRefusal unless the policy lets this call through: `unsupported` for what turns a
 * connection into a tunnel or echoes a request, `method`, `path` for a path or query that somebody
 * behind might read in another way, `pathPrefix`.
 */
export function checkCall(
  policy: Policy,
  call: { method: string; pathAndQuery: string; isUpgrade: boolean | 'webSocket' },
  isBehind: boolean,
): void {
  const isCarried = call.isUpgrade === 'webSocket' && policy.webSockets === true;
  if (
    (call.isUpgrade !== false && !isCarried) ||
    call.method === 'CONNECT' ||
    call.method === 'TRACE'
  )
    throw new BrokerRefusal('unsupported');
  if (
    !callable.has(call.method) ||
    (policy.methods !== undefined && !(policy.methods as readonly string[]).includes(call.method))
  )
    throw new BrokerRefusal('method');
  if (!visible.test(call.pathAndQuery) || call.pathAndQuery.includes('#'))
    throw new BrokerRefusal('path');
  // SECURITY: a ticket travels in headers; in a URL it would stand in the upstream's logs.
  if (holdsTicket(call.pathAndQuery)) throw new BrokerRefusal('path');
  checkPath(policy, split(call.pathAndQuery)[0], isBehind);
}

function checkPath(
  { pathPrefixes, encodedSlashes }: Policy,
  path: string,
  isBehind: boolean,
): void {
  if (pathPrefixes === undefined && !isBehind) {
    if (path.includes('\\') || !isFreePath(path)) throw new BrokerRefusal('path');
    return;
  }
  // SECURITY: in every reading that there is; what checks it and what serves it may have two.
  const readings = encodedSlashes === true ? [path, withSlashes(path)] : [path];
  if (!isPlainPath(readings.at(-1)!)) throw new BrokerRefusal('path');
  const isWithin = (reading: string): boolean =>
    pathPrefixes === undefined || pathPrefixes.some((prefix) => isUnder(reading, prefix));
  if (!readings.every(isWithin)) throw new BrokerRefusal('pathPrefix');
}

/** However it is escaped. */
function holdsTicket(text: string): boolean {
  const undone = text.replace(/%(?:25)*([0-9a-f]{2})/gi, (_, hex: string) =>
    String.fromCharCode(Number.parseInt(hex, 16)),
  );
  return text.includes('vbt_') || undone.includes('vbt_');
}

const callable: ReadonlySet<string> = new Set([
  'GET',
  'HEAD',
  'POST',
  'PUT',
  'PATCH',
  'DELETE',
  'OPTIONS',
]);
const visible = /^[!-~]+$/;
/**
 * The path and query for the upstream: base path, then what `inject` makes of the caller's. Throws
 * BrokerRefusal `path` when the result, read as a URL, is not what was put together.
 */
export function upstreamPath(
  { origin, basePath }: Target,
  pathAndQuery: string,
  inject: (pathAndQuery: string) => string,
): string {
  const joined = `${basePath}${inject(pathAndQuery)}`;
  const whole = joined === '' ? '/' : joined;
  const url = URL.parse(`${originText(origin)}${whole}`);
  const [path] = split(whole);
  // SECURITY: parsed again, it must still be the same host, below the same base, and the path that
  // was put together.
  const isSame =
    url !== null &&
    url.origin === originText(origin) &&
    url.username === '' &&
    url.password === '' &&
    url.hash === '' &&
    (basePath === '' || url.pathname === basePath || url.pathname.startsWith(`${basePath}/`)) &&
    decoded(url.pathname) === decoded(path) &&
    decoded(path) !== undefined;
  if (!isSame) throw new BrokerRefusal('path');
  return whole;
}

/** The upstream's path in which the caller's paths lie: what `inject` makes of none. */
export const rootOf = ({ basePath }: Target, inject: (pathAndQuery: string) => string): string =>
  `${basePath}${split(inject(''))[0]}`;

function split(pathAndQuery: string): [path: string, query: string] {
  const at = pathAndQuery.indexOf('?');
  return at < 0 ? [pathAndQuery, ''] : [pathAndQuery.slice(0, at), pathAndQuery.slice(at)];
}
