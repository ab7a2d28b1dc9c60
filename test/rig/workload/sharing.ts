// Credentials that a team shares and gives away.
import { bodyOf, create, type Owned, planned, stateOf, thingOf } from './credential.ts';
import type { Lane } from './lane.ts';
import type { TeamOfRig } from './types.ts';
import type { Work } from './work.ts';

interface Grant {
  readonly kind: 'team' | 'subject';
  readonly to: string;
  readonly access: string;
  readonly revision: number;
  readonly isLoose: boolean;
}
interface Shared {
  owned: Owned;
  grants: Grant[];
  offer: { id: string; to: TeamOfRig } | undefined;
}

export class SharingLane {
  readonly lane: Lane;
  readonly team: TeamOfRig;
  readonly others: readonly TeamOfRig[];
  readonly shared: Shared[] = [];

  constructor(lane: Lane, team: TeamOfRig, others: readonly TeamOfRig[]) {
    this.lane = lane;
    this.team = team;
    this.others = others;
  }

  /** One to work on, which is made where there are few. */
  async take(isFit: (shared: Shared) => boolean): Promise<Shared | undefined> {
    if (this.shared.length < 4) {
      const plan = planned(this.lane, this.team);
      const body = bodyOf(plan, { apiKey: plan.secrets[1] });
      const owned = await create(this.lane, plan, this.team.admin, body);
      if (owned !== undefined) this.shared.push({ owned, grants: [], offer: undefined });
    }
    const fit = this.shared.filter(isFit);
    return fit.length === 0 ? undefined : this.lane.random.pick(fit);
  }

  /** Nobody knows any more how it stands. */
  forget(shared: Shared): void {
    this.shared.splice(this.shared.indexOf(shared), 1);
  }
}

const grantThing = ({ owned }: Shared, to: string): string => `grant/${owned.label}/${to}`;
const paramsOf = ({ owned }: Shared, { kind, to }: Pick<Grant, 'kind' | 'to'>) => ({
  id: owned.id,
  [kind]: to,
});
const operationOf = (what: 'put' | 'remove', kind: Grant['kind']): string =>
  `${what}${kind === 'team' ? 'Team' : 'Subject'}Grant`;

const putGrant =
  (kind: Grant['kind']) =>
  async (of: SharingLane): Promise<boolean> => {
    const shared = await of.take(() => true);
    if (shared === undefined) return false;
    const isOf = (grant: Grant): boolean => grant.kind === kind;
    const before = of.lane.random.chance(0.4) ? shared.grants.find(isOf) : undefined;
    const free = of.others.filter(({ slug }) => !shared.grants.some(({ to }) => to === slug));
    if (before === undefined && kind === 'team' && free.length === 0) return false;
    const to =
      before?.to ?? (kind === 'team' ? of.lane.random.pick(free).slug : of.lane.fresh('guest'));
    const access = before?.access === 'read' ? 'use' : 'read';
    const revision = (before?.revision ?? 0) + 1;
    const { verdict, isLoose } = await of.lane.change({
      operation: operationOf('put', kind),
      as: of.team.admin,
      params: paramsOf(shared, { kind, to }),
      headers: before === undefined ? {} : { 'if-match': `"${before.revision}"` },
      body: { access },
      effects: { [grantThing(shared, to)]: { access, revision } },
      happened: ({ code }) =>
        code === (before === undefined ? 'preconditionRequired' : 'preconditionFailed'),
    });
    if (verdict === 'unknown') of.forget(shared);
    if (verdict !== 'done') return false;
    shared.grants = [
      ...shared.grants.filter((grant) => grant !== before),
      { kind, to, access, revision, isLoose: isLoose || before?.isLoose === true },
    ];
    return true;
  };

const removeGrant =
  (kind: Grant['kind']) =>
  async (of: SharingLane): Promise<boolean> => {
    const isFit = (grant: Grant): boolean => grant.kind === kind && !grant.isLoose;
    const shared = await of.take(({ grants }) => grants.some(isFit));
    const grant = shared?.grants.find(isFit);
    if (shared === undefined || grant === undefined) return false;
    const { verdict } = await of.lane.change({
      operation: operationOf('remove', kind),
      as: of.team.admin,
      params: paramsOf(shared, grant),
      headers: { 'if-match': `"${grant.revision}"` },
      effects: { [grantThing(shared, grant.to)]: null },
      happened: ({ code }) => code === 'notFound',
    });
    if (verdict === 'unknown') of.forget(shared);
    if (verdict !== 'done') return false;
    shared.grants = shared.grants.filter((each) => each !== grant);
    if (kind === 'subject')
      await of.lane.read(
        { operation: 'getCredential', as: grant.to, params: { id: shared.owned.id } },
        (_, { status }) => ({ [grantThing(shared, grant.to)]: status === 200 ? {} : null }),
        { expected: ['notFound'] },
      );
    return true;
  };

async function listGrants(of: SharingLane): Promise<boolean> {
  const shared = await of.take(({ grants }) => grants.length > 0);
  if (shared === undefined) return false;
  await of.lane.read(
    {
      operation: 'listGrants',
      as: of.team.admin,
      params: { id: shared.owned.id },
      query: { limit: '200' },
    },
    (json) =>
      Object.fromEntries(
        shared.grants.map(({ to }) => {
          const found = json.items.find(
            ({ team, subject }: { team: string; subject: string }) => (team ?? subject) === to,
          );
          const seen =
            found === undefined ? null : { access: found.access, revision: found.revision };
          return [grantThing(shared, to), seen];
        }),
      ),
  );
  return true;
}

const offerThing = ({ owned }: Shared): string => `transfer/${owned.label}`;

async function offerTransfer(of: SharingLane): Promise<boolean> {
  const shared = await of.take(
    ({ offer, grants }) => offer === undefined && !grants.some(({ isLoose }) => isLoose),
  );
  if (shared === undefined) return false;
  const to = of.lane.random.pick(of.others);
  const { verdict, answer } = await of.lane.change({
    operation: 'offerTransfer',
    as: of.team.admin,
    params: { id: shared.owned.id },
    body: { team: to.slug },
    effects: { [offerThing(shared)]: { to: to.slug } },
    isKeyed: true,
  });
  if (verdict === 'unknown') of.forget(shared);
  if (verdict === 'done') shared.offer = { id: answer?.json.id, to };
  return verdict === 'done';
}

async function declineTransfer(of: SharingLane): Promise<boolean> {
  const shared = await of.take(({ offer }) => offer !== undefined);
  if (shared?.offer === undefined) return false;
  const { verdict } = await of.lane.change({
    operation: 'declineTransfer',
    as: of.lane.random.pick([of.team.admin, shared.offer.to.admin]),
    params: { transfer: shared.offer.id },
    effects: { [offerThing(shared)]: null },
    happened: ({ code }) => code === 'notFound',
  });
  if (verdict === 'unknown') of.forget(shared);
  if (verdict === 'done') shared.offer = undefined;
  return verdict === 'done';
}

/** The credential goes, and every grant of it ends, or nothing changes. */
async function acceptTransfer(of: SharingLane): Promise<boolean> {
  const shared = await of.take(({ offer }) => offer !== undefined);
  if (shared?.offer === undefined) return false;
  const { owned, grants, offer } = shared;
  const next: Owned = { ...owned, team: offer.to.slug, revision: owned.revision + 1 };
  const { verdict } = await of.lane.change({
    operation: 'acceptTransfer',
    as: offer.to.admin,
    params: { transfer: offer.id },
    effects: {
      [thingOf(owned)]: stateOf(next),
      [offerThing(shared)]: null,
      ...Object.fromEntries(grants.map(({ to }) => [grantThing(shared, to), null])),
    },
    isKeyed: true,
    mismatch: (json) =>
      json.team === next.team && json.revision === next.revision ? undefined : JSON.stringify(json),
  });
  if (verdict !== 'refused') of.forget(shared);
  if (verdict === 'done')
    await of.lane.read(
      { operation: 'getCredential', as: of.team.viewer, params: { id: owned.id } },
      (json, { status }) => ({
        [thingOf(owned)]: { team: status === 200 ? json.team : next.team },
      }),
      { expected: ['notFound'] },
    );
  return verdict === 'done';
}

async function listTransfers(of: SharingLane): Promise<boolean> {
  const answer = await of.lane.read(
    {
      operation: 'listTransfers',
      as: of.team.admin,
      params: { team: of.team.slug },
      query: { limit: '200' },
    },
    (json) =>
      json.nextCursor !== null
        ? {}
        : Object.fromEntries(
            of.shared.map((shared) => {
              const found = json.items.find(
                ({ credential }: { credential: string }) => credential === shared.owned.id,
              );
              return [offerThing(shared), found === undefined ? null : { to: found.to }];
            }),
          ),
  );
  return answer !== null;
}

export const sharingWork: Work<SharingLane> = {
  putTeamGrant: { weight: 2, run: putGrant('team') },
  putSubjectGrant: { weight: 3, run: putGrant('subject') },
  removeTeamGrant: { weight: 1, run: removeGrant('team') },
  removeSubjectGrant: { weight: 2, run: removeGrant('subject') },
  listGrants: { weight: 1, run: listGrants },
  offerTransfer: { weight: 2, run: offerTransfer },
  declineTransfer: { weight: 1, run: declineTransfer },
  acceptTransfer: { weight: 1, run: acceptTransfer },
  listTransfers: { weight: 1, run: listTransfers },
};
