// Plays every interleaving of two transactions over real connections, one step of one side at a
// time. That a side has to wait for the other is an outcome, and read from the server, never
// guessed from the clock.
import { sql } from 'kysely';
import { setImmediate as yieldToOthers } from 'node:timers/promises';
import type { Db, Trx } from '../../src/db/client.ts';

/**
 * One side: transactions after one another, each of steps; a step that throws ends the side and
 * rolls its transaction back.
 */
export interface Side {
  readonly transactions: readonly {
    readonly isolation?: 'read committed' | 'repeatable read';
    readonly steps: readonly ((trx: Trx) => Promise<unknown>)[];
  }[];
}
/**
 * How one interleaving went; `order` names the side of each step, with a `!` where it had to wait.
 */
export interface Played {
  readonly order: string;
  readonly wasBlocked: boolean;
  readonly errors: readonly [unknown, unknown];
}

type Controlled = Awaited<ReturnType<ReturnType<Db['startTransaction']>['execute']>>;
interface Runner {
  readonly moves: (() => Promise<unknown>)[];
  pid: number;
  pending: boolean;
  isBlocked: boolean;
  error: unknown;
  trx: Controlled | undefined;
}

/**
 * Plays every interleaving, each on sides made afresh; what `judge` is told of each is its own
 * affair. Which choices there are shows while playing: a side that waits has none. Returns how many
 * there were.
 */
export async function playEvery(
  db: Db,
  make: () => Promise<{ sides: readonly [Side, Side]; judge: (played: Played) => Promise<void> }>,
): Promise<number> {
  let count = 0;
  for (let path: readonly number[] | undefined = []; path !== undefined; count += 1) {
    const { sides, judge } = await make();
    const { played, taken } = await play(db, sides, path);
    await judge(played);
    path = following(taken);
  }
  return count;
}

const confirmations = 12;

interface Taken {
  readonly choice: number;
  readonly choices: number;
}

/** The next path in depth-first order: the last choice that had another one left takes it. */
function following(taken: readonly Taken[]): readonly number[] | undefined {
  const last = taken.findLastIndex(({ choice, choices }) => choice + 1 < choices);
  return last < 0
    ? undefined
    : [...taken.slice(0, last).map(({ choice }) => choice), taken[last]!.choice + 1];
}

async function play(
  db: Db,
  sides: readonly [Side, Side],
  path: readonly number[],
): Promise<{ played: Played; taken: Taken[] }> {
  const runners = sides.map((side) => runnerOf(db, side));
  const taken: Taken[] = [];
  let order = '';
  for (;;) {
    let free = freeOf(runners);
    // Only a side that waits is left: whoever it waited for has ended, and it is about to go on.
    // (Were they to wait for each other, the server would end one of them.)
    while (free.length === 0 && runners.some(({ pending }) => pending)) {
      await yieldToOthers();
      free = freeOf(runners);
    }
    const choice = path[taken.length] ?? 0;
    const runner = free[choice];
    if (runner === undefined) {
      if (free.length === 0) break;
      throw new Error('the same steps did not lead to the same choices');
    }
    taken.push({ choice, choices: free.length });
    order += `${order === '' ? '' : ' '}${runners.indexOf(runner) === 0 ? 'w' : 'a'}`;
    advance(runner);
    await settle(db, runners);
    if (runner.isBlocked) order += '!';
  }
  return {
    played: {
      order,
      wasBlocked: order.includes('!'),
      errors: [runners[0]?.error, runners[1]?.error],
    },
    taken,
  };
}

const freeOf = (runners: readonly Runner[]): Runner[] =>
  runners.filter(({ moves, pending }) => !pending && moves.length > 0);

function runnerOf(db: Db, { transactions }: Side): Runner {
  const runner: Runner = {
    moves: [],
    pid: 0,
    pending: false,
    isBlocked: false,
    error: undefined,
    trx: undefined,
  };
  for (const { isolation, steps } of transactions) {
    for (const [index, step] of steps.entries()) {
      runner.moves.push(async () => {
        if (index === 0) {
          runner.trx = await db
            .startTransaction()
            .setIsolationLevel(isolation ?? 'read committed')
            .execute();
          runner.pid =
            (await sql<{ pid: number }>`select pg_backend_pid() as pid`.execute(runner.trx)).rows[0]
              ?.pid ?? 0;
        }
        if (runner.trx === undefined) throw new Error('a step outside a transaction');
        await step(runner.trx);
      });
    }
    runner.moves.push(async () => {
      await runner.trx?.commit().execute();
      runner.trx = undefined;
    });
  }
  return runner;
}

function advance(runner: Runner): void {
  const move = runner.moves.shift();
  if (move === undefined) throw new Error('a side that has ended cannot move');
  runner.pending = true;
  void move()
    .catch(async (error: unknown) => {
      runner.error = error;
      runner.moves.length = 0;
      await runner.trx?.rollback().execute();
    })
    .finally(() => {
      runner.pending = false;
      runner.isBlocked = false;
    });
}

/** Until each side has done its step or is seen to wait for the other one. */
async function settle(db: Db, runners: readonly Runner[]): Promise<void> {
  for (let confirmed = 0; ; ) {
    const pending = runners.filter((runner) => runner.pending);
    if (pending.length === 0) return;
    const pids = runners.map(({ pid }) => pid);
    const { rows } = await sql<{ pid: number }>`
      select pid from pg_stat_activity where pid = any (${pids}::int[]) and wait_event_type = 'Lock' and pg_blocking_pids(pid) && ${pids}::int[]`.execute(
      db,
    );
    const waiting = new Set(rows.map(({ pid }) => pid));
    for (const runner of pending) if (runner.pending) runner.isBlocked = waiting.has(runner.pid);
    // A wait that has just ended can be seen for a moment longer: one that lasts is seen again and
    // again.
    confirmed = pending.every((runner) => !runner.pending || runner.isBlocked) ? confirmed + 1 : 0;
    if (confirmed >= confirmations) return;
    await yieldToOthers();
  }
}
