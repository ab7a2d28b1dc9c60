// Puts credentials into a team through the ordinary bulk route. Known by a label, so that a second
// import finds what the first one made.
import { createHash } from 'node:crypto';
import { type VaultCall, VaultRefused } from '../target.ts';
import { findType, type PublicValue, writtenNames } from '../../credentials/index.ts';
import type { Foreign } from './foreign.ts';
import { withSuffix } from './names.ts';
import { type FieldNote, translate, type Translated } from './translate.ts';
import { visibleAsciiForm } from '../../shared/patterns.ts';

/** What became of one credential. Names only, never values. */
export interface Report {
  readonly id: string;
  readonly name: string;
  readonly type: string;
  readonly action: 'created' | 'updated' | 'present' | 'skipped' | 'failed';
  readonly reason?: string;
  /** What it is called there, where that is no name here. */
  readonly nameThere?: string;
  readonly fields: readonly FieldNote[];
  /** Where it stands now. */
  readonly credential?: string;
}
/** Where credentials go, and how what is there already is treated. */
export interface StoreOrder {
  readonly team: string;
  readonly system: string;
  readonly isUpdate: boolean;
  readonly isDryRun: boolean /** The team is not there: a dry run would make it. */;
  readonly isNew?: boolean;
}
interface Known {
  readonly id: string;
  readonly name: string;
  readonly type: string;
  readonly publicFields: Readonly<Record<string, unknown>>;
  readonly secretFields: readonly string[];
  readonly policy: Readonly<Record<string, unknown>>;
}
interface Wanted {
  readonly one: Translated & { readonly policy?: object };
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
  order: StoreOrder,
  all: AsyncIterable<Translated> | Iterable<Translated>,
  tell: (report: Report) => void,
): Promise<void> {
  const { byId, names } = await listKnown(call, order);
  const delivery = teamDelivery(call, order);
  /** Of what was here before, those that the source has, and what they became. */
  const seen = new Set<string>();
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
    seen.add(labelOf(one.id));
    if (known !== undefined && !order.isUpdate) {
      tell({ ...reportOf({ ...one, name: known.name }, 'present'), credential: known.id });
      continue;
    }
    if (known !== undefined && known.type !== one.type) {
      tell({
        ...reportOf({ ...one, name: known.name }, 'failed'),
        credential: known.id,
        reason: `typeChanged (here it is ${known.type}: delete it and import again)`,
      });
      continue;
    }
    const policy = await policyOf(one, known, delivery);
    if (policy === 'unfit') {
      tell({ ...reportOf(one, 'failed'), reason: "the team's settings are not intact" });
      continue;
    }
    const wanted = {
      one: {
        ...one,
        name: known?.name ?? free(one.name, names),
        ...(policy === undefined ? {} : { policy }),
      },
      known,
    };
    const size = Buffer.byteLength(JSON.stringify(itemOf(wanted, order)));
    if (batch.length === bulkItemsMax || bytes + size > bulkBytesMax) await flush();
    batch.push(wanted);
    bytes += size;
  }
  await flush();
  if (!order.isUpdate) return;
  // A second credential for what a type could not take, of which nothing is left.
  for (const [label, { id, name, type }] of byId) {
    const isLeft =
      label.endsWith(extraEnding) &&
      !seen.has(label) &&
      seen.has(label.slice(0, -extraEnding.length));
    if (isLeft)
      tell({
        id: label,
        name,
        type,
        action: 'failed',
        reason: 'goneAtSource (nothing of it is left there: delete it here)',
        fields: [],
        credential: id,
      });
  }
}
const extraEnding = '#extra';

/**
 * How a team's credentials are delivered by default, asked for once; undefined where it is not
 * intact.
 */
function teamDelivery(
  call: VaultCall,
  { team, isNew }: StoreOrder,
): () => Promise<readonly string[] | undefined> {
  let asked: Promise<readonly string[] | undefined> | undefined;
  return () => {
    asked ??=
      isNew === true
        ? Promise.resolve(['lease'])
        : call('GET', `/v1/teams/${team}`).then(({ body }) =>
            body['intact'] === false ? undefined : (body['defaultDelivery'] as string[]),
          );
    return asked;
  };
}

/**
 * The policy of a credential that the source restricts to hosts; all else of it is as it is here.
 */
async function policyOf(
  { type, allowedHosts }: Translated,
  known: Known | undefined,
  delivery: () => Promise<readonly string[] | undefined>,
): Promise<object | 'unfit' | undefined> {
  if (allowedHosts === undefined) return undefined;
  if (known !== undefined) return { ...known.policy, allowedHosts };
  const all = await delivery();
  if (all === undefined) return 'unfit';
  const isInjectable = findType(type)?.broker !== undefined;
  return { delivery: all.filter((each) => each !== 'broker' || isInjectable), allowedHosts };
}

/**
 * What earlier imports from this system made, by the label that they left, and every name that is
 * taken.
 */
async function listKnown(
  call: VaultCall,
  { team, system, isNew }: StoreOrder,
): Promise<{ byId: Map<string, Known>; names: Set<string> }> {
  const byId = new Map<string, Known>();
  const names = new Set<string>();
  if (isNew === true) return { byId, names };
  let cursor = '';
  do {
    const { body } = await call('GET', `/v1/teams/${team}/credentials?limit=200${cursor}`);
    for (const { labels, ...known } of body['items'] as (Known & {
      labels: Record<string, string>;
    })[]) {
      names.add(known.name);
      const label = labels[labelKey(system)];
      if (label === undefined) continue;
      const { id, name, type, publicFields, secretFields, policy } = known;
      byId.set(label, { id, name, type, publicFields, secretFields, policy });
    }
    cursor = body['nextCursor'] === null ? '' : `&cursor=${String(body['nextCursor'])}`;
  } while (cursor !== '');
  return { byId, names };
}

const labelKey = (system: string): string => `import/${system}`;
/** The id as a label takes it; a long or unfit one by its digest. */
const labelOf = (id: string): string =>
  id.length <= labelLengthMax && visibleAsciiForm.test(id)
    ? id
    : `sha256 ${createHash('sha256').update(id).digest('hex')}`;

/** The name, or the name with the first number that is free; it is taken then. */
function free(name: string, taken: Set<string>): string {
  let found = name;
  for (let n = 2; taken.has(found); n += 1) found = withSuffix(name, ` (${n})`);
  taken.add(found);
  return found;
}

function itemOf({ one, known }: Wanted, { system }: StoreOrder): object {
  const { publicFieldNames = one.publicFieldNames, labels, ...rest } = one.more ?? {};
  const more = {
    ...(one.policy === undefined ? {} : { policy: one.policy }),
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
    : { op: 'update', id: known.id, revision: '*', fields: changeOf(one, known), ...more };
}

/** The fields as they are at the source: what is gone there is cleared here. */
function changeOf({ fields }: Translated, known: Known): Record<string, PublicValue | null> {
  const type = findType(known.type);
  // What the vault writes out of its catalogue no source has.
  const written = new Set<string>(
    type?.oauth !== undefined && known.publicFields['provider'] !== undefined
      ? ['providerRevision', ...writtenNames]
      : [],
  );
  const stored = [...Object.keys(known.publicFields), ...known.secretFields];
  return {
    ...Object.fromEntries(
      stored.filter((name) => !written.has(name)).map((name): [string, null] => [name, null]),
    ),
    ...fields,
  };
}

const dryRun = ({ one, known }: Wanted): Report =>
  reportOf(one, known === undefined ? 'created' : 'updated');
const reportOf = (
  { id, name, nameThere, type, notes }: Translated,
  action: Report['action'],
): Report => ({
  id,
  name,
  ...(nameThere === undefined ? {} : { nameThere }),
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

async function send(
  call: VaultCall,
  order: StoreOrder,
  batch: readonly Wanted[],
): Promise<Report[]> {
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
    const { id, name, type } = each;
    if ('reason' in made)
      tell({ id, name, type, action: 'failed', reason: made.reason, fields: [] });
    else if (made.length === 0)
      tell({ id, name, type, action: 'skipped', reason: 'empty', fields: [] });
    else yield* made;
  }
}
