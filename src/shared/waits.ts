// Everything on a replica that is bounded and can be full, by name, for whoever watches it.
import type { BudgetCounts } from './budget.ts';

/**
 * `databaseConnections` and `tokenRefreshes` count who waits; the others what is under way, in bytes
 * where their names say so.
 */
export const waitNames = [
  'databaseConnections',
  'tokenRefreshes',
  'leasedBytes',
  'brokerCalls',
  'brokerBodyBytes',
  'bulkChanges',
  'transfers',
  'exports',
] as const;
export type WaitName = (typeof waitNames)[number];

/** Each with its counts at this moment. */
export type Waits = () => Readonly<Record<WaitName, BudgetCounts>>;
