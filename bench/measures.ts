// What is measured. Vault and floor get the same load in turn, several rounds each; a ratio is the
// median of the rounds' ratios, so that what else the machine does falls on both.
import { setTimeout as delay } from 'node:timers/promises';
import pg from 'pg';
import { ask, type Figures, requestText, runLoad } from './load.ts';
import type { Server } from './processes.ts';
import {
  engine,
  newCredential,
  person,
  purpose,
  type Setting,
  teams,
  ttlSeconds,
} from './setting.ts';

/** How long the run may be. */
export interface Effort {
  readonly rounds: number;
  readonly seconds: number;
  readonly warmUpSeconds: number;
  readonly credentials: number;
  readonly rotated: number;
  readonly rotations: number;
  readonly starts: number;
}

/** One side of a comparison: the medians over its rounds. */
export interface Side extends Figures {
  readonly cpuMicroseconds: number | undefined;
}
export interface Comparison {
  readonly name: string;
  readonly vault: Side;
  readonly other: Side /** vault ÷ other, in answers a second. */;
  readonly ratio: number /** vault ÷ other, in the time of half of the answers. */;
  readonly p50Ratio: number;
}

interface Contender {
  readonly server: Server;
  readonly next: () => string;
}

export const median = (values: readonly number[]): number => {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length / 2;
  return sorted.length % 2 === 1
    ? sorted[Math.floor(middle)]!
    : (sorted[middle - 1]! + sorted[middle]!) / 2;
};

/** Interleaved rounds of two contenders at the same concurrency. */
export async function compare(
  name: string,
  {
    vault,
    other,
    connections,
    effort,
  }: { vault: Contender; other: Contender; connections: number; effort: Effort },
): Promise<Comparison> {
  const round = async ({ server, next }: Contender, seconds: number): Promise<Side> => {
    const before = server.cpuSeconds();
    const figures = await runLoad({ port: server.port, connections, until: { seconds }, next });
    const after = server.cpuSeconds();
    return {
      ...figures,
      cpuMicroseconds:
        before === undefined || after === undefined
          ? undefined
          : ((after - before) * 1e6) / figures.requests,
    };
  };
  await round(vault, effort.warmUpSeconds);
  await round(other, effort.warmUpSeconds);
  const sides: { vault: Side; other: Side }[] = [];
  for (let i = 0; i < effort.rounds; i += 1) {
    // Who is first changes from round to round.
    const first = await round(i % 2 === 0 ? vault : other, effort.seconds);
    const second = await round(i % 2 === 0 ? other : vault, effort.seconds);
    sides.push(i % 2 === 0 ? { vault: first, other: second } : { vault: second, other: first });
  }
  return {
    name,
    vault: middleOf(sides.map((side) => side.vault)),
    other: middleOf(sides.map((side) => side.other)),
    ratio: median(sides.map((side) => side.vault.perSecond / side.other.perSecond)),
    p50Ratio: median(sides.map((side) => side.vault.p50Ms / side.other.p50Ms)),
  };
}

function middleOf(sides: readonly Side[]): Side {
  const of = (value: (side: Side) => number | undefined): number =>
    median(sides.map((side) => value(side) ?? NaN));
  const cpu = of((side) => side.cpuMicroseconds);
  return {
    requests: of((side) => side.requests),
    perSecond: of((side) => side.perSecond),
    p50Ms: of((side) => side.p50Ms),
    p99Ms: of((side) => side.p99Ms),
    cpuMicroseconds: Number.isNaN(cpu) ? undefined : cpu,
  };
}

/**
 * What the vault has to hold before anything is measured, made through its own routes; the ids of
 * the credentials to read.
 */
export async function fill(vault: Server, setting: Setting, effort: Effort): Promise<string[]> {
  const call = (
    token: keyof Setting['tokens'],
    method: string,
    path: string,
    body: object,
  ): Promise<string> => ask(vault.port, requestText(method, path, setting.tokens[token], body));
  for (const slug of Object.values(teams))
    await call('operator', 'POST', '/v1/teams', { slug, name: slug, admins: [person] });
  await call('operator', 'POST', '/v1/engines', {
    name: engine,
    subject: engine,
    keys: [setting.recipient],
  });
  await call('person', 'PUT', `/v1/teams/${teams.read}/members/${engine}`, { role: 'engine' });
  const ids: string[] = [];
  const store = (
    team: string,
    requests: number,
    onAnswer: (body: string) => void,
  ): Promise<Figures> =>
    runLoad({
      port: vault.port,
      connections: 16,
      until: { requests },
      next: requestsOf(setting).create(team),
      onAnswer,
    });
  await store(teams.read, effort.credentials, (body) => {
    ids.push((JSON.parse(body) as { id: string }).id);
  });
  await store(teams.rotate, effort.rotated, () => undefined);
  return ids;
}

/** The requests, as functions that give the next one. */
export function requestsOf({ tokens }: Setting) {
  let serial = 0;
  const turn = <T>(items: readonly T[]): (() => T) => {
    let at = 0;
    return () => items[at++ % items.length]!;
  };
  const leaseText = (ids: readonly string[]): string =>
    requestText('POST', '/v1/leases', tokens.engine, {
      credentials: ids.map((id) => ({ id })),
      purpose,
      runId: 'bench',
      onBehalfOf: person,
      ttlSeconds,
    });
  return {
    read: (ids: readonly string[]) =>
      turn(ids.map((id) => requestText('GET', `/v1/credentials/${id}`, tokens.person))),
    list: (limit: number) =>
      turn([
        requestText('GET', `/v1/teams/${teams.read}/credentials?limit=${limit}`, tokens.person),
      ]),
    create: (team: string) => () =>
      requestText(
        'POST',
        `/v1/teams/${team}/credentials`,
        tokens.person,
        newCredential(`bench-${++serial}`),
      ),
    lease: (ids: readonly string[], count: number) =>
      turn(
        Array.from({ length: Math.floor(ids.length / count) }, (_, i) =>
          leaseText(ids.slice(i * count, (i + 1) * count)),
        ),
      ),
  };
}

/** Rows a second of the vault's rotation and of the floor's bare loop, in turn. */
export async function compareRotations({
  vault,
  floor,
  setting,
  effort,
}: {
  vault: Server;
  floor: Server;
  setting: Setting;
  effort: Effort;
}): Promise<{ vault: number; floor: number; ratio: number }> {
  const rounds: { vault: number; floor: number }[] = [];
  for (let i = 0; i < effort.rotations; i += 1) {
    rounds.push({
      vault: await rotateInVault(vault, setting, effort.rotated),
      floor: await rotateInFloor(floor, setting, effort.rotated),
    });
  }
  return {
    vault: median(rounds.map((round) => round.vault)),
    floor: median(rounds.map((round) => round.floor)),
    ratio: median(rounds.map((round) => round.vault / round.floor)),
  };
}

interface Rotation {
  readonly state: string;
  readonly done: number;
  readonly created_at: Date;
  readonly ended_at: Date | null;
}

/**
 * Followed in the database, because requests that are being answered make the vault rotate at half
 * its pace.
 */
export async function rotateInVault(
  { port }: Server,
  { tokens, databaseUrl }: Setting,
  rows: number,
): Promise<number> {
  const { id } = JSON.parse(
    await ask(port, requestText('POST', `/v1/teams/${teams.rotate}/key-rotations`, tokens.person)),
  ) as { id: string };
  const client = new pg.Client({ connectionString: databaseUrl });
  await client.connect();
  try {
    for (;;) {
      const {
        rows: [rotation],
      } = await client.query<Rotation>(
        'select state, done::int, created_at, ended_at from key_rotation where id = $1',
        [id],
      );
      if (rotation?.ended_at == null) {
        await delay(20);
        continue;
      }
      if (rotation.state !== 'completed' || rotation.done !== rows)
        throw new Error(
          `the rotation ended ${rotation.state} with ${rotation.done} of ${rows} rows`,
        );
      return rows / ((rotation.ended_at.getTime() - rotation.created_at.getTime()) / 1000);
    }
  } finally {
    await client.end();
  }
}

export async function rotateInFloor(
  { port }: Server,
  { tokens }: Setting,
  rows: number,
): Promise<number> {
  const { moved, seconds } = JSON.parse(
    await ask(port, requestText('POST', '/rotation', tokens.person)),
  ) as { moved: number; seconds: number };
  if (moved !== rows) throw new Error(`the floor moved ${moved} of ${rows} rows`);
  return moved / seconds;
}
