// The address of the database: one or several hosts, as libpq writes them. Pure; a fault names the
// rule and never the value.

export interface DatabaseHost {
  readonly host: string;
  readonly port: number;
}

/** What a database URL says. The password is in it: keep it where secrets are kept. */
export interface DatabaseUrl {
  readonly hosts: readonly DatabaseHost[];
  readonly user: string;
  readonly password: string | undefined;
  readonly database: string;
  /** TLS with full verification of name and chain; there is no mode between that and none. */
  readonly isTls: boolean;
  readonly caPath: string | undefined;
}

/** The URL cannot be used; `rule` says why without repeating any of it. */
export class DatabaseUrlInvalid extends Error {
  readonly rule: string;
  constructor(rule: string) {
    super(`the database URL ${rule}`);
    this.name = 'DatabaseUrlInvalid';
    this.rule = rule;
  }
}

const hostsMax = 16;

/**
 * Reads `postgresql://user:password@h1:5432,h2:5432/database?sslmode=verify-full`, or
 * `?host=/socket/folder`. Throws DatabaseUrlInvalid.
 */
export function parseDatabaseUrl(url: string): DatabaseUrl {
  const match = /^postgres(?:ql)?:\/\/(?:([^/?#]*)@)?([^/?#@]*)(?:\/([^?#]*))?(?:\?([^#]*))?$/.exec(
    url,
  );
  if (match === null)
    throw new DatabaseUrlInvalid(
      'must have the form postgresql://user:password@host:port/database, with special ' +
        'characters percent-encoded',
    );
  const [, userinfo = '', authority = '', path = '', search = ''] = match;
  const parameters = readParameters(search);
  const colon = userinfo.indexOf(':');
  const user = decode(colon < 0 ? userinfo : userinfo.slice(0, colon));
  const database = decode(path);
  if (user === '') throw new DatabaseUrlInvalid('must name a user');
  if (database === '') throw new DatabaseUrlInvalid('must name a database');
  const password = colon < 0 ? undefined : decode(userinfo.slice(colon + 1));
  const hosts = readHosts(authority, parameters);
  return Object.freeze({ hosts, user, password, database, ...readTls(parameters, hosts) });
}

function readParameters(search: string): ReadonlyMap<string, string> {
  const parameters = new Map<string, string>();
  for (const part of search === '' ? [] : search.split('&')) {
    const equals = part.indexOf('=');
    const name = decode(equals < 0 ? part : part.slice(0, equals));
    if (!knownParameters.has(name))
      throw new DatabaseUrlInvalid(
        `may only have the parameters ${[...knownParameters].join(', ')}`,
      );
    if (parameters.has(name)) throw new DatabaseUrlInvalid(`has the parameter ${name} twice`);
    parameters.set(name, equals < 0 ? '' : decode(part.slice(equals + 1)));
  }
  const target = parameters.get('target_session_attrs');
  if (target !== undefined && target !== 'read-write' && target !== 'primary')
    throw new DatabaseUrlInvalid('may only ask for target_session_attrs primary or read-write');
  return parameters;
}

const knownParameters: ReadonlySet<string> = new Set([
  'host',
  'port',
  'sslmode',
  'sslrootcert',
  'target_session_attrs',
]);

function readHosts(
  authority: string,
  parameters: ReadonlyMap<string, string>,
): readonly DatabaseHost[] {
  const named = parameters.get('host');
  if (named !== undefined && authority !== '' && authority !== 'localhost')
    throw new DatabaseUrlInvalid('names hosts in two places');
  const ports = (parameters.get('port') ?? '').split(',');
  const entries =
    named === undefined
      ? authority.split(',').map(splitPort)
      : named
          .split(',')
          .map((host, index) => ({ host, port: ports[ports.length === 1 ? 0 : index] ?? '' }));
  if (named === undefined && parameters.has('port'))
    throw new DatabaseUrlInvalid('may only have the parameter port beside the parameter host');
  if (entries.length > hostsMax) throw new DatabaseUrlInvalid(`may name at most ${hostsMax} hosts`);
  return Object.freeze(
    entries.map(({ host, port }) =>
      Object.freeze({ host: checkedHost(host), port: checkedPort(port) }),
    ),
  );
}

function splitPort(entry: string): { host: string; port: string } {
  const match = /^(?:\[([0-9A-Fa-f:.]+)\]|([^:[\]]*))(?::(\d*))?$/.exec(entry);
  if (match === null)
    throw new DatabaseUrlInvalid('has a host that is neither name nor address (IPv6 in brackets)');
  return { host: match[1] ?? decode(match[2] ?? ''), port: match[3] ?? '' };
}

function checkedHost(host: string): string {
  if (host === '') throw new DatabaseUrlInvalid('must name a host');
  if (!host.startsWith('/') && !/^[A-Za-z0-9._:-]+$/.test(host))
    throw new DatabaseUrlInvalid(
      'has a host that is neither a name, an address nor an absolute folder',
    );
  return host;
}

function checkedPort(port: string): number {
  if (port === '') return 5432;
  const number = Number(port);
  if (!/^\d{1,5}$/.test(port) || number < 1 || number > 65535)
    throw new DatabaseUrlInvalid('has a port outside 1 to 65535');
  return number;
}

// SECURITY: `prefer` and `allow` fall back to plain text, and `require` elsewhere checks no
// certificate: here there is only all or nothing.
function readTls(
  parameters: ReadonlyMap<string, string>,
  hosts: readonly DatabaseHost[],
): { isTls: boolean; caPath: string | undefined } {
  const mode = parameters.get('sslmode') ?? 'disable';
  const caPath = parameters.get('sslrootcert');
  if (!['disable', 'require', 'verify-ca', 'verify-full'].includes(mode))
    throw new DatabaseUrlInvalid(
      'may only have sslmode disable, require, verify-ca or verify-full (the last three verify ' +
        'chain and name)',
    );
  const isTls = mode !== 'disable';
  if (!isTls && caPath !== undefined)
    throw new DatabaseUrlInvalid('has sslrootcert without an sslmode that uses it');
  if (isTls && hosts.some(({ host }) => host.startsWith('/')))
    throw new DatabaseUrlInvalid('asks for TLS over a unix socket');
  return { isTls, caPath: caPath === 'system' ? undefined : caPath };
}

function decode(text: string): string {
  let decoded: string;
  try {
    decoded = decodeURIComponent(text);
  } catch {
    throw new DatabaseUrlInvalid('has a percent sign that encodes nothing');
  }
  if (decoded.includes('\0')) throw new DatabaseUrlInvalid('holds a NUL');
  return decoded;
}
