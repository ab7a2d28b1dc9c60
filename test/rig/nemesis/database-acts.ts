// What happens to the database: failovers, standbys that are away, primaries that come back.
import { type Act, seconds } from './scene.ts';

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
