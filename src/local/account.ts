// Who runs this process, as far as the embedded way to run must know.
import { userInfo } from 'node:os';

/** Whether this is root, which PostgreSQL refuses to run as. */
export function isRoot(): boolean {
  try {
    return userInfo().uid === 0;
  } catch {
    return false; // an account without a name; root always has one
  }
}
