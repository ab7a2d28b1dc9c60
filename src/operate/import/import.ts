// `import`: brings credentials of another system along, on the machine that has its key, through the vault's ordinary API as the
// caller's own subject. The exit status is for scripts: 0 all there, 3 some are not.
import { callerOf, type OperateContext, OptionsUnfit, readOptions, targetOptions } from '../target.ts';
import { exportSource } from './exported.ts';
import { type Foreign, isSystem, sources, systems } from './sources.ts';
import { type Report, storeAll } from './store.ts';
import { translate, type Translated } from './translate.ts';

/** Runs the command; its exit status. Throws OptionsUnfit, VaultRefused. */
export async function importCredentials(context: OperateContext): Promise<number> {
  const options = readOptions(context.args, {
    ...targetOptions, from: { type: 'string' }, file: { type: 'string' }, 'key-file': { type: 'string' }, team: { type: 'string' }, update: { type: 'boolean' }, 'dry-run': { type: 'boolean' },
  });
  const { from, file, team, 'key-file': keyFile } = options;
  if (from === undefined || (from !== 'vault' && !isSystem(from))) throw new OptionsUnfit(`--from takes one of ${[...systems, 'vault'].join(', ')}`);
  if (file === undefined) throw new OptionsUnfit('--file must name the file to import');
  if (team === undefined || !/^[a-z0-9][a-z0-9-]{1,38}$/.test(team)) throw new OptionsUnfit('--team takes the slug of a team');
  const text = readNamed(context, file, '--file');
  const key = keyFile === undefined ? undefined : readNamed(context, keyFile, '--key-file').replace(/\r?\n$/, '');
  const reports: Report[] = [];
  const tell = (report: Report): void => { reports.push(report); };
  const all = from === 'vault' ? await exportSource(text, key, tell) : translated(from, sources[from](text, key), tell);
  await storeAll(callerOf(options, context), { team, system: from, isUpdate: options.update === true, isDryRun: options['dry-run'] === true }, all, tell);
  show(context, reports, { isJson: options.json === true, isDryRun: options['dry-run'] === true });
  return reports.some(({ action }) => action === 'failed') ? 3 : 0;
}

/** The text of a file that an option names. Throws OptionsUnfit. */
export function readNamed({ readFile }: Pick<OperateContext, 'readFile'>, path: string, option: string): string {
  try {
    return readFile(path);
  } catch (error) {
    throw new OptionsUnfit(`${option} names a file that cannot be read (${(error as NodeJS.ErrnoException).code ?? 'unknown'})`);
  }
}

/** What the credentials of another system become here; of one that becomes nothing it is told why. */
export function* translated(system: Parameters<typeof translate>[0], foreign: Iterable<Foreign>, tell: (report: Report) => void): Generator<Translated> {
  for (const each of foreign) {
    const made = translate(system, each);
    if (made.length === 0) {
      tell({ id: each.id, name: each.name, type: each.type, action: each.data === undefined ? 'failed' : 'skipped', reason: each.data === undefined ? 'doesNotOpen' : 'empty', fields: [] });
    }
    yield* made;
  }
}

/** Prints the reports, for people or for programs. */
export function show({ write }: Pick<OperateContext, 'write'>, reports: readonly Report[], { isJson, isDryRun }: { isJson: boolean; isDryRun: boolean }): void {
  if (isJson) return void write(reports.map((report) => `${JSON.stringify(report)}\n`).join(''));
  for (const { name, type, action, reason, fields } of reports) {
    write(`${action.padEnd(8)} ${name} (${type})${reason === undefined ? '' : `: ${reason}`}\n`);
    for (const { from, to, as } of fields) write(`           ${from} → ${to === undefined ? 'nothing, it is empty' : `${to}, ${as}`}\n`);
  }
  const counts = new Map<string, number>();
  for (const { action } of reports) counts.set(action, (counts.get(action) ?? 0) + 1);
  write(`${[...counts].map(([action, count]) => `${count} ${action}`).join(', ') || 'nothing there'}${isDryRun ? '; a dry run: nothing was stored' : ''}\n`);
}
