// What a team's admin has set, as far as it decides what engines get and how keys are made: read
// with the MAC of its row, without which it counts for nothing. The name is not in it.
import { type RawBuilder, sql } from 'kysely';
import type { Keyring } from '../crypto/index.ts';
import type { Executor, Trx } from '../db/client.ts';
import type { Delivery, TokenFormatColumn } from '../db/tables.ts';
import type { TeamId } from '../shared/ids.ts';
import type { JsonObject } from '../shared/json.ts';

/** What the MAC of a team's row is over. */
export interface MacedTeam {
  readonly id: TeamId;
  readonly slug: string;
  readonly tokenFormat: TokenFormatColumn;
  readonly rotateEveryDays: number | null;
  readonly refuseExposedLeases: boolean;
  readonly defaultDelivery: readonly Delivery[];
  readonly versionsKept: number;
  readonly revision: number;
}
/** A team's row with its MAC; null in a row that the release before has written. */
export interface TeamSettingsRow extends MacedTeam {
  readonly rowMac: Buffer | null;
  readonly rowMacVersion: number;
}

/** The version of the MAC that this release writes. */
export const teamMacVersion = 1;

const names = [
  ['id', 'id'],
  ['slug', 'slug'],
  ['token_format', 'tokenFormat'],
  ['rotate_every_days', 'rotateEveryDays'],
  ['refuse_exposed_leases', 'refuseExposedLeases'],
  ['default_delivery', 'defaultDelivery'],
  ['versions_kept', 'versionsKept'],
  ['revision', 'revision'],
  ['row_mac_version', 'rowMacVersion'],
] as const satisfies readonly (readonly [string, keyof TeamSettingsRow])[];

/** The columns of `TeamSettingsRow`, of a table that the alias names. */
export const settingsColumns = (alias: string): RawBuilder<unknown> =>
  sql.raw(
    [...names, ['row_mac', 'rowMac'] as const]
      .map(([column, name]) => `${alias}.${column} as "${name}"`)
      .join(', '),
  );

/** The same in one column of a larger row, as JSON. */
export const settingsJson = (alias: string): RawBuilder<SettingsJson> => {
  const members = names.map(([column, name]) => `'${name}', ${alias}.${column}`).join(', ');
  return sql.raw(`jsonb_build_object(${members}, 'rowMac', encode(${alias}.row_mac, 'hex'))`);
};
export type SettingsJson = Omit<TeamSettingsRow, 'rowMac'> & { readonly rowMac: string | null };

/** What `settingsJson` gave. */
export const settingsOf = ({ rowMac, ...row }: SettingsJson): TeamSettingsRow => ({
  ...row,
  rowMac: rowMac === null ? null : Buffer.from(rowMac, 'hex'),
});

/** The MAC of a team's row. */
export const teamRowMac = (keyring: Keyring, row: MacedTeam): Buffer =>
  keyring.rowMac('team', asJson(row));

/** Whether the row carries the MAC that the vault made of it. */
export const teamMacHolds = (keyring: Keyring, row: TeamSettingsRow): boolean =>
  row.rowMacVersion === teamMacVersion && keyring.verifyRowMac('team', asJson(row), row.rowMac);

/**
 * Whether the settings count: they are as the vault wrote them, or the release before did, as long
 * as such rows are not taken over.
 */
export const verifyTeamRowMac = (keyring: Keyring, row: TeamSettingsRow): boolean =>
  teamMacHolds(keyring, row) || (!keyring.isTakenOver && isOfBefore(row));

/**
 * Whether what was ever under a compromised key is not to be used. Where the settings do not count
 * nobody has said that it may.
 */
export const refusesExposed = (keyring: Keyring, row: TeamSettingsRow): boolean =>
  row.refuseExposedLeases || !verifyTeamRowMac(keyring, row);

/** A row without a MAC, such as the release before writes them. */
export const isOfBefore = (row: TeamSettingsRow): boolean =>
  row.rowMacVersion === 0 && row.rowMac === null && hasForm(row);

/** The team's settings as they are at this moment; undefined where they do not count. */
export async function findSettings(
  executor: Executor,
  keyring: Keyring,
  team: TeamId,
): Promise<MacedTeam | undefined> {
  const { rows } = await sql<TeamSettingsRow>`
    select ${settingsColumns('team')} from team where team.id = ${team}`.execute(executor);
  const [row] = rows;
  return row !== undefined && verifyTeamRowMac(keyring, row) ? row : undefined;
}

/** Writes settings of a locked team with their MAC. */
export async function writeMac(trx: Trx, keyring: Keyring, row: MacedTeam): Promise<void> {
  await trx
    .updateTable('team')
    .set({ row_mac: teamRowMac(keyring, row), row_mac_version: teamMacVersion })
    .where('id', '=', row.id)
    .execute();
}

// Named one by one, in the order of the canonical form: rows carry more columns than the MAC
// covers.
const asJson = ({
  id,
  slug,
  tokenFormat,
  rotateEveryDays,
  refuseExposedLeases,
  defaultDelivery,
  versionsKept,
  revision,
}: MacedTeam): JsonObject => ({
  defaultDelivery,
  id,
  refuseExposedLeases,
  revision,
  rotateEveryDays,
  slug,
  tokenFormat,
  versionsKept,
});

// A row without a MAC has nothing but its form to be known by.
const hasForm = (row: MacedTeam): boolean =>
  (row.tokenFormat === 'fernet' || row.tokenFormat === 'fernet-256') &&
  (row.rotateEveryDays === null || isWithin(row.rotateEveryDays, 1, 3650)) &&
  typeof row.refuseExposedLeases === 'boolean' &&
  Array.isArray(row.defaultDelivery) &&
  row.defaultDelivery.every((each) => each === 'lease' || each === 'broker') &&
  new Set(row.defaultDelivery).size === row.defaultDelivery.length &&
  isWithin(row.versionsKept, 1, 1_000) &&
  isWithin(row.revision, 1, 2_147_483_647);
const isWithin = (value: unknown, min: number, max: number): boolean =>
  Number.isInteger(value) && Number(value) >= min && Number(value) <= max;
