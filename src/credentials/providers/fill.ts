// Endpoints with names in braces: a value is put in before the URL is parsed, the URL is parsed
// again, and its host has to be the one that the entry means.
import type { InputRule } from '../../shared/rules.ts';
import type { OAuthProvider, Placeholder, PlaceholderName } from './define.ts';
import { unknownMember } from '../../shared/closed-sets.ts';

const label = /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/;
const segment = /^(?!\.{1,2}$)[A-Za-z0-9._~-]{1,128}$/;
const host = /^(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.){1,10}[a-z][a-z0-9-]{0,61}[a-z0-9]$/;

/** The rule that a value of a placeholder breaks; undefined for a good one. */
export function placeholderFault(placeholder: Placeholder, value: string): InputRule | undefined {
  switch (placeholder.kind) {
    case 'label':
      return label.test(value) ? undefined : 'label';
    case 'segment':
      return segment.test(value) ? undefined : 'segment';
    case 'host':
      return value.length <= 253 && host.test(value) && value.endsWith(placeholder.suffix ?? '')
        ? undefined
        : 'host';
    case 'word':
      return Object.hasOwn(placeholder.words, value) ? undefined : 'enum';
    case 'url':
      return isBase(value) ? undefined : 'url';
  }
  throw unknownMember(placeholder satisfies never);
}

/** A plain https URL, or plain http for what an egress rule names, without a slash at its end. */
function isBase(value: string): boolean {
  const url = URL.parse(value);
  return (
    url !== null &&
    /^https?:\/\/[a-z0-9.-]+(?::\d{1,5})?(?:\/[A-Za-z0-9._~-]+)*$/.test(value) &&
    url.pathname.replace(/\/$/, '') === value.replace(/^https?:\/\/[^/]+/, '')
  );
}

/**
 * The endpoint with the values put in; undefined where it is not, parsed again, of the host that
 * the template means. The values have their forms.
 */
export function fillEndpoint(
  template: string,
  { placeholders = {} }: Pick<OAuthProvider, 'placeholders'>,
  values: Readonly<Partial<Record<PlaceholderName, string>>>,
): string | undefined {
  const textOf = (name: string): string => {
    const placeholder = placeholders[name as PlaceholderName];
    const value = values[name as PlaceholderName];
    if (placeholder === undefined || value === undefined)
      throw new TypeError(`a template names ${name}, and its entry does not`);
    return placeholder.kind === 'word' ? (placeholder.words[value] ?? '') : value;
  };
  const filled = template.replace(/\{(\w+)\}/g, (_, name: string) => textOf(name));
  const url = URL.parse(filled);
  if (url === null || url.username !== '' || url.password !== '' || url.hash !== '')
    return undefined;
  // SECURITY: parsed again, the URL is what was put together, and nothing moved its host.
  if (url.href !== filled && url.href !== `${filled}/`) return undefined;
  return url.host === hostOf(template, textOf) ? filled : undefined;
}

/** The host that the template means: its labels one by one, each filled by itself. */
function hostOf(template: string, textOf: (name: string) => string): string {
  const [, authority = ''] = /^(?:https:\/\/)?([^/?]+)/.exec(template) ?? [];
  const filled = authority.replace(/\{(\w+)\}/g, (_, name: string) => textOf(name));
  return filled.startsWith('http') ? (URL.parse(filled)?.host ?? '') : filled;
}

/**
 * What every host of a template ends in; undefined where a placeholder stands for a whole host.
 */
export function fixedSuffix(
  template: string,
  { placeholders = {} }: Pick<OAuthProvider, 'placeholders'>,
): string | undefined {
  const [, authority = ''] = /^(?:https:\/\/)?([^/?]+)/.exec(template) ?? [];
  for (const [, name] of authority.matchAll(/\{(\w+)\}/g)) {
    const placeholder = placeholders[name as PlaceholderName];
    if (placeholder?.kind === 'url') return undefined;
    if (placeholder?.kind === 'host') return placeholder.suffix;
  }
  // Words are a closed list: each of them is fixed. A label stands for one label and no more.
  return authority.replace(/^.*\{(?:tenant|subdomain|shop)\}/, '');
}
