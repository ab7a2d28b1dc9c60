// Who runs this process, as far as the embedded way to run must know.
import { userInfo } from 'node:os';

/**
 * Root, an ordinary account, or a number without an account (as containers use them). PostgreSQL
 * runs only as the second.
 */
export type Account = 'root' | 'ordinary' | 'nameless';

/** What this process runs as. */
export function account(): Account {
  try {
    return userInfo().uid === 0 ? 'root' : 'ordinary';
  } catch {
    return 'nameless';
  }
}

/** Root's server runs as nobody, which must be able to reach its own files. */
export const isRoot = (): boolean => account() === 'root';
