// `import`: brings credentials of another system along, on the machine that has its key, through
// the vault's ordinary API as the caller's own subject. The exit status is for scripts: 0 all
// there, 3 some are not.
import {
  callerOf,
  type OperateContext,
  OptionsUnfit,
  readOptions,
  targetOptions,
} from '../target.ts';
import { exportSource } from './exported.ts';
import { type HeymRows, heymRows, readHeymDatabase } from './heym.ts';
import { mappingOf } from './mapping.ts';
import { encryptionKey, isSystem, objectIn, sources, systems } from './sources.ts';
import { type Report, storeAll, translated } from './store.ts';
import { type AnyReport, importWhole } from './whole-heym.ts';

/** Runs the command; its exit status. Throws OptionsUnfit, VaultRefused. */
export async function importCredentials(context: OperateContext): Promise<number> {
  const options = readOptions(context.args, {
    ...targetOptions,
    from: { type: 'string' },
    file: { type: 'string' },
    database: { type: 'string' },
    map: { type: 'string' },
    'member-role': { type: 'string' },
    'key-file': { type: 'string' },
    team: { type: 'string' },
    update: { type: 'boolean' },
    'dry-run': { type: 'boolean' },
  });
  const { from, file, database, team } = options;
  if (from === undefined || (from !== 'vault' && !isSystem(from)))
    throw new OptionsUnfit(`--from takes one of ${[...systems, 'vault'].join(', ')}`);
  if ((file === undefined) === (database === undefined))
    throw new OptionsUnfit(
      "--file must name the file to import, or --database one with the URL of Heym's database",
    );
  if (database !== undefined && from !== 'heym')
    throw new OptionsUnfit('--database is for --from heym');
  if (team !== undefined && !slugForm.test(team))
    throw new OptionsUnfit('--team takes the slug of a team');
  const read = (path: string | undefined, option: string): string | undefined =>
    path === undefined ? undefined : readNamed(context, path, option);
  const text = read(file, '--file');
  const key = read(options['key-file'], '--key-file')?.replace(/\r?\n$/, '');
  const how = { isUpdate: options.update === true, isDryRun: options['dry-run'] === true };
  const reports: AnyReport[] = [];
  const tell = (report: AnyReport): void => {
    reports.push(report);
  };
  const tables =
    from !== 'heym'
      ? undefined
      : text === undefined
        ? await readHeymDatabase(read(database, '--database') ?? '')
        : wholeHeym(text);
  if (tables !== undefined) {
    const memberRole = options['member-role'] ?? 'editor';
    if (memberRole !== 'editor' && memberRole !== 'viewer')
      throw new OptionsUnfit('--member-role takes editor or viewer');
    const mapping = mappingOf(tables, read(options.map, '--map'), team);
    await importWhole(
      callerOf(options, context),
      { rows: tables, key: encryptionKey(key), mapping, memberRole, ...how },
      tell,
    );
  } else {
    if (options.map !== undefined || options['member-role'] !== undefined)
      throw new OptionsUnfit(
        '--map and --member-role are for Heym with its teams: --database, or rows of all its tables',
      );
    if (team === undefined) throw new OptionsUnfit('--team takes the slug of a team');
    const told = (report: Report): void => {
      tell({ kind: 'credential', team, ...report });
    };
    const all =
      from === 'vault'
        ? await exportSource(text ?? '', key, told)
        : translated(from, sources[from](text ?? '', key), told);
    await storeAll(callerOf(options, context), { team, system: from, ...how }, all, told);
  }
  show(context, reports, { isJson: options.json === true, isDryRun: how.isDryRun });
  return reports.some(({ action }) => action === 'failed') ? 3 : 0;
}

const slugForm = /^[a-z0-9][a-z0-9-]{1,38}$/;

/** Rows of all of Heym's tables; undefined for rows of its credentials alone. */
function wholeHeym(text: string): HeymRows | undefined {
  const document = objectIn(text);
  return document === undefined ? undefined : heymRows(document);
}

/** The text of a file that an option names. Throws OptionsUnfit. */
export function readNamed(
  { readFile }: Pick<OperateContext, 'readFile'>,
  path: string,
  option: string,
): string {
  try {
    return readFile(path);
  } catch (error) {
    throw new OptionsUnfit(
      `${option} names a file that cannot be read (${(error as NodeJS.ErrnoException).code ?? 'unknown'})`,
    );
  }
}

/** Prints the reports, for people or for programs. */
function show(
  { write }: Pick<OperateContext, 'write'>,
  reports: readonly AnyReport[],
  { isJson, isDryRun }: { isJson: boolean; isDryRun: boolean },
): void {
  if (isJson) return void write(reports.map((report) => `${JSON.stringify(report)}\n`).join(''));
  for (const report of reports) {
    write(
      `${report.action.padEnd(8)} ${lineOf(report)}${report.reason === undefined ? '' : `: ${report.reason}`}\n`,
    );
    if (report.kind === 'credential')
      for (const { from, to, as } of report.fields)
        write(
          `           ${from} → ${to === undefined ? 'nothing, it is empty' : `${to}, ${as}`}\n`,
        );
  }
  const counts = new Map<string, number>();
  for (const { action } of reports) counts.set(action, (counts.get(action) ?? 0) + 1);
  write(
    `${[...counts].map(([action, count]) => `${count} ${action}`).join(', ') || 'nothing there'}${isDryRun ? '; a dry run: nothing was stored' : ''}\n`,
  );
}

function lineOf(report: AnyReport): string {
  switch (report.kind) {
    case 'team':
      return `team ${report.team}`;
    case 'member':
      return `${report.subject ?? ''} in team ${report.team} (${report.role ?? ''})`;
    case 'grant':
      return `${report.credential ?? ''} for ${report.subject ?? `team ${report.team}`} (${report.access ?? ''})`;
    case 'credential':
      return `${report.name} (${report.type})`;
  }
}
