// What a failure of the database means to the caller of an operation.
import { AppError } from '../shared/errors.ts';
import { isWithoutPartition } from './batches.ts';
import {
  CommitUnknown,
  isDatabaseDown,
  isForeignKeyViolation,
  isLockTimeout,
  isRetryable,
} from './errors.ts';

/** Nothing was changed by the request. */
export const databaseUnavailable = (extras: { cause?: unknown }): AppError =>
  new AppError('databaseUnavailable', 'The database does not answer.', {
    ...extras,
    retryAfterSeconds: 1,
  });

/** Something may have been changed by the request, or the change it reports may not stay. */
export const commitUnknown = (extras: { cause?: unknown }): AppError =>
  new AppError(
    'commitUnknown',
    'The database did not confirm that the change is kept: repeat the request to find out.',
    { ...extras, retryAfterSeconds: 5 },
  );

const wrappings = ['data_key_root_key_fkey', 'system_key_root_key_fkey'];

/** The domain error behind a failure of the database; undefined for everything else. */
export function failureOfDatabase(thrown: unknown): AppError | undefined {
  // What wraps is not in the database's list of root keys, as it is from every start on.
  if (wrappings.some((constraint) => isForeignKeyViolation(thrown, constraint)))
    return new AppError(
      'keyUnavailable',
      'The primary root key is not among those of the database: restart the vault.',
      { cause: thrown },
    );
  if (thrown instanceof CommitUnknown) return commitUnknown({ cause: thrown });
  // The months of the audit log are made ahead; where one is missing it is made for the next
  // request.
  if (isDatabaseDown(thrown) || isWithoutPartition(thrown))
    return databaseUnavailable({ cause: thrown });
  if (isLockTimeout(thrown) || isRetryable(thrown)) {
    return new AppError(
      'databaseUnavailable',
      'The database is busy with other work on the same resource.',
      { cause: thrown, retryAfterSeconds: 1 },
    );
  }
  return undefined;
}
