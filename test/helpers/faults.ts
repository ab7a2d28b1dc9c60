// Faults of input in the short form in which tables name them: the rule, with its bound or types.

interface Fault {
  readonly pointer: string;
  readonly rule: string;
  readonly allowed?: readonly string[];
  readonly min?: number;
  readonly max?: number;
}

/** `max:64`, `min:1`, `type:string|integer`; other rules by their names alone. */
export function briefRule({ rule, allowed = [], min, max }: Fault): string {
  if (rule === 'type') return `type:${allowed.join('|')}`;
  if (/^min/.test(rule)) return `${rule}:${min}`;
  if (/^max/.test(rule)) return `${rule}:${max}`;
  return rule;
}

/** The faults of an answer, each with no more than pointer and brief rule. */
export const brief = (faults: readonly Fault[]): { pointer: string; rule: string }[] =>
  faults.map((fault) => ({ pointer: fault.pointer, rule: briefRule(fault) }));
