// The journal, read as histories: what was asked of each thing, in its order, and what became of it.
import type { ChangeLine, SeenLine, State, Verdict, Written } from '../journal.ts';

/** One attempt and what came back. */
export interface Attempt {
  readonly replica: string;
  readonly start: number;
  readonly requestId: string | undefined;
  readonly status: number | undefined;
  readonly code: string | undefined;
}

export interface Change {
  readonly n: number;
  readonly lane: string;
  readonly operation: string;
  readonly effects: Readonly<Record<string, State>>;
  readonly events: Readonly<Record<string, number>>;
  readonly race: number | undefined;
  readonly attempts: readonly Attempt[];
  readonly verdict: Verdict;
  readonly isReported: boolean;
  /** Places in the journal: when it was meant, and when it was known what became of it. */
  readonly begun: number;
  readonly ended: number;
}

export interface Read {
  readonly n: number;
  readonly lane: string;
  readonly operation: string;
  readonly replica: string;
  readonly start: number;
  readonly begun: number;
  readonly ended: number;
  readonly seen: Readonly<Record<string, State>>;
  readonly status: number | undefined;
  readonly requestId: string | undefined;
  readonly events: Readonly<Record<string, number>>;
  readonly at: number;
  readonly ms: number;
}

export interface History {
  readonly changes: readonly Change[];
  readonly reads: readonly Read[];
  /** The changes that touch a thing, in the order in which they were meant. */
  readonly byThing: ReadonlyMap<string, readonly Change[]>;
}

type Building = {
  line: Written<ChangeLine>;
  attempts: Map<number, Attempt>;
  verdict: Verdict;
  isReported: boolean;
  ended: number;
  learned: Readonly<Record<string, Readonly<Record<string, unknown>>>>;
};

/** Reads the lines. What has no verdict is not known. */
export function readHistory(lines: readonly Written[]): History {
  const building = new Map<number, Building>();
  const begunReads = new Map<number, Extract<Written, { kind: 'read' }>>();
  const reads: Read[] = [];
  for (const line of lines) {
    const change = 'n' in line && line.n !== undefined ? building.get(line.n) : undefined;
    switch (line.kind) {
      case 'change':
        building.set(line.n, {
          line,
          attempts: new Map(),
          verdict: 'unknown',
          isReported: false,
          ended: Number.POSITIVE_INFINITY,
          learned: {},
        });
        break;
      case 'attempt':
        change?.attempts.set(line.attempt, {
          replica: line.replica,
          start: line.start,
          requestId: undefined,
          status: undefined,
          code: undefined,
        });
        break;
      case 'answer': {
        const attempt = change?.attempts.get(line.attempt);
        if (attempt !== undefined)
          change?.attempts.set(line.attempt, {
            ...attempt,
            requestId: line.requestId ?? attempt.requestId,
            status: line.status ?? attempt.status,
            code: line.code ?? attempt.code,
          });
        break;
      }
      case 'verdict':
        if (change !== undefined)
          Object.assign(change, {
            verdict: line.verdict,
            isReported: line.isReported === true,
            ended: line.index,
            learned: line.learned ?? {},
          });
        break;
      case 'read':
        begunReads.set(line.n, line);
        break;
      case 'seen': {
        const begun = begunReads.get(line.n);
        if (begun !== undefined) reads.push(readOf(begun, line));
        break;
      }
      default:
        break;
    }
  }
  const changes = [...building.values()].map(changeOf);
  const byThing = new Map<string, Change[]>();
  for (const change of changes)
    for (const thing of Object.keys(change.effects))
      byThing.set(thing, [...(byThing.get(thing) ?? []), change]);
  return { changes, reads, byThing };
}

function changeOf({ line, attempts, verdict, isReported, ended, learned }: Building): Change {
  const effects = Object.fromEntries(
    Object.entries(line.effects).map(([thing, state]) => [
      thing,
      state === null ? null : { ...state, ...learned[thing] },
    ]),
  );
  const { n, lane, operation, events, race, index } = line;
  return {
    n,
    lane,
    operation,
    effects,
    events,
    race,
    attempts: [...attempts.values()],
    verdict,
    isReported,
    begun: index,
    ended,
  };
}

const readOf = (
  { n, lane, operation, replica, start, index }: Extract<Written, { kind: 'read' }>,
  { seen, status, requestId, events = {}, index: ended, at, ms }: Written<SeenLine>,
): Read => ({
  n,
  lane,
  operation,
  replica,
  start,
  begun: index,
  ended,
  seen,
  status,
  requestId,
  events,
  at,
  ms,
});

/** Every state in which the thing may be when everything has ended; null where there may be none. */
export function possibleStates(history: readonly Change[], thing: string): State[] {
  let possible: State[] = [null];
  const races = new Set<number>();
  for (const change of history) {
    if (change.race !== undefined) {
      if (races.has(change.race)) continue;
      races.add(change.race);
      possible = afterRace(
        history.filter(({ race }) => race === change.race),
        thing,
        possible,
      );
      continue;
    }
    const becomes = change.effects[thing] as State;
    if (change.verdict === 'done') possible = [becomes];
    else if (change.verdict === 'unknown') possible = [...possible, becomes];
  }
  return possible;
}

/** One of a race was done, or none: where one was told that another was faster, one was. */
function afterRace(race: readonly Change[], thing: string, before: readonly State[]): State[] {
  const done = race.filter(({ verdict }) => verdict === 'done');
  if (done.length > 0) return done.map(({ effects }) => effects[thing] as State);
  const unknown = race
    .filter(({ verdict }) => verdict === 'unknown')
    .map(({ effects }) => effects[thing] as State);
  const isToldOfAnother = race.some(({ isReported }) => isReported);
  return isToldOfAnother && unknown.length > 0 ? unknown : [...before, ...unknown];
}

/**
 * Every state in which a read may have found the thing: none that was over before it began, none
 * that was not meant yet when it ended.
 */
export function statesDuring(history: readonly Change[], thing: string, read: Read): State[] {
  const isOver = (after: number): boolean =>
    history
      .slice(after + 1)
      .some(
        ({ verdict, ended, race }) =>
          verdict === 'done' &&
          ended < read.begun &&
          (race === undefined || race !== history[after]?.race),
      );
  const during = history.flatMap((change, at) =>
    change.begun < read.ended && change.verdict !== 'refused' && !isOver(at)
      ? [change.effects[thing] as State]
      : [],
  );
  const isThereSurely = history.some(
    ({ verdict, ended }) => verdict === 'done' && ended < read.begun,
  );
  return isThereSurely ? during : [null, ...during];
}

/** Whether what was found has every member that was meant. */
export function fits(meant: State, found: State): boolean {
  if (meant === null || found === null) return meant === found;
  return Object.entries(meant).every(([name, value]) => same(value, found[name]));
}

/**
 * Whether what was seen, which may be less than all, is of the state. A `secret` is that of the
 * current version.
 */
export function agrees(meant: State, seen: State): boolean {
  if (meant === null || seen === null) return meant === seen;
  const secrets = meant['secrets'] as Readonly<Record<string, unknown>> | undefined;
  return Object.entries(seen).every(([name, value]) =>
    name === 'secret'
      ? same(value, secrets?.[String(meant['version'])])
      : !Object.hasOwn(meant, name) || same(value, meant[name]),
  );
}

function same(a: unknown, b: unknown): boolean {
  return sorted(a) === sorted(b);
}

const sorted = (value: unknown): string =>
  JSON.stringify(value, (_, each: unknown) =>
    typeof each === 'object' && each !== null && !Array.isArray(each)
      ? Object.fromEntries(Object.entries(each).sort(([a], [b]) => (a < b ? -1 : 1)))
      : each,
  ) ?? 'undefined';
