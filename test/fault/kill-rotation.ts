// npm run test:kill -- --kills 200 --rows 10000 --seed N: replicas killed with -9 at random points
// of rotations. Prints its seed; ends with 0 when every rotation finished, no row was skipped,
// every row opens and none is under an old key.
import { randomInt } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { startLocalPostgres } from '../../src/dev/postgres.ts';
import { makeTemplate } from '../helpers/database.ts';
import { killRotations } from '../helpers/killing.ts';
import { tokenVault } from '../helpers/tokens.ts';

const { values } = parseArgs({
  options: {
    kills: { type: 'string', default: '200' },
    rows: { type: 'string', default: '10000' },
    seed: { type: 'string', default: String(randomInt(2 ** 31)) },
    'kills-per-rotation': { type: 'string', default: '8' },
  },
});
const plan = {
  kills: Number(values.kills),
  rows: Number(values.rows),
  seed: Number(values.seed),
  killsPerRotation: Number(values['kills-per-rotation']),
  batchRows: 100,
};
console.log(`seed ${plan.seed}: ${plan.kills} kills, ${plan.rows} rows`);

const folder = mkdtempSync(join(tmpdir(), 'vault-kill-'));
const undo: (() => unknown)[] = [
  () => {
    rmSync(folder, { recursive: true, force: true });
  },
];
const teardown = (action: () => unknown): void => {
  undo.push(action);
};
const began = performance.now();
try {
  const server = await startLocalPostgres({ folder: join(folder, 'postgres'), isDurable: true });
  teardown(() => server.stop());
  process.env['TEST_DATABASE_URL'] = server.url;
  await makeTemplate(server.url);
  const report = await killRotations({ teardown }, await tokenVault({ teardown }), plan, (line) => {
    console.log(line);
  });
  const seconds = (performance.now() - began) / 1000;
  console.log(
    `${report.kills} kills (${report.whileMoving} of them before the rotation's end), ${report.rotations} rotations, ${report.rowsMoved} rows moved in ${seconds.toFixed(0)} s: nothing lost, nothing left behind`,
  );
} finally {
  for (const action of undo.reverse()) await action();
}
