// One caller who does one thing after the other on things that are its own. It writes down what it
// means before it asks, and what became of it afterwards; where it was not told, it asks again, if
// asking again is safe.
import { setTimeout as delay } from 'node:timers/promises';
import type { Answered, Call } from '../client.ts';
import type { State, Verdict } from '../journal.ts';
import type { Random } from '../random.ts';
import { isPassing, outcomeOf, partOf } from './answers.ts';
import type { Changed, ChangeInput, Stage } from './types.ts';

const attemptsMax = 400;
const twinOffset = 1_000;
const lateOffset = 2_000;
const twinAttemptsMax = 40;

/** The lane's own part of a run. */
export class Lane {
  readonly name: string;
  readonly random: Random;
  readonly stage: Stage;
  #made = 0;

  constructor(name: string, stage: Stage, random: Random) {
    this.name = name;
    this.stage = stage;
    this.random = random;
  }

  /** A name that nobody else has, and that says where it came from. */
  fresh(prefix = 'x'): string {
    this.#made += 1;
    return `${prefix}-${this.name}-${this.#made}`;
  }

  /** Notes what is there without this lane's doing. */
  given(thing: string, state: State): void {
    const { journal } = this.stage;
    const n = journal.next();
    const of = { lane: this.name, operation: 'given', effects: { [thing]: state }, events: {} };
    journal.write({ kind: 'change', n, ...of });
    journal.write({ kind: 'verdict', n, verdict: 'done' });
  }

  /** Asks for a change until it is known what became of it, or cannot be known. */
  async change(input: ChangeInput): Promise<Changed> {
    const { journal } = this.stage;
    const n = journal.next();
    const { operation, effects, events = {}, race } = input;
    journal.write({
      kind: 'change',
      n,
      lane: this.name,
      operation,
      effects,
      events,
      ...(race === undefined ? {} : { race }),
    });
    const headers = input.isKeyed ? { 'idempotency-key': `rig-${this.stage.seed}-${n}` } : {};
    const asked = { n, attempt: 0, isOpen: false, isLoose: false };
    while (asked.attempt < attemptsMax) {
      asked.attempt += 1;
      // A caller that lost its patience and asked twice at once: one effect, two good answers.
      if (input.isKeyed === true && this.random.chance(0.1)) {
        void this.#attempt(n, twinOffset + asked.attempt, input, headers);
        asked.isOpen = true;
      }
      const answer = await this.#attempt(n, asked.attempt, input, headers);
      const verdict = this.#judge(input, answer, asked);
      if (verdict?.verdict === 'done' && input.isKeyed === true && this.random.chance(0.1))
        void this.#repeatLate(n, input, headers);
      if (verdict !== undefined)
        return this.#conclude(n, verdict.verdict, answer, asked.isLoose, input, verdict.isReported);
      const isLate = this.stage.isOver() && !this.stage.isHealed() && asked.attempt > 60;
      if (isLate || (input.isKeyed !== true && input.happened === undefined))
        return this.#conclude(n, 'unknown', answer, asked.isLoose);
      await delay(this.random.integer(20, 400));
    }
    journal.fault('noDefiniteAnswer', `${operation} in ${attemptsMax} attempts`, n);
    return this.#conclude(n, 'unknown', undefined, asked.isLoose);
  }

  /** A day is what a key is remembered for: asked again a while later, nothing happens again. */
  async #repeatLate(
    n: number,
    input: ChangeInput,
    headers: Readonly<Record<string, string>>,
  ): Promise<void> {
    const until = performance.now() + this.random.integer(1_000, 30_000);
    while (performance.now() < until && !this.stage.isOver()) await delay(500);
    if (!this.stage.isOver()) await this.#attempt(n, lateOffset, input, headers);
  }

  /** What is known after an answer; undefined where it is to be asked again. */
  #judge(
    input: ChangeInput,
    answer: Answered,
    asked: { n: number; attempt: number; isOpen: boolean; isLoose: boolean },
  ): { verdict: Verdict; isReported?: true } | undefined {
    const { journal } = this.stage;
    const { operation, isKeyed = false } = input;
    const outcome = outcomeOf(answer);
    if (outcome === 'done') {
      const mismatch = input.mismatch?.(answer.json);
      if (mismatch !== undefined)
        journal.fault('wrongAnswer', `${operation}: ${mismatch}`, asked.n);
      return { verdict: 'done' };
    }
    if (outcome === 'open') {
      asked.isOpen = true;
      if (answer.outcome === 'none') asked.isLoose = true;
      return undefined;
    }
    if (asked.isOpen && input.happened?.(answer) === true)
      return { verdict: 'done', isReported: true };
    if (input.tellsOfAnother?.(answer) === true) return { verdict: 'refused', isReported: true };
    if (isPassing(answer)) return asked.isOpen ? undefined : { verdict: 'refused' };
    const isFault =
      input.expected?.includes(answer.code ?? '') !== true && input.race === undefined;
    const what = `${operation} as ${input.as} at ${answer.replica}: ${answer.status} ${answer.code} ${JSON.stringify(answer.json?.errors ?? '')}`;
    if (asked.isOpen && isKeyed && asked.attempt < twinAttemptsMax) {
      // While another attempt with the key is worked on, this one waits or is told 409; as soon as
      // that has ended, it is answered as that was.
      if (answer.status !== 409 && isFault) journal.fault('twinRefused', what, asked.n);
      return undefined;
    }
    // After an attempt of which nothing is known, a refusal that does not say so leaves it unknown.
    if (asked.isOpen && !isKeyed) return { verdict: 'unknown' };
    if (isFault) journal.fault('unexpectedRefusal', what, asked.n);
    return { verdict: 'refused' };
  }

  /**
   * Several changes by one request, each with its own result. What has no result is asked again, it
   * alone.
   */
  async several(
    call: Call,
    parts: readonly Pick<ChangeInput, 'effects' | 'events' | 'happened'>[],
  ): Promise<(Changed & { readonly isPassing: boolean })[]> {
    const { client, journal } = this.stage;
    const { operation, as } = call;
    const { items } = call.body as { items: readonly unknown[] };
    const open = parts.map(({ effects, events = {} }, at) => {
      const n = journal.next();
      journal.write({ kind: 'change', n, lane: this.name, operation, effects, events });
      return { n, at, isOpen: false, isLoose: false };
    });
    const results: (Changed & { isPassing: boolean })[] = [];
    for (let attempt = 1; open.length > 0; attempt += 1) {
      const replica = client.choose();
      const of = { attempt, replica: replica.name, start: replica.starts, as: String(as) };
      for (const { n } of open) journal.write({ kind: 'attempt', n, ...of });
      const asked = [...open];
      const body = { items: asked.map(({ at }) => items[at]) };
      const whole = await client.send({ ...call, body }, replica);
      for (const [place, each] of asked.entries()) {
        const answer = partOf(whole, place);
        const { status, code, requestId, error, ms } = answer;
        journal.write({
          kind: 'answer',
          n: each.n,
          attempt,
          ...(status === undefined ? {} : { status }),
          ...(code === undefined ? {} : { code }),
          ...(requestId === undefined ? {} : { requestId }),
          ...(error === undefined ? {} : { error }),
          ms,
        });
        const { happened } = parts[each.at]!;
        const outcome = outcomeOf(answer);
        const isReported = outcome === 'refused' && each.isOpen && happened?.(answer) === true;
        let verdict: Verdict | undefined = outcome === 'done' || isReported ? 'done' : undefined;
        if (outcome === 'refused' && verdict === undefined) {
          if (!each.isOpen) verdict = 'refused';
          else if (!isPassing(answer)) verdict = 'unknown';
        }
        if (outcome === 'open') each.isOpen = true;
        if (answer.outcome === 'none') each.isLoose = true;
        if (attempt >= attemptsMax || (happened === undefined && each.isOpen))
          verdict ??= 'unknown';
        if (this.stage.isOver() && !this.stage.isHealed() && attempt > 60) verdict ??= 'unknown';
        if (verdict === undefined) continue;
        open.splice(open.indexOf(each), 1);
        if (verdict === 'refused' && !isPassing(answer))
          journal.fault('unexpectedRefusal', `${operation}: ${status} ${code}`, each.n);
        const changed = this.#conclude(
          each.n,
          verdict,
          answer,
          each.isLoose,
          undefined,
          isReported,
        );
        results[each.at] = { ...changed, isPassing: isPassing(answer) };
      }
      if (open.length > 0) await delay(this.random.integer(20, 400));
    }
    return results;
  }

  async #attempt(
    n: number,
    attempt: number,
    input: ChangeInput,
    headers: Readonly<Record<string, string>>,
  ): Promise<Answered> {
    const { client, journal } = this.stage;
    const replica = client.choose();
    journal.write({
      kind: 'attempt',
      n,
      attempt,
      replica: replica.name,
      start: replica.starts,
      as: String(input.as),
    });
    const note = (answer: Answered, isLate = false): void => {
      const { status, code, requestId, error, ms } = answer;
      journal.write({
        kind: 'answer',
        n,
        attempt,
        ...(status === undefined ? {} : { status }),
        ...(code === undefined ? {} : { code }),
        ...(requestId === undefined ? {} : { requestId }),
        ...(error === undefined ? {} : { error }),
        ms,
        ...(isLate ? { isLate } : {}),
      });
    };
    const answer = await client.send(
      { ...input, headers: { ...input.headers, ...headers } },
      replica,
      (late) => note(late, true),
    );
    note(answer);
    return answer;
  }

  #conclude(
    n: number,
    verdict: Verdict,
    answer: Answered | undefined,
    isLoose: boolean,
    input?: ChangeInput,
    isReported?: boolean,
  ): Changed {
    const learned =
      verdict === 'done' && isReported !== true ? input?.learn?.(answer?.json) : undefined;
    this.stage.journal.write({
      kind: 'verdict',
      n,
      verdict,
      ...(isReported === true ? { isReported } : {}),
      ...(learned === undefined ? {} : { learned }),
    });
    return { verdict, answer, isLoose, n };
  }

  /** Reads; `see` says what the answer shows of which things. Null where there is no good answer. */
  async read(
    call: Call,
    see: (
      json: any,
      answer: Answered,
    ) => Readonly<Record<string, State>> | Promise<Readonly<Record<string, State>>> = () => ({}),
    {
      expected = [],
      events,
    }: { expected?: readonly string[]; events?: Readonly<Record<string, number>> } = {},
  ): Promise<Answered | null> {
    const { client, journal } = this.stage;
    const replica = client.choose();
    const n = journal.next();
    journal.write({
      kind: 'read',
      n,
      lane: this.name,
      operation: call.operation,
      replica: replica.name,
      start: replica.starts,
    });
    const answer = await client.send(call, replica);
    const { status, code, requestId, error, ms } = answer;
    const isGood = status !== undefined && status < 400;
    const isExpected = code !== undefined && expected.includes(code);
    const seen = isGood || isExpected ? await see(answer.json, answer) : {};
    journal.write({
      kind: 'seen',
      n,
      ...(status === undefined ? {} : { status }),
      ...(code === undefined ? {} : { code }),
      ...(requestId === undefined ? {} : { requestId }),
      ...(error === undefined ? {} : { error }),
      ms,
      seen,
      ...(events === undefined || !isGood ? {} : { events }),
    });
    if (
      !isGood &&
      !isExpected &&
      answer.outcome === 'answer' &&
      outcomeOf(answer) === 'refused' &&
      !isPassing(answer)
    )
      journal.fault(
        'unexpectedRefusal',
        `${call.operation} as ${call.as} at ${answer.replica}: ${status} ${code}`,
        n,
      );
    return isGood || isExpected ? answer : null;
  }
}
