// Several callers at once on one state of one thing: one of them is acknowledged, and who is told
// that another was faster is told the truth.
import { bodyOf, newSecret, planned, stateOf, thingOf } from './credential.ts';
import type { Lane } from './lane.ts';
import type { TeamOfRig } from './types.ts';

/** Runs races until the run is over; each on a fresh credential or a fresh member. */
export async function race(lane: Lane, team: TeamOfRig): Promise<boolean> {
  return lane.random.chance(0.5) ? raceForARole(lane, team) : raceForAName(lane, team);
}

/** The same name at once, stored by some and put by others. */
async function raceForAName(lane: Lane, team: TeamOfRig): Promise<boolean> {
  const plan = planned(lane, team);
  const number = lane.stage.journal.next();
  const changed = await Promise.all(
    [1, 2, 3].map((each) => {
      const mine = { ...plan, secrets: { 1: newSecret(lane) } };
      const body = bodyOf(mine, { apiKey: mine.secrets[1] });
      const { name: _, ...put } = body;
      const isPut = each === 3;
      return lane.change({
        operation: isPut ? 'putCredential' : 'createCredential',
        as: each === 1 ? team.editor : team.admin,
        params: isPut ? { team: team.slug, name: plan.name } : { team: team.slug },
        body: isPut ? put : body,
        effects: { [thingOf(plan)]: stateOf(mine) },
        events: { 'credential.create': 1 },
        race: number,
        tellsOfAnother: ({ code }) => code === 'nameTaken' || code === 'preconditionRequired',
      });
    }),
  );
  return changed.some(({ verdict }) => verdict === 'done');
}

/** Two admins with one ETag. */
async function raceForARole(lane: Lane, team: TeamOfRig): Promise<boolean> {
  const sub = lane.fresh('p');
  const thing = `member/${team.slug}/${sub}`;
  const params = { team: team.slug, subject: sub };
  const put = { operation: 'putMember', as: team.admin, params };
  const first = await lane.change({
    ...put,
    body: { role: 'viewer' },
    effects: { [thing]: { role: 'viewer', revision: 1 } },
    events: { 'member.add': 1 },
    happened: ({ code }) => code === 'preconditionRequired',
  });
  if (first.verdict !== 'done' || first.isLoose) return false;
  const number = lane.stage.journal.next();
  const changed = await Promise.all(
    ['editor', 'auditor', 'admin'].map((role) =>
      lane.change({
        ...put,
        headers: { 'if-match': '"1"' },
        body: { role },
        effects: { [thing]: { role, revision: 2 } },
        events: { 'member.change': 1 },
        race: number,
        tellsOfAnother: ({ code }) => code === 'preconditionFailed',
      }),
    ),
  );
  return changed.some(({ verdict }) => verdict === 'done');
}
