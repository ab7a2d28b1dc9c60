// zod at fastify's two gates. A refusal names the place and the rule, never the value; an answer
// that does not fit its schema does not leave.
import type { z } from 'zod';
import { AppError, type InputFault } from '../shared/errors.ts';
import { isPlainName } from '../shared/names.ts';
import { Fitting } from './fitting.ts';

const faultsMax = 20;

type Issue = z.core.$ZodIssue;

/**
 * Checks the input of one part of a request and returns what the schema makes of it; throws
 * invalidRequest.
 */
export function parseInput<T>(schema: z.ZodType<T>, data: unknown, part: string): T {
  const result = schema.safeParse(data);
  if (result.success) return result.data;
  const errors = result.error.issues
    .flatMap((issue) => faultsOf(issue, data, part))
    .slice(0, faultsMax);
  throw new AppError('invalidRequest', 'The request breaks a rule.', { errors });
}

/** What is wrong with a value, for a check that collects faults; empty when nothing is. */
export function faultsIn(schema: z.ZodType, value: unknown, pointer: string): InputFault[] {
  const result = schema.safeParse(value);
  return result.success
    ? []
    : result.error.issues.flatMap((issue) => faultsOf(issue, value, pointer));
}

/** fastify's validator: throws nothing, hands the AppError on. */
export function validatorCompiler({ schema, httpPart }: { schema: z.ZodType; httpPart?: string }) {
  // A fault in the body is pointed at by plain JSON pointers; other parts are named first.
  const part =
    httpPart === 'body' || httpPart === undefined
      ? ''
      : `/${httpPart === 'querystring' ? 'query' : httpPart}`;
  return (data: unknown): { value: unknown } | { error: Error } => {
    try {
      return { value: parseInput(schema, data, part) };
    } catch (error) {
      return { error: error as Error };
    }
  };
}

/** fastify's serializer: strict; what is not in the schema is a bug (500) and not a leak. */
export function serializerCompiler({ schema }: { schema: z.ZodType }) {
  return (data: unknown): string => {
    if (data instanceof Fitting) return JSON.stringify(data.value);
    const result = schema.safeParse(data);
    if (!result.success) {
      // SECURITY: the issues' own texts can quote values; only places and rules go on.
      const places = result.error.issues
        .map((issue) => `${pointerTo(issue.path)} ${issue.code}`)
        .join(', ');
      throw new AppError(
        'internal',
        'Something went wrong; the log knows more under this request id.',
        { cause: new ResponseDoesNotFit(places) },
      );
    }
    return JSON.stringify(result.data);
  };
}

/** An answer that its schema refuses; its code names the places, so that the log shows them. */
export class ResponseDoesNotFit extends Error {
  readonly code: string;
  constructor(places: string) {
    super('the response does not fit its schema');
    this.name = 'ResponseDoesNotFit';
    this.code = places.slice(0, 300);
  }
}

/** fastify wraps what a validator returns; this takes the AppError out again. */
export function schemaErrorFormatter(errors: unknown, _part: string): Error {
  return errors instanceof Error
    ? errors
    : new AppError('invalidRequest', 'The request breaks a rule.');
}

function pointerTo(path: readonly PropertyKey[]): string {
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
