// What a test of a connection says: which steps were taken and what became of the last one. Nothing
// that the other side sent is in it.
import { EgressFailed } from '../egress/index.ts';

/** In their order; `tls` only where the connection has it. */
export const steps = ['name', 'connect', 'tls', 'login'] as const;
export type Step = (typeof steps)[number];

/**
 * `refused`: the other side does not accept the log-in. `unexpected`: it answers, but not as a
 * server of this kind does. `timeout`: it does not answer.
 */
export const outcomes = ['ok', 'failed', 'refused', 'unexpected', 'timeout'] as const;
export type Outcome = (typeof outcomes)[number];

export interface ConnectionReport {
  readonly ok: boolean;
  readonly steps: readonly { readonly step: Step; readonly outcome: Outcome }[];
}

/** Where a test ended otherwise than well. */
export class TestFailed extends Error {
  readonly step: Step;
  readonly outcome: Exclude<Outcome, 'ok'>;
  constructor(step: Step, outcome: Exclude<Outcome, 'ok'>) {
    super(`the connection's test ended: ${step} ${outcome}`);
    this.name = 'TestFailed';
    this.step = step;
    this.outcome = outcome;
  }
}

/** One test under way: which host it is for, and whether the connection has TLS by now. */
export interface Wire {
  isTls: boolean;
}

/** Runs a test and says what became of it. Throws only what is none of the two kinds of failure. */
export async function reportOf(wire: Wire, test: () => Promise<void>): Promise<ConnectionReport> {
  try {
    await test();
    return { ok: true, steps: before(undefined, wire).map(passed) };
  } catch (error) {
    const { step, outcome } = failureOf(error);
    return { ok: false, steps: [...before(step, wire).map(passed), { step, outcome }] };
  }
}

const passed = (step: Step): { step: Step; outcome: Outcome } => ({ step, outcome: 'ok' });

const before = (end: Step | undefined, { isTls }: Wire): Step[] =>
  steps
    .slice(0, end === undefined ? steps.length : steps.indexOf(end))
    .filter((step) => step !== 'tls' || isTls);

function failureOf(error: unknown): { readonly step: Step; readonly outcome: Outcome } {
  if (error instanceof TestFailed) return error;
  if (!(error instanceof EgressFailed)) throw error;
  if (error.during === 'response')
    return { step: 'login', outcome: error.step === 'timeout' ? 'timeout' : 'unexpected' };
  return { step: error.during, outcome: error.step === 'timeout' ? 'timeout' : 'failed' };
}
