// `import`: brings credentials of another system along, on the machine that has its key, through the vault's ordinary API as the
// caller's own subject. Known by a label, so that a second import finds what the first one made. The exit status is for scripts:
// 0 all there, 3 some are not.
import { createHash } from 'node:crypto';
import type { System } from '../../credentials/types/registry.ts';
import { callerOf, type OperateContext, OptionsUnfit, readOptions, targetOptions, type VaultCall, VaultRefused } from '../target.ts';
import { sources } from './sources.ts';
import { type FieldNote, translate, type Translated } from './translate.ts';

/** What became of one credential. Names only, never values. */
interface Report { readonly id: string; readonly name: string; readonly type: string; readonly action: 'created' | 'updated' | 'present' | 'skipped' | 'failed'; readonly reason?: string; readonly fields: readonly FieldNote[] }
interface Known { readonly id: string; readonly name: string }

const bulkItemsMax = 100;
const bulkBytesMax = 400 * 1024;
const labelLengthMax = 100;

/** Runs the command; its exit status. Throws OptionsUnfit, VaultRefused. */
export async function importCredentials(context: OperateContext): Promise<number> {
  const options = readOptions(context.args, {
    ...targetOptions, from: { type: 'string' }, file: { type: 'string' }, 'key-file': { type: 'string' }, team: { type: 'string' }, update: { type: 'boolean' }, 'dry-run': { type: 'boolean' },
  });
  const { from, file, team } = options;
  if (from === undefined || !Object.hasOwn(sources, from)) throw new OptionsUnfit(`--from takes one of ${Object.keys(sources).join(', ')}`);
  if (file === undefined) throw new OptionsUnfit('--file must name the file to import');
  if (team === undefined || !/^[a-z0-9][a-z0-9-]{1,38}$/.test(team)) throw new OptionsUnfit('--team takes the slug of a team');
  const system = from as System;
  const keyFile = options['key-file'];
  const read = (path: string, option: string): string => {
    try {
      return context.readFile(path);
    } catch (error) {
      throw new OptionsUnfit(`${option} names a file that cannot be read (${(error as NodeJS.ErrnoException).code ?? 'unknown'})`);
    }
  };
  const foreign = sources[system](read(file, '--file'), keyFile === undefined ? undefined : read(keyFile, '--key-file').replace(/\r?\n$/, ''));
  const call = callerOf(options, context);
  const { byId, names } = await listKnown(call, team, system);

  const reports: Report[] = [];
  const wanted: Wanted[] = [];
  for (const each of foreign) {
    const made = translate(system, each);
    if (made.length === 0) {
      reports.push({ id: each.id, name: each.name, type: each.type, action: each.data === undefined ? 'failed' : 'skipped', reason: each.data === undefined ? 'doesNotOpen' : 'empty', fields: [] });
    }
    for (const one of made) {
      const known = byId.get(labelOf(one.id));
      if (known !== undefined && options.update !== true) reports.push(reportOf({ ...one, name: known.name }, 'present'));
      else wanted.push({ one: { ...one, name: known?.name ?? free(one.name, names) }, known });
    }
  }
  if (options['dry-run'] === true) for (const { one, known } of wanted) reports.push(reportOf(one, known === undefined ? 'created' : 'updated'));
  else for (const batch of batchesOf(wanted, system)) reports.push(...await send(call, team, batch, system));
  show(context, reports, { isJson: options.json === true, isDryRun: options['dry-run'] === true });
  return reports.some(({ action }) => action === 'failed') ? 3 : 0;
}

interface Wanted { readonly one: Translated; readonly known: Known | undefined }

/** What earlier imports from this system made, by the label that they left, and every name that is taken. */
async function listKnown(call: VaultCall, team: string, system: System): Promise<{ byId: Map<string, Known>; names: Set<string> }> {
  const byId = new Map<string, Known>();
  const names = new Set<string>();
  let cursor = '';
  do {
    const { body } = await call('GET', `/v1/teams/${team}/credentials?limit=200${cursor}`);
    for (const { id, name, labels } of body['items'] as (Known & { labels: Record<string, string> })[]) {
      names.add(name);
      const label = labels[labelKey(system)];
      if (label !== undefined) byId.set(label, { id, name });
    }
    cursor = body['nextCursor'] === null ? '' : `&cursor=${String(body['nextCursor'])}`;
  } while (cursor !== '');
  return { byId, names };
}

const labelKey = (system: System): string => `import/${system}`;
/** The id as a label takes it; a long or unfit one by its digest. */
const labelOf = (id: string): string => (id.length <= labelLengthMax && /^[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?$/.test(id) ? id : `sha256 ${createHash('sha256').update(id).digest('hex')}`);

/** The name, or the name with the first number that is free; it is taken then. */
function free(name: string, taken: Set<string>): string {
  let found = name;
  for (let n = 2; taken.has(found); n += 1) found = `${name} (${n})`;
  taken.add(found);
  return found;
}

const itemOf = ({ one, known }: Wanted, system: System): object => (known === undefined
  ? { op: 'create', name: one.name, type: one.type, fields: one.fields, labels: { [labelKey(system)]: labelOf(one.id) } }
  : { op: 'update', id: known.id, revision: '*', fields: one.fields });

/** As many at a time as the vault takes. */
function* batchesOf(wanted: readonly Wanted[], system: System): Generator<Wanted[]> {
  let batch: Wanted[] = [];
  let bytes = 0;
  for (const each of wanted) {
    const size = Buffer.byteLength(JSON.stringify(itemOf(each, system)));
    if (batch.length > 0 && (batch.length === bulkItemsMax || bytes + size > bulkBytesMax)) {
      yield batch;
      batch = [];
      bytes = 0;
    }
    batch.push(each);
    bytes += size;
  }
  if (batch.length > 0) yield batch;
}

interface Refusal { readonly code: string; readonly errors?: readonly { readonly pointer: string; readonly rule: string }[] }

async function send(call: VaultCall, team: string, batch: readonly Wanted[], system: System): Promise<Report[]> {
  let results: { problem?: Refusal }[];
  try {
    const { body } = await call('POST', `/v1/teams/${team}/credentials/bulk`, { items: batch.map((each) => itemOf(each, system)) });
    results = body['results'] as typeof results;
  } catch (error) {
    if (!(error instanceof VaultRefused) || (error.status !== 400 && error.status !== 413)) throw error;
    // One of them has no form that the vault reads, and the whole request fell with it: found by halves.
    const [first] = batch;
    if (batch.length === 1 && first !== undefined) return [{ ...reportOf(first.one, 'failed'), reason: error.code }];
    const half = Math.ceil(batch.length / 2);
    return [...await send(call, team, batch.slice(0, half), system), ...await send(call, team, batch.slice(half), system)];
  }
  return batch.map(({ one, known }, index) => {
    const { problem } = results[index] ?? { problem: { code: 'unknown' } as Refusal };
    if (problem === undefined) return reportOf(one, known === undefined ? 'created' : 'updated');
    const faults = (problem.errors ?? []).map(({ pointer, rule }) => `${pointer.replace(/^\/items\/\d+/, '')} ${rule}`);
    return { ...reportOf(one, 'failed'), reason: [problem.code, ...faults].join(', ') };
  });
}

const reportOf = ({ id, name, type, notes }: Translated, action: Report['action']): Report => ({ id, name, type, action, fields: notes });

function show({ write }: OperateContext, reports: readonly Report[], { isJson, isDryRun }: { isJson: boolean; isDryRun: boolean }): void {
  if (isJson) return void write(reports.map((report) => `${JSON.stringify(report)}\n`).join(''));
  for (const { name, type, action, reason, fields } of reports) {
    write(`${action.padEnd(8)} ${name} (${type})${reason === undefined ? '' : `: ${reason}`}\n`);
    for (const { from, to, as } of fields) write(`           ${from} → ${to === undefined ? 'nothing, it is empty' : `${to}, ${as}`}\n`);
  }
  const counts = new Map<string, number>();
  for (const { action } of reports) counts.set(action, (counts.get(action) ?? 0) + 1);
  write(`${[...counts].map(([action, count]) => `${count} ${action}`).join(', ') || 'nothing there'}${isDryRun ? '; a dry run: nothing was stored' : ''}\n`);
}
