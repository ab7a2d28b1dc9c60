// Calls through the broker, on connections of their own: with the key that is stored, once each,
// and answered within a minute whatever the other side does.
import { type ClientRequest, request as httpRequest } from 'node:http';
import { setTimeout as delay } from 'node:timers/promises';
import type { Replica } from '../replica.ts';
import { type Owned, thingOf } from './credential.ts';
import type { Lane } from './lane.ts';
import type { Work } from './work.ts';

/** Who calls: a lane with tickets for one credential. */
export interface Caller {
  readonly lane: Lane;
  readonly tickets: readonly Ticket[];
  readonly brokered: Owned | undefined;
}
export interface Ticket {
  readonly id: string;
  readonly ticket: string;
}

interface Called {
  /** Undefined where nothing came. */
  readonly status?: number;
  /** Of an answer of the broker's own. */
  readonly code?: string;
  readonly error?: string;
}

const answerMsMax = 60_000;
/** More than the connections that one origin gets. */
const manyCalls = 300;

async function call(of: Caller): Promise<boolean> {
  const ticket = of.tickets.at(-1);
  if (ticket === undefined) return false;
  const { stage, random } = of.lane;
  const many = stage.peers.mode === 'hanging' && random.chance(0.3) ? manyCalls : 1;
  await Promise.all(Array.from({ length: many }, () => callBroker(of, ticket)));
  return true;
}

/** A POST goes out once, whatever happens on the way, and with the key that is stored. */
export async function callBroker(
  of: Caller,
  ticket: Ticket,
  { isEnded = false, replica = of.lane.stage.client.choose() } = {},
): Promise<void> {
  const { stage, name } = of.lane;
  const { journal, peers } = stage;
  const n = journal.next();
  const start = replica.starts;
  journal.write({ kind: 'read', n, lane: name, operation: 'broker', replica: replica.name, start });
  const mark = `${stage.seed}-${n}`;
  const begun = performance.now();
  const { called } = post(replica, ticket, '/v1/echo', mark);
  const answer = await called;
  noteLateness(of.lane, replica, answer);
  if (answer.status === 500 && answer.code !== undefined)
    journal.fault('internalError', `a call through the broker of ${replica.name}`, n);
  const isThrough = answer.status === 200;
  if (isThrough && isEnded)
    journal.fault('notGone', `a deleted ticket was taken at ${replica.name}`, n);
  const { brokered } = of;
  const seen =
    isThrough && brokered !== undefined
      ? { [thingOf(brokered)]: { secret: peers.keys.get(mark) ?? null } }
      : {};
  const ms = Math.round(performance.now() - begun);
  journal.write({ kind: 'seen', n, ...answer, ms, seen });
}

/** Answers that never end take up all connections; who comes then is told so, and waits for nobody. */
async function callStreams(of: Caller & { hasStreamed?: boolean }): Promise<boolean> {
  const { lane, tickets } = of;
  const ticket = tickets.at(-1);
  if (ticket === undefined || !lane.stage.isLong || of.hasStreamed === true) return false;
  of.hasStreamed = true;
  const { journal } = lane.stage;
  const replica = lane.stage.client.choose();
  const n = journal.next();
  const on = { replica: replica.name, start: replica.starts };
  journal.write({ kind: 'read', n, lane: lane.name, operation: 'brokerStreams', ...on });
  const begun = performance.now();
  const open: ReturnType<typeof post>[] = [];
  while (open.length < manyCalls) {
    // A few at a time, so that it is the other side's connections that there are too few of.
    const more = Array.from({ length: 10 }, () => post(replica, ticket, '/v1/stream'));
    open.push(...more);
    await Promise.race([Promise.all(more.map(({ called }) => called)), delay(2_000)]);
  }
  const answers = await Promise.all(
    open.map(async ({ called }) => {
      const answer = await called;
      noteLateness(lane, replica, answer);
      return String(answer.status ?? answer.error);
    }),
  );
  for (const { request } of open) request?.destroy();
  const counts = Object.entries(Object.groupBy(answers, (each) => each));
  const error = counts.map(([what, each]) => `${what}: ${each?.length}`).join(', ');
  const ms = Math.round(performance.now() - begun);
  journal.write({ kind: 'seen', n, error, ms, seen: {} });
  await delay(1_000);
  await callBroker(of, ticket, { replica });
  return true;
}

const lateness = new WeakMap<Called, boolean>();

function noteLateness(lane: Lane, replica: Replica, called: Called): void {
  if (lateness.get(called) !== true) return;
  lane.stage.journal.fault(
    'noAnswer',
    `a call through the broker of ${replica.name} in ${answerMsMax} ms`,
  );
}

/** One request on a connection of its own; it is answered when its head has come. */
function post(
  replica: Replica,
  { id, ticket }: Ticket,
  path: string,
  mark?: string,
): { readonly called: Promise<Called>; readonly request: ClientRequest | undefined } {
  const url = `${replica.brokerUrl}/broker/${id}${path}`;
  if (!URL.canParse(url))
    return { called: Promise.resolve({ error: 'notListening' }), request: undefined };
  const { starts, freezes } = replica;
  const request = httpRequest(url, {
    method: 'POST',
    headers: {
      authorization: `Bearer ${ticket}`,
      'content-length': '2',
      'content-type': 'application/json',
      ...(mark === undefined ? {} : { 'x-mark': mark }),
    },
    agent: false,
  });
  const called = new Promise<Called>((resolve) => {
    const timer = setTimeout(() => {
      const answer = { error: 'timeout' };
      const ranOn = replica.isAlive && replica.starts === starts && replica.freezes === freezes;
      lateness.set(answer, ranOn);
      resolve(answer);
      request.destroy();
    }, answerMsMax);
    request.on('error', (error: NodeJS.ErrnoException) => {
      clearTimeout(timer);
      resolve({ error: error.code ?? error.name });
    });
    request.once('response', (response) => {
      clearTimeout(timer);
      const status = response.statusCode ?? 0;
      const isOwn = response.headers['vault-error'] === 'true';
      let text = '';
      response.on('error', () => resolve({ status }));
      response.on('data', (chunk: Buffer) => {
        if (isOwn) text += chunk.toString();
      });
      if (!isOwn) resolve({ status });
      else
        response.once('close', () =>
          resolve({ status, code: String(/"code":"(\w+)"/.exec(text)?.[1]) }),
        );
    });
  });
  request.end('{}');
  return { called, request };
}

/** No operations of the document: the broker has a listener of its own. */
export const callsWork: Work<Caller> = {
  broker: { weight: 4, run: call },
  brokerStreams: { weight: 1, run: callStreams },
};
