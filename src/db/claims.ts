// Claims: a request that is not to be done twice is claimed in the transaction that does it.
import type { Executor } from './client.ts';

/**
 * What an operation calls inside its transaction with the id of what it made. It throws
 * when a twin was faster, so that the transaction rolls back.
 */
export type Claim = (executor: Executor, targetId: string) => Promise<void>;

/** The claim of an operation that takes no key, or whose caller sent none. */
export const noClaim: Claim = async () => {
  /* the caller sent no key */
};
/**
 * Whether there is nothing to claim, so that an operation may do without a transaction of its own.
 */
export const isNoClaim = (claim: Claim): boolean => claim === noClaim;
