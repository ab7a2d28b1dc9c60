// From what a caller sends to what is stored: which fields are public, which secret, and when a
// change demands the secrets again. Pure; nothing here decrypts.
import { fieldsMax } from '../shared/limits.ts';
import { AppError, type InputFault, invalid } from '../shared/errors.ts';
import { isPlainName } from '../shared/names.ts';
import { destinationsBy, isWiderPolicy, type Policy } from './policy.ts';
import type { CredentialType, FieldSpec } from './types/define.ts';
import { publicValue, secretValue } from './types/fields.ts';
import { standInOf } from './types/stand-ins.ts';
import { findProvider } from './providers/catalogue.ts';
import { type Providers, writeOut } from './providers/write-out.ts';
import { shownValue } from './shown.ts';
import { faultsIn } from '../shared/input-faults.ts';
import type { PublicFields, PublicValue } from './public-values.ts';

/** Fields as a caller sends them: a value, or null for "clear it". */
export type FieldsInput = Readonly<Record<string, PublicValue | null>>;
export type SecretValues = Readonly<Record<string, string>>;

/** What a change of fields comes to, before anything is decrypted. */
export interface FieldsChange {
  readonly publicFields: PublicFields;
  /** Values for secret fields that the caller sent. */
  readonly secrets: SecretValues;
  /** Secret fields that the caller cleared. */
  readonly cleared: readonly string[];
  /**
   * Stored secret fields that the caller did not mention: their values have to be read from the
   * token.
   */
  readonly kept: readonly string[];
}

/** The fields of a new credential. Throws invalidRequest with every fault. */
export function readNewFields(
  type: CredentialType,
  input: FieldsInput,
  publicFieldNames: readonly string[],
  providers?: Providers,
): { publicFields: PublicFields; secrets: SecretValues } {
  if (publicFieldNames.length > 0 && type.isOpen !== true)
    throw invalid('/publicFieldNames', 'customOnly');
  const missing = publicFieldNames.find((name) => !Object.hasOwn(input, name));
  if (missing !== undefined)
    throw invalid(`/publicFieldNames/${publicFieldNames.indexOf(missing)}`, 'notInFields');
  const change = applyFields(
    type,
    { publicFields: {}, secretFieldNames: [] },
    input,
    new Set(publicFieldNames),
    providers,
  );
  return { publicFields: change.publicFields, secrets: change.secrets };
}

/**
 * Whether fields that were stored once are what the type asks for, each in its class. What was
 * written out of a provider stands as it is: the catalogue may say something else by now.
 */
export function fitsType(
  type: CredentialType,
  { publicFields, secrets }: { publicFields: PublicFields; secrets: SecretValues },
): boolean {
  const stored = { publicFields, secretFieldNames: Object.keys(secrets) };
  const fits = (name: string, value: unknown, isOf: FieldSpec['class']): boolean => {
    const field = fieldOf(type, name, stored, new Set());
    return field?.class === isOf && faultsIn(field.schema, value, '').length === 0;
  };
  if (
    !Object.entries(publicFields).every(([name, value]) => fits(name, value, 'public')) ||
    !Object.entries(secrets).every(([name, value]) => fits(name, value, 'secret'))
  )
    return false;
  try {
    applyFields(type, stored, {});
    return true;
  } catch (error) {
    if (error instanceof AppError) return false;
    throw error;
  }
}

/**
 * What a partial change makes of the stored fields: omitted = keep, null = clear. Throws
 * invalidRequest with every fault.
 */
export function applyFields(
  type: CredentialType,
  stored: { readonly publicFields: PublicFields; readonly secretFieldNames: readonly string[] },
  input: FieldsInput,
  declaredPublic: ReadonlySet<string> = new Set(),
  providers: Providers = { find: findProvider },
): FieldsChange {
  const faults: InputFault[] = [];
  const publicFields = new Map<string, PublicValue>(Object.entries(stored.publicFields));
  const secrets = new Map<string, string>();
  const cleared: string[] = [];
  const shown = new Set<string>();
  for (const [name, value] of Object.entries(input)) {
    const field = fieldOf(type, name, stored, declaredPublic);
    const pointer =
      Object.hasOwn(type.fields, name) || isPlainName(name) ? `/fields/${name}` : '/fields';
    if (field === undefined) {
      faults.push({ pointer, rule: 'unknownField', allowed: Object.keys(type.fields) });
      continue;
    }
    if (value === null) {
      if (field.default !== undefined) publicFields.set(name, field.default);
      else if (field.class === 'public') publicFields.delete(name);
      else if (stored.secretFieldNames.includes(name)) cleared.push(name);
      continue;
    }
    // What a form was shown and sends back as it was is what is stored.
    const held = stored.publicFields[name];
    if (field.hasHiddenQuery === true && held !== undefined && shownValue(field, held) === value) {
      shown.add(name);
      continue;
    }
    const wrong = faultsIn(field.schema, value, pointer);
    if (wrong.length > 0) {
      faults.push(...wrong);
    } else if (field.class === 'public') {
      // What is stored stays as it is when it is sent back: another text is another destination.
      publicFields.set(name, value === held ? value : (field.stored?.(value) ?? value));
    } else {
      // Asked of what is sent only: what was stored before the rule can still be restored.
      const standIn = standInOf(value as string);
      if (standIn === undefined) secrets.set(name, value as string);
      else faults.push({ pointer, rule: standIn });
    }
  }
  if (type.oauth !== undefined && faults.length === 0)
    faults.push(
      ...writeOut(publicFields, {
        stored: stored.publicFields,
        input: Object.fromEntries(Object.entries(input).filter(([name]) => !shown.has(name))),
        always: type.oauth.provider,
        providers,
      }),
    );
  for (const [name, field] of Object.entries(type.fields)) {
    if (field.class === 'public' && field.default !== undefined && !publicFields.has(name))
      publicFields.set(name, field.default);
  }
  const kept = stored.secretFieldNames.filter(
    (name) => !secrets.has(name) && !cleared.includes(name),
  );
  const isSet = (name: string): boolean =>
    publicFields.has(name) || secrets.has(name) || kept.includes(name);
  for (const [name, field] of Object.entries(type.fields)) {
    if (
      field.isRequired &&
      !isSet(name) &&
      !faults.some((fault) => fault.pointer === `/fields/${name}`)
    )
      faults.push({ pointer: `/fields/${name}`, rule: 'required' });
  }
  if (type.anyOf !== undefined && faults.length === 0 && !type.anyOf.some(isSet))
    faults.push({
      pointer: `/fields/${type.anyOf[0]}`,
      rule: 'requiredAnyOf',
      allowed: type.anyOf,
    });
  const [one, other] = type.notBoth ?? [];
  if (one !== undefined && other !== undefined && isSet(one) && isSet(other))
    faults.push({ pointer: `/fields/${one}`, rule: 'notWith', allowed: [other] });
  if (type.faults !== undefined && faults.length === 0)
    faults.push(...type.faults(Object.fromEntries(publicFields), isSet));
  if (
    type.isOpen === true &&
    faults.length === 0 &&
    publicFields.size + secrets.size + kept.length === 0
  )
    faults.push({ pointer: '/fields', rule: 'min', min: 1 });
  if (publicFields.size + secrets.size + kept.length > fieldsMax)
    faults.push({ pointer: '/fields', rule: 'max', max: fieldsMax });
  if (faults.length > 0)
    throw new AppError('invalidRequest', 'The request breaks a rule.', {
      errors: faults.slice(0, 100),
    });
  return {
    publicFields: Object.fromEntries(publicFields),
    secrets: Object.fromEntries(secrets),
    cleared,
    kept,
  };
}

/**
 * SECURITY: the class of a stored field never changes; a field of an open type that nobody declared
 * public is secret.
 */
function fieldOf(
  type: CredentialType,
  name: string,
  stored: { publicFields: PublicFields; secretFieldNames: readonly string[] },
  declaredPublic: ReadonlySet<string>,
): FieldSpec | undefined {
  if (Object.hasOwn(type.fields, name)) return type.fields[name];
  if (type.isOpen !== true) return undefined;
  const isPublic =
    Object.hasOwn(stored.publicFields, name) ||
    (declaredPublic.has(name) && !stored.secretFieldNames.includes(name));
  return {
    title: name,
    class: isPublic ? 'public' : 'secret',
    isRequired: false,
    schema: isPublic ? publicValue : secretValue,
    isDestination: isPublic,
  };
}

/**
 * Whether the change sends stored secrets somewhere else or further: a new value of a destination
 * field, or a wider policy. Narrowing is free.
 */
export function isWider(
  type: CredentialType,
  before: { publicFields: PublicFields; policy: Policy },
  after: { publicFields: PublicFields; policy: Policy },
): boolean {
  const names = new Set([...Object.keys(before.publicFields), ...Object.keys(after.publicFields)]);
  const byPolicy = destinationsBy(after.policy);
  for (const name of names) {
    const isDestination =
      type.isOpen === true ||
      byPolicy.includes(name) ||
      (Object.hasOwn(type.fields, name) && type.fields[name]?.isDestination === true);
    if (isDestination && before.publicFields[name] !== after.publicFields[name]) return true;
  }
  return isWiderPolicy(before.policy, after.policy);
}

/**
 * Whether the change does nothing but write out the present entry of the stored provider, whose
 * endpoints have the schemes, hosts and ports of the stored ones: an admin's to do, without the
 * secrets.
 */
export function adoptsProvider(
  type: CredentialType,
  before: PublicFields,
  after: PublicFields,
  input: FieldsInput,
): boolean {
  const { oauth } = type;
  const revision = input['providerRevision'];
  if (oauth === undefined || typeof revision !== 'number' || Object.keys(input).length !== 1)
    return false;
  if (revision === before['providerRevision']) return false;
  const [old, next] = [oauth.settings(before), oauth.settings(after)];
  const isSame = (a: string | undefined, b: string | undefined): boolean =>
    a === b || (a !== undefined && b !== undefined && originOf(a) === originOf(b));
  // SECURITY: the client secret and the refresh token go to the token endpoint, the person's
  // consent to the other one: neither to another place.
  return (
    isSame(old.tokenUrl, next.tokenUrl) &&
    isSame(old.refreshUrl ?? old.tokenUrl, next.refreshUrl ?? next.tokenUrl) &&
    isSame(old.authorizationUrl, next.authorizationUrl)
  );
}

const originOf = (url: string): string => URL.parse(url)?.origin ?? url;

/** Throws secretRequired, naming each secret field whose value has to come along. */
export function demandAllSecrets(kept: readonly string[]): void {
  if (kept.length === 0) return;
  throw new AppError(
    'secretRequired',
    'A new destination or a wider policy needs new values for all secret fields in the same ' +
      'request.',
    {
      errors: kept.map((name) => ({ pointer: `/fields/${name}`, rule: 'secretRequired' })),
    },
  );
}
