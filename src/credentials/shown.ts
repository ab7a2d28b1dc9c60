// Public fields as they are shown. The query of an endpoint may hold what its writer took for
// public and is not: it is stored and used whole, and shown with names only.
import { isDeclared } from './declared/names.ts';
import { findType } from './types/registry.ts';
import type { PublicFields, PublicValue } from './public-values.ts';
import type { CredentialType, FieldSpec } from './types/define.ts';

/** The fields of a type as answers, exports and leases have them. */
export function shownFields(type: CredentialType | undefined, fields: PublicFields): PublicFields {
  // A row that was tampered with past the vault may hold anything; what reads it next says so.
  if (typeof fields !== 'object' || fields === null || Array.isArray(fields)) return fields;
  return Object.fromEntries(
    Object.entries(fields).map(([name, value]) => {
      const field =
        type !== undefined && Object.hasOwn(type.fields, name) ? type.fields[name] : undefined;
      if (field !== undefined) return [name, shownValue(field, value)];
      // SECURITY: of a type that is not known, any URL may be an endpoint.
      return [name, type === undefined && isUrl(value) ? withoutValues(value) : value];
    }),
  );
}

/**
 * The same by what a credential's row says of its type. No form of a declared field has a query
 * that is hidden.
 */
export const shownFieldsOf = (stored: string, fields: PublicFields): PublicFields =>
  isDeclared(stored) ? fields : shownFields(findType(stored), fields);

/** One value of a field as it is shown. */
export function shownValue(field: FieldSpec, value: PublicValue): PublicValue {
  return field.hasHiddenQuery === true && typeof value === 'string' ? withoutValues(value) : value;
}

const isUrl = (value: PublicValue): value is string =>
  typeof value === 'string' && /^https?:/i.test(value);

function withoutValues(value: string): string {
  const at = value.indexOf('?');
  if (at < 0) return value;
  const names = value
    .slice(at + 1)
    .split('&')
    .map((part) => part.split('=', 1)[0]);
  return `${value.slice(0, at)}?${names.join('&')}`;
}
