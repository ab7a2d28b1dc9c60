// What breaks things. Acts are drawn from two shuffled decks, so that a short run sees many kinds:
// one deck for the database, one for replicas and their lines; one act of each at a time. Every act
// ends with everything that it broke mended.
import { setTimeout as delay } from 'node:timers/promises';
import type { Journal, NemesisLine } from '../journal.ts';
import type { Random } from '../random.ts';
import type { Setting } from '../setting.ts';
import type { Act } from './scene.ts';

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
