// Kills replicas with -9 at random points of rotations, and looks at what is there in the end. The
// seed gives the points; where in a batch each of them falls is up to the machine.
import { setTimeout as delay } from 'node:timers/promises';
import { type Program, runModule, until } from './processes.ts';
import {
  activeKey,
  addCredentials,
  allOpenUnderActiveKey,
  makeTeam,
  noClaim,
  tokensOf,
  type TokenVault,
} from './tokens.ts';
import type { RotationRow } from '../../src/keys/rotation-repository.ts';

const source = (path: string): string => JSON.stringify(new URL(path, import.meta.url).pathname);
const replicaProgram = `
  import { AuditLog } from ${source('../../src/audit/record.ts')};
  import { parseRootKeys } from ${source('../../src/crypto/index.ts')};
  import { openDatabase } from ${source('../../src/db/client.ts')};
  import { openKeyring } from ${source('../../src/keys/system-keys.ts')};
  import { RotationWorker } from ${source('../../src/keys/worker.ts')};
  const onError = (error) => { console.log('error ' + error.message + ' ' + error.cause); };
  const { db } = openDatabase({ url: process.argv[1], onError });
  const keyring = await openKeyring({ db, roots: parseRootKeys(process.argv[2]), now: Date.now });
  const audit = new AuditLog({ db, keyring, now: Date.now, onError, onAlarm: onError });
  const worker = new RotationWorker({ db, keyring, audit, now: Date.now, onError, batchRows: Number(process.argv[3]), pollMs: 20 });
  process.on('SIGUSR2', () => { worker.start(); });
  setInterval(() => undefined, 60_000);
  console.log('ready');`;

export interface KillPlan {
  readonly kills: number;
  readonly rows: number;
  readonly seed: number;
  readonly killsPerRotation: number;
  readonly batchRows: number;
}
export interface KillReport {
  readonly kills: number;
  readonly rotations: number;
  readonly rowsMoved: number;
  readonly whileMoving: number;
}
interface Teardown {
  teardown(action: () => unknown): unknown;
}

const delayMsMax = 25;

/**
 * Rotates a team's rows as often as the kills need; each replica is killed a random time after a
 * random batch, and another goes on. Throws where a rotation does not finish, a row is skipped,
 * does not open, or stays under the old key.
 */
export async function killRotations(
  t: Teardown,
  vault: TokenVault,
  plan: KillPlan,
  tell: (line: string) => void,
): Promise<KillReport> {
  const random = randomOf(plan.seed);
  const of = await makeTeam(vault, 'payments');
  for (let left = plan.rows; left > 0; left -= 5_000)
    await addCredentials(vault, of, Math.min(5_000, left));
  const spawn = async (): Promise<Program> => {
    const program = runModule(t, replicaProgram, [
      vault.url,
      vault.rootKeys,
      String(plan.batchRows),
    ]);
    await program.printed(/ready/);
    return program;
  };
  let report: KillReport = { kills: 0, rotations: 0, rowsMoved: 0, whileMoving: 0 };
  let next = spawn();
  while (report.kills < plan.kills) {
    const from = await activeKey(vault.db, of.team.id);
    const { id } = await vault.keys.startRotation(of.admin, of.team, noClaim);
    const state = (): Promise<RotationRow> => vault.keys.getRotation(of.team, id);
    const many = Math.min(plan.killsPerRotation, plan.kills - report.kills);
    const points = Array.from(
      { length: many },
      () => Math.floor(random() * (plan.rows / plan.batchRows)) * plan.batchRows,
    ).sort((a, b) => a - b);
    for (const point of points) {
      const program = await next;
      next = spawn(); // the next one comes up while this one works
      program.child.kill('SIGUSR2');
      await reached(async () => {
        const { done, state: now } = await state();
        return done >= point || now !== 'running';
      });
      await delay(random() * delayMsMax);
      program.child.kill('SIGKILL');
      if ((await program.ended) !== 'SIGKILL') throw new Error('the replica ended by itself');
      if (/error/.test(program.output()))
        throw new Error(`a replica complained: ${program.output()}`);
      const { state: now } = await state();
      report = {
        ...report,
        kills: report.kills + 1,
        whileMoving: report.whileMoving + Number(now === 'running'),
      };
    }
    const last = await next;
    next = spawn();
    last.child.kill('SIGUSR2');
    const rotation = await until(async () => {
      const now = await state();
      return now.state !== 'running' && now;
    }, 120_000);
    last.child.kill('SIGKILL');
    await last.ended;
    report = {
      ...report,
      rotations: report.rotations + 1,
      rowsMoved: report.rowsMoved + rotation.done,
    };
    if (rotation.state !== 'completed' || rotation.done !== plan.rows || rotation.failed !== 0)
      throw new Error(`the rotation ended as ${JSON.stringify(rotation)}`);
    const tokens = await tokensOf(vault.db, of.team.id);
    if (
      tokens.length !== plan.rows ||
      tokens.some(({ data_key_id: key }) => key !== rotation.toKey)
    )
      throw new Error('a row is missing, or under another key than the new one');
    if (!(await allOpenUnderActiveKey(vault, of.team.id))) throw new Error('a row does not open');
    const retired = await vault.life.retireKey(of.admin, of.team, from.id);
    if (retired.rows !== 0) throw new Error('rows stayed under the old key');
    tell(
      `${report.kills} kills, ${report.rotations} rotations, ${report.rowsMoved} rows moved, each row opens`,
    );
  }
  (await next).child.kill('SIGKILL');
  return report;
}

/** Asks without a pause: the point is to be exact. */
async function reached(question: () => Promise<boolean>): Promise<void> {
  const deadline = Date.now() + 120_000;
  while (!(await question()))
    if (Date.now() > deadline) throw new Error('a rotation came to a standstill');
}

/** Numbers from 0 to 1, the same for the same seed. */
function randomOf(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}
