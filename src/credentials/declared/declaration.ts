// What a platform declares of a type of its own, what is wrong with it, and what of it binds the
// credentials that are stored. Pure; texts of it are shown, and nothing of it is run.
import { createHash } from 'node:crypto';
import { canonicalJson } from '../../crypto/index.ts';
import type { InputFault } from '../../shared/errors.ts';
import type { JsonObject, JsonValue } from '../../shared/json.ts';
import type { InputRule } from '../../shared/rules.ts';
import type { PublicValue } from '../public-values.ts';

/** What a public value may look like: a closed list, and no patterns. */
export const fieldForms = [
  'text',
  'username',
  'host',
  'port',
  'url',
  'httpsUrl',
  'headerName',
  'parameterName',
  'number',
  'flag',
  'choice',
  'moment',
  'pem',
] as const;
export type FieldForm = (typeof fieldForms)[number];
/** Forms that say where a secret goes: always destinations. */
const placeForms: ReadonlySet<FieldForm> = new Set([
  'host',
  'port',
  'url',
  'httpsUrl',
  'headerName',
  'parameterName',
]);

export interface DeclaredField {
  readonly name: string;
  readonly title: string;
  readonly description?: string | undefined;
  readonly class: 'public' | 'secret';
  readonly isRequired: boolean;
  /** Of a public one only. */
  readonly form?: FieldForm | undefined;
  readonly isDestination?: boolean | undefined;
  readonly default?: PublicValue | undefined;
  readonly choices?: readonly string[] | undefined;
}

export const injectionKinds = [
  'bearer',
  'header',
  'namedHeader',
  'basic',
  'query',
  'path',
  'url',
] as const;
export interface DeclaredInjection {
  readonly kind: (typeof injectionKinds)[number];
  /** The secret. */
  readonly field: string;
  readonly name?: string | undefined;
  readonly nameField?: string | undefined;
  readonly usernameField?: string | undefined;
  readonly before?: string | undefined;
  readonly after?: string | undefined;
}
export const upstreamKinds = ['fixed', 'field', 'hostPort', 'secret', 'policy'] as const;
export interface DeclaredUpstream {
  readonly kind: (typeof upstreamKinds)[number];
  readonly baseUrl?: string | undefined;
  readonly field?: string | undefined;
  readonly hostField?: string | undefined;
  readonly portField?: string | undefined;
}
export interface DeclaredTest {
  readonly method: 'GET' | 'POST';
  readonly path: string;
  readonly accepted?: readonly number[] | undefined;
  readonly refused?: readonly number[] | undefined;
  readonly refusal?: { readonly member: string; readonly by: 'false' | 'presence' } | undefined;
}
export interface Declaration {
  readonly title: string;
  readonly description: string;
  readonly fields: readonly DeclaredField[];
  readonly injection?: DeclaredInjection | undefined;
  readonly upstream?: DeclaredUpstream | undefined;
  readonly test?: DeclaredTest | undefined;
}

/** Whether a field of it is a destination: by its form, or because the declaration says so. */
export const isDestinationOf = ({ form, isDestination }: DeclaredField): boolean =>
  isDestination === true || (form !== undefined && placeForms.has(form));

const fault = (pointer: string, rule: InputRule, allowed?: readonly string[]): InputFault => ({
  pointer,
  rule,
  ...(allowed === undefined ? {} : { allowed }),
});

/** Members that each kind has, beside `kind`; a question mark behind those that may be absent. */
const injectionMembers: Readonly<Record<DeclaredInjection['kind'], readonly string[]>> = {
  bearer: ['field'],
  header: ['field', 'name'],
  namedHeader: ['field', 'nameField'],
  basic: ['field', 'usernameField'],
  query: ['field', 'nameField'],
  path: ['field', 'before', 'after?'],
  url: ['field'],
};
const upstreamMembers: Readonly<Record<DeclaredUpstream['kind'], readonly string[]>> = {
  fixed: ['baseUrl'],
  field: ['field'],
  hostPort: ['hostField', 'portField'],
  secret: [],
  policy: [],
};

/**
 * What is wrong with a declaration beyond its shape. `isHeaderFree` says whether the broker may set
 * a header of the name.
 */
export function faultsOfDeclaration(
  declaration: Declaration,
  isHeaderFree: (name: string) => boolean,
): InputFault[] {
  const { fields, injection, upstream, test } = declaration;
  const names = fields.map(({ name }) => name);
  const twice = names.flatMap((name, at) =>
    names.indexOf(name) < at ? [fault(`/fields/${at}/name`, 'unique')] : [],
  );
  if (twice.length > 0) return twice;
  return [
    ...fields.flatMap(faultsOfField),
    ...(injection === undefined ? [] : faultsOfInjection(declaration, injection, isHeaderFree)),
    ...(upstream === undefined ? [] : faultsOfUpstream(declaration, upstream)),
    ...((injection === undefined) === (upstream === undefined)
      ? []
      : [fault(injection === undefined ? '/injection' : '/upstream', 'required')]),
    ...((injection?.kind === 'url') === (upstream?.kind === 'secret')
      ? []
      : [fault('/upstream/kind', 'fieldUnfit')]),
    ...(test === undefined ? [] : faultsOfTest(declaration, test)),
  ];
}

function faultsOfField(field: DeclaredField, at: number): InputFault[] {
  const pointer = `/fields/${at}`;
  // What every object has by itself is no name of a field.
  const isOwn = field.name in {};
  const isPublic = field.class === 'public';
  return [
    ...(isOwn ? [fault(`${pointer}/name`, 'memberName')] : []),
    ...(isPublic === (field.form === undefined)
      ? [fault(`${pointer}/form`, isPublic ? 'required' : 'publicOnly')]
      : []),
    ...(!isPublic && field.isDestination === true
      ? [fault(`${pointer}/isDestination`, 'publicOnly')]
      : []),
    ...(!isPublic && field.default !== undefined
      ? [fault(`${pointer}/default`, 'publicOnly')]
      : []),
    ...(field.default !== undefined && field.isRequired
      ? [fault(`${pointer}/isRequired`, 'notWith', ['default'])]
      : []),
    ...((field.form === 'choice') === (field.choices === undefined)
      ? [fault(`${pointer}/choices`, field.form === 'choice' ? 'required' : 'choiceOnly')]
      : []),
  ];
}

/** Whether the members are those of the kind: all that are needed, and no others. */
function faultsOfMembers(pointer: string, value: object, members: readonly string[]): InputFault[] {
  const names = members.map((member) => member.replace('?', ''));
  const has = (name: string): boolean => (value as Record<string, unknown>)[name] !== undefined;
  return [
    ...members
      .filter((member) => !member.endsWith('?') && !has(member))
      .map((member) => fault(`${pointer}/${member}`, 'required')),
    ...Object.keys(value)
      .filter((name) => name !== 'kind' && has(name) && !names.includes(name))
      .map((name) => fault(`${pointer}/${name}`, 'unknownField', names)),
  ];
}

function faultsOfInjection(
  { fields }: Declaration,
  injection: DeclaredInjection,
  isHeaderFree: (name: string) => boolean,
): InputFault[] {
  const wrong = faultsOfMembers('/injection', injection, injectionMembers[injection.kind]);
  if (wrong.length > 0) return wrong;
  const { kind, field, name, nameField, usernameField, before, after } = injection;
  const nameForm = kind === 'query' ? 'parameterName' : 'headerName';
  return [
    ...named(fields, '/injection/field', field, (found) => found.class === 'secret'),
    ...(nameField === undefined
      ? []
      : named(
          fields,
          '/injection/nameField',
          nameField,
          (found) => found.form === nameForm && isAlwaysThere(found),
        )),
    ...(usernameField === undefined
      ? []
      : named(fields, '/injection/usernameField', usernameField, isOneLine)),
    // SECURITY: a header that the broker sets itself, or by which an upstream is steered, is not an
    // operator's to set, however its name is written.
    ...(name === undefined || isHeaderFree(name) ? [] : [fault('/injection/name', 'headerTaken')]),
    ...[before, after].flatMap((path, at) =>
      path === undefined || !hasDotSegment(path)
        ? []
        : [fault(`/injection/${at === 0 ? 'before' : 'after'}`, 'dotSegment')],
    ),
  ];
}

function faultsOfUpstream({ fields }: Declaration, upstream: DeclaredUpstream): InputFault[] {
  const wrong = faultsOfMembers('/upstream', upstream, upstreamMembers[upstream.kind]);
  if (wrong.length > 0) return wrong;
  const { baseUrl, field, hostField, portField } = upstream;
  const place = (member: string, name: string | undefined, forms: readonly FieldForm[]) =>
    name === undefined
      ? []
      : named(
          fields,
          `/upstream/${member}`,
          name,
          (found) => found.form !== undefined && forms.includes(found.form) && isAlwaysThere(found),
        );
  return [
    ...(baseUrl === undefined || isPlainBase(baseUrl)
      ? []
      : [fault('/upstream/baseUrl', 'plainHttpsUrl')]),
    ...place('field', field, ['url', 'httpsUrl']),
    ...place('hostField', hostField, ['host']),
    ...place('portField', portField, ['port']),
  ];
}

function faultsOfTest({ fields, injection, upstream }: Declaration, test: DeclaredTest) {
  const [path = ''] = test.path.split('?', 1);
  return [
    ...(injection === undefined ? [fault('/test', 'needsInjection')] : []),
    // Where the policy names the hosts there is no place of its own to ask.
    ...(upstream?.kind === 'policy' || upstream?.kind === 'secret'
      ? [fault('/test', 'fieldUnfit')]
      : []),
    ...(hasDotSegment(path) ? [fault('/test/path', 'dotSegment')] : []),
    ...namesIn(test.path).flatMap((name) =>
      named(
        fields,
        '/test/path',
        name,
        (found) => found.class === 'public' && isAlwaysThere(found),
      ),
    ),
    // What is left of the braces once the names are out is not a name.
    ...(/[{}]/.test(test.path.replaceAll(placeholder, '')) ? [fault('/test/path', 'pattern')] : []),
  ];
}

const placeholder = /\{([A-Za-z0-9_]{1,64})\}/g;
const namesIn = (path: string): string[] =>
  [...path.matchAll(placeholder)].map(([, name = '']) => name);
const isAlwaysThere = ({ isRequired, default: standard }: DeclaredField): boolean =>
  isRequired || standard !== undefined;
const isOneLine = ({ form }: DeclaredField): boolean => form === 'username' || form === 'text';
const hasDotSegment = (path: string): boolean =>
  path.split('/').some((segment) => /^(?:\.|%2e)+$/i.test(segment));

function named(
  fields: readonly DeclaredField[],
  pointer: string,
  name: string,
  fits: (field: DeclaredField) => boolean,
): InputFault[] {
  const found = fields.find((field) => field.name === name);
  if (found === undefined) return [fault(pointer, 'notInFields')];
  return fits(found) ? [] : [fault(pointer, 'fieldUnfit')];
}

/** An https URL of a name, written as it is read. */
function isPlainBase(text: string): boolean {
  const url = URL.parse(text);
  return (
    url !== null &&
    url.protocol === 'https:' &&
    url.username === '' &&
    url.password === '' &&
    url.search === '' &&
    url.hash === '' &&
    /^[a-z0-9.-]*[a-z][a-z0-9.-]*$/.test(url.hostname) &&
    (url.href === text || url.href === `${text}/`)
  );
}

/** The fields by which injection, upstream or test work. */
function usedFields({ injection, upstream, test }: Declaration): ReadonlySet<string> {
  return new Set(
    [
      injection?.field,
      injection?.nameField,
      injection?.usernameField,
      upstream?.field,
      upstream?.hostField,
      upstream?.portField,
      ...(test === undefined ? [] : namesIn(test.path)),
    ].filter((name) => name !== undefined),
  );
}

/**
 * Whether a field may come to a type that is in use: it may be absent, nothing is filled in for it,
 * and nothing goes anywhere by it.
 */
function isFree(declaration: Declaration, field: DeclaredField): boolean {
  return (
    !field.isRequired &&
    field.default === undefined &&
    !isDestinationOf(field) &&
    !usedFields(declaration).has(field.name)
  );
}

/**
 * Whether `after` is `before` and free fields more, and nothing else: all that a type in use may
 * become.
 */
export function isOnlyMore(before: Declaration, after: Declaration): boolean {
  const known = new Set(before.fields.map(({ name }) => name));
  const added = after.fields.filter(({ name }) => !known.has(name));
  const rest = { ...after, fields: after.fields.filter(({ name }) => known.has(name)) };
  return added.every((field) => isFree(after, field)) && isSame(before, rest);
}

/** Whether two declarations say the same, in whatever order. */
export const isSame = (a: Declaration, b: Declaration): boolean =>
  canonicalJson(declarationJson(a)) === canonicalJson(declarationJson(b));

/** As it is stored and protected. Only what is set stands in it; the order of fields counts. */
export function declarationJson(declaration: Declaration): JsonObject {
  return JSON.parse(JSON.stringify(declaration)) as JsonObject;
}

/**
 * How credentials of the type name it: with a digest of everything by which a secret is kept or
 * sent. SECURITY: fields that may come later are no part of it; of those that a version has, the
 * class is bound by the names of its public and its secret fields.
 */
export function storedNameOf(name: string, id: string, declaration: Declaration): string {
  const { fields, injection, upstream, test } = declarationJson(declaration);
  const bound = (fields as unknown as DeclaredField[])
    .filter((field) => !isFree(declaration, field))
    .map(({ title: _, description: __, ...field }) => field as unknown as JsonValue)
    .sort((a, b) => (canonicalText(a) < canonicalText(b) ? -1 : 1));
  const binding = canonicalJson({
    fields: bound,
    id,
    injection: injection ?? null,
    name,
    test: test ?? null,
    upstream: upstream ?? null,
  });
  return `${name}#${createHash('sha256').update(binding).digest('base64url')}`;
}
const canonicalText = (value: JsonValue): string => canonicalJson(value).toString();
