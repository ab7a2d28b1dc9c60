// Puts credentials into a team through the ordinary bulk route. Known by a label, so that a second
// import finds what the first one made.
import { createHash } from 'node:crypto';
import { type VaultCall, VaultRefused } from '../target.ts';
import type { Foreign } from './sources.ts';
import { type FieldNote, translate, type Translated } from './translate.ts';

/** What became of one credential. Names only, never values. */
export interface Report {
  readonly id: string;
  readonly name: string;
  readonly type: string;
  readonly action: 'created' | 'updated' | 'present' | 'skipped' | 'failed';
  readonly reason?: string;
  readonly fields: readonly FieldNote[];
  /** Where it stands now. */
  readonly credential?: string;
}
/** Where credentials go, and how what is there already is treated. */
export interface Order {
  readonly team: string;
  readonly system: string;
  readonly isUpdate: boolean;
  readonly isDryRun: boolean /** The team is not there: a dry run would make it. */;
  readonly isNew?: boolean;
}
interface Known {
  readonly id: string;
  readonly name: string;
}
interface Wanted {
  readonly one: Translated;
  readonly known: Known | undefined;
}

const bulkItemsMax = 100;
const bulkBytesMax = 400 * 1024;
const labelLengthMax = 100;

/**
 * Stores what comes, a batch at a time, and tells of each. What was stored before is left as it is
 * unless it is to be updated.
 */
export async function storeAll(
  call: VaultCall,
  order: Order,
  all: AsyncIterable<Translated> | Iterable<Translated>,
  tell: (report: Report) => void,
): Promise<void> {
  const { byId, names } = await listKnown(call, order);
  let batch: Wanted[] = [];
  let bytes = 0;
  const flush = async (): Promise<void> => {
    if (batch.length > 0)
      for (const report of order.isDryRun ? batch.map(dryRun) : await send(call, order, batch))
        tell(report);
    batch = [];
    bytes = 0;
  };
  for await (const one of all) {
    const known = byId.get(labelOf(one.id));
    if (known !== undefined && !order.isUpdate) {
      tell({ ...reportOf({ ...one, name: known.name }, 'present'), credential: known.id });
      continue;
    }
    const wanted = { one: { ...one, name: known?.name ?? free(one.name, names) }, known };
    const size = Buffer.byteLength(JSON.stringify(itemOf(wanted, order)));
    if (batch.length === bulkItemsMax || bytes + size > bulkBytesMax) await flush();
    batch.push(wanted);
    bytes += size;
  }
  await flush();
}

/**
 * What earlier imports from this system made, by the label that they left, and every name that is
 * taken.
 */
async function listKnown(
  call: VaultCall,
  { team, system, isNew }: Order,
): Promise<{ byId: Map<string, Known>; names: Set<string> }> {
  const byId = new Map<string, Known>();
  const names = new Set<string>();
  if (isNew === true) return { byId, names };
  let cursor = '';
  do {
    const { body } = await call('GET', `/v1/teams/${team}/credentials?limit=200${cursor}`);
    for (const { id, name, labels } of body['items'] as (Known & {
      labels: Record<string, string>;
    })[]) {
      names.add(name);
      const label = labels[labelKey(system)];
      if (label !== undefined) byId.set(label, { id, name });
    }
    cursor = body['nextCursor'] === null ? '' : `&cursor=${String(body['nextCursor'])}`;
  } while (cursor !== '');
  return { byId, names };
}

const labelKey = (system: string): string => `import/${system}`;
/** The id as a label takes it; a long or unfit one by its digest. */
const labelOf = (id: string): string =>
  id.length <= labelLengthMax && /^[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?$/.test(id)
    ? id
    : `sha256 ${createHash('sha256').update(id).digest('hex')}`;

/** The name, or the name with the first number that is free; it is taken then. */
function free(name: string, taken: Set<string>): string {
  let found = name;
  for (let n = 2; taken.has(found); n += 1) found = `${name} (${n})`;
  taken.add(found);
  return found;
}

function itemOf({ one, known }: Wanted, { system }: Order): object {
  const { publicFieldNames, labels, ...rest } = one.more ?? {};
  const more = {
    ...rest,
    ...(one.more === undefined && known !== undefined
      ? {}
      : { labels: { ...labels, [labelKey(system)]: labelOf(one.id) } }),
  };
  return known === undefined
    ? {
        op: 'create',
        name: one.name,
        type: one.type,
        fields: one.fields,
        ...(publicFieldNames === undefined ? {} : { publicFieldNames }),
        ...more,
      }
    : { op: 'update', id: known.id, revision: '*', fields: one.fields, ...more };
}

const dryRun = ({ one, known }: Wanted): Report =>
  reportOf(one, known === undefined ? 'created' : 'updated');
const reportOf = ({ id, name, type, notes }: Translated, action: Report['action']): Report => ({
  id,
  name,
  type,
  action,
  fields: notes,
});

interface Refusal {
  readonly code: string;
  readonly errors?: readonly { readonly pointer: string; readonly rule: string }[];
}
interface Result {
  readonly credential?: { readonly id: string; readonly health: string };
  readonly problem?: Refusal;
}

async function send(call: VaultCall, order: Order, batch: readonly Wanted[]): Promise<Report[]> {
  let results: Result[];
  try {
    const { body } = await call('POST', `/v1/teams/${order.team}/credentials/bulk`, {
      items: batch.map((each) => itemOf(each, order)),
    });
    results = body['results'] as Result[];
  } catch (error) {
    if (!(error instanceof VaultRefused) || (error.status !== 400 && error.status !== 413))
      throw error;
    // One of them has no form that the vault reads, and the whole request fell with it: found by
    // halves.
    const [first] = batch;
    if (batch.length === 1 && first !== undefined)
      return [{ ...reportOf(first.one, 'failed'), reason: error.code }];
    const half = Math.ceil(batch.length / 2);
    return [
      ...(await send(call, order, batch.slice(0, half))),
      ...(await send(call, order, batch.slice(half))),
    ];
  }
  // Together they open more than one request may: those beyond go into one of their own.
  const beyond = batch.flatMap((_, index) => (isBeyondSize(results[index]) ? [index] : []));
  if (beyond.length > 0 && beyond.length < batch.length) {
    const others = await send(
      call,
      order,
      beyond.map((index) => batch[index]!),
    );
    const within = await reportsOf(call, batch, results, new Set(beyond));
    return batch.map((_, index) =>
      beyond.includes(index) ? others[beyond.indexOf(index)]! : within.get(index)!,
    );
  }
  return [...(await reportsOf(call, batch, results, new Set())).values()];
}

const isBeyondSize = (result: Result | undefined): boolean =>
  result?.problem?.errors?.some(({ rule }) => rule === 'size') === true;

/** What became of each item but those that are sent again, by its index. */
async function reportsOf(
  call: VaultCall,
  batch: readonly Wanted[],
  results: readonly Result[],
  leftOut: ReadonlySet<number>,
): Promise<ReadonlyMap<number, Report>> {
  const reports = new Map<number, Report>();
  for (const [index, { one, known }] of batch.entries()) {
    if (leftOut.has(index)) continue;
    const { credential, problem = credential === undefined ? { code: 'unknown' } : undefined } =
      results[index] ?? {};
    if (credential !== undefined && one.isDisabled !== undefined)
      await setState(call, credential, one.isDisabled);
    const faults = (problem?.errors ?? []).map(
      ({ pointer, rule }) => `${pointer.replace(/^\/items\/\d+/, '')} ${rule}`,
    );
    reports.set(
      index,
      credential !== undefined
        ? {
            ...reportOf(one, known === undefined ? 'created' : 'updated'),
            credential: credential.id,
          }
        : { ...reportOf(one, 'failed'), reason: [problem?.code, ...faults].join(', ') },
    );
  }
  return reports;
}

/** What was disabled there is here. */
async function setState(
  call: VaultCall,
  { id, health }: { id: string; health: string },
  isDisabled: boolean,
): Promise<void> {
  if (isDisabled !== (health === 'disabled'))
    await call('POST', `/v1/credentials/${id}/${isDisabled ? 'disable' : 'enable'}`);
}

/**
 * What the credentials of another system become here; of one that becomes nothing it is told why.
 */
export function* translated(
  system: Parameters<typeof translate>[0],
  foreign: Iterable<Foreign>,
  tell: (report: Report) => void,
): Generator<Translated> {
  for (const each of foreign) {
    const made = translate(system, each);
    if (made.length === 0) {
      tell({
        id: each.id,
        name: each.name,
        type: each.type,
        action: each.data === undefined ? 'failed' : 'skipped',
        reason: each.data === undefined ? 'doesNotOpen' : 'empty',
        fields: [],
      });
    }
    yield* made;
  }
}
