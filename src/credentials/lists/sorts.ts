// The orders of lists. Each is that of an index with the team in front, walked from where the page
// before ended; equals stand in the order of their ids. A place in an order is the key as text,
// exact, and the id.
import { type RawBuilder, sql } from 'kysely';

export const sortNames = [
  'name',
  'createdAt',
  'updatedAt',
  'lastUsedAt',
  'expiresAt',
  'dueAt',
] as const;
export type SortName = (typeof sortNames)[number];
export const orders = ['asc', 'desc'] as const;
export type Order = (typeof orders)[number];

/** What a list is sorted by, and the rows that its index has. */
export interface Sort {
  /** Whose index it is. */
  readonly table: 'credential' | 'usage';
  readonly key: RawBuilder<unknown>;
  readonly type: 'text' | 'uuid' | 'timestamptz';
  /** Whether the index has living credentials only. */
  readonly isOfLiving: boolean;
  /** Without which a row does not stand in the list. */
  readonly has?: RawBuilder<unknown>;
}

export const sorts: Readonly<Record<SortName, Sort>> = {
  name: {
    table: 'credential',
    key: sql`credential.name collate "C"`,
    type: 'text',
    isOfLiving: true,
  },
  // Ids are made one after the other.
  createdAt: { table: 'credential', key: sql`credential.id`, type: 'uuid', isOfLiving: false },
  updatedAt: {
    table: 'credential',
    key: sql`credential.updated_at`,
    type: 'timestamptz',
    isOfLiving: true,
  },
  lastUsedAt: {
    table: 'usage',
    key: sql`usage.idle_since`,
    type: 'timestamptz',
    isOfLiving: false,
  },
  expiresAt: {
    table: 'credential',
    key: sql`credential.expires_at`,
    type: 'timestamptz',
    isOfLiving: true,
    has: sql`credential.expires_at is not null`,
  },
  dueAt: {
    table: 'credential',
    key: sql`credential.due_at`,
    type: 'timestamptz',
    isOfLiving: true,
    has: sql`credential.due_at is not null`,
  },
};

/**
 * A key as text from which the same key comes back: the database's times are finer than a Date, and
 * may be none that this form says.
 */
export const keyText = ({ type }: Sort, key: RawBuilder<unknown>): RawBuilder<unknown> =>
  type === 'timestamptz'
    ? sql`case when ${key} between timestamptz '0001-01-01 00:00:00+00'
      and timestamptz '9999-12-31 23:59:59.999999+00'
        then to_char(${key} at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') else ${key}::text
          end`
    : sql`${key}::text`;

/** Compares two places as the database does. */
export function comparePlaces(a: readonly string[], b: readonly string[], order: Order): number {
  const ascending =
    Buffer.compare(Buffer.from(a[0] ?? ''), Buffer.from(b[0] ?? '')) ||
    Buffer.compare(Buffer.from(a[1] ?? ''), Buffer.from(b[1] ?? ''));
  return order === 'asc' ? ascending : -ascending;
}
