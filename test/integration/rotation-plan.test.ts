// How a batch finds its tokens: by the index of their key, whatever the planner believes of the
// table.
import { type CompiledQuery, sql } from 'kysely';
import t from 'tap';
import type { Executor, Trx } from '../../src/db/client.ts';
import { planByIndex } from '../../src/keys/moving.ts';
import { reencryptors } from '../../src/keys/tables/moving.ts';
import { listRunningRotations } from '../../src/keys/rotation.ts';
import { addCredentials, makeTeam, noClaim, tokenVault } from '../helpers/tokens.ts';

/** The plan of the statement that `run` sends first. */
async function planOf(trx: Trx, run: (recorder: Trx) => Promise<unknown>): Promise<string> {
  let sent: CompiledQuery | undefined;
  const recorder = {
    getExecutor: () => trx.getExecutor(),
    executeQuery: async (query: CompiledQuery) => {
      sent ??= query;
      return { rows: [] };
    },
  } as unknown as Trx;
  await run(recorder);
  const lines = await (trx as Executor).executeQuery<Record<string, string>>({
    ...sent!,
    sql: `explain ${sent!.sql}`,
  });
  return lines.rows.map((line) => Object.values(line)[0]).join('\n');
}

t.test('a batch walks the tokens of its key, not those of every team', async (t) => {
  const vault = await tokenVault(t);
  const of = await makeTeam(vault, 'payments');
  await addCredentials(vault, of, 2_000);
  await vault.keys.startRotation(of.admin, of.team, noClaim);
  const [rotation] = await listRunningRotations(vault.db);
  const look = async (known: string): Promise<void> => {
    const plan = await vault.db.transaction().execute(async (trx) => {
      await planByIndex(trx);
      return planOf(trx, (recorder) =>
        reencryptors[0]!.hold(recorder, rotation!, {
          limit: 400,
          passOver: [],
          after: undefined,
        }),
      );
    });
    t.match(
      plan,
      /Index Scan using credential_version_data_key on credential_version/,
      `the planner knows ${known}`,
    );
    t.notMatch(plan, /credential_version_pkey|Seq Scan|Sort/);
  };
  await look('nothing');
  await sql`vacuum analyze`.execute(vault.db);
  await look('one team, which has everything');
  await addCredentials(vault, await makeTeam(vault, 'other'), 2_000);
  await look('one team of two');
  await sql`analyze`.execute(vault.db);
  await look('both');
});
