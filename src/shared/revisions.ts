// Revisions of rows that are put in the place of what the vault did not write.
import { randomInt } from 'node:crypto';

/**
 * The revision of a row that replaces a tampered one. What that one said is not counted on from;
 * and nobody holds an ETag of this one.
 */
export const revisionOfReplacement = (): number => randomInt(2 ** 20, 2 ** 30);
