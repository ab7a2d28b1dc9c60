// What breaks things. Acts are drawn from two shuffled decks, so that a short run sees many kinds:
// one deck for the database, one for replicas and their lines; one act of each at a time. Every act
// ends with everything that it broke mended.
import { setTimeout as delay } from 'node:timers/promises';
import type { Journal, NemesisLine } from './journal.ts';
import { type CutPoint, cutPoints } from './postgres/proxy.ts';
import type { Random } from './random.ts';
import type { Setting, Station } from './setting.ts';

/** How an act sees the run. */
export interface Scene {
  readonly setting: Setting;
  readonly random: Random;
  readonly tell: (detail: Readonly<Record<string, unknown>>) => void;
  /** Waits, and returns early when the run is over. */
  wait(ms: number): Promise<void>;
  /** The replica that the replicas' deck is at now, so that the others go on. */
  readonly station: Station;
}
export type Act = (scene: Scene) => Promise<void>;

const seconds = (random: Random, from: number, to: number): number =>
  random.integer(from * 1_000, to * 1_000);

// ── the database ──────────────────────────────────────────────────────────────────────────────────

/** The primary dies, the standby takes over, and a fresh standby takes its place. */
const failOver: Act = async ({ setting: { pair }, wait, random }) => {
  await wait(seconds(random, 1, 3));
  await pair.failOver();
  await wait(seconds(random, 0, 3)); // nobody is acknowledged anything without a standby
  await pair.addStandby();
};

/** The primary dies and comes back by itself. */
const restartPrimary: Act = async ({ setting: { pair }, wait, random }) => {
  if (random.chance(0.5)) await pair.primary.kill();
  else await pair.primary.stop();
  await wait(seconds(random, 0, 2));
  await pair.primary.start();
};

/**
 * The standby is cut off; who waited is told that it is not known, and asks again. Then the primary
 * dies: what was acknowledged meanwhile has to be on the standby.
 */
const failOverFromAlone: Act = async ({ setting: { pair }, wait, random, tell }) => {
  pair.replicationLine.setMode('silent');
  const until = performance.now() + seconds(random, 6, 9);
  let cancelled = 0;
  while (performance.now() < until) {
    await wait(300);
    cancelled += await pair.cancelWaits();
  }
  tell({ cancelled });
  await pair.failOver();
  await pair.addStandby();
};

/** The same, but the standby comes back in time. */
const cutStandby: Act = async ({ setting: { pair }, wait, random, tell }) => {
  const mode = random.pick(['silent', 'stalled'] as const);
  tell({ mode });
  pair.replicationLine.setMode(mode);
  await wait(seconds(random, 3, 8));
  if (random.chance(0.5)) await pair.cancelWaits();
  pair.replicationLine.setMode('open');
  await pair.untilSynchronous();
};

const freezeStandby: Act = async ({ setting: { pair }, wait, random }) => {
  pair.standby.freeze();
  try {
    await wait(seconds(random, 3, 18));
    if (random.chance(0.5)) await pair.cancelWaits();
  } finally {
    pair.standby.thaw();
  }
  await pair.untilSynchronous();
};

const stopStandby: Act = async ({ setting: { pair }, wait, random }) => {
  await pair.standby.kill();
  await wait(seconds(random, 1, 6));
  await pair.standby.start();
  await pair.untilSynchronous();
};

const freezePrimary: Act = async ({ setting: { pair }, wait, random }) => {
  pair.primary.freeze();
  try {
    await wait(seconds(random, 1, 6));
  } finally {
    pair.primary.thaw();
  }
};

const endSessions: Act = async ({ setting: { pair }, wait, random }) => {
  for (let times = random.integer(2, 6); times > 0; times -= 1) {
    await pair.primary.query(
      `select pg_terminate_backend(pid) from pg_stat_activity where usename = 'credvault_app' and random() < 0.7`,
    );
    await wait(seconds(random, 0, 1));
  }
};

/** By name. */
export const databaseActs: Readonly<Record<string, Act>> = {
  failOver,
  failOverFromAlone,
  restartPrimary,
  cutStandby,
  freezeStandby,
  stopStandby,
  freezePrimary,
  endSessions,
};

// ── replicas and their lines ──────────────────────────────────────────────────────────────────────

const killReplica: Act = async ({ station: { replica }, wait, random }) => {
  for (let times = random.integer(1, 2); times > 0; times -= 1) {
    await wait(seconds(random, 0, 2));
    await replica.kill();
    await replica.start();
  }
};

const stopReplica: Act = async ({ station: { replica }, wait, random }) => {
  await wait(seconds(random, 0, 2));
  await replica.stop();
  await replica.start();
};

const freezeReplica: Act = async ({ station: { replica }, wait, random }) => {
  replica.freeze();
  try {
    await wait(seconds(random, 2, 8));
  } finally {
    replica.thaw();
  }
  await wait(1_000);
};

const hourMs = 3_600_000;
const dayMs = 24 * hourMs;

/** The wall clock of a running replica goes elsewhere and comes back. */
const skewClock: Act = async ({ station: { replica }, wait, random, tell }) => {
  const skewMs = random.pick([
    -3_000,
    10_000,
    -40_000,
    hourMs,
    -hourMs,
    2 * dayMs,
    -100 * dayMs,
    150 * dayMs,
  ]);
  tell({ skewMs });
  replica.clock.set(skewMs);
  await wait(seconds(random, 5, 9));
  replica.clock.set(0);
  await wait(1_500);
};

/** A replica starts with a clock that is days ahead: what is due by its clock, it does at once. */
const startAhead: Act = async ({ station: { replica }, wait, random, tell }) => {
  const skewMs = random.pick([2, 8, 32]) * dayMs;
  tell({ skewMs });
  await replica.kill();
  replica.clock.set(skewMs);
  try {
    await replica.start();
    await wait(seconds(random, 4, 7));
    await replica.kill();
  } finally {
    replica.clock.set(0);
  }
  await replica.start();
};

const cutLines: Act = async ({ station: { lines }, wait, random, tell }) => {
  const points: CutPoint[] = [];
  const until = performance.now() + seconds(random, 4, 8);
  while (performance.now() < until) {
    const point = random.pick(cutPoints);
    points.push(point);
    for (const line of lines) line.arm(point);
    await wait(random.integer(50, 400));
  }
  for (const line of lines) line.disarm();
  tell({ points: points.length, cuts: lines.map(({ cuts }) => cuts) });
};

const breakLines: Act = async ({ station: { lines }, wait, random, tell }) => {
  const mode = random.pick(['stalled', 'silent', 'refusing'] as const);
  tell({ mode });
  for (const line of lines) line.setMode(mode);
  try {
    await wait(seconds(random, 2, 8));
  } finally {
    for (const line of lines) line.setMode('open');
  }
};

const slowLines: Act = async ({ station: { lines }, wait, random, tell }) => {
  const delayMs = random.pick([20, 100, 300]);
  tell({ delayMs });
  for (const line of lines) line.setDelay(delayMs);
  await wait(seconds(random, 3, 7));
  for (const line of lines) line.setDelay(0);
};

const resetLines: Act = async ({ station: { lines }, wait, random }) => {
  for (let times = random.integer(3, 10); times > 0; times -= 1) {
    for (const line of lines) line.reset();
    await wait(random.integer(50, 900));
  }
};

const killBouncers: Act = async ({ setting, wait, random }) => {
  const bouncers = setting.stations.flatMap((station) => station.bouncers);
  for (const bouncer of bouncers) await bouncer.kill();
  await wait(seconds(random, 0, 3));
  for (const bouncer of bouncers) await bouncer.restart();
};

const breakPeers: Act = async ({ setting: { peers }, wait, random, tell }) => {
  peers.mode = random.pick(['hanging', 'failing', 'slow'] as const);
  tell({ mode: peers.mode });
  await wait(seconds(random, 3, 8));
  peers.mode = 'ok';
  peers.reset();
};

/** By name. */
export const replicaActs: Readonly<Record<string, Act>> = {
  killReplica,
  stopReplica,
  freezeReplica,
  skewClock,
  startAhead,
  cutLines,
  breakLines,
  slowLines,
  resetLines,
  killBouncers,
  breakPeers,
};

/** Plays one deck until the run is over. */
export async function playDeck(parts: {
  deck: NemesisLine['deck'];
  acts: Readonly<Record<string, Act>>;
  setting: Setting;
  journal: Journal;
  random: Random;
  isOver: () => boolean;
}): Promise<number> {
  const { deck: name, acts, setting, journal, random, isOver } = parts;
  const names = Object.keys(acts);
  let deck = random.shuffle(names);
  let played = 0;
  const wait = async (ms: number): Promise<void> => {
    const end = performance.now() + ms;
    while (performance.now() < end && !isOver())
      await delay(Math.min(100, Math.max(1, end - performance.now())));
  };
  while (!isOver()) {
    await wait(random.integer(500, 3_000));
    if (isOver()) break;
    if (names.length === 0) continue;
    const act = deck.shift()!;
    if (deck.length === 0) deck = random.shuffle(names);
    const station = random.pick(setting.stations);
    const own = random.fork(`${played} ${act}`);
    const detail: Record<string, unknown> = { replica: station.replica.name };
    journal.write({ kind: 'nemesis', deck: name, act, phase: 'begin', detail });
    const tell = (more: Readonly<Record<string, unknown>>): void => {
      Object.assign(detail, more);
    };
    await acts[act]!({ setting, random: own, tell, wait, station });
    journal.write({ kind: 'nemesis', deck: name, act, phase: 'end', detail });
    played += 1;
  }
  return played;
}

/** Mends what a run may have left broken, and returns when every part does its work. */
export async function heal({ pair, stations, peers }: Setting): Promise<void> {
  peers.mode = 'ok';
  pair.replicationLine.setMode('open');
  for (const { lines, replica } of stations) {
    for (const line of lines) {
      line.disarm();
      line.setDelay(0);
      line.setMode('open');
    }
    replica.clock.set(0);
    if (replica.isFrozen) replica.thaw();
    if (!replica.isAlive) await replica.start();
  }
  await pair.untilSynchronous();
  const deadline = performance.now() + 90_000;
  while (!(await Promise.all(stations.map(({ replica }) => replica.isReady()))).every(Boolean)) {
    if (performance.now() > deadline)
      throw new Error('a replica is not ready though all is healed');
    await delay(200);
  }
}
