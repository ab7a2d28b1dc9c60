// Every column of every table is tampered with, and then everything is asked of the vault and all
// its jobs run: nobody gains a secret or a right, nothing that was tampered with is protected anew,
// no answer is a 500, and whatever was not tampered with is still listed. The schema says which
// columns there are. `npm run test:tampered` tries every value of the list; here each column gets
// one, the same in every run.
import pg from 'pg';
import { sql } from 'kysely';
import t, { type Test as Tap } from 'tap';
import { type Finding, verifyAll } from '../../src/integrity/verify.ts';
import { KeyUnavailable } from '../../src/crypto/index.ts';
import { KeyringRefused, reloadSystemKeys } from '../../src/keys/system-keys.ts';
import {
  type Column,
  dropChecks,
  hashOf,
  isStillPlanted,
  keepTables,
  listColumns,
  listRows,
  type Row,
  tamper,
  type Tampering,
  tamperingsOf,
} from '../helpers/tampered-columns.ts';
import { setTamperedStage, type TamperedStage } from '../helpers/tampered-stage.ts';
import { type Walked, walkEverything } from '../helpers/tampered-walk.ts';
import type { TestVault } from '../helpers/vault.ts';

const isWhole = process.env['VAULT_TAMPERED'] !== undefined;
const only = process.env['VAULT_TAMPERED_ONLY'];
const seed = process.env['VAULT_TAMPERED_SEED'] ?? '';
t.setTimeout(isWhole ? 4 * 3_600_000 : 1_800_000);

interface Case {
  readonly column: Column;
  readonly row: Row;
  readonly tampering: Tampering;
  readonly name: string;
}

t.test('nothing is gained by tampering with a column', async (t) => {
  const stage = await setTamperedStage(t);
  const { vault } = stage;
  const { db } = vault;
  const columns = await listColumns(db);
  await t.test('what the API cannot say is not stored', (t) => tryUnsayable(t, db, columns));
  await dropChecks(db);
  const tables = [...new Set(columns.map(({ table }) => table))];
  const restoreTables = await keepTables(db, tables);
  const restore = async (): Promise<void> => {
    await restoreTables();
    await reloadSystemKeys(db, vault.keyring);
    vault.logs.length = 0;
    vault.answers.length = 0;
    vault.thrown.length = 0;
  };

  const touched = new Map<string, Set<string>>();
  const first = await noteTables(tables, touched, (onStep) =>
    walkEverything(stage, vault, { onStep }),
  );
  t.same([first.faults, [...first.failedJobs]], [[], []], 'untouched, nothing is wrong');
  const succeeded = new Set(
    first.asked.filter(({ status }) => status > 0 && status < 400).map((each) => each.operationId),
  );
  t.same(
    vault.app.operations.map(({ operationId }) => operationId).filter((id) => !succeeded.has(id)),
    [],
    'every operation is tried, and succeeds where nothing was tampered with',
  );
  await restore();
  const second = await walkEverything(stage, vault);
  await restore();
  const listed = listedIn(first, second);
  const names = await namesOf(db);
  console.log(
    '# steps by table',
    [...touched].map(([table, steps]) => `${table} ${steps.size}`).join(', '),
  );

  let tried = 0;
  for (const column of columns) {
    const cases = await casesOf(db, column);
    for (const each of cases) {
      if (only !== undefined && !each.name.includes(only)) continue;
      if (!(await tamper(db, column, each.row, each.tampering))) {
        await restore();
        continue;
      }
      tried += 1;
      const at = Date.now();
      // Who is called what is remembered by each process: only another one asks for it again.
      const asked = column.table === 'subject' ? await stage.restart() : vault;
      const faults = await tryCase(
        { stage, vault: asked, names, listed },
        each,
        // What reads nothing of the table has nothing to do with it.
        (step) => touched.get(column.table)?.has(step) !== false,
      );
      if (asked !== vault) await asked.stop();
      if (process.env['VAULT_TAMPERED_TIMES']) console.log('#', each.name, Date.now() - at);
      if (faults.length > 0) t.fail(each.name, { faults, stack: '' });
      await restore();
      if (!isWhole) break;
    }
  }
  t.ok(tried > 0, `${tried} cases`);
});

/** Columns that no answer shows, or no row of which the vault changes. */
const unshown =
  /^(access_record|audit_address|audit_event|idempotency_record)\.|^oauth_authorization\.redirect_uri$/;

/** Asks it of the database as the vault does: with its triggers and its constraints. */
async function tryUnsayable(
  t: Tap,
  db: TestVault['db'],
  columns: readonly Column[],
): Promise<void> {
  let refused = 0;
  for (const column of columns.filter(({ table, name }) => !unshown.test(`${table}.${name}`))) {
    // Whatever is written there is a deletion, at the moment that the database says.
    if (`${column.table}.${column.name}` === 'team.deleted_at') continue;
    const [row] = await listRows(db, column);
    if (row === undefined) throw new Error(`the stage has no row of ${column.table}`);
    for (const tampering of tamperingsOf(column, row, []).filter((each) => each.isUnsayable)) {
      const isStored = await tamper(db, column, row, tampering, { isPastTriggers: false });
      if (isStored) t.fail(`${column.table}.${column.name} takes ${tampering.name}`);
      else refused += 1;
    }
  }
  t.ok(refused > 250, `${refused} values`);
}

/** Those that are tried of a column, in their order. */
async function casesOf(db: TestVault['db'], column: Column): Promise<Case[]> {
  const rows = await listRows(db, column);
  const cases = rows.flatMap((row) => {
    const others = [...new Set(rows.map(({ value }) => value))].filter(
      (value) => value !== row.value,
    );
    return tamperingsOf(column, row, others).map((tampering) => ({
      column,
      row,
      tampering,
      name: `${column.table}.${column.name} of ${row.key.join('/')}: ${tampering.name}`,
    }));
  });
  // By a hash of what does not change from run to run: the place of the row and the value's name.
  const place = new Map(rows.map((row, index) => [row, index]));
  const rank = ({ row, tampering }: Case): number =>
    hashOf(`${seed} ${column.table}.${column.name} ${place.get(row)} ${tampering.name}`, 2 ** 31);
  const tried = new Set<string>();
  return cases
    .sort((a, b) => rank(a) - rank(b))
    .filter(({ tampering }) => !tried.has(tampering.name) && tried.add(tampering.name));
}

/** Unsealed columns by which something is given that was not given before; docs/threat-model.md says so. */
const unprotected: readonly { readonly column: RegExp; readonly allows: RegExp }[] = [];
/**
 * Without a key there is nothing to be done: of these tables an answer of 503 is no fault, and
 * neither is a rewrapping that stops and says why.
 */
const ofKeys = ['data_key', 'root_key', 'system_key'];

async function tryCase(
  { stage, vault, names, listed }: Ground,
  { column, row, tampering }: Case,
  isTaken: (step: string) => boolean,
): Promise<string[]> {
  const before = await findingsOf(vault);
  const walked = await walkEverything(stage, vault, { isTaken });
  const after = await findingsOf(vault);
  const isOfKeys = ofKeys.includes(column.table);
  const faults = walked.faults.filter(
    (fault) =>
      !(isOfKeys && fault.includes('/v1/root-key-rotations')) &&
      !unprotected.some(
        (known) => known.column.test(`${column.table}.${column.name}`) && known.allows.test(fault),
      ),
  );
  for (const [job, error] of walked.failedJobs)
    if (!(column.table === 'system_key' && job === 'keep' && isRefusal(error)))
      faults.push(`job ${job}: ${textOf(error)}`);
  if (!isOfKeys)
    for (const { label, status } of walked.asked) if (status === 503) faults.push(`${label}: 503`);

  const isPlanted = await isStillPlanted(vault.db, column, row, tampering);
  const reported = before.filter(({ table }) => table === column.table && !isOfStage(stage, row));
  if (isPlanted)
    for (const finding of reported)
      if (!after.some((each) => each.table === finding.table && each.row === finding.row))
        faults.push(`${finding.table} ${finding.row} was ${finding.fault}, and is protected anew`);

  const aliases = row.ids.flatMap((id) => [id, ...(names.get(id) ?? [])]);
  if (column.table === 'team') aliases.push(...(await credentialsOf(vault.db, row.ids)));
  const lost = lostOf(listed, walked, aliases);
  faults.push(...lost.ofOthers);
  const isSeen = vault.logs.some((line) => /"event":"(sealBroken|rowUnreadable)"/.test(line));
  // What it is of, or its own name: then it is of nobody who lists, and only `verify` finds it.
  const isMoved =
    /(^|_)(id|at)$/.test(column.name) &&
    (column.name !== 'at' || column.key.includes('at')) &&
    !column.name.endsWith('_at');
  // As good as deleted, which whoever writes to the database can do; docs/threat-model.md says so.
  const isDeleted = column.table === 'team' && column.name === 'deleted_at';
  if (
    !isMoved &&
    !isDeleted &&
    lost.ofTheRow.length > 0 &&
    (tampering.isUnsayable === true || reported.length > 0) &&
    !isSeen
  )
    faults.push(`no alarm, and without it: ${lost.ofTheRow.join(', ')}`);

  if (column.table === 'team' && column.name === 'versions_kept') {
    const { rows } =
      await sql`select 1 from credential_version where credential_id = ${stage.ids['main']} and version in (1, 3)`.execute(
        vault.db,
      );
    if (rows.length < 2) faults.push('versions were destroyed by a number that nobody has set');
  }
  return faults;
}

/** Keys that do not load are not loaded: the process goes on with those that it has, and says so. */
const isRefusal = (error: unknown): boolean =>
  error instanceof KeyringRefused || error instanceof KeyUnavailable;

/** What a team has, and what is shared with it: that goes where the team goes. */
async function credentialsOf(db: TestVault['db'], teams: readonly string[]): Promise<string[]> {
  const { rows } = await sql<{ id: string }>`
    select id from kept.credential where team_id::text = any (${teams})
    union select credential_id from kept.credential_grant where grantee_team_id::text = any (${teams})`.execute(
    db,
  );
  return rows.map(({ id }) => id);
}

/** Rows that do not hold before anybody tampers with them. */
const isOfStage = ({ ids }: TamperedStage, row: Row): boolean =>
  [ids['spoilt'], ids['lost']].some((id) => row.ids.includes(id!));

/** What was listed and is not, of the tampered row and of what it is about; and of others. */
function lostOf(
  listed: Listed,
  walked: Walked,
  aliases: readonly string[],
): { ofTheRow: string[]; ofOthers: string[] } {
  const ofTheRow: string[] = [];
  const ofOthers: string[] = [];
  const isAbout = (text: string): boolean =>
    aliases.some((alias) => new RegExp(`(^|[^\\w-])${alias}($|[^\\w-])`).test(text));
  const got = itemsOf(walked);
  const refused = new Map<string, number>();
  for (const { step, status, isRead } of walked.asked)
    if (isRead && status >= 400) refused.set(step, status);
  for (const [step, { status, items }] of listed) {
    if (!got.has(step)) continue;
    const now = refused.get(step);
    if (status < 400 && now !== undefined)
      (isAbout(step) || isAbout([...items.values()].join(' ')) ? ofTheRow : ofOthers).push(
        `${step}: ${now}`,
      );
    else
      for (const [id, item] of items)
        if (!got.get(step)!.has(id))
          (isAbout(item) || isAbout(step) ? ofTheRow : ofOthers).push(`${step}: without ${id}`);
  }
  return { ofTheRow, ofOthers };
}

const textOf = (error: unknown): string => {
  const { stack, cause, errors } = error as AggregateError;
  return [
    stack ?? String(error),
    ...(errors ?? []).map(textOf),
    ...(cause === undefined ? [] : [textOf(cause)]),
  ].join('; ');
};

async function findingsOf(vault: TestVault): Promise<Finding[]> {
  const findings: Finding[] = [];
  await verifyAll(vault, {
    onFinding: (finding) => findings.push(finding),
    isStopping: () => false,
  });
  return findings;
}

type Listed = ReadonlyMap<
  string,
  { readonly status: number; readonly items: ReadonlyMap<string, string> }
>;
interface Ground {
  readonly stage: TamperedStage;
  readonly vault: TestVault;
  /** What ids are called. */
  readonly names: ReadonlyMap<string, readonly string[]>;
  readonly listed: Listed;
}

/** What reads give in both walks: by the step, each item by what it is known by. */
function listedIn(first: Walked, second: Walked): Listed {
  const [one, other] = [itemsOf(first), itemsOf(second)];
  return new Map(
    first.asked
      .filter(({ isRead }) => isRead)
      .map(({ step, status, json }) => {
        const items = [...one.get(step)!].filter(([id]) => other.get(step)?.has(id) === true);
        return [step, { status, items: new Map(listOf(json) === undefined ? [] : items) }];
      }),
  );
}

async function namesOf(db: TestVault['db']): Promise<Map<string, string[]>> {
  const { rows } = await sql<{ id: string; name: string }>`
    select id, sub as name from subject union all select id, slug from team`.execute(db);
  return new Map(rows.map(({ id, name }) => [id, [name]]));
}

function itemsOf({ asked }: Walked): Map<string, Map<string, string>> {
  const steps = new Map<string, Map<string, string>>();
  for (const { step, isRead, json } of asked) {
    if (!isRead) continue;
    const items = steps.get(step) ?? new Map<string, string>();
    steps.set(step, items);
    for (const item of listOf(json) ?? []) items.set(idOf(item), JSON.stringify(item));
  }
  return steps;
}

/** The items of a page, or the lines of an export. */
const listOf = (json: any): readonly any[] | undefined =>
  Array.isArray(json) ? json.filter(({ kind }) => !['export', 'end'].includes(kind)) : json?.items;

const idOf = (item: any): string =>
  item.kind !== undefined && item.fingerprint === undefined
    ? [
        item.kind,
        item.id,
        item.rotation,
        item.credential,
        item.version,
        item.subject,
        item.of,
      ].join()
    : String(
        item.id ??
          item.slug ??
          item.subject ??
          item.kid ??
          item.fingerprint ??
          item.credential ??
          item.version ??
          item.name,
      );

/** Which tables the statements of each step name. */
async function noteTables(
  tables: readonly string[],
  touched: Map<string, Set<string>>,
  walk: (onStep: (step: string) => void) => Promise<Walked>,
): Promise<Walked> {
  for (const table of tables) touched.set(table, new Set());
  const patterns = tables.map(
    (table) =>
      [
        table,
        new RegExp(
          `\\b(from|join|update|on conflict)\\b[^;]*\\b${table}\\b|\\binto "?${table}\\b[^;]*on conflict`,
        ),
      ] as const,
  );
  let current = '';
  const { query } = pg.Client.prototype;
  pg.Client.prototype.query = function (this: pg.Client, ...of: any[]) {
    const text = String(typeof of[0] === 'string' ? of[0] : of[0]?.text);
    for (const [table, pattern] of patterns)
      if (pattern.test(text)) touched.get(table)!.add(current);
    return (query as any).apply(this, of);
  } as any;
  try {
    return await walk((step) => {
      current = step;
    });
  } finally {
    pg.Client.prototype.query = query;
  }
}
