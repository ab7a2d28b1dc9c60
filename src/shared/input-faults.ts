// What of an input breaks its schema: the place, the rule and what is allowed, never the value.
import { z } from 'zod';
import type { InputFault } from './errors.ts';
import { isPlainName } from './names.ts';
import { type Allowed, isRule } from './rules.ts';
import { unknownMember } from './closed-sets.ts';

type Issue = z.core.$ZodIssue;

/** What is wrong with a value, for a check that collects faults; empty when nothing is. */
export function faultsIn(schema: z.ZodType, value: unknown, pointer: string): InputFault[] {
  const result = schema.safeParse(value);
  return result.success
    ? []
    : faultsOfIssues(result.error.issues, { schema, data: value, part: pointer });
}

/** The faults behind what a schema found. */
export const faultsOfIssues = (issues: readonly Issue[], checked: Checked): InputFault[] =>
  issues.flatMap((issue) => faultsOf(issue, checked));

/** The path as a JSON pointer. */
export function pointerTo(path: readonly PropertyKey[]): string {
  return path
    .map((step) => `/${String(step).replaceAll('~', '~0').replaceAll('/', '~1')}`)
    .join('');
}

/** What was checked against what; `part` stands before each pointer. */
export interface Checked {
  readonly schema: z.ZodType;
  readonly data: unknown;
  readonly part: string;
}

function faultsOf(issue: Issue, checked: Checked): InputFault[] {
  const pointer = checked.part + pointerTo(knownSteps(issue.path));
  if (issue.code === 'unrecognized_keys') {
    const allowed = membersAt(checked.schema, issue.path);
    const fault = { rule: 'unknownField', ...(allowed === undefined ? {} : { allowed }) } as const;
    // SECURITY: a name is the caller's text too; only a plain one is said back.
    const named = issue.keys.filter((key) => isPlainName(key));
    return named.length === 0
      ? [{ pointer, ...fault }]
      : named.map((key) => ({ pointer: `${pointer}/${key}`, ...fault }));
  }
  if (issue.code === 'invalid_union') return faultsOfUnion(issue, checked, pointer);
  return [{ pointer, ...whatIsWrong(issue, checked.data) }];
}

/**
 * The faults of the one alternative whose type the value has; where it has none of the types, one
 * rule that lists them.
 */
function faultsOfUnion(
  issue: Extract<Issue, { code: 'invalid_union' }>,
  checked: Checked,
  pointer: string,
): InputFault[] {
  const types = issue.errors.map(([first]) =>
    first?.code === 'invalid_type' && first.path.length === 0 ? first.expected : undefined,
  );
  const fitting = issue.errors.filter((_, index) => types[index] === undefined);
  if (fitting.length === 0)
    return types.length === 0
      ? [{ pointer, rule: 'oneOf' }]
      : [{ pointer, rule: 'type', allowed: [...new Set(types.map((type) => jsonTypeOf(type)))] }];
  return (fitting[0] ?? []).flatMap((each) =>
    faultsOf({ ...each, path: [...issue.path, ...each.path] } as Issue, checked),
  );
}

/** The names of an object's members, where the path leads to an object that has a list of them. */
function membersAt(schema: z.ZodType, path: readonly PropertyKey[]): string[] | undefined {
  let at: z.ZodType | undefined = unwrapped(schema);
  for (const step of path) {
    if (at instanceof z.ZodObject) at = at.shape[String(step)] as z.ZodType | undefined;
    else if (at instanceof z.ZodArray) at = at.element as z.ZodType;
    else return undefined;
    if (at === undefined) return undefined;
    at = unwrapped(at);
  }
  return at instanceof z.ZodObject ? Object.keys(at.shape) : undefined;
}

function unwrapped(schema: z.ZodType): z.ZodType {
  let at = schema;
  while (at instanceof z.ZodOptional || at instanceof z.ZodNullable || at instanceof z.ZodDefault)
    at = at.unwrap() as z.ZodType;
  return at;
}

/** Cuts the path before a step that is not a plain name. */
function knownSteps(path: readonly PropertyKey[]): readonly PropertyKey[] {
  const stranger = path.findIndex((step) => typeof step === 'string' && !isPlainName(step));
  return stranger < 0 ? path : path.slice(0, stranger);
}

/** The rule, and what is allowed. Nothing of the value. */
function whatIsWrong(issue: Issue, data: unknown): Omit<InputFault, 'pointer'> {
  switch (issue.code) {
    case 'invalid_type':
      return valueAt(data, issue.path) === undefined
        ? { rule: 'required' }
        : { rule: 'type', allowed: [jsonTypeOf(issue.expected)] };
    case 'too_big':
      return { rule: 'max', max: Number(issue.maximum) };
    case 'too_small':
      return { rule: 'min', min: Number(issue.minimum) };
    case 'invalid_format':
      return {
        rule: issue.format === 'regex' ? 'pattern' : 'format',
        ...inWords(issue),
      };
    case 'invalid_value':
      return { rule: 'enum', allowed: issue.values.map(String) };
    case 'invalid_key': {
      const form = issue.issues.find(({ code }) => code === 'invalid_format');
      return { rule: 'name', ...(form === undefined ? {} : inWords(form)) };
    }
    case 'custom':
      // Only `refined` makes these: the message is the rule.
      if (!isRule(issue.message)) throw new Error(`no rule is called ${issue.message}`);
      return { rule: issue.message, ...(issue.params as Allowed | undefined) };
    case 'not_multiple_of':
    case 'unrecognized_keys':
    case 'invalid_union':
    case 'invalid_element':
      return { rule: 'oneOf' };
  }
  throw unknownMember(issue satisfies never);
}

/** The form in words, where the schema says it in words. */
const inWords = ({ message }: { readonly message: string }): Allowed =>
  message.startsWith('Invalid ') ? {} : { pattern: message };

/** JSON's name of what zod expects. */
const jsonTypeOf = (type: string | undefined): string =>
  type === 'record' ? 'object' : type === 'int' ? 'integer' : (type ?? 'null');

function valueAt(data: unknown, path: readonly PropertyKey[]): unknown {
  let value = data;
  for (const step of path) {
    if (typeof value !== 'object' || value === null) return undefined;
    value = (value as Record<PropertyKey, unknown>)[step];
  }
  return value;
}
