// What a subject looks like: the claim of a provider, and the same behind the prefix of its issuer.
import { visibleAsciiForm } from './patterns.ts';

/** Printable ASCII, blanks only inside. */
export const subjectForm = visibleAsciiForm;
export const claimedSubjectLengthMax = 255;
export const subjectLengthMax = 512;

/** Whether a claim can name a subject. */
export const isClaimedSubject = (value: unknown): value is string =>
  typeof value === 'string' && value.length <= claimedSubjectLengthMax && subjectForm.test(value);

/** Whether a text can be a subject of the vault's. */
export const isSubject = (text: string): boolean =>
  text.length <= subjectLengthMax && subjectForm.test(text);
