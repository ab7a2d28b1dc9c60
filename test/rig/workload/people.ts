// The members and the settings of one team, and teams that come and go.
import type { Lane } from './lane.ts';
import type { TeamOfRig } from './types.ts';
import type { Work } from './work.ts';

interface Member {
  readonly sub: string;
  readonly role: string;
  readonly revision: number;
  readonly isLoose: boolean;
}

export class MembersLane {
  readonly lane: Lane;
  readonly team: TeamOfRig;
  readonly members: Member[] = [];
  readonly former: string[] = [];
  settings: { name: string; revision: number; versionsKept: number } | undefined;

  constructor(lane: Lane, team: TeamOfRig) {
    this.lane = lane;
    this.team = team;
    this.settings = { name: team.slug, revision: 1, versionsKept: 10 };
    lane.given(`team/${team.slug}`, { ...this.settings, deleted: false });
  }

  get params(): Record<string, string> {
    return { team: this.team.slug };
  }

  thing(sub: string): string {
    return `member/${this.team.slug}/${sub}`;
  }
}

const roles = ['viewer', 'editor', 'admin', 'auditor'];

async function putMember(of: MembersLane): Promise<boolean> {
  const at =
    of.lane.random.chance(0.4) && of.members.length > 0
      ? of.lane.random.integer(0, of.members.length - 1)
      : -1;
  const before = at < 0 ? undefined : of.members.splice(at, 1)[0];
  const sub = before?.sub ?? of.lane.fresh('p');
  const role = of.lane.random.pick(roles.filter((each) => each !== before?.role));
  const revision = (before?.revision ?? 0) + 1;
  const { verdict, isLoose, answer } = await of.lane.change({
    operation: 'putMember',
    as: of.team.admin,
    params: { ...of.params, subject: sub },
    headers: before === undefined ? {} : { 'if-match': `"${before.revision}"` },
    body: { role },
    effects: { [of.thing(sub)]: { role, revision } },
    events: { [before === undefined ? 'member.add' : 'member.change']: 1 },
    happened: ({ code }) =>
      code === (before === undefined ? 'preconditionRequired' : 'preconditionFailed'),
    mismatch: (json) =>
      json.role === role && json.revision === revision ? undefined : JSON.stringify(json),
  });
  if (verdict === 'done')
    of.members.push({ sub, role, revision, isLoose: isLoose || before?.isLoose === true });
  else if (verdict === 'refused' && before !== undefined && answer?.status !== 412)
    of.members.push(before);
  return verdict === 'done';
}

async function removeMember(of: MembersLane): Promise<boolean> {
  const at = of.members.findIndex(({ isLoose }) => !isLoose);
  const member = at < 0 ? undefined : of.members.splice(at, 1)[0];
  if (member === undefined) return false;
  const { verdict, answer } = await of.lane.change({
    operation: 'removeMember',
    as: of.team.admin,
    params: { ...of.params, subject: member.sub },
    headers: { 'if-match': `"${member.revision}"` },
    effects: { [of.thing(member.sub)]: null },
    events: { 'member.remove': 1 },
    happened: ({ code }) => code === 'notFound',
  });
  if (verdict === 'done') of.former.push(member.sub);
  else if (verdict === 'refused' && answer?.code !== 'preconditionFailed') of.members.push(member);
  return verdict === 'done';
}

/** Who was removed is nobody at the next request; who was added is somebody. */
async function getTeam(of: MembersLane): Promise<boolean> {
  const isFormer = of.lane.random.chance(0.5) && of.former.length > 0;
  const sub = isFormer ? of.lane.random.pick(of.former) : (of.members[0]?.sub ?? of.team.viewer);
  await of.lane.read(
    { operation: 'getTeam', as: sub, params: of.params },
    (_, { status }) =>
      sub === of.team.viewer ? {} : { [of.thing(sub)]: status === 200 ? {} : null },
    { expected: ['notFound'] },
  );
  return true;
}

const ownRole =
  (operation: string, roleIn: (json: any, team: string) => string | undefined) =>
  async (of: MembersLane): Promise<boolean> => {
    const sub = of.lane.random.pick(
      [...of.members.map((each) => each.sub), ...of.former.slice(-3)].concat(of.team.viewer),
    );
    await of.lane.read({ operation, as: sub }, (json) => {
      if (sub === of.team.viewer) return {};
      const role = roleIn(json, of.team.slug);
      return { [of.thing(sub)]: role === undefined ? null : { role } };
    });
    return true;
  };

async function listMembers(of: MembersLane): Promise<boolean> {
  const watched = of.members[0];
  await of.lane.read(
    { operation: 'listMembers', as: of.team.viewer, params: of.params, query: { limit: '200' } },
    (json) => {
      const found = json.items.find(({ subject }: { subject: string }) => subject === watched?.sub);
      // Of more than a page the first 200 are looked at.
      if (watched === undefined || (found === undefined && json.nextCursor !== null)) return {};
      return {
        [of.thing(watched.sub)]:
          found === undefined ? null : { role: found.role, revision: found.revision },
      };
    },
  );
  return true;
}

async function updateTeam(of: MembersLane): Promise<boolean> {
  const { settings } = of;
  if (settings === undefined) return false;
  const next = {
    name: of.lane.fresh('team'),
    versionsKept: of.lane.random.integer(20, 100),
    revision: settings.revision + 1,
  };
  of.settings = undefined;
  const { verdict, answer } = await of.lane.change({
    operation: 'updateTeam',
    as: of.team.admin,
    params: of.params,
    headers: { 'if-match': `"${settings.revision}"` },
    body: { name: next.name, versionsKept: next.versionsKept },
    effects: { [`team/${of.team.slug}`]: { ...next, deleted: false } },
    events: { 'team.update': 1 },
    happened: ({ code }) => code === 'preconditionFailed',
  });
  if (verdict === 'done') of.settings = next;
  if (verdict === 'refused' && answer?.code !== 'preconditionFailed') of.settings = settings;
  return verdict === 'done';
}

export const membersWork: Work<MembersLane> = {
  putMember: { weight: 4, run: putMember },
  removeMember: { weight: 2, run: removeMember },
  listMembers: { weight: 1, run: listMembers },
  getTeam: { weight: 2, run: getTeam },
  whoami: {
    weight: 1,
    run: ownRole(
      'whoami',
      (json, team) => json.teams.find((each: { team: string }) => each.team === team)?.role,
    ),
  },
  listTeams: {
    weight: 1,
    run: ownRole(
      'listTeams',
      (json, team) => json.items.find(({ slug }: { slug: string }) => slug === team)?.role,
    ),
  },
  updateTeam: { weight: 2, run: updateTeam },
};

/** Teams that the operator makes and their admin deletes. */
export class TeamsLane {
  readonly lane: Lane;
  readonly teams: { slug: string; admin: string; isLoose: boolean }[] = [];

  constructor(lane: Lane) {
    this.lane = lane;
  }
}

async function createTeam(of: TeamsLane): Promise<boolean> {
  if (of.teams.length >= 4) return false;
  const slug = of.lane.fresh('t').slice(0, 39);
  const admin = of.lane.fresh('owner');
  const isKeyed = of.lane.random.chance(0.5);
  const { verdict, isLoose } = await of.lane.change({
    operation: 'createTeam',
    as: 'operator',
    body: { slug, name: slug, admins: [admin] },
    effects: {
      [`team/${slug}`]: { name: slug, revision: 1, deleted: false },
      [`member/${slug}/${admin}`]: { role: 'admin', revision: 1 },
    },
    events: { 'team.create': 1 },
    isKeyed,
    happened: ({ code }) => code === 'slugTaken',
  });
  if (verdict === 'done') of.teams.push({ slug, admin, isLoose });
  return verdict === 'done';
}

async function deleteTeam(of: TeamsLane): Promise<boolean> {
  const team = of.teams.shift();
  if (team === undefined) return false;
  const { verdict, answer } = await of.lane.change({
    operation: 'deleteTeam',
    as: team.admin,
    params: { team: team.slug },
    headers: { 'if-match': '"1"' },
    effects: { [`team/${team.slug}`]: { deleted: true } },
    events: { 'team.delete': 1 },
    happened: ({ code }) => code === 'notFound' || code === 'preconditionFailed',
  });
  if (verdict === 'refused' && answer?.code !== 'notFound') of.teams.push(team);
  if (verdict === 'done')
    await of.lane.read(
      { operation: 'getTeam', as: team.admin, params: { team: team.slug } },
      (_, { status }) => ({ [`team/${team.slug}`]: { deleted: status === 404 } }),
      { expected: ['notFound'] },
    );
  return verdict === 'done';
}

export const teamsWork: Work<TeamsLane> = {
  createTeam: { weight: 2, run: createTeam },
  deleteTeam: { weight: 1, run: deleteTeam },
};
