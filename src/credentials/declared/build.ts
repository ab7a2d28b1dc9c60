// A declared type as every other one: the same fields, the same injections. Pure.
import { unknownMember } from '../../shared/closed-sets.ts';
import { type InputFault, invalid } from '../../shared/errors.ts';
import { faultsIn } from '../../shared/input-faults.ts';
import { type Declaration, type DeclaredField, isDestinationOf } from './declaration.ts';
import {
  type CredentialType,
  defineType,
  type FieldSpec,
  type Injection,
  type Upstream,
} from '../types/define.ts';
import {
  headerName,
  host,
  httpsUrl,
  moment,
  number,
  oneOf,
  optionalSecret,
  parameterName,
  pem,
  port,
  publicText,
  toggle,
  url,
  username,
} from '../types/fields.ts';

/** The type that a declaration makes. */
export function buildType(
  name: string,
  { title, description, fields, injection, upstream, test }: Declaration,
): CredentialType {
  return defineType({
    name,
    title,
    description,
    fields: Object.fromEntries(fields.map((field) => [field.name, specOf(field)])),
    ...(injection === undefined || upstream === undefined
      ? { noBroker: 'Its declaration has no injection.' }
      : { broker: { injection: injectionOf(injection), upstream: upstream as Upstream } }),
    ...(test === undefined
      ? { noTest: 'Its declaration has none.' }
      : { test: { kind: 'http', ...defined(test) } }),
  } as CredentialType);
}

/** What of defaults and choices breaks the rules of their forms. */
export function faultsOfDefaults({ fields }: Declaration): InputFault[] {
  return fields.flatMap((field, at) =>
    field.default === undefined
      ? []
      : faultsIn(specOf(field).schema, field.default, `/fields/${at}/default`),
  );
}

function specOf(field: DeclaredField): FieldSpec {
  const about = {
    title: field.title,
    ...(field.description === undefined ? {} : { description: field.description }),
  };
  const { default: _, ...base } = baseOf(field, about);
  return {
    ...base,
    ...about,
    isRequired: field.isRequired,
    isDestination: isDestinationOf(field),
    ...(field.default === undefined ? {} : { default: field.default }),
  };
}

const numberMax = 2_147_483_647;

function baseOf(
  { class: kind, form, choices = [] }: DeclaredField,
  about: { title: string; description?: string },
): FieldSpec {
  if (kind === 'secret') return optionalSecret(about);
  switch (form) {
    case 'host':
      return host(about);
    case 'port':
      return port(1);
    case 'url':
      return url(about);
    case 'httpsUrl':
      return httpsUrl(about);
    case 'headerName':
      return headerName(about);
    case 'parameterName':
      return parameterName(about);
    case 'username':
      return username(about);
    case 'number':
      return number({ ...about, min: -numberMax, max: numberMax });
    case 'flag':
      return toggle({ ...about, default: false });
    case 'choice':
      return oneOf({ ...about, values: choices as readonly [string, ...string[]] });
    case 'moment':
      return moment(about);
    case 'pem':
      return pem(about);
    case 'text':
      return publicText(about);
    case undefined:
      throw invalid('/fields', 'required');
  }
  throw unknownMember(form satisfies never);
}

function injectionOf(injection: NonNullable<Declaration['injection']>): Injection {
  const { kind, field, name = '', nameField = '', usernameField = '' } = injection;
  switch (kind) {
    case 'bearer':
    case 'url':
      return { kind, field };
    case 'header':
      return { kind, name, field };
    case 'namedHeader':
    case 'query':
      return { kind, nameField, field };
    case 'basic':
      return { kind, usernameField, passwordField: field };
    case 'path':
      return { kind, before: injection.before ?? '', field, after: injection.after ?? '' };
  }
  throw unknownMember(kind satisfies never);
}

const defined = (value: object): object =>
  Object.fromEntries(Object.entries(value).filter(([, member]) => member !== undefined));
