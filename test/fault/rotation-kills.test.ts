// A small part of `npm run test:kill`: replicas killed with -9 at random points of a rotation, and
// nothing is lost, skipped or left behind.
import { randomInt } from 'node:crypto';
import t from 'tap';
import { killRotations } from '../helpers/killing.ts';
import { tokenVault } from '../helpers/tokens.ts';

t.test(
  'rotations whose replicas are killed at random points finish, and every row opens under the new key',
  async (t) => {
    const seed = Number(process.env['VAULT_TEST_SEED'] ?? randomInt(2 ** 31));
    t.comment(`seed ${seed}`);
    const vault = await tokenVault(t);
    const report = await killRotations(
      t,
      vault,
      { kills: 4, rows: 1_500, seed, killsPerRotation: 4, batchRows: 50 },
      (line) => t.comment(line),
    );
    t.match(report, { kills: 4, rotations: 1, rowsMoved: 1_500 });
  },
);
