// All lanes of a run, and how each goes on: one operation after the other, those first that were
// never done yet, otherwise by their weight.
import { setTimeout as delay } from 'node:timers/promises';
import type { Random } from '../random.ts';
import { callsWork } from './calls.ts';
import type { Owned } from './credential.ts';
import { AuditLane, auditWork } from './audit.ts';
import { credentialsWork } from './credentials.ts';
import { CredentialsLane } from './credentials-lane.ts';
import { KeysLane, keysWork } from './keys.ts';
import { Lane } from './lane.ts';
import type { Stage } from './types.ts';
import { OperatorLane, operatorWork } from './operator.ts';
import { MembersLane, membersWork, TeamsLane, teamsWork } from './people.ts';
import { race } from './races.ts';
import { beRude } from './rude.ts';
import { ServicesLane, servicesWork } from './services.ts';
import { SharingLane, sharingWork } from './sharing.ts';
import { UsesLane, usesWork } from './uses.ts';
import type { Work } from './work.ts';

/**
 * What the workload does of each operation of the document. An operation that is added gets its
 * line in the lane that owns its things.
 */
export const allWork: Readonly<Record<string, Work<never>[string]>> = {
  ...credentialsWork,
  ...keysWork,
  ...membersWork,
  ...teamsWork,
  ...sharingWork,
  ...operatorWork,
  ...usesWork,
  ...servicesWork,
  ...auditWork,
};

/** Runs every lane until the run is over. */
export async function runLanes(stage: Stage, random: Random, paceMs: number): Promise<void> {
  const running: Promise<void>[] = [];
  const begin = <L>(name: string, make: (lane: Lane) => L, work: Work<L>, pace = paceMs): L => {
    const lane = new Lane(name, stage, random.fork(name));
    const made = make(lane);
    if (!stage.without.some((beginning) => name.startsWith(beginning)))
      running.push(go(made, lane, work, pace));
    return made;
  };
  for (const [at, team] of stage.teams.entries()) {
    const owners = ['a', 'b'].map((letter) =>
      begin(`t${at}${letter}`, (lane) => new CredentialsLane(lane, team), credentialsWork),
    );
    const candidates = (): readonly Owned[] => owners.flatMap(({ living }) => living);
    begin(`t${at}k`, (lane) => new KeysLane(lane, team), keysWork);
    begin(`t${at}m`, (lane) => new MembersLane(lane, team), membersWork, 2 * paceMs);
    begin(`t${at}u`, (lane) => new UsesLane(lane, team, candidates), { ...usesWork, ...callsWork });
    begin(
      `t${at}r`,
      (lane) => lane,
      { race: { weight: 1, run: (lane) => race(lane, team) } },
      5 * paceMs,
    );
    begin(`t${at}v`, (lane) => new ServicesLane(lane, team), servicesWork, 2 * paceMs);
  }
  const [first, ...others] = stage.teams;
  begin('share', (lane) => new SharingLane(lane, first!, others), sharingWork);
  begin('op', (lane) => new OperatorLane(lane), operatorWork, 2 * paceMs);
  begin('teams', (lane) => new TeamsLane(lane), teamsWork, 4 * paceMs);
  begin('audit', (lane) => new AuditLane(lane, first!), auditWork, 10 * paceMs);
  begin('rude', (lane) => lane, { rude: { weight: 1, run: beRude } });
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
