// A connection as a URI, read as Airflow reads it; what its readers of several years read
// differently is refused.

/** The URI says nothing, or not the same to everybody. The message holds no part of it. */
export class UriUnfit extends Error {
  override name = 'UriUnfit';
}

interface UriConnection {
  readonly type: string;
  readonly data: Readonly<Record<string, string | number>>;
  readonly extra: string | Readonly<Record<string, string>> | undefined;
}

/** The parts of a connection's URI. Throws UriUnfit. */
export function connectionOfUri(uri: string): UriConnection {
  const refuse = (why: string): never => {
    throw new UriUnfit(why);
  };
  if (/[\s\p{C}\\#]/u.test(uri)) refuse('a blank, a # or a backslash stands in it unescaped');
  const [, scheme = '', afterScheme = ''] = /^([A-Za-z][A-Za-z0-9+._-]*):\/\/(.*)$/.exec(uri) ?? [];
  if (scheme === '') refuse('it has no type://');
  const [, protocol, rest = ''] = /^(?:([a-z][a-z0-9+.-]*):\/\/)?(.*)$/i.exec(afterScheme) ?? [];
  const [, authority = '', path = '', query] =
    /^([^/?]*)(?:\/([^?]*))?(?:\?(.*))?$/.exec(rest) ?? refuse('it has no form of a URI');
  const at = authority.lastIndexOf('@');
  const [, login, password] =
    /^([^:]*)(?::(.*))?$/.exec(at < 0 ? '' : authority.slice(0, at)) ?? [];
  const [, host = '', port] =
    /^(\[[0-9A-Fa-f:.]*\]|[^:[\]]*)(?::(\d*))?$/.exec(authority.slice(at + 1)) ??
    refuse('its host or its port is none; is something in the password unescaped?');
  const decoded = (text: string): string => {
    try {
      return decodeURIComponent(text);
    } catch {
      return refuse('an escape in it is none');
    }
  };
  if (port !== undefined && port !== '' && Number(port) > 65_535) refuse('its port is none');
  const name = decoded(host).replace(/^\[(.*)\]$/, '$1');
  const data: Record<string, string | number> = {};
  const add = (key: string, value: string | number | undefined): void => {
    if (value !== undefined && value !== '') data[key] = value;
  };
  add('login', login === undefined ? undefined : decoded(login));
  add('password', password === undefined ? undefined : decoded(password));
  const plainHost = name.includes('/') ? name : name.toLowerCase();
  add('host', protocol === undefined || name === '' ? plainHost : `${protocol}://${plainHost}`);
  add('port', port === undefined || port === '' ? undefined : Number(port));
  add('schema', decoded(path));
  return {
    type:
      scheme.toLowerCase() === 'postgresql'
        ? 'postgres'
        : scheme.toLowerCase().replaceAll('-', '_'),
    data,
    extra: query === undefined || query === '' ? undefined : extraOf(query, decoded, refuse),
  };
}

function extraOf(
  query: string,
  decoded: (text: string) => string,
  refuse: (why: string) => never,
): UriConnection['extra'] {
  if (query.includes(';')) refuse('a ; stands in its query unescaped');
  const members = new Map<string, string>();
  for (const part of query.split('&')) {
    if (part === '') continue;
    const [name = '', ...values] = part.split('=');
    const key = decoded(name.replaceAll('+', ' '));
    if (members.has(key)) refuse('a name comes twice in its query');
    if (key === '__proto__') refuse('a name in its query is none');
    members.set(key, decoded(values.join('=').replaceAll('+', ' ')));
  }
  return members.get('__extra__') ?? Object.fromEntries(members);
}
