// Opens every token and checks every key, every row MAC and every event's MAC, and names what does
// not hold. Reads only; memory does not grow with rows. Each walk goes along an index, so that its
// time grows with the rows and no faster.
import { sql } from 'kysely';
import {
  DecryptionFailed,
  type Keyring,
  KeyUnavailable,
  type WrappedDataKey,
  type WrappedSystemKey,
} from '../crypto/index.ts';
import type { Db } from '../db/client.ts';
import { type RowMacTable, rowMacTables } from './row-mac-tables.ts';
import { type NameRule, ruleOfName } from '../shared/visible-names.ts';
import { type AuditEvent, verifyEvent } from '../audit/index.ts';
import {
  type CiphertextTable,
  ciphertextTables,
  listStoredTokens,
  placeOf,
  type TokenInTable,
} from '../keys/index.ts';

export type Fault =
  | 'keyDoesNotUnwrap'
  | 'rootKeyMissing'
  | 'tokenDoesNotOpen'
  | 'keyNotUsable'
  | 'sealBroken'
  | 'macBroken';
/** One row that does not hold. */
export interface Finding {
  readonly table: string;
  /** The row's key, as text. */
  readonly row: string;
  readonly fault: Fault;
  /** The fingerprint of the root key without which nothing can be said. */
  readonly needs?: string;
}
/** A name of before, which could not be given any more: it stays usable. */
export interface OddName {
  readonly table: 'credential' | 'engine' | 'team';
  readonly row: string;
  readonly rule: NameRule;
}
/** What was looked at; `isWhole` is false when it was stopped before the end. */
export interface Verified {
  readonly isWhole: boolean;
  readonly keys: number;
  readonly tokens: number;
  readonly seals: number;
  readonly events: number;
  readonly findings: number;
  /** Names that look like others; no fault of theirs. */
  readonly oddNames: number;
}

/** How the rows of one table are read, along an index, and checked. */
interface Walk<T extends { readonly row: string }> {
  readonly table: string;
  readonly batchRows: number;
  /** Up to `batchRows` rows after the one whose key is given, in its order. */
  readonly next: (db: Db, after: T | undefined) => Promise<readonly T[]>;
  readonly fault: (keyring: Keyring, row: T) => Pick<Finding, 'fault' | 'needs'> | undefined;
}

// A token is up to some hundred KiB long.
const tokensPerBatch = 200;
const rowsPerBatch = 1_000;
const all = sql`true`;

type DataKeyRow = { row: string } & WrappedDataKey;
const dataKeys: Walk<DataKeyRow> = {
  table: 'data_key',
  batchRows: rowsPerBatch,
  next: async (db, after) =>
    (
      await sql<DataKeyRow>`
    select id::text as row, id, team_id as team, version, format,
      root_fingerprint as "rootFingerprint", wrapped
    from data_key where state <> 'destroyed'
      and ${after === undefined ? all : sql`id > ${after.row}::uuid`} order by id
      limit ${rowsPerBatch}`.execute(db)
    ).rows,
  fault: (keyring, key) => faultOfUnwrapping(key.rootFingerprint, () => keyring.rewrapDataKey(key)),
};

type SystemKeyRow = { row: string } & Omit<WrappedSystemKey, 'active'>;
const systemKeys: Walk<SystemKeyRow> = {
  table: 'system_key',
  batchRows: rowsPerBatch,
  next: async (db, after) =>
    (
      await sql<SystemKeyRow>`
    select id::text as row, id, purpose, version, root_fingerprint as "rootFingerprint", wrapped
    from system_key where ${after === undefined ? all : sql`id > ${after.row}::uuid`} order by id
      limit ${rowsPerBatch}`.execute(db)
    ).rows,
  fault: (keyring, key) =>
    faultOfUnwrapping(key.rootFingerprint, () => keyring.rewrapSystemKey(key)),
};

const tokensOf = (table: CiphertextTable): Walk<TokenInTable> => ({
  table: table.name,
  batchRows: tokensPerBatch,
  next: (db, after) => listStoredTokens(db, table, after, tokensPerBatch),
  fault: (keyring, row) => {
    const { state, keyId, keyVersion, format, root, wrapped } = row;
    if (state !== 'active' && state !== 'decryptOnly') return { fault: 'keyNotUsable' };
    try {
      keyring.open(
        {
          id: keyId,
          team: row.team,
          version: keyVersion,
          format,
          rootFingerprint: root,
          wrapped,
        },
        placeOf(table, row),
        row.token,
      );
      return undefined;
    } catch (error) {
      if (error instanceof KeyUnavailable)
        return { fault: 'rootKeyMissing', needs: error.fingerprint };
      if (error instanceof DecryptionFailed) return { fault: 'tokenDoesNotOpen' };
      throw error;
    }
  },
});

type RowWithMac = {
  readonly row: string;
  readonly keys: readonly string[];
  readonly seal: Buffer | null;
};
const sealed = (of: RowMacTable<never>): Walk<RowWithMac> => {
  const columns = sql.join(of.key.map(({ column }) => column));
  return {
    table: of.table,
    batchRows: rowsPerBatch,
    next: async (db, after) =>
      (
        await sql<RowWithMac>`
      select array[${sql.join(of.key.map(({ column }) => sql`${column}::text`))}] as keys,
        array_to_string(array[${sql.join(of.key.map(({ column }) => sql`${column}::text`))}],
        '/') as row,
        ${sql.ref(`held.${of.column}`)} as seal, ${of.select}
      where ${
        after === undefined
          ? all
          : sql`(${columns}) >
        (${sql.join(of.key.map(({ type }, index) => sql`${after.keys[index]}::${type}`))})`
      }
      order by ${columns} limit ${rowsPerBatch}`.execute(db)
      ).rows,
    fault: (keyring, row) =>
      of.holds(keyring, row as never, row.seal as Buffer) ? undefined : { fault: 'sealBroken' },
  };
};

type EventRow = AuditEvent & { readonly row: string; readonly place: string };
const events: Walk<EventRow> = {
  table: 'audit_event',
  batchRows: rowsPerBatch,
  // The time as text, to the microsecond: two events that differ in less than a Date shows are two
  // places.
  next: async (db, after) =>
    (
      await sql<EventRow>`
    select id::text as row, to_char(at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
      as place, id, at, actor_id as actor, team_id as team, action, target_type as "targetType",
      target_id as "targetId", decision, reason, request_id as "requestId", key_id as key,
        credential_version as "credentialVersion", address_hash as "addressHash", details,
      mac_version as "macVersion", mac
    from audit_event
      where ${
        after === undefined
          ? all
          : sql`(at, id) > (${after.place}::timestamptz,
      ${after.row}::uuid)`
      } order by at, id limit ${rowsPerBatch}`.execute(db)
    ).rows,
  fault: (keyring, event) => (verifyEvent(event, keyring) ? undefined : { fault: 'macBroken' }),
};

type NamedRow = { readonly row: string; readonly name: string };
const namedTables = ['team', 'engine', 'credential'] as const;

/** Up to a batch of rows of one table with what they are called. */
async function namesOf(
  db: Db,
  table: OddName['table'],
  after: string | undefined,
): Promise<readonly NamedRow[]> {
  const { rows } = await sql<NamedRow>`
    select id::text as row, name from ${sql.table(table)}
    where ${after === undefined ? all : sql`id > ${after}::uuid`} order by id
      limit ${rowsPerBatch}`.execute(db);
  return rows;
}

/**
 * Walks everything, keys first; `onFinding` is called for each row that does not verify, as it is
 * found.
 */
export async function verifyAll(
  { db, keyring }: { db: Db; keyring: Keyring },
  {
    onFinding,
    onOddName = () => undefined,
    isStopping,
  }: {
    onFinding: (finding: Finding) => void;
    onOddName?: (odd: OddName) => void;
    isStopping: () => boolean;
  },
): Promise<Verified> {
  let findings = 0;
  const walk = async <T extends { readonly row: string }>(of: Walk<T>): Promise<number> => {
    let looked = 0;
    for (let after: T | undefined; !isStopping(); ) {
      const rows = await of.next(db, after);
      for (const row of rows) {
        const fault = of.fault(keyring, row);
        if (fault === undefined) continue;
        findings += 1;
        onFinding({ table: of.table, row: row.row, ...fault });
      }
      looked += rows.length;
      after = rows.at(-1);
      if (rows.length < of.batchRows) break;
    }
    return looked;
  };
  const keys = (await walk(dataKeys)) + (await walk(systemKeys));
  let tokens = 0;
  for (const table of ciphertextTables) tokens += await walk(tokensOf(table));
  let seals = 0;
  for (const table of rowMacTables) seals += await walk(sealed(table));
  const eventsLooked = await walk(events);
  let oddNames = 0;
  for (const table of namedTables)
    for (let after: string | undefined; !isStopping(); ) {
      const rows = await namesOf(db, table, after);
      for (const { row, name } of rows) {
        const rule = ruleOfName(name);
        if (rule === undefined) continue;
        oddNames += 1;
        onOddName({ table, row, rule });
      }
      after = rows.at(-1)?.row;
      if (rows.length < rowsPerBatch) break;
    }
  return { isWhole: !isStopping(), keys, tokens, seals, events: eventsLooked, findings, oddNames };
}

/** Wrapping anew unwraps first, and keeps nothing. */
function faultOfUnwrapping(
  root: string,
  unwrap: () => unknown,
): Pick<Finding, 'fault' | 'needs'> | undefined {
  try {
    unwrap();
    return undefined;
  } catch (error) {
    if (error instanceof KeyUnavailable) return { fault: 'rootKeyMissing', needs: root };
    if (error instanceof DecryptionFailed) return { fault: 'keyDoesNotUnwrap' };
    throw error;
  }
}
