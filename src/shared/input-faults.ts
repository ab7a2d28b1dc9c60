// What of an input breaks its schema: the place and the rule, never the value.
import type { z } from 'zod';
import type { InputFault } from './errors.ts';
import { isPlainName } from './names.ts';

type Issue = z.core.$ZodIssue;

/** What is wrong with a value, for a check that collects faults; empty when nothing is. */
export function faultsIn(schema: z.ZodType, value: unknown, pointer: string): InputFault[] {
  const result = schema.safeParse(value);
  return result.success ? [] : faultsOfIssues(result.error.issues, value, pointer);
}

/** The faults behind what a schema found; those of the value lie below the pointer. */
export const faultsOfIssues = (
  issues: readonly Issue[],
  value: unknown,
  pointer: string,
): InputFault[] => issues.flatMap((issue) => faultsOf(issue, value, pointer));

/** The path as a JSON pointer. */
export function pointerTo(path: readonly PropertyKey[]): string {
  return path
    .map((step) => `/${String(step).replaceAll('~', '~0').replaceAll('/', '~1')}`)
    .join('');
}

function faultsOf(issue: Issue, data: unknown, part: string): InputFault[] {
  const pointer = part + pointerTo(knownSteps(issue.path));
  if (issue.code === 'unrecognized_keys') {
    // SECURITY: a name is the caller's text too; only a plain one is said back.
    const named = issue.keys.filter((key) => isPlainName(key));
    return named.length === 0
      ? [{ pointer, rule: 'unknownField' }]
      : named.map((key) => ({ pointer: `${pointer}/${key}`, rule: 'unknownField' }));
  }
  if (issue.code === 'invalid_union') return faultsOfUnion(issue, data, part, pointer);
  return [{ pointer, rule: ruleOf(issue, data) }];
}

/**
 * The faults of the one alternative whose type the value has; where it has none of the types, one
 * rule that lists them.
 */
function faultsOfUnion(
  issue: Extract<Issue, { code: 'invalid_union' }>,
  data: unknown,
  part: string,
  pointer: string,
): InputFault[] {
  const types = issue.errors.map(([first]) =>
    first?.code === 'invalid_type' && first.path.length === 0 ? first.expected : undefined,
  );
  const fitting = issue.errors.filter((_, index) => types[index] === undefined);
  if (fitting.length === 0)
    return types.length === 0
      ? [{ pointer, rule: 'oneOf' }]
      : [{ pointer, rule: `type:${[...new Set(types)].join('|')}` }];
  return (fitting[0] ?? []).flatMap((each) =>
    faultsOf({ ...each, path: [...issue.path, ...each.path] } as Issue, data, part),
  );
}

/** Cuts the path before a step that is not a plain name. */
function knownSteps(path: readonly PropertyKey[]): readonly PropertyKey[] {
  const stranger = path.findIndex((step) => typeof step === 'string' && !isPlainName(step));
  return stranger < 0 ? path : path.slice(0, stranger);
}

function ruleOf(issue: Issue, data: unknown): string {
  switch (issue.code) {
    case 'invalid_type':
      return valueAt(data, issue.path) === undefined ? 'required' : `type:${issue.expected}`;
    case 'too_big':
      return `max:${issue.maximum}`;
    case 'too_small':
      return `min:${issue.minimum}`;
    case 'invalid_format':
      return issue.format === 'regex' ? 'pattern' : `format:${issue.format}`;
    case 'invalid_value':
      return 'enum';
    case 'invalid_key':
      return 'name';
    case 'custom':
      return issue.message; // our own refinements say the rule as their message
    default:
      return issue.code;
  }
}

function valueAt(data: unknown, path: readonly PropertyKey[]): unknown {
  let value = data;
  for (const step of path) {
    if (typeof value !== 'object' || value === null) return undefined;
    value = (value as Record<PropertyKey, unknown>)[step];
  }
  return value;
}
