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
import { JsonRefused } from '../../shared/strict-json.ts';
import { exportSource } from './exported.ts';
import { type HeymRows, heymRows, readHeymDatabase } from './heym.ts';
import { mappingOf } from './mapping.ts';
import { splitLines } from './dotenv.ts';
import { encryptionKey } from './heym-rows.ts';
import { type ImportInput, openInput } from './input.ts';
import { entriesOf, NotJson, parseExact } from './json-entries.ts';
import { shown } from './names.ts';
import { isSystem, oneFile, readable, readSource, systems } from './sources.ts';
import { type Report, storeAll, translated } from './store.ts';
import { type AnyReport, importWhole } from './whole-heym.ts';
import { unknownMember } from '../../shared/closed-sets.ts';
import { slugForm } from '../../shared/patterns.ts';

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
  const input = file === undefined ? undefined : await openInput(file, '--file');
  const key = read(options['key-file'], '--key-file')?.replace(/\r?\n$/, '');
  const how = { isUpdate: options.update === true, isDryRun: options['dry-run'] === true };
  const { tell, end, hasFailed } = teller(context, {
    isJson: options.json === true,
    isDryRun: how.isDryRun,
  });
  const tables =
    from !== 'heym'
      ? undefined
      : input === undefined
        ? await readHeymDatabase(read(database, '--database') ?? '')
        : wholeHeym(input);
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
        '--map and --member-role are for Heym with its teams: --database, or rows of all its ' +
          'tables',
      );
    if (team === undefined) throw new OptionsUnfit('--team takes the slug of a team');
    const told = (report: Report): void => {
      tell({ kind: 'credential', team, ...report });
    };
    const all =
      from === 'vault'
        ? await exportSource(linesOf(input!), key, told)
        : translated(from, readSource(from, input!, key), told);
    await storeAll(callerOf(options, context), { team, system: from, ...how }, all, told);
  }
  end();
  return hasFailed() ? 3 : 0;
}

/** The lines of what a vault has exported; one is as long as a credential with all its fields. */
function linesOf(input: ImportInput): () => Iterable<string> {
  const { text } = oneFile(input);
  return () => readable(splitLines(text(), exportLineLengthMax));
}
const exportLineLengthMax = 32 * 1024 * 1024;

/** Rows of all of Heym's tables; undefined for rows of its credentials alone. */
function wholeHeym(input: ImportInput): HeymRows | undefined {
  const tables = new Map<string, unknown>();
  const { text } = oneFile(input);
  // Who belongs to whom is known once all of them are read: they are held, a table at a time.
  for (const { key: table, text: rows } of readable(entriesOf(text(), tableLengthMax))) {
    if (table === undefined) return undefined;
    if (tables.has(table) || rows === undefined)
      throw new OptionsUnfit(
        'the file has a table twice, or one that is too large: use --database',
      );
    try {
      tables.set(table, parseExact(rows));
    } catch (error) {
      if (!(error instanceof JsonRefused || error instanceof NotJson)) throw error;
      const rule = error instanceof JsonRefused ? error.rule : 'json';
      throw new OptionsUnfit(`the file does not hold Heym's rows (${rule})`);
    }
  }
  return tables.size === 0 ? undefined : heymRows(Object.fromEntries(tables));
}
const tableLengthMax = 256 * 1024 * 1024;

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
      `${option} names a file that cannot be read (` +
        `${(error as NodeJS.ErrnoException).code ?? 'unknown'})`,
    );
  }
}

/** Prints each report when it comes, for people or for programs, and counts them. */
function teller(
  { write }: Pick<OperateContext, 'write'>,
  { isJson, isDryRun }: { isJson: boolean; isDryRun: boolean },
): { tell: (report: AnyReport) => void; end: () => void; hasFailed: () => boolean } {
  const counts = new Map<string, number>();
  return {
    tell(report) {
      counts.set(report.action, (counts.get(report.action) ?? 0) + 1);
      write(isJson ? `${JSON.stringify(report)}\n` : linesFor(report));
    },
    end() {
      if (!isJson)
        write(
          `${[...counts].map(([action, count]) => `${count} ${action}`).join(', ') || 'nothing there'}` +
            `${isDryRun ? '; a dry run: nothing was stored' : ''}\n`,
        );
    },
    hasFailed: () => counts.has('failed'),
  };
}

/** SECURITY: names are the file's text: what would move a cursor is written out. */
function linesFor(report: AnyReport): string {
  const reason = report.reason === undefined ? '' : `: ${report.reason}`;
  const lines = [`${report.action.padEnd(8)} ${lineOf(report)}${reason}`];
  if (report.kind === 'credential') {
    if (report.nameThere !== undefined)
      lines.push(`           there it is ${JSON.stringify(report.nameThere)}`);
    for (const { from, to, as } of report.fields)
      lines.push(
        `           ${from} → ${to === undefined ? `nothing, it is ${as}` : `${to}, ${as}`}`,
      );
  }
  return lines.map((line) => `${shown(line)}\n`).join('');
}

function lineOf(report: AnyReport): string {
  switch (report.kind) {
    case 'team':
      return `team ${report.team}`;
    case 'member':
      return `${report.subject ?? ''} in team ${report.team} (${report.role ?? ''})`;
    case 'grant':
      return (
        `${report.credential ?? ''} for ${report.subject ?? `team ${report.team}`} (` +
        `${report.access ?? ''})`
      );
    case 'credential':
      return `${report.name} (${report.type})`;
  }
  throw unknownMember(report satisfies never);
}
