// The rig is worth what its checker sees. A run that went well is checked and found good; then each
// thing that can go wrong is planted in it, one at a time, and has to be found.
import t from 'tap';
import { check, type Found, type FoundEvent } from '../rig/check/check.ts';
import { Journal, type Line, type State, type Verdict } from '../rig/journal.ts';

/** A run of some changes on credentials, a read, a race; told line by line. */
interface Run {
  readonly journal: Journal;
  readonly things: Map<string, State[]>;
  readonly targets: Map<string, string>;
  readonly events: FoundEvent[];
  readonly accessRecords: Map<string, number>;
  readonly calls: Map<string, number>;
  retired: string[];
  undelivered: string[];
  verify: string | undefined;
}

interface Told {
  readonly operation: string;
  readonly effects: Readonly<Record<string, State>>;
  readonly events?: Readonly<Record<string, number>>;
  readonly verdict?: Verdict;
  readonly race?: number;
  readonly status?: number;
  readonly code?: string;
  /** An attempt of which nobody was told anything. */
  readonly isUnanswered?: boolean;
  readonly isReported?: true;
}

function emptyRun(): Run {
  return {
    journal: new Journal(),
    things: new Map(),
    targets: new Map(),
    events: [],
    accessRecords: new Map(),
    calls: new Map(),
    retired: [],
    undelivered: [],
    verify: undefined,
  };
}

/** Writes a change into the journal as a lane does; its request id. */
function tell({ journal }: Run, told: Told): string {
  const { operation, effects, events = {}, verdict = 'done', race, status = 200, code } = told;
  const n = journal.next();
  const requestId = `request-${n}`;
  journal.write({
    kind: 'change',
    n,
    lane: 'a',
    operation,
    effects,
    events,
    ...(race === undefined ? {} : { race }),
  });
  const attempt = told.isUnanswered === true ? 2 : 1;
  const of = { kind: 'attempt', n, replica: 'r0', start: 1, as: 'alice' } as const;
  if (attempt === 2) {
    journal.write({ ...of, attempt: 1 });
    journal.write({ kind: 'answer', n, attempt: 1, error: 'ECONNRESET', ms: 1 });
  }
  journal.write({ ...of, attempt });
  const answer = { n, attempt, status, requestId, ms: 1, ...(code === undefined ? {} : { code }) };
  journal.write({ kind: 'answer', ...answer });
  const isReported = told.isReported === undefined ? {} : { isReported: told.isReported };
  journal.write({ kind: 'verdict', n, verdict, ...isReported });
  return requestId;
}

/** The same, and what it does to the vault. */
function happen(run: Run, told: Told, target?: string): void {
  const requestId = tell(run, told);
  if (told.verdict !== undefined && told.verdict !== 'done') return;
  for (const [thing, state] of Object.entries(told.effects))
    run.things.set(thing, state === null ? [] : [state]);
  for (const [action, count] of Object.entries(told.events ?? {}))
    for (let times = 0; times < count; times += 1)
      run.events.push({ action, decision: 'allow', target: target ?? '', team: 't', requestId });
  const [first] = Object.keys(told.effects);
  if (first !== undefined && target !== undefined) run.targets.set(first, target);
}

function read(run: Run, thing: string, seen: State, { isRecorded = true, ms = 1 } = {}): void {
  const n = run.journal.next();
  const of = { n, lane: 'a', operation: 'getCredential', replica: 'r0', start: 1 } as const;
  run.journal.write({ kind: 'read', ...of });
  const requestId = `request-${n}`;
  run.journal.write({
    kind: 'seen',
    n,
    status: 200,
    requestId,
    ms,
    seen: { [thing]: seen },
  });
  if (isRecorded) run.accessRecords.set(requestId, 1);
}

const stored = (revision: number, secret: string): NonNullable<State> => ({
  name: 'n',
  version: revision,
  revision,
  secrets: { [revision]: secret },
});

/** What each test begins with: everything went well in it. */
function goodRun(): Run {
  const run = emptyRun();
  const create = { operation: 'createCredential', events: { 'credential.create': 1 } };
  const update = { operation: 'updateCredential', events: { 'credential.update': 1 } };
  happen(run, { ...create, effects: { 'credential/a': stored(1, 's1') } }, 'id-a');
  read(run, 'credential/a', { revision: 1, secret: 's1' });
  happen(run, { ...update, effects: { 'credential/a': stored(2, 's2') } }, 'id-a');
  happen(run, { ...create, effects: { 'credential/b': stored(1, 'sb') } }, 'id-b');
  happen(run, {
    operation: 'deleteGrant',
    effects: { 'grant/b/guest': null },
    verdict: 'done',
  });
  tell(run, {
    ...update,
    effects: { 'credential/a': stored(3, 's3') },
    verdict: 'refused',
    status: 503,
    code: 'databaseUnavailable',
  });
  for (const [role, verdict] of [
    ['editor', 'done'],
    ['admin', 'refused'],
  ] as const)
    happen(run, {
      operation: 'putMember',
      effects: { 'member/t/p': { role, revision: 2 } },
      events: { 'member.change': 1 },
      race: 77,
      verdict,
      ...(verdict === 'refused' ? { status: 412, code: 'preconditionFailed' } : {}),
    });
  run.calls.set('mark', 1);
  write(run, {
    kind: 'process',
    replica: 'r0',
    start: 1,
    event: 'ended',
    how: 0,
    isExpected: true,
  });
  return run;
}

const write = ({ journal }: Run, line: Line): unknown => journal.write(line);

function rulesOf(run: Run): string[] {
  const found: Found = {
    things: run.things,
    targets: run.targets,
    events: run.events,
    accessRecords: run.accessRecords,
    underRetiredKeys: run.retired,
    undelivered: run.undelivered,
    verify: run.verify,
    calls: run.calls,
  };
  return [...new Set(check(run.journal.lines, found).map(({ rule }) => rule))].sort();
}

t.test('a run that went well is found good', async (t) => {
  t.same(rulesOf(goodRun()), []);
});

t.test('what is not known may have happened or not', async (t) => {
  const update = {
    operation: 'updateCredential',
    effects: { 'credential/b': stored(2, 'sb2') },
    events: { 'credential.update': 1 },
    verdict: 'unknown',
    status: 503,
    code: 'commitUnknown',
  } as const;
  const without = goodRun();
  tell(without, update);
  t.same(rulesOf(without), []);
  const withIt = goodRun();
  const requestId = tell(withIt, update);
  withIt.things.set('credential/b', [stored(2, 'sb2')]);
  const event = {
    action: 'credential.update',
    decision: 'allow',
    target: 'id-b',
    team: 't',
  } as const;
  withIt.events.push({ ...event, requestId });
  t.same(rulesOf(withIt), []);
  withIt.events.push({ ...event, requestId: 'nobody knows' });
  t.same(rulesOf(withIt), ['eventWithoutAChange'], 'but once');
});

const planted: Readonly<Record<string, readonly [rules: string[], plant: (run: Run) => void]>> = {
  'a lost create': [['lost'], ({ things }) => things.set('credential/b', [])],
  'a lost update': [['otherState'], ({ things }) => things.set('credential/a', [stored(1, 's1')])],
  'a secret that is another one': [
    ['otherState'],
    ({ things }) => things.set('credential/a', [stored(2, 's1')]),
  ],
  'a token that does not open': [
    ['otherState'],
    ({ things }) => things.set('credential/a', [stored(2, 'does not open')]),
  ],
  'what was removed and is there': [
    ['notGone'],
    ({ things }) => things.set('grant/b/guest', [{ access: 'use' }]),
  ],
  'an effect twice': [
    ['doubled'],
    ({ things }) => things.set('credential/b', [stored(1, 'sb'), stored(1, 'sb')]),
  ],
  'a thing that nobody looked for': [
    ['notLookedAt'],
    ({ things }) => things.delete('credential/b'),
  ],
  'an event that is missing': [['eventMissing'], ({ events }) => events.splice(0, 1)],
  'an event twice': [
    ['eventTwice', 'eventWithoutAChange'],
    ({ events }) => events.push(events[0]!),
  ],
  'a refusal with an event': [
    ['eventOfARefusal', 'eventWithoutAChange'],
    (run) =>
      run.events.push({
        action: 'credential.update',
        decision: 'allow',
        target: 'id-a',
        team: 't',
        requestId: 'request-6',
      }),
  ],
  'a refusal that happened': [
    ['eventOfARefusal', 'eventWithoutAChange', 'otherState'],
    (run) => {
      run.things.set('credential/a', [stored(3, 's3')]);
      run.events.push({
        action: 'credential.update',
        decision: 'allow',
        target: 'id-a',
        team: 't',
        requestId: 'request-6',
      });
    },
  ],
  'an event of nobody’s change': [
    ['eventWithoutAChange'],
    ({ events }) => events.push({ ...events[0]!, requestId: 'nobody knows' }),
  ],
  'two of a race': [
    ['lostUpdate'],
    (run) => {
      const effects = { 'member/t/q': { role: 'admin', revision: 2 } };
      for (const _ of [1, 2])
        happen(run, { operation: 'putMember', effects, events: { 'member.change': 1 }, race: 88 });
    },
  ],
  'a race that nobody won though one was told so': [
    ['lost'],
    (run) => {
      const effects = { 'credential/r': stored(1, 'r') };
      const of = { operation: 'createCredential', effects, race: 99 };
      tell(run, { ...of, verdict: 'unknown', status: 503, code: 'commitUnknown' });
      tell(run, { ...of, verdict: 'refused', status: 409, code: 'nameTaken', isReported: true });
      run.things.set('credential/r', []);
    },
  ],
  'a stale read': [['staleRead'], (run) => read(run, 'credential/a', { revision: 1 })],
  'a read of what is gone': [['staleRead'], (run) => read(run, 'grant/b/guest', { access: 'use' })],
  'a read that does not find what is there': [
    ['staleRead'],
    (run) => read(run, 'credential/b', null),
  ],
  'a lease with the secret of another version': [
    ['staleRead'],
    (run) => read(run, 'credential/a', { version: 2, secret: 's1' }),
  ],
  'a read that is not recorded': [
    ['accessRecordLost'],
    (run) => read(run, 'credential/b', { revision: 1 }, { isRecorded: false }),
  ],
  'a read that takes long though nothing is broken': [
    ['slow'],
    (run) => read(run, 'credential/b', { revision: 1 }, { ms: 12_000 }),
  ],
  'a row under a retired key': [
    ['underRetiredKey'],
    (run) => run.retired.push('credential_version x under retired'),
  ],
  'a message that nobody got': [['notDelivered'], (run) => run.undelivered.push('the message 1')],
  'what verify finds': [
    ['verify'],
    (run) => {
      run.verify = '3: sealBroken';
    },
  ],
  'an exit': [
    ['exit'],
    (run) =>
      write(run, {
        kind: 'process',
        replica: 'r1',
        start: 1,
        event: 'ended',
        how: 1,
        isExpected: false,
      }),
  ],
  'a stop that did not end in order': [
    ['exit'],
    (run) =>
      write(run, {
        kind: 'process',
        replica: 'r1',
        start: 1,
        event: 'ended',
        how: 7,
        isExpected: true,
      }),
  ],
  'a 500': [['internalError'], ({ journal }) => journal.fault('internalError', 'somewhere')],
  'a call that went out twice': [['calledTwice'], ({ calls }) => calls.set('mark', 2)],
  'a key that was destroyed early': [
    ['destroyedEarly'],
    ({ events }) =>
      events.push({
        action: 'key.destroy',
        decision: 'allow',
        target: 'k',
        team: 't',
        requestId: 'keys',
      }),
  ],
};

for (const [what, [rules, plant]] of Object.entries(planted))
  t.test(`it finds ${what}`, async (t) => {
    const run = goodRun();
    plant(run);
    t.same(rulesOf(run), rules);
  });

t.test('an attempt without an answer has an event of which nobody knows the request', async (t) => {
  const run = goodRun();
  happen(
    run,
    {
      operation: 'createCredential',
      effects: { 'credential/c': stored(1, 'sc') },
      events: { 'credential.create': 1 },
      isUnanswered: true,
    },
    'id-c',
  );
  t.same(rulesOf(run), []);
  run.events.splice(run.events.length - 1, 1, { ...run.events.at(-1)!, requestId: 'the first' });
  t.same(rulesOf(run), [], 'it may be of either attempt');
  run.events.pop();
  t.same(rulesOf(run), ['eventMissing'], 'but not of none');
});

t.test('a replica that is killed takes its last reads along, and no more', async (t) => {
  const run = emptyRun();
  happen(run, { operation: 'createCredential', effects: { 'credential/a': stored(1, 's1') } });
  read(run, 'credential/a', { revision: 1 }, { isRecorded: false });
  write(run, {
    kind: 'process',
    replica: 'r0',
    start: 1,
    event: 'ended',
    how: 'SIGKILL',
    isExpected: true,
  });
  t.same(rulesOf(run), []);
  const lines = run.journal.lines.map((line) =>
    line.kind === 'process' ? { ...line, at: line.at + 60_000 } : line,
  );
  const found = { ...run, underRetiredKeys: [], verify: undefined };
  t.same(
    check(lines, found).map(({ rule }) => rule),
    ['accessRecordLost'],
    'not those of a minute before',
  );
});
