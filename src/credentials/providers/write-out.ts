// What becomes of `provider` when a credential is stored: its entry is written out into the public
// fields, so that the version says by itself where the client secret goes. Afterwards nothing of
// the catalogue counts: an upgrade changes no stored version. Pure.
import type { InputRule } from '../../shared/rules.ts';
import type { InputFault } from '../../shared/errors.ts';
import { type OAuthProvider, type Placeholder, placeholderNames, quirkNames } from './define.ts';
import { fillEndpoint, placeholderFault } from './fill.ts';
import type { PublicValue } from '../public-values.ts';

/** What a provider's own document says. */
export interface Discovered {
  readonly authorizationUrl: string;
  readonly tokenUrl: string;
  readonly clientAuthentication: 'header' | 'body';
  readonly isIssuerNamed: boolean;
}

/** What `provider` is looked up in, and what was read of an issuer. */
export interface Providers {
  readonly find: (name: string) => OAuthProvider | undefined;
  readonly discovered?: ReadonlyMap<string, Discovered>;
}

/** Fields that the vault writes by itself where there is a provider. */
export const writtenNames = [
  'authorizationUrl',
  'tokenUrl',
  'refreshUrl',
  'issuer',
  'providerParameters',
] as const;
type Fields = Readonly<Record<string, PublicValue>>;
type Input = Readonly<Record<string, PublicValue | null>>;

export interface Change {
  readonly stored: Fields;
  readonly input: Input;
  /** For a type whose provider is always the same one. */
  readonly always: string | undefined;
  readonly providers: Providers;
}

/**
 * Writes the entry into `fields`, which has what is stored and what was sent. Returns what is wrong
 * with what was sent.
 */
export function writeOut(fields: Map<string, PublicValue>, change: Change): InputFault[] {
  const { stored, input, always } = change;
  const isNew = Object.keys(stored).length === 0;
  if (always !== undefined) {
    if (isSent(input, 'provider') && input['provider'] !== always)
      return [fault('provider', 'immutable')];
    const isAsked = isNew || isSent(input, 'provider') || isSent(input, 'providerRevision');
    set(fields, 'provider', isAsked ? always : stored['provider']);
  }
  const name = textOf(fields.get('provider'));
  if (name === undefined && always === undefined) return withoutProvider(fields, change);
  const provider = change.providers.find(name ?? '');
  // SECURITY: what is written is the vault's: nothing that was sent stands in for it.
  for (const each of writtenOf(change, provider)) set(fields, each, stored[each]);
  if (name === undefined) return notWritten(fields, change, provider);
  if (!isNew && !isRewritten(fields, change)) {
    // What was sent is put as the entry wants it, as long as it is the one that is written.
    if (provider !== undefined && provider.revision === stored['providerRevision']) {
      writeQuirks(fields, provider, change);
      if (input['scope'] !== undefined && always === undefined) writeScope(fields, provider);
    }
    return notWritten(fields, change, provider);
  }
  if (provider === undefined) return [fault('provider', 'unknown')];
  const revision = input['providerRevision'];
  if (isSent(input, 'providerRevision') && revision !== provider.revision)
    return [fault('providerRevision', 'current')];
  const faults = [
    ...placeholdersOf(fields, provider, change),
    ...grantOf(fields, provider, change),
  ];
  if (faults.length > 0) return faults;
  writeQuirks(fields, provider, change);
  const wrong = writeEndpoints(fields, provider, change);
  if (always === undefined) writeScope(fields, provider);
  set(fields, 'providerParameters', provider.parameters);
  fields.set('providerRevision', provider.revision);
  return [...wrong, ...notWritten(fields, change, provider)];
}

/**
 * The issuer whose document has to be read before the fields can be written out; undefined where
 * none has to be.
 */
export function issuerToDiscover(
  stored: Fields,
  input: Input,
  { find }: Pick<Providers, 'find'>,
): string | undefined {
  const value = (name: string) => (input[name] === undefined ? stored[name] : input[name]);
  const provider = find(textOf(value('provider')) ?? '');
  const issuer = textOf(value('issuer'));
  if (provider?.hasDiscovery !== true || issuer === undefined) return undefined;
  const isSame =
    stored['provider'] === provider.name &&
    stored['issuer'] === issuer &&
    (input['providerRevision'] ?? stored['providerRevision']) === stored['providerRevision'];
  return isSame ? undefined : issuer;
}

/**
 * Another provider, another value in the place of a name, or the wish for the present revision: all
 * else leaves what is written as it is.
 */
function isRewritten(fields: ReadonlyMap<string, PublicValue>, { stored, input }: Change): boolean {
  const isOther = (name: string): boolean => fields.get(name) !== stored[name];
  return (
    isOther('provider') ||
    placeholderNames.some(isOther) ||
    (isSent(input, 'providerRevision') &&
      input['providerRevision'] !== stored['providerRevision']) ||
    (isSent(input, 'issuer') && isOther('issuer') && stored['issuer'] !== undefined)
  );
}

/** What a caller does not say where there is a provider. */
const writtenOf = ({ always }: Change, provider: OAuthProvider | undefined): readonly string[] => [
  ...writtenNames.filter((name) => name !== 'issuer' || provider?.hasDiscovery !== true),
  ...(always === undefined ? [] : ['clientAuthentication']),
];

/** A provider and endpoints exclude each other; the very ones that are written are no others. */
const notWritten = (
  fields: ReadonlyMap<string, PublicValue>,
  change: Change,
  provider: OAuthProvider | undefined,
): InputFault[] =>
  writtenOf(change, provider).flatMap((name) => {
    const sent = change.input[name];
    return sent === undefined || sent === null || sent === fields.get(name)
      ? []
      : [fault(name, 'notWithProvider')];
  });

/** What belongs to a provider goes with it; its parameters stay, as the credential's own. */
function withoutProvider(
  fields: Map<string, PublicValue>,
  { stored, input }: Change,
): InputFault[] {
  const owned = ['providerRevision', 'providerParameters', ...placeholderNames];
  const faults = owned.flatMap((name) =>
    isSent(input, name) && input[name] !== stored[name] ? [fault(name, 'needsProvider')] : [],
  );
  if (stored['provider'] === undefined) return faults;
  const kept = textOf(stored['providerParameters']);
  if (kept !== undefined)
    fields.set('parameters', mergedParameters(kept, textOf(fields.get('parameters'))));
  for (const name of owned) fields.delete(name);
  return faults;
}

/** The provider's parameters, and the credential's own over them. */
export function mergedParameters(ofProvider: string, own: string | undefined): string {
  if (own === undefined) return ofProvider;
  const all = new URLSearchParams(ofProvider);
  const mine = new URLSearchParams(own);
  for (const name of mine.keys()) all.delete(name);
  for (const [name, value] of mine) all.append(name, value);
  return all.toString();
}

function placeholdersOf(
  fields: Map<string, PublicValue>,
  { placeholders = {} }: OAuthProvider,
  { input }: Change,
): InputFault[] {
  return placeholderNames.flatMap((name): InputFault[] => {
    const placeholder: Placeholder | undefined = placeholders[name];
    if (placeholder === undefined) {
      fields.delete(name);
      return isSent(input, name) ? [fault(name, 'notForProvider')] : [];
    }
    const value = textOf(fields.get(name)) ?? placeholder.default;
    if (value === undefined) return [fault(name, 'required')];
    fields.set(name, value);
    const rule = placeholderFault(placeholder, value);
    return rule === undefined ? [] : [fault(name, rule)];
  });
}

function grantOf(
  fields: Map<string, PublicValue>,
  { grants }: OAuthProvider,
  { input, always }: Change,
): InputFault[] {
  if (always !== undefined) return [];
  const [first] = grants;
  const sent = textOf(fields.get('grant'));
  if (sent === undefined || (!isSent(input, 'grant') && !grants.some((each) => each === sent))) {
    fields.set('grant', first!);
    return [];
  }
  return grants.some((each) => each === sent) ? [] : [fault('grant', 'notForProvider')];
}

/** What the caller says itself stands; the rest is as the entry says. */
function writeQuirks(
  fields: Map<string, PublicValue>,
  { quirks }: OAuthProvider,
  { stored, input, always }: Change,
): void {
  const isOther = fields.get('provider') !== stored['provider'];
  const isAdopted = isSent(input, 'providerRevision');
  const names = always === undefined ? quirkNames : (['clientAuthentication'] as const);
  for (const name of names) {
    const isSaid = always === undefined && isSent(input, name);
    if (isSaid || !(isOther || isAdopted || input[name] === null)) continue;
    set(fields, name, quirks[name]);
  }
}

function writeEndpoints(
  fields: Map<string, PublicValue>,
  provider: OAuthProvider,
  { providers, input }: Change,
): InputFault[] {
  if (provider.hasDiscovery === true) {
    const issuer = textOf(fields.get('issuer'));
    const found = issuer === undefined ? undefined : providers.discovered?.get(issuer);
    if (issuer === undefined) return [fault('issuer', 'required')];
    if (found === undefined) return [fault('issuer', 'discovery')];
    fields.set('authorizationUrl', found.authorizationUrl);
    fields.set('tokenUrl', found.tokenUrl);
    fields.delete('refreshUrl');
    if (!isSent(input, 'clientAuthentication'))
      fields.set('clientAuthentication', found.clientAuthentication);
    if (!isSent(input, 'issuerCheck'))
      set(fields, 'issuerCheck', found.isIssuerNamed ? undefined : 'ifSent');
    return [];
  }
  const values = Object.fromEntries(
    placeholderNames.flatMap((name) => {
      const value = textOf(fields.get(name));
      return value === undefined ? [] : [[name, value]];
    }),
  );
  fields.delete('issuer');
  return (['authorizationUrl', 'tokenUrl', 'refreshUrl'] as const).flatMap((name) => {
    const template = provider[name];
    if (template === undefined) {
      fields.delete(name);
      return [];
    }
    const filled = fillEndpoint(template, provider, values);
    if (filled === undefined) return [fault('provider', 'endpoint')];
    fields.set(name, filled);
    return [];
  });
}

/** With what the provider gives a refresh token for, and as it wants them separated. */
function writeScope(fields: Map<string, PublicValue>, provider: OAuthProvider): void {
  const { scope: usual, offlineScope, scopeSeparator = ' ' } = provider;
  const said = textOf(fields.get('scope')) ?? usual;
  const isByItself = fields.get('grant') === 'clientCredentials';
  const all = (said ?? '').split(scopeSeparator === ',' ? /[\s,]+/ : /\s+/).filter(Boolean);
  if (offlineScope !== undefined && !isByItself && !all.includes(offlineScope))
    all.push(offlineScope);
  set(fields, 'scope', all.length === 0 ? undefined : all.join(scopeSeparator));
}

const isSent = (input: Input, name: string): boolean =>
  input[name] !== undefined && input[name] !== null;
const textOf = (value: PublicValue | null | undefined): string | undefined =>
  typeof value === 'string' ? value : undefined;
const fault = (name: string, rule: InputRule): InputFault => ({ pointer: `/fields/${name}`, rule });
const set = (
  fields: Map<string, PublicValue>,
  name: string,
  value: PublicValue | undefined,
): void => {
  if (value === undefined) fields.delete(name);
  else fields.set(name, value);
};
