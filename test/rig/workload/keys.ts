// The keys of one team: rotations, and the life of keys that seal no more. Rotations are begun by
// nobody else but by the vault itself, where a key is compromised.
import type { Lane } from './lane.ts';
import type { TeamOfRig } from './types.ts';
import type { Work } from './work.ts';

interface KeySeen {
  readonly id: string;
  readonly state: string;
  readonly rows: number;
  readonly compromised: boolean;
}

export class KeysLane {
  readonly lane: Lane;
  readonly team: TeamOfRig;
  /** How many rotations were asked for and begun. */
  requested = 0;
  /** The newest rotation that this lane began. */
  rotation: string | undefined;
  /** Keys of which nobody knows any more what they are. */
  readonly uncertain = new Set<string>();
  readonly #given = new Set<string>();
  marked = 0;

  constructor(lane: Lane, team: TeamOfRig) {
    this.lane = lane;
    this.team = team;
    lane.given(this.counter, { requested: 0 });
  }

  get counter(): string {
    return `rotations/${this.team.slug}`;
  }

  get params(): Record<string, string> {
    return { team: this.team.slug };
  }

  /** The team's keys as they are now; empty where nobody answers. */
  async keys(): Promise<KeySeen[]> {
    const answer = await this.lane.read({
      operation: 'listKeys',
      as: this.team.auditor,
      params: this.params,
      query: { limit: '200' },
    });
    return (answer?.json.items ?? []).filter(({ id }: KeySeen) => !this.uncertain.has(id));
  }

  async pick(isFit: (key: KeySeen) => boolean): Promise<KeySeen | undefined> {
    const fit = (await this.keys()).filter(isFit);
    if (fit.length === 0) return undefined;
    const key = this.lane.random.pick(fit);
    if (!this.#given.has(key.id)) this.lane.given(`key/${key.id}`, {});
    this.#given.add(key.id);
    return key;
  }
}

async function startRotation(of: KeysLane): Promise<boolean> {
  const call = { operation: 'startRotation', as: of.team.admin, params: of.params };
  if (of.lane.random.chance(0.2)) {
    await of.lane.read({ ...call, query: { dryRun: 'true' } });
    return true;
  }
  const { verdict, answer } = await of.lane.change({
    ...call,
    effects: { [of.counter]: { requested: of.requested + 1 } },
    events: { 'key.rotate': 1 },
    isKeyed: true,
    expected: ['rotationRunning'],
  });
  if (verdict !== 'done') return verdict !== 'refused';
  of.requested += 1;
  of.rotation = answer?.json?.id;
  if (of.rotation !== undefined) of.lane.given(`rotation/${of.rotation}`, {});
  return true;
}

async function cancelRotation(of: KeysLane): Promise<boolean> {
  const { rotation } = of;
  if (rotation === undefined) return false;
  of.rotation = undefined;
  const { verdict } = await of.lane.change({
    operation: 'cancelRotation',
    as: of.team.admin,
    params: { ...of.params, rotation },
    effects: { [`rotation/${rotation}`]: { state: 'cancelled' } },
    events: { 'key.rotationCancel': 1 },
    expected: ['rotationNotRunning'],
  });
  return verdict === 'done';
}

async function getRotation(of: KeysLane): Promise<boolean> {
  if (of.rotation === undefined) return false;
  await of.lane.read({
    operation: 'getRotation',
    as: of.team.auditor,
    params: { ...of.params, rotation: of.rotation },
  });
  return true;
}

/** A change of a key from one state to another, which nobody else makes. */
const move =
  (operation: string, from: string, to: string, event: string, body: object) =>
  async (of: KeysLane): Promise<boolean> => {
    const isEmpty = to === 'retired' && from === 'decryptOnly';
    const key = await of.pick(({ state, rows }) => state === from && (!isEmpty || rows === 0));
    if (key === undefined) return false;
    const { verdict } = await of.lane.change({
      operation,
      as: of.team.admin,
      params: { ...of.params, key: key.id },
      body,
      effects: { [`key/${key.id}`]: { state: to } },
      events: { [event]: 1 },
      happened: ({ code }) => code === 'keyStateConflict',
      expected: ['keyInUse'],
    });
    if (verdict === 'unknown') of.uncertain.add(key.id);
    return verdict === 'done';
  };

const markedMax = 3;

async function markKeyCompromised(of: KeysLane): Promise<boolean> {
  if (of.marked >= markedMax) return false;
  const key = await of.pick(({ compromised, state }) => !compromised && state !== 'destroyPending');
  if (key === undefined) return false;
  of.marked += 1;
  const { verdict } = await of.lane.change({
    operation: 'markKeyCompromised',
    as: of.team.admin,
    params: { ...of.params, key: key.id },
    body: { reason: 'the rig says so' },
    effects: { [`key/${key.id}`]: { compromised: true } },
    events: { 'key.markCompromised': 1 },
    happened: ({ code }) => code === 'keyStateConflict',
    // The root key that wrapped it may have been marked meanwhile, and it with that.
    expected: ['keyStateConflict'],
  });
  // Nothing else is asked of it: the rest of its state is not this lane's to foretell.
  of.uncertain.add(key.id);
  return verdict === 'done';
}

async function getKey(of: KeysLane): Promise<boolean> {
  const key = await of.pick(() => true);
  if (key === undefined) return false;
  await of.lane.read({
    operation: 'getKey',
    as: of.team.auditor,
    params: { ...of.params, key: key.id },
  });
  return true;
}

export const keysWork: Work<KeysLane> = {
  startRotation: { weight: 3, run: startRotation },
  cancelRotation: { weight: 1, run: cancelRotation },
  getRotation: { weight: 2, run: getRotation },
  listRotations: {
    weight: 1,
    run: async (of) =>
      (await of.lane.read({
        operation: 'listRotations',
        as: of.team.auditor,
        params: of.params,
      })) !== null,
  },
  listKeys: { weight: 1, run: async (of) => (await of.keys()).length > 0 },
  getKey: { weight: 1, run: getKey },
  retireKey: { weight: 3, run: move('retireKey', 'decryptOnly', 'retired', 'key.retire', {}) },
  restoreKey: { weight: 1, run: move('restoreKey', 'retired', 'decryptOnly', 'key.restore', {}) },
  scheduleKeyDestruction: {
    weight: 2,
    run: move('scheduleKeyDestruction', 'retired', 'destroyPending', 'key.scheduleDestroy', {
      days: 7,
    }),
  },
  cancelKeyDestruction: {
    weight: 1,
    run: move('cancelKeyDestruction', 'destroyPending', 'retired', 'key.cancelDestroy', {}),
  },
  markKeyCompromised: { weight: 1, run: markKeyCompromised },
};
