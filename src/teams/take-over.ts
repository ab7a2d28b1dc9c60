// Rows of teams from before their settings had a MAC: they are taken over once, as they are found,
// and the audit log says what was found. From then on a row without a MAC is tampered.
import { sql } from 'kysely';
import type { Keyring } from '../crypto/index.ts';
import type { Db, Trx } from '../db/client.ts';
import type { TeamId } from '../shared/ids.ts';
import { isOfBefore, type TeamSettingsRow, writeMac } from '../access/index.ts';
import { settingsColumns } from '../access/sql.ts';
import type { AuditLog } from '../audit/index.ts';

type Parts = { readonly keyring: Keyring; readonly audit: AuditLog };

const caller = { subject: null, requestId: 'takeOver', address: null };
const batchRows = 100;

/** Gives a locked row of before its MAC, with an event that lists what it says. */
export async function takeOver(
  trx: Trx,
  { keyring, audit }: Parts,
  row: TeamSettingsRow,
): Promise<void> {
  await writeMac(trx, keyring, row);
  await audit.record(trx, {
    caller,
    team: { id: row.id, slug: row.slug },
    action: 'team.takeOver',
    target: { type: 'team', id: row.id },
    details: {
      tokenFormat: row.tokenFormat,
      rotateEveryDays: row.rotateEveryDays ?? 'none',
      refuseExposedLeases: row.refuseExposedLeases,
      defaultDelivery: [...row.defaultDelivery],
      versionsKept: row.versionsKept,
    },
  });
}

/**
 * Takes over every row of before, each in a transaction of its own; how many. One that has not the
 * form of settings is left as it is, and counts for nothing once the door is closed.
 */
export async function takeOverTeams(
  db: Db,
  parts: Parts,
  isStopping: () => boolean,
): Promise<number> {
  let taken = 0;
  for (let after: TeamId | undefined; !isStopping(); ) {
    const { rows } = await sql<{ id: TeamId }>`
      select id from team where row_mac_version = 0
        and ${after === undefined ? sql`true` : sql`id > ${after}`}
      order by id limit ${batchRows}`.execute(db);
    for (const { id } of rows) if (!isStopping() && (await takeOverOne(db, parts, id))) taken += 1;
    after = rows.at(-1)?.id;
    if (rows.length < batchRows) break;
  }
  return taken;
}

function takeOverOne(db: Db, parts: Parts, id: TeamId): Promise<boolean> {
  return db.transaction().execute(async (trx) => {
    const { rows } = await sql<TeamSettingsRow>`
      select ${settingsColumns('team')} from team where team.id = ${id} for update`.execute(trx);
    const [row] = rows;
    if (row === undefined || !isOfBefore(row)) return false;
    await takeOver(trx, parts, row);
    return true;
  });
}
