// What the operator does: engines, root keys, the state of the whole.
import { calculateJwkThumbprint, type JWK } from 'jose';
import { generateEngineKey } from '../../../src/client/index.ts';
import { deleteCredentialType, putCredentialType } from './declared-types.ts';
import type { Lane } from './lane.ts';
import type { Work } from './work.ts';

interface Engine {
  readonly id: string;
  readonly subject: string;
  readonly name: string;
  readonly state: 'enabled' | 'disabled';
  readonly revision: number;
  readonly kids: readonly string[];
}

export class OperatorLane {
  readonly lane: Lane;
  readonly engines: Engine[] = [];
  isRootKeyMarked = false;

  constructor(lane: Lane) {
    this.lane = lane;
  }

  take(isFit: (engine: Engine) => boolean = () => true): Engine | undefined {
    const fit = this.engines.filter(isFit);
    if (fit.length === 0) return undefined;
    const taken = this.lane.random.pick(fit);
    this.engines.splice(this.engines.indexOf(taken), 1);
    return taken;
  }

  async change(
    engine: Engine,
    next: Engine | null,
    input: {
      operation: string;
      params?: Record<string, string>;
      body?: object;
      event: string;
      isKeyed?: boolean;
      isMatched?: boolean;
    },
  ): Promise<boolean> {
    const { verdict, answer } = await this.lane.change({
      operation: input.operation,
      as: 'operator',
      params: { engine: engine.id, ...input.params },
      ...(input.body === undefined ? {} : { body: input.body }),
      effects: { [`engine/${engine.subject}`]: next === null ? null : stateOf(next) },
      events: { [input.event]: 1 },
      ...(input.isMatched === true
        ? {
            headers: { 'if-match': `"${engine.revision}"` },
            happened: ({ code }) =>
              code === 'preconditionFailed' || (next === null && code === 'notFound'),
          }
        : { isKeyed: true }),
      mismatch: (json) =>
        next === null || json === undefined || json.revision === next.revision
          ? undefined
          : `revision ${json.revision} and not ${next.revision}`,
    });
    if (verdict === 'done' && next !== null) this.engines.push(next);
    if (verdict === 'refused' && ![404, 412].includes(answer?.status ?? 0))
      this.engines.push(engine);
    return verdict === 'done';
  }
}

const stateOf = ({ name, state, revision, kids }: Engine) => ({
  name,
  state,
  revision,
  kids: [...kids].sort(),
});
const enginesMax = 5;

async function newKey(curve: 'X25519' | 'P-256') {
  const { publicJwk } = generateEngineKey(curve);
  return { publicJwk, kid: await calculateJwkThumbprint(publicJwk as JWK) };
}

async function createEngine(of: OperatorLane): Promise<boolean> {
  if (of.engines.length >= enginesMax) return false;
  const subject = of.lane.fresh('e');
  const { publicJwk, kid } = await newKey(of.lane.random.pick(['X25519', 'P-256'] as const));
  const engine = {
    subject,
    name: `the engine ${subject}`,
    state: 'enabled' as const,
    revision: 1,
    kids: [kid],
  };
  const { verdict, answer } = await of.lane.change({
    operation: 'createEngine',
    as: 'operator',
    body: { name: engine.name, subject, keys: [publicJwk] },
    effects: { [`engine/${subject}`]: stateOf({ id: '', ...engine }) },
    events: { 'engine.create': 1 },
    isKeyed: true,
  });
  if (verdict === 'done') of.engines.push({ ...engine, id: answer?.json.id });
  return verdict === 'done';
}

async function updateEngine(of: OperatorLane): Promise<boolean> {
  const engine = of.take();
  if (engine === undefined) return false;
  const isRename = of.lane.random.chance(0.5);
  const name = isRename ? of.lane.fresh('engine') : engine.name;
  const state = isRename ? engine.state : engine.state === 'enabled' ? 'disabled' : 'enabled';
  return of.change(
    engine,
    { ...engine, name, state, revision: engine.revision + 1 },
    {
      operation: 'updateEngine',
      body: isRename ? { name } : { state },
      event: 'engine.update',
      isMatched: true,
    },
  );
}

async function addEngineKey(of: OperatorLane): Promise<boolean> {
  const engine = of.take(({ kids }) => kids.length < 10);
  if (engine === undefined) return false;
  const { publicJwk, kid } = await newKey('X25519');
  return of.change(
    engine,
    { ...engine, kids: [...engine.kids, kid], revision: engine.revision + 1 },
    { operation: 'addEngineKey', body: { key: publicJwk }, event: 'engine.key.add' },
  );
}

async function removeEngineKey(of: OperatorLane): Promise<boolean> {
  const engine = of.take(({ kids }) => kids.length > 1);
  if (engine === undefined) return false;
  const kid = of.lane.random.pick(engine.kids);
  return of.change(
    engine,
    { ...engine, kids: engine.kids.filter((each) => each !== kid), revision: engine.revision + 1 },
    { operation: 'removeEngineKey', params: { kid }, event: 'engine.key.remove', isMatched: true },
  );
}

async function deleteEngine(of: OperatorLane): Promise<boolean> {
  const engine = of.take();
  if (engine === undefined) return false;
  return of.change(engine, null, {
    operation: 'deleteEngine',
    event: 'engine.delete',
    isMatched: true,
  });
}

async function getEngine(of: OperatorLane): Promise<boolean> {
  const engine = of.engines[0];
  if (engine === undefined) return false;
  await of.lane.read(
    { operation: 'getEngine', as: 'operator', params: { engine: engine.id } },
    ({ name, state, revision, keys }) => ({
      [`engine/${engine.subject}`]: {
        name,
        state,
        revision,
        kids: keys.map(({ kid }: { kid: string }) => kid).sort(),
      },
    }),
  );
  return true;
}

async function markRootKeyCompromised(of: OperatorLane): Promise<boolean> {
  if (of.isRootKeyMarked || of.engines.length < 2) return false;
  const answer = await of.lane.read({ operation: 'listRootKeys', as: 'operator' });
  const former = answer?.json.items.find(
    ({ isPrimary, compromisedAt }: { isPrimary: boolean; compromisedAt: string | null }) =>
      !isPrimary && compromisedAt === null,
  );
  if (former === undefined) return false;
  of.isRootKeyMarked = true;
  const thing = `rootKey/${former.fingerprint}`;
  of.lane.given(thing, {});
  const { verdict } = await of.lane.change({
    operation: 'markRootKeyCompromised',
    as: 'operator',
    params: { fingerprint: former.fingerprint },
    body: { reason: 'the rig says so' },
    effects: { [thing]: { compromised: true } },
    events: { 'rootKey.markCompromised': 1 },
    happened: ({ code }) => code === 'stateConflict',
  });
  if (verdict === 'refused') of.isRootKeyMarked = false;
  return verdict === 'done';
}

const plainRead = (operation: string) => async (of: OperatorLane) =>
  (await of.lane.read({ operation, as: 'operator' })) !== null;

export const operatorWork: Work<OperatorLane> = {
  createEngine: { weight: 3, run: createEngine },
  updateEngine: { weight: 3, run: updateEngine },
  addEngineKey: { weight: 2, run: addEngineKey },
  removeEngineKey: { weight: 1, run: removeEngineKey },
  deleteEngine: { weight: 1, run: deleteEngine },
  getEngine: { weight: 2, run: getEngine },
  listEngines: { weight: 1, run: plainRead('listEngines') },
  rotateRootKey: {
    weight: 1,
    run: async (of) => {
      const { verdict } = await of.lane.change({
        operation: 'rotateRootKey',
        as: 'operator',
        effects: {},
        events: { 'rootKey.rotate': 1 },
      });
      return verdict === 'done';
    },
  },
  putCredentialType: { weight: 1, run: putCredentialType },
  deleteCredentialType: { weight: 1, run: deleteCredentialType },
  listRootKeys: { weight: 1, run: plainRead('listRootKeys') },
  markRootKeyCompromised: { weight: 1, run: markRootKeyCompromised },
  getStatus: { weight: 1, run: plainRead('getStatus') },
};
