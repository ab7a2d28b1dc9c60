// What must hold after a run, whatever was broken in it. Pure: the journal and what was found in
// the healed vault go in, what does not hold comes out.
import { documentOperations } from '../../helpers/documented-answers.ts';
import type { NemesisLine, State, Written } from '../journal.ts';
import {
  agrees,
  type Change,
  fits,
  type History,
  possibleStates,
  type Read,
  readHistory,
  statesDuring,
} from './history.ts';

export interface FoundEvent {
  readonly action: string;
  readonly decision: 'allow' | 'deny';
  readonly target: string;
  readonly team: string | null;
  readonly requestId: string;
}

/** What was found when everything was healed. */
export interface Found {
  /** Every row of a thing that the journal names; more than one is one too many. */
  readonly things: ReadonlyMap<string, readonly State[]>;
  /** The ids under which events name a thing, where that is known of it. */
  readonly targets: ReadonlyMap<string, string>;
  readonly events: readonly FoundEvent[];
  /** How often a request stands among the access records. */
  readonly accessRecords: ReadonlyMap<string, number>;
  /** Tokens under a key that is not there to open them, by key. */
  readonly underRetiredKeys: readonly string[];
  /** What `verify` found, where it found something. */
  readonly verify: string | undefined;
  /** Messages that the vault says were delivered and that no receiver saw. */
  readonly undelivered: readonly string[];
  /** How often each marked call was seen by the service it went to. */
  readonly calls: ReadonlyMap<string, number>;
}

export interface Violation {
  readonly rule: string;
  readonly detail: string;
  readonly thing?: string;
  readonly n?: number;
}

/** Events of what comes due after days: in a run nothing is so old. */
const eventsOfAge = ['credential.purge', 'team.purge', 'key.destroy'];

/** Everything that does not hold. */
export function check(lines: readonly Written[], found: Found): Violation[] {
  const history = readHistory(lines);
  return [
    ...faults(lines),
    ...exits(lines),
    ...states(history, found),
    ...races(history),
    ...reads(history),
    ...eventsByRequest(history, found),
    ...eventsOfThings(history, found),
    ...accessRecords(lines, history, found),
    ...slowReads(lines, history),
    ...found.underRetiredKeys.map((detail) => ({ rule: 'underRetiredKey', detail })),
    ...found.undelivered.map((detail) => ({ rule: 'notDelivered', detail })),
    ...(found.verify === undefined ? [] : [{ rule: 'verify', detail: found.verify }]),
    ...[...found.calls].flatMap(([mark, count]) =>
      count > 1
        ? [{ rule: 'calledTwice', detail: `the call ${mark} went out ${count} times` }]
        : [],
    ),
    ...found.events
      .filter(({ action }) => eventsOfAge.includes(action))
      .map(({ action, target }) => ({ rule: 'destroyedEarly', detail: `${action} of ${target}` })),
  ];
}

function faults(lines: readonly Written[]): Violation[] {
  return lines.flatMap((line) =>
    line.kind === 'fault'
      ? [{ rule: line.rule, detail: line.detail, ...(line.n === undefined ? {} : { n: line.n }) }]
      : [],
  );
}

function exits(lines: readonly Written[]): Violation[] {
  return lines.flatMap((line) => {
    if (line.kind !== 'process' || line.event !== 'ended') return [];
    // One that was asked to stop ends with 0, one that was killed with the signal.
    const isOrderly = line.isExpected === true && (typeof line.how === 'string' || line.how === 0);
    const isFailedStart = line.isExpected === true && line.how === 1;
    return isOrderly || isFailedStart
      ? []
      : [{ rule: 'exit', detail: `${line.replica} ended with ${line.how}` }];
  });
}

function states(history: History, { things }: Found): Violation[] {
  return [...history.byThing].flatMap(([thing, changes]) => {
    const rows = things.get(thing);
    if (rows === undefined) return [{ rule: 'notLookedAt', thing, detail: thing }];
    if (rows.length > 1)
      return [{ rule: 'doubled', thing, detail: `${thing} is there ${rows.length} times` }];
    const state = rows[0] ?? null;
    const possible = possibleStates(changes, thing);
    if (possible.some((each) => fits(each, state))) return [];
    const last = changes.at(-1)!;
    const rule =
      state === null ? 'lost' : possible.every((each) => each === null) ? 'notGone' : 'otherState';
    return [
      {
        rule: possible.length === 0 ? 'impossible' : rule,
        thing,
        n: last.n,
        detail: `${thing} is ${show(state)} and not ${possible.map(show).join(' or ')}, after ${changes
          .slice(-4)
          .map(told)
          .join(', ')}`,
      },
    ];
  });
}

function races(history: History): Violation[] {
  const done = new Map<number, Change[]>();
  for (const change of history.changes)
    if (change.race !== undefined && change.verdict === 'done')
      done.set(change.race, [...(done.get(change.race) ?? []), change]);
  return [...done].flatMap(([, changes]) =>
    changes.length > 1
      ? [
          {
            rule: 'lostUpdate',
            n: changes[1]!.n,
            detail: `${changes.length} changes of one state were acknowledged: ${changes.map(told).join(', ')}`,
          },
        ]
      : [],
  );
}

function reads({ reads: all, byThing }: History): Violation[] {
  return all.flatMap((read) =>
    Object.entries(read.seen).flatMap(([thing, seen]) => {
      const changes = byThing.get(thing) ?? [];
      const allowed = statesDuring(changes, thing, read);
      if (allowed.some((each) => agrees(each, seen))) return [];
      return [
        {
          rule: 'staleRead',
          thing,
          n: read.n,
          detail: `${read.operation} at ${read.replica} showed ${thing} as ${show(seen)} and not ${allowed.map(show).join(' or ')}`,
        },
      ];
    }),
  );
}

/** By request: an acknowledged change or use has its events, a refused one none. */
function eventsByRequest({ changes, reads: all }: History, { events }: Found): Violation[] {
  const byRequest = Map.groupBy(
    events.filter(({ decision }) => decision === 'allow'),
    ({ requestId }) => requestId,
  );
  const uses = all.flatMap(({ operation, n, requestId, events: expected }) =>
    Object.entries(expected).flatMap(([action, least]) => {
      const count = (byRequest.get(requestId ?? '') ?? []).filter(
        (event) => event.action === action,
      ).length;
      const detail = `${operation} ${n} has ${count} events ${action} and not ${least}`;
      return count === least
        ? []
        : [{ rule: count < least ? 'eventMissing' : 'eventTwice', n, detail }];
    }),
  );
  return changes
    .flatMap((change) =>
      Object.entries(change.events).flatMap(([action, expected]) => {
        const requests = new Set(change.attempts.flatMap(({ requestId }) => requestId ?? []));
        const count = [...requests]
          .flatMap((request) => byRequest.get(request) ?? [])
          .filter((event) => event.action === action).length;
        // An attempt without an answer has a request id that nobody was told.
        const isWhole = change.attempts.every(({ requestId }) => requestId !== undefined);
        const detail = `${told(change)} has ${count} events ${action} and not ${expected}`;
        if (change.verdict === 'refused')
          return count === 0 ? [] : [{ rule: 'eventOfARefusal', n: change.n, detail }];
        if (count > expected) return [{ rule: 'eventTwice', n: change.n, detail }];
        return change.verdict === 'done' && isWhole && count < expected
          ? [{ rule: 'eventMissing', n: change.n, detail }]
          : [];
      }),
    )
    .concat(uses);
}

/** By thing: as many events as changes, also of those whose requests nobody can name. */
function eventsOfThings({ byThing }: History, { events, targets }: Found): Violation[] {
  const counts = new Map<string, number>();
  for (const { action, target, decision } of events)
    if (decision === 'allow')
      counts.set(`${action} ${target}`, (counts.get(`${action} ${target}`) ?? 0) + 1);
  return [...byThing].flatMap(([thing, changes]) => {
    const target = targets.get(thing);
    if (target === undefined) return [];
    const own = changes.filter(({ effects }) => Object.keys(effects)[0] === thing);
    const actions = new Set(own.flatMap((change) => Object.keys(change.events)));
    return [...actions].flatMap((action) => {
      const sum = (of: readonly Change[]): number =>
        of.reduce((total, change) => total + (change.events[action] ?? 0), 0);
      const least = sum(own.filter(({ verdict }) => verdict === 'done'));
      const most = sum(own.filter(({ verdict }) => verdict !== 'refused'));
      const count = counts.get(`${action} ${target}`) ?? 0;
      if (count >= least && count <= most) return [];
      return [
        {
          rule: count < least ? 'eventMissing' : 'eventWithoutAChange',
          thing,
          detail: `${thing} has ${count} events ${action} and not ${least === most ? least : `${least} to ${most}`}`,
        },
      ];
    });
  });
}

/** Reads that were answered stand among the access records, where their replica could write them. */
function accessRecords(
  lines: readonly Written[],
  { reads: all }: History,
  { accessRecords: records }: Found,
): Violation[] {
  const outages = actsOf(lines, isOutage);
  // What a replica had in memory when it was killed is lost: a few seconds' worth, and whatever it
  // could not write while it had no database.
  const graceMs = 5_000;
  const unwrittenSince = (at: number): number => {
    let from = at - graceMs;
    for (const outage of outages.toReversed())
      if (outage.from < at && outage.to + graceMs > from) from = Math.min(from, outage.from);
    return from;
  };
  const kills = lines.flatMap((line) => {
    if (line.kind !== 'process' || line.event !== 'ended' || line.how === 0) return [];
    return [{ key: `${line.replica}/${line.start}`, from: unwrittenSince(line.at) }];
  });
  // They are written without waiting for the standby: a primary that dies while it is alone takes
  // them along.
  const alone = actsOf(lines, ({ act }) => act === 'failOverFromAlone');
  const isLost = ({ replica, start, at }: Read): boolean =>
    kills.some(({ key, from }) => key === `${replica}/${start}` && at > from) ||
    alone.some(({ from, to }) => at > unwrittenSince(from) && at < to);
  const missing = Map.groupBy(
    all.filter(
      (read) =>
        read.status === 200 &&
        read.requestId !== undefined &&
        isRecorded(read.operation) &&
        !isLost(read) &&
        !records.has(read.requestId),
    ),
    ({ replica, start }) => `${replica}, start ${start}`,
  );
  return [...missing].map(([where, lost]) => ({
    rule: 'accessRecordLost',
    detail: `${lost.length} reads at ${where} are not recorded, the first at ${lost[0]!.at} ms`,
  }));
}

/** A read that takes so long while nothing is broken reads too much, however busy the machine is. */
function slowReads(lines: readonly Written[], { reads: all }: History): Violation[] {
  const settleMs = 5_000;
  const acts = actsOf(lines, () => true);
  return all.flatMap(({ operation, n, at, ms }) => {
    const isDisturbed = acts.some(({ from, to }) => at > from && at - ms < to + settleMs);
    return ms < slowMs || isDisturbed
      ? []
      : [{ rule: 'slow', n, detail: `${operation} took ${ms} ms while nothing was broken` }];
  });
}

const slowMs = 10_000;

/** While it lasts, some replica may have no database. */
const isOutage = ({ deck, act }: NemesisLine): boolean =>
  deck === 'database' || /Line|Bouncer/.test(act);

/** From when to when something of the kind was done. */
function actsOf(
  lines: readonly Written[],
  isOfKind: (line: NemesisLine) => boolean,
): { from: number; to: number }[] {
  return lines.flatMap((line, at) => {
    if (line.kind !== 'nemesis' || line.phase !== 'begin' || !isOfKind(line)) return [];
    const end = lines
      .slice(at)
      .find((later) => later.kind === 'nemesis' && later.phase === 'end' && later.act === line.act);
    return [{ from: line.at, to: end?.at ?? Number.POSITIVE_INFINITY }];
  });
}

/** Only what is read by somebody is recorded as a read. */
function isRecorded(operation: string): boolean {
  const found = documentOperations.get(operation);
  return found?.method === 'GET' && found.operation['x-action'] !== 'public';
}

const show = (state: State): string => (state === null ? 'gone' : JSON.stringify(state));
const told = ({ operation, n, verdict }: Change): string => `${operation} ${n} (${verdict})`;
