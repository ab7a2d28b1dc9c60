// What other systems write down, in one form. Nothing is judged here but what cannot be read.
import type { JsonRefused } from '../../shared/strict-json.ts';

/** A credential as the other system has it. */
export interface Foreign {
  /** By which it is known again when it is imported once more. */
  readonly id: string;
  readonly name: string;
  readonly type: string;
  /** Undefined where it could not be opened. */
  readonly data: Readonly<Record<string, unknown>> | undefined;
  /** Why it cannot be taken: a word, and what to do. Without it and without data: doesNotOpen. */
  readonly fault?: string;
}

/** The text of a value that names something. */
export const wholeText = (value: unknown): string | undefined =>
  typeof value === 'string' && value !== ''
    ? value
    : typeof value === 'number'
      ? String(value)
      : undefined;

/**
 * What `value` says of itself as a flag, as databases print one; undefined for nothing of the kind.
 */
export function flagOf(value: unknown): boolean | undefined {
  const text = (typeof value === 'string' ? value : (JSON.stringify(value) ?? ''))
    .trim()
    .toLowerCase();
  if (['1', 't', 'true', 'y', 'yes', 'on', "b'1'", '0x01', '\u0001', '"1"'].includes(text))
    return true;
  if (['0', 'f', 'false', 'n', 'no', 'off', "b'0'", '0x00', '\u0000', '"0"'].includes(text))
    return false;
  return undefined;
}

/** What the first word of a flag is worth where it is absent. */
export const isAbsent = (value: unknown): boolean =>
  value === undefined || value === null || value === '';

/** Name and id of an entry, or its number. */
export function named(
  row: Readonly<Record<string, unknown>>,
  index: number,
): { id: string; name: string } {
  const name = wholeText(row['name']) ?? `number ${index + 1}`;
  return { id: wholeText(row['id']) ?? name, name };
}

/** The rule that a JSON text breaks, and where. */
export const ruleOf = ({ rule, pointer }: JsonRefused): string =>
  pointer === '' ? rule : `${pointer} ${rule}`;
