// The one way to add a rule that zod's own checks cannot say. Each says itself in the document, as
// JSON Schema or as a sentence.
import type { z } from 'zod';
import type { Allowed, InputRule } from './rules.ts';

export interface Refinement<T> {
  readonly rule: InputRule;
  readonly check: (value: T) => boolean;
  /** What the document says: keywords that come to the same, or a sentence. */
  readonly says: Readonly<Record<string, unknown>> | string;
  /** What a refusal says is allowed. */
  readonly allowed?: Allowed;
}

/** Each check that was added here; a test finds those that were not. */
export const saidChecks = new WeakSet<object>();

/** The schema with a rule more. */
export function refined<S extends z.ZodType>(
  schema: S,
  { rule, check, says, allowed = {} }: Refinement<z.output<S>>,
): S {
  const more = schema.refine(check as (value: unknown) => boolean, {
    message: rule,
    params: { ...allowed },
  });
  return remember(more, says) as S;
}

/**
 * The schema with a check that finds its faults itself; each is the name of a rule, or a member
 * that is not known.
 */
export function superRefined<S extends z.ZodType>(
  schema: S,
  check: (value: z.output<S>, context: z.core.$RefinementCtx<z.output<S>>) => void,
  says: Refinement<z.output<S>>['says'],
): S {
  return remember(schema.superRefine(check), says) as S;
}

function remember(schema: z.ZodType, says: Refinement<never>['says']): z.ZodType {
  const added = schema._zod.def.checks?.at(-1);
  if (added !== undefined) saidChecks.add(added);
  const before = schema.meta() ?? {};
  if (typeof says !== 'string') return schema.meta({ ...before, ...says });
  const said = (before['says'] ?? []) as readonly string[];
  return schema.meta({ ...before, says: [...said, says] });
}

/** The items of a list are all different. */
export const unique = <S extends z.ZodArray>(schema: S): S =>
  refined(schema, {
    rule: 'unique',
    check: (items) => new Set(items as readonly unknown[]).size === (items as unknown[]).length,
    says: { uniqueItems: true },
  });

/** Rules that are sentences stand at the end of the description. */
export function sayRules(jsonSchema: Record<string, unknown>): void {
  const { says, description } = jsonSchema as { says?: readonly string[]; description?: string };
  if (says === undefined) return;
  delete jsonSchema['says'];
  jsonSchema['description'] = [...(description === undefined ? [] : [description]), ...says].join(
    ' ',
  );
}
