// All lanes of a run, and how each goes on: one operation after the other, those first that were
// never done yet, otherwise by their weight.
import { setTimeout as delay } from 'node:timers/promises';
import type { Random } from '../random.ts';
import { CredentialsLane, credentialsWork } from './credentials.ts';
import { Lane, type Stage } from './lane.ts';
import type { Work } from './work.ts';

/** Every operation of the document that the workload does, and how often it was done to its end. */
export const allWork = { ...credentialsWork };

/** Runs every lane until the run is over. */
export async function runLanes(stage: Stage, random: Random, paceMs: number): Promise<void> {
  const lane = (name: string): Lane => new Lane(name, stage, random.fork(name));
  const running: Promise<void>[] = [];
  for (const team of stage.teams)
    for (const at of ['a', 'b']) {
      const own = lane(`${team.slug.replace('team-', 't')}${at}`);
      running.push(go(new CredentialsLane(own, team), own, credentialsWork, paceMs));
    }
  await Promise.all(running);
}

async function go<L>(on: L, lane: Lane, work: Work<L>, paceMs: number): Promise<void> {
  const names = Object.keys(work);
  const done = new Map<string, number>(names.map((name) => [name, 0]));
  const total = names.reduce((sum, name) => sum + work[name]!.weight, 0);
  while (!lane.stage.isOver()) {
    const never = names.filter((name) => done.get(name) === 0);
    const name =
      never.length > 0 && lane.random.chance(0.5)
        ? lane.random.pick(never)
        : weighted(names, work, total * lane.random.next());
    if (await work[name]!.run(on)) done.set(name, (done.get(name) ?? 0) + 1);
    await delay(lane.random.integer(0, 2 * paceMs));
  }
}

function weighted<L>(names: readonly string[], work: Work<L>, point: number): string {
  let left = point;
  for (const name of names) {
    left -= work[name]!.weight;
    if (left < 0) return name;
  }
  return names.at(-1)!;
}
