// How a secret gets into a request. The template is the type's; the caller has no say in it. Pure.
import { BrokerRefusal } from './refusal.ts';
import { type Sign, signer } from './sigv4.ts';
import {
  type AllFields,
  brokeredBytesMin,
  type CredentialType,
  injectionFaults,
  plainInjection,
} from '../credentials/index.ts';
import { unknownMember } from '../shared/closed-sets.ts';

/** What a request to the upstream needs beside what the caller sent. */
export interface Rendered {
  /** Set on the request, whatever the caller sent under these names. */
  readonly headers: Readonly<Record<string, string>>;
  /** Set where the caller sent none of the name. */
  readonly defaults: Readonly<Record<string, string>>;
  /** Names of the caller's headers that do not go on, in lower case. */
  readonly dropHeaders: readonly string[];
  /** The path and query with the secret, from the path and query without. */
  path(pathAndQuery: string): string;
  /** Signs the request, where that is how the secret is used. */
  readonly sign?: Sign;
  /**
   * What redaction must look for: the secrets, and what is made of them otherwise than by an
   * encoding that it knows.
   */
  readonly sensitive: readonly string[];
}

/**
 * Renders the type's injection with the fields of one version, public and secret together; for an
 * OAuth type `accessToken` is the held one. Throws BrokerRefusal `unsupported` for a type that the
 * broker cannot use, `secretUnusable` for values unfit for their place.
 */
export function render(type: CredentialType, fields: AllFields): Rendered {
  const given = type.broker?.injection;
  const injection = given === undefined ? undefined : plainInjection(given, fields);
  if (injection === undefined) throw new BrokerRefusal('unsupported');
  // SECURITY: a value that was stored before the policy gave it to the broker never met these
  // rules.
  if (injectionFaults(type, fields).length > 0) throw new BrokerRefusal('secretUnusable');
  const text = (field: string): string => String(fields[field] ?? '');
  switch (injection.kind) {
    case 'bearer':
      return inHeader('authorization', `Bearer ${text(injection.field)}`, text(injection.field));
    case 'oauth':
      return inHeader('authorization', `Bearer ${accessToken(fields)}`, accessToken(fields));
    case 'header':
      return {
        ...inHeader(injection.name.toLowerCase(), text(injection.field), text(injection.field)),
        defaults: injection.also ?? {},
      };
    case 'headers': {
      const set = injection.headers.filter(({ field }) => Object.hasOwn(fields, field));
      return {
        ...nothing,
        headers: Object.fromEntries(
          set.map(({ name, field, scheme }) => [
            name.toLowerCase(),
            scheme === undefined ? text(field) : `${scheme} ${text(field)}`,
          ]),
        ),
        dropHeaders: injection.headers.map(({ name }) => name.toLowerCase()),
        sensitive: set
          .filter(({ field }) => type.fields[field]?.class === 'secret')
          .map(({ field }) => text(field)),
      };
    }
    case 'namedHeader':
      return inHeader(
        text(injection.nameField).toLowerCase(),
        text(injection.field),
        text(injection.field),
      );
    case 'basic': {
      const pair = Buffer.from(
        `${text(injection.usernameField)}:${text(injection.passwordField)}`,
      ).toString('base64');
      return {
        ...inHeader('authorization', `Basic ${pair}`, text(injection.passwordField)),
        sensitive: [text(injection.passwordField), pair],
      };
    }
    case 'basicKey': {
      const [key, password] = [text(injection.field), text(injection.passwordField)];
      const pair = Buffer.from(`${key}:${password}`).toString('base64');
      return {
        ...inHeader('authorization', `Basic ${pair}`, key),
        sensitive: [
          key,
          pair,
          ...(Buffer.byteLength(password) < brokeredBytesMin ? [] : [password]),
        ],
      };
    }
    case 'query': {
      const name = text(injection.nameField);
      return {
        ...nothing,
        path: (given) => withQuery(given, name, text(injection.field)),
        sensitive: [text(injection.field)],
      };
    }
    case 'path':
      return {
        ...nothing,
        path: (given) => `${injection.before}${text(injection.field)}${injection.after}${given}`,
        sensitive: [text(injection.field)],
      };
    case 'url':
      return asUrl(new URL(text(injection.field)));
    case 'sigv4': {
      const { sign, sensitive } = signer(fields, injection.service);
      return {
        ...nothing,
        dropHeaders: ['authorization', 'x-amz-date', 'x-amz-security-token'],
        sign,
        sensitive,
      };
    }
  }
  throw unknownMember(injection satisfies never);
}

const nothing = {
  headers: {},
  defaults: {},
  dropHeaders: [],
  path: (given: string): string => given,
} as const;
const inHeader = (name: string, value: string, secret: string): Rendered => ({
  ...nothing,
  headers: { [name]: value },
  dropHeaders: [name],
  sensitive: [secret],
});

/** SECURITY: the same rules as for stored values; this one came from a provider. */
function accessToken({ accessToken: token }: AllFields): string {
  if (typeof token !== 'string' || !/^[!-~]{8,}$/.test(token))
    throw new BrokerRefusal('secretUnusable');
  return token;
}

/**
 * Appends the secret parameter. SECURITY: the caller's own of that name go, however they were
 * written; everything else stays to the byte.
 */
function withQuery(pathAndQuery: string, name: string, value: string): string {
  const at = pathAndQuery.indexOf('?');
  const [path, query] =
    at < 0 ? [pathAndQuery, ''] : [pathAndQuery.slice(0, at), pathAndQuery.slice(at + 1)];
  const kept = query.split('&').filter((part) => part !== '' && parameterName(part) !== name);
  return `${path}?${[...kept, `${encodeURIComponent(name)}=${encodeURIComponent(value)}`].join('&')}`;
}

function parameterName(part: string): string {
  const [name = ''] = part.split('=', 1);
  return new URLSearchParams(`${name}=`).keys().next().value ?? '';
}

/** The secret is the URL: the caller adds nothing to its path, at most a query. */
function asUrl({ pathname, search, href }: URL): Rendered {
  const last = pathname.split('/').findLast((segment) => segment !== '') ?? '';
  return {
    ...nothing,
    path: (given) => {
      const [path, query] = given.split(/\?(.*)/s);
      if (path !== '' && path !== '/') throw new BrokerRefusal('path');
      return query === undefined || query === ''
        ? `${pathname}${search}`
        : `${pathname}${search === '' ? '?' : `${search}&`}${query}`;
    },
    // Its end alone, when it is long enough to be a secret of its own, is what an upstream may
    // name.
    sensitive: [href, `${pathname}${search}`, ...(last.length >= 16 ? [last] : [])],
  };
}
