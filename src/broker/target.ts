// Where a call goes: to the credential's own destination or to a host of its policy, and below the
// base path. The caller supplies a path and a query, which arrive to the byte or not at all. Pure.
import { decoded, isPlainPath } from './plain-path.ts';
import { BrokerRefusal } from './refusal.ts';
import { type AllFields, type CredentialType, isUnder, type Policy } from '../credentials/index.ts';

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
}

const hostForm = /^(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?$/;

/**
 * The target of a ticket. `host` chooses a host of the policy; it may be left out for a type that
 * has a destination of its own, and where the policy names exactly one host. Throws BrokerRefusal
 * `host`.
 */
export function targetOf(
  type: CredentialType,
  fields: AllFields,
  policy: Policy,
  host: string | undefined,
): Target {
  const own = ownTarget(type, fields);
  if (own !== undefined && (host === undefined || host === own.origin.host)) return own;
  const only = policy.allowedHosts.length === 1 ? policy.allowedHosts[0] : undefined;
  const chosen = host ?? only;
  // SECURITY: a secret that is a URL goes to its own host only; every other one to the hosts of the
  // policy, by exact name.
  if (
    chosen === undefined ||
    type.broker?.upstream.kind === 'secret' ||
    !hostForm.test(chosen) ||
    !isAllowedHost(policy, chosen)
  )
    throw new BrokerRefusal('host');
  return { origin: { protocol: 'https:', host: chosen, port: 443 }, basePath: '' };
}

/** Whether the policy names the host: exactly, or by `*.` for exactly one label. */
export function isAllowedHost({ allowedHosts }: Policy, host: string): boolean {
  return allowedHosts.some(
    (allowed) =>
      allowed === host ||
      (allowed.startsWith('*.') &&
        host.indexOf('.') > 0 &&
        host.slice(host.indexOf('.')) === allowed.slice(1)),
  );
}

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
    case 'hostPort':
      return targetOfUrl(
        `https://${String(fields[upstream.hostField])}:${String(fields[upstream.portField])}`,
      );
    case 'secret': {
      const { origin } = targetOfUrl(
        injection?.kind === 'url' ? String(fields[injection.field]) : '',
      );
      return { origin, basePath: '' };
    }
  }
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
  };
}

/** The origin as a URL's beginning, without the scheme's own port. */
export function originText({ protocol, host, port }: TargetOrigin): string {
  return `${protocol}//${host}${port === (protocol === 'https:' ? 443 : 80) ? '' : `:${port}`}`;
}

/** What the Host header says. */
export const hostHeader = (origin: TargetOrigin): string =>
  originText(origin).slice(origin.protocol.length + 2);

/**
 * Throws BrokerRefusal unless the policy lets this call through: `unsupported` for what turns a
 * connection into a tunnel or echoes a request, `method`, `path` for a path or query that somebody
 * behind might read in another way, `pathPrefix`.
 */
export function checkCall(
  policy: Policy,
  call: { method: string; pathAndQuery: string; isUpgrade: boolean | 'webSocket' },
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
  const [path] = split(call.pathAndQuery);
  if (!isPlainPath(path) || !visible.test(call.pathAndQuery) || call.pathAndQuery.includes('#'))
    throw new BrokerRefusal('path');
  // SECURITY: a ticket travels in headers; in a URL it would stand in the upstream's logs.
  if (call.pathAndQuery.includes('vbt_')) throw new BrokerRefusal('path');
  if (
    policy.pathPrefixes !== undefined &&
    !policy.pathPrefixes.some((prefix) => isUnder(path, prefix))
  )
    throw new BrokerRefusal('pathPrefix');
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
