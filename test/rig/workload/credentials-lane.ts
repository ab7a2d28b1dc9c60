// The credentials that one lane owns.
import type { Random } from '../random.ts';
import type { Owned } from './credential.ts';
import type { Lane } from './lane.ts';
import type { TeamOfRig } from './types.ts';

/** The credentials of one lane. */
export class CredentialsLane {
  readonly lane: Lane;
  readonly team: TeamOfRig;
  readonly living: Owned[] = [];
  readonly deleted: Owned[] = [];

  constructor(lane: Lane, team: TeamOfRig) {
    this.lane = lane;
    this.team = team;
  }

  get random(): Random {
    return this.lane.random;
  }

  /** One that lives, or undefined; it is taken out until it is put back. */
  take(isFit: (owned: Owned) => boolean = () => true): Owned | undefined {
    const fit = this.living.filter(isFit);
    if (fit.length === 0) return undefined;
    const taken = this.random.pick(fit);
    this.living.splice(this.living.indexOf(taken), 1);
    return taken;
  }

  put(owned: Owned | undefined): boolean {
    if (owned === undefined) return true;
    (owned.state === 'deleted' ? this.deleted : this.living).push(owned);
    return true;
  }

  /** Of versions that are kept: below the number that a team keeps by itself. */
  static readonly versionsMax = 8;
  static readonly livingMax = 12;
}
