// Revisions of rows: the one that a caller means, and the one that is put in the place of what the
// vault did not write.
import { randomInt } from 'node:crypto';
import { AppError } from './errors.ts';

/** Which revisions the caller means; 'any' for `*`. */
export type ExpectedRevision = readonly number[] | 'any';

/** Throws preconditionFailed unless the revision is the expected one. */
export function checkRevision(expected: ExpectedRevision, revision: number): void {
  if (expected !== 'any' && !expected.includes(revision)) throw preconditionFailed();
}

/** There is something, and the caller did not say which one they mean. */
export const preconditionRequired = (): AppError =>
  new AppError(
    'preconditionRequired',
    'Send If-Match with the ETag that you read, or * for whatever it is.',
  );
/** There is another one than the caller means, or none. */
export const preconditionFailed = (): AppError =>
  new AppError('preconditionFailed', 'It has changed since you read it.');

/**
 * The revision of a row that replaces a tampered one. What that one said is not counted on from;
 * and nobody holds an ETag of this one.
 */
export const revisionOfReplacement = (): number => randomInt(2 ** 20, 2 ** 30);
