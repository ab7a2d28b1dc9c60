// An audit event as a row, with its own MAC. What goes in is named here; no value of a credential
// has a place in it.
import { hash, randomBytes } from 'node:crypto';
import type { RawBuilder } from 'kysely';
import { sql } from 'kysely';
import { canonicalJson, type Keyring } from '../crypto/index.ts';
import {
  type CredentialId,
  type DataKeyId,
  type EventId,
  newId,
  type SubjectId,
  type TeamId,
} from '../shared/ids.ts';
import type { JsonObject } from '../shared/json.ts';
import type { Caller, TeamRef, GrantPath } from '../access/index.ts';

/** What happened, as the operation tells it. */
export interface EventInput {
  /** Who did it; the subject is null where the vault acts by itself. */
  readonly caller: Pick<Caller, 'requestId' | 'address' | 'strangerOf'> & {
    readonly subject: SubjectId | null;
  };
  readonly team?: TeamRef | undefined;
  /** `noun.verb`, e.g. `credential.create`. */
  readonly action: string;
  readonly target: { readonly type: string; readonly id: string };
  readonly decision?: 'allow' | 'deny';
  readonly reason?: string;
  readonly key?: DataKeyId;
  readonly credentialVersion?: number;
  /** Names, ids, counts and purposes; subjects only by their internal id. */
  readonly details?: JsonObject;
}

/** One row of audit_event and, beside it, the erasable address. */
export interface AuditEvent {
  readonly id: EventId;
  readonly at: Date;
  readonly actor: SubjectId | null;
  readonly team: TeamId | null;
  readonly action: string;
  readonly targetType: string;
  readonly targetId: string;
  readonly decision: 'allow' | 'deny';
  readonly reason: string | null;
  readonly requestId: string;
  readonly key: DataKeyId | null;
  readonly credentialVersion: number | null;
  readonly addressHash: Buffer | null;
  readonly details: JsonObject;
  readonly macVersion: number;
  readonly mac: Buffer;
}

/** The side row: erasing it leaves the event's MAC valid and the hash without meaning. */
export interface AuditAddress {
  readonly event: EventId;
  readonly at: Date;
  readonly address: string;
  readonly salt: Buffer;
}

const saltBytes = 16;

/** Makes the event's row: id, time, hash of the address, MAC. */
export function makeEvent(
  input: EventInput,
  { keyring, now }: { keyring: Keyring; now: () => number },
): { event: AuditEvent; address: AuditAddress | null } {
  const id = newId<EventId>();
  const at = new Date(now());
  const { address, strangerOf } = input.caller;
  const salt = address === null ? null : randomBytes(saltBytes);
  const unsigned = {
    id,
    at,
    // Whom nobody has given a right has no name here: the issuer stands for all of its subjects.
    actor: strangerOf === undefined ? input.caller.subject : null,
    team: input.team?.id ?? null,
    action: input.action,
    targetType: input.target.type,
    targetId: input.target.id,
    decision: input.decision ?? 'allow',
    reason: input.reason ?? null,
    requestId: input.caller.requestId,
    key: input.key ?? null,
    credentialVersion: input.credentialVersion ?? null,
    addressHash: address === null || salt === null ? null : hashOf(address, salt),
    details: { ...input.details, ...(strangerOf === undefined ? {} : { issuer: strangerOf }) },
  } as const;
  const { version, mac } = keyring.mac('auditMac', macMessage(unsigned));
  return {
    event: { ...unsigned, macVersion: version, mac },
    address: address === null || salt === null ? null : { event: id, at, address, salt },
  };
}

/** Whether the row is as it was written. */
export function verifyEvent(event: AuditEvent, keyring: Keyring): boolean {
  let message: string;
  try {
    message = macMessage(event);
  } catch {
    return false; // a row that has no canonical form is none that was written here
  }
  return keyring.verifyMac('auditMac', message, { version: event.macVersion, mac: event.mac });
}

/** Whether the side row's address is the one behind the event's hash. */
export function verifyAddress(
  event: AuditEvent,
  { address, salt }: Pick<AuditAddress, 'address' | 'salt'>,
): boolean {
  return event.addressHash?.equals(hashOf(address, salt)) ?? false;
}

const hashOf = (address: string, salt: Buffer): Buffer =>
  hash('sha256', Buffer.concat([salt, Buffer.from(address)]), 'buffer');

/**
 * What the MAC is over: canonical JSON of every column but the MAC, times as RFC 3339, bytes as
 * base64url.
 */
function macMessage(event: Omit<AuditEvent, 'mac' | 'macVersion'>): string {
  return canonicalJson({
    id: event.id,
    at: event.at.toISOString(),
    actor: event.actor,
    team: event.team,
    action: event.action,
    targetType: event.targetType,
    targetId: event.targetId,
    decision: event.decision,
    reason: event.reason,
    requestId: event.requestId,
    key: event.key,
    credentialVersion: event.credentialVersion,
    addressHash: event.addressHash?.toString('base64url') ?? null,
    details: event.details,
  });
}

type Columns<Row> = readonly (readonly [name: string, type: string, of: (row: Row) => unknown])[];

const eventColumns: Columns<AuditEvent> = [
  ['id', 'uuid', (event) => event.id],
  ['at', 'timestamptz', (event) => event.at],
  ['actor_id', 'uuid', (event) => event.actor],
  ['team_id', 'uuid', (event) => event.team],
  ['action', 'text', (event) => event.action],
  ['target_type', 'text', (event) => event.targetType],
  ['target_id', 'text', (event) => event.targetId],
  ['decision', 'text', (event) => event.decision],
  ['reason', 'text', (event) => event.reason],
  ['request_id', 'text', (event) => event.requestId],
  ['key_id', 'uuid', (event) => event.key],
  ['credential_version', 'int', (event) => event.credentialVersion],
  ['address_hash', 'bytea', (event) => event.addressHash],
  ['details', 'jsonb', (event) => JSON.stringify(event.details)],
  ['mac_version', 'int', (event) => event.macVersion],
  ['mac', 'bytea', (event) => event.mac],
];
const addressColumns: Columns<AuditAddress> = [
  ['event_id', 'uuid', ({ event }) => event],
  ['at', 'timestamptz', ({ at }) => at],
  ['address', 'text', ({ address }) => address],
  ['salt', 'bytea', ({ salt }) => salt],
];

/**
 * What a statement that was composed once takes for the events and addresses that it records: a
 * value or an array a column.
 */
export type RecordedValues = Readonly<Record<`audit_${'event' | 'address'}.${string}`, unknown>>;

export function recordedValues(
  events: readonly AuditEvent[],
  addresses: readonly AuditAddress[],
  { isOne }: { isOne: boolean },
): RecordedValues {
  return {
    ...valuesOf('audit_event', eventColumns, events, isOne),
    ...valuesOf('audit_address', addressColumns, addresses, isOne),
  };
}

/**
 * `recorded as (…), recorded_address as (…)`: the inserts as common table expressions of a larger
 * statement. `place` puts in the value of a column; `onlyIf` is a condition in SQL without which
 * nothing is inserted; `isRepeatable` leaves what is there as it is.
 */
export function recordedSql(
  place: (name: keyof RecordedValues) => RawBuilder<unknown>,
  {
    isOne,
    onlyIf,
    isRepeatable,
  }: { isOne: boolean; onlyIf: RawBuilder<unknown>; isRepeatable?: true },
): RawBuilder<unknown> {
  // One event stands by its values, and may have no address.
  const hasAddress = isOne ? sql`${place('audit_address.address')}::text is not null and` : sql``;
  const unlessThere = isRepeatable === true ? sql`on conflict do nothing` : sql``;
  return sql`recorded as (${insertSql('audit_event', eventColumns, place, isOne)}
    where ${onlyIf} ${unlessThere} returning id),
    recorded_address as (${insertSql('audit_address', addressColumns, place, isOne)}
      where ${hasAddress} ${onlyIf} ${unlessThere})`;
}

function valuesOf<Row>(
  table: 'audit_event' | 'audit_address',
  columns: Columns<Row>,
  rows: readonly Row[],
  isOne: boolean,
): Record<string, unknown> {
  const [only] = rows;
  const values: Record<string, unknown> = {};
  for (const [name, , of] of columns)
    values[`${table}.${name}`] = !isOne ? rows.map(of) : only === undefined ? null : of(only);
  return values;
}

/**
 * One row travels as its values, which is cheaper; any other number as an array a column, so that
 * the statement is always the same.
 */
function insertSql<Row>(
  table: 'audit_event' | 'audit_address',
  columns: Columns<Row>,
  place: (name: keyof RecordedValues) => RawBuilder<unknown>,
  isOne: boolean,
): RawBuilder<unknown> {
  const head = `insert into ${table} (${columns.map(([name]) => name).join(', ')})
    select ${isOne ? '' : '* from unnest('}`;
  const ends = columns.map(
    ([, type], i) =>
      `::${type}${isOne ? '' : '[]'}${i < columns.length - 1 ? ', ' : isOne ? '' : ')'}`,
  );
  // As if written out in one template: nested fragments for each value would take much longer to
  // compile.
  const texts = [head, ...ends];
  return sql(
    Object.assign(texts, { raw: texts }),
    ...columns.map(([name]) => place(`${table}.${name}`)),
  );
}

/** The target of an event about a credential. */
export const credentialTarget = (id: CredentialId): { type: string; id: string } => ({
  type: 'credential',
  id,
});

/**
 * The event of a use, in the audit log of the owner and, where it rested on grants, of every team
 * whose role it rested on; each says by which grants. The key is the owner's affair.
 */
export function eventsThrough(event: EventInput, grantPaths: readonly GrantPath[]): EventInput[] {
  if (grantPaths.length === 0) return [event];
  const { key: _, ...shown } = event;
  const teams = new Map(
    grantPaths.flatMap(({ team }) => (team === undefined ? [] : [[team.id, team]])),
  );
  const details = { ...event.details, grants: [...new Set(grantPaths.map(({ grant }) => grant))] };
  return [
    {
      ...event,
      details: {
        ...details,
        ...(teams.size === 0 ? {} : { sharedWith: [...teams.values()].map(({ slug }) => slug) }),
      },
    },
    ...[...teams.values()].map((team) => ({
      ...shown,
      team,
      details: { ...details, owner: event.team?.slug ?? '' },
    })),
  ];
}
