// What happens to replicas, their lines to the database, their clocks, and what they call.
import { type CutPoint, cutPoints } from '../postgres/proxy.ts';
import { type Act, seconds } from './scene.ts';

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
