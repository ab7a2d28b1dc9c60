// What an engine does: leases, tickets, calls through the broker. What it is handed has to be what
// the credential's own lane stored, and of the version of that moment.
import { openLease } from '../../../src/client/index.ts';
import type { State } from '../journal.ts';
import { vaultUrl } from '../setting.ts';
import { callBroker, type Caller } from './calls.ts';
import { bodyOf, create, type Owned, planned, thingOf } from './credential.ts';
import type { Lane } from './lane.ts';
import type { TeamOfRig } from './types.ts';
import type { Work } from './work.ts';

export class UsesLane implements Caller {
  readonly lane: Lane;
  readonly team: TeamOfRig;
  /** The credentials of the lanes that own some. */
  readonly candidates: () => readonly Owned[];
  readonly tickets: { id: string; ticket: string }[] = [];
  brokered: Owned | undefined;
  keys: any;

  constructor(lane: Lane, team: TeamOfRig, candidates: () => readonly Owned[]) {
    this.lane = lane;
    this.team = team;
    this.candidates = candidates;
  }
}

const refusals = ['leaseRefused', 'ticketRefused', 'stateConflict'];

async function getLeaseKeys(of: UsesLane): Promise<boolean> {
  const answer = await of.lane.read({ operation: 'getLeaseKeys', as: null });
  of.keys = answer?.json ?? of.keys;
  return answer !== null;
}

async function createLease(of: UsesLane): Promise<boolean> {
  const { random } = of.lane;
  const wanted = random.shuffle(of.candidates()).slice(0, random.integer(1, 4));
  return wanted.length > 0 && leaseOf(of, wanted);
}

/** Leases these and opens what comes. */
export async function leaseOf(of: UsesLane, wanted: readonly Owned[]): Promise<boolean> {
  const { random } = of.lane;
  if (of.keys === undefined && !(await getLeaseKeys(of))) return false;
  const answer = await of.lane.read(
    {
      operation: 'createLease',
      as: of.team.engine,
      body: {
        credentials: wanted.map(({ id, team, name }) =>
          name === undefined || random.chance(0.7) ? { id } : { team, name },
        ),
        purpose: 'the rig',
        onBehalfOf: of.team.editor,
      },
    },
    (json, { status }) => (status === 201 ? openedStates(of, wanted, json) : {}),
    { expected: refusals, events: { 'credential.lease': wanted.length } },
  );
  return answer?.status === 201;
}

/** What the sealed part holds of each credential. */
async function openedStates(
  of: UsesLane,
  wanted: readonly Owned[],
  json: any,
): Promise<Record<string, State>> {
  const { stage } = of.lane;
  const engine = stage.engines.get(of.team.engine)!;
  const open = () =>
    openLease(json.sealed, {
      privateKeys: [engine.privateJwk],
      audience: engine.subject,
      vault: { issuer: vaultUrl, keys: of.keys },
      // The clock of the replica that made it may be any; here the content counts.
      now: () => Date.parse(json.expiresAt) - 1_000,
    });
  const opened = await open()
    .catch(async () => {
      const replica = stage.client.choose();
      const keys = await stage.client.send({ operation: 'getLeaseKeys', as: null }, replica);
      of.keys = keys.json ?? of.keys;
      return open();
    })
    .catch((error: Error) => {
      stage.journal.fault('leaseDoesNotOpen', `${error.name}: ${error.message}`);
      return undefined;
    });
  return Object.fromEntries(
    (opened?.credentials ?? []).flatMap((leased) => {
      const owned = wanted.find(({ id }) => id === leased.id);
      if (owned === undefined || leased.notModified) return [];
      const { version, fields } = leased;
      return [[thingOf(owned), { version, secret: fields['apiKey'], state: 'enabled' }]];
    }),
  );
}

async function createBrokerTicket(of: UsesLane): Promise<boolean> {
  if (of.brokered === undefined) {
    const plan = planned(of.lane, of.team);
    const fields = { apiKey: plan.secrets[1], baseUrl: of.lane.stage.peers.url };
    // More calls at once than the connections that one origin gets.
    const limits = { concurrency: 1_000, requestsPerMinute: 100_000 };
    const body = bodyOf(plan, fields, {
      policy: { delivery: ['broker'], allowedHosts: [], limits },
    });
    of.brokered = await create(of.lane, plan, of.team.admin, body);
  }
  const { brokered } = of;
  if (brokered === undefined) return false;
  const answer = await of.lane.read(
    {
      operation: 'createBrokerTicket',
      as: of.team.engine,
      body: {
        credential: { id: brokered.id },
        purpose: 'the rig',
        onBehalfOf: of.team.editor,
        ttlSeconds: 3_600,
      },
    },
    () => ({}),
    { expected: refusals, events: { 'ticket.create': 1 } },
  );
  if (answer?.status !== 201) return false;
  const { id, ticket } = answer.json;
  of.tickets.push({ id, ticket });
  of.lane.given(`ticket/${id}`, {});
  return true;
}

async function updateBrokerTicket(of: UsesLane): Promise<boolean> {
  const ticket = of.tickets.at(-1);
  if (ticket === undefined) return false;
  const answer = await of.lane.read(
    {
      operation: 'updateBrokerTicket',
      as: of.team.engine,
      params: { id: ticket.id },
      body: { ttlSeconds: 3_000 },
    },
    () => ({}),
    // Ten minutes after its making no more is given.
    { expected: [...refusals, 'notFound'], events: { 'ticket.extend': 1 } },
  );
  return answer?.status === 200;
}

async function deleteBrokerTicket(of: UsesLane): Promise<boolean> {
  const ticket = of.tickets.length > 2 ? of.tickets.shift() : undefined;
  if (ticket === undefined) return false;
  const { verdict, answer } = await of.lane.change({
    operation: 'deleteBrokerTicket',
    as: of.team.engine,
    params: { id: ticket.id },
    effects: { [`ticket/${ticket.id}`]: null },
    events: { 'ticket.delete': 1 },
    happened: ({ code }) => code === 'notFound',
  });
  if (verdict === 'refused' && answer?.code !== 'notFound') of.tickets.push(ticket);
  if (verdict === 'done') await callBroker(of, ticket, { isEnded: true });
  return verdict === 'done';
}

export const usesWork: Work<UsesLane> = {
  createLease: { weight: 5, run: createLease },
  getLeaseKeys: { weight: 1, run: getLeaseKeys },
  createBrokerTicket: { weight: 1, run: createBrokerTicket },
  updateBrokerTicket: { weight: 1, run: updateBrokerTicket },
  deleteBrokerTicket: { weight: 1, run: deleteBrokerTicket },
};
