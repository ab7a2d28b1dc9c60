// Paths that every reader reads in one way: what checks them, what is between, and what serves
// them. Pure.
import { dotSegmentForm } from '../shared/patterns.ts';

// SECURITY: escaped dots, slashes, backslashes and control characters, however often escaped: what
// checks a path and what serves it may undo them differently.
const hiddenSeparator = /%(?:25)*(?:2e|2f|5c|[01][0-9a-f]|7f)/i;
const separator = /[/\\\p{Cc}]/u;
const invisible = /\p{Default_Ignorable_Code_Point}/gu;

/** Whether a path, percent-encoded as in a URL, has no second reading. */
export function isPlainPath(path: string): boolean {
  return (
    path.startsWith('/') &&
    !path.includes('//') &&
    !path.includes('\\') &&
    !hiddenSeparator.test(path) &&
    path.split('/').map(decoded).every(isPlainSegment)
  );
}

/** The same for a path that stands as it is meant, with nothing to undo. */
export function isPlainText(path: string): boolean {
  return (
    path.startsWith('/') &&
    !path.includes('//') &&
    path.isWellFormed() &&
    path.split('/').every(isPlainSegment)
  );
}

// SECURITY: `．．` and `‥` are dots to whoever normalizes what they read (NFKC), `／` and `℀` hold
// slashes, and characters that nobody sees are dropped by some.
function isPlainSegment(segment: string | undefined): boolean {
  if (segment === undefined) return false;
  const judged = segment.replace(invisible, '').normalize('NFKC');
  return (
    !separator.test(judged) &&
    !hiddenSeparator.test(judged) &&
    // `..;x` is a dot segment to servers that know path parameters.
    !dotSegmentForm.test(judged.split(';', 1)[0]!)
  );
}

/** Undefined for what is no percent-encoded UTF-8. */
export function decoded(text: string): string | undefined {
  try {
    return decodeURIComponent(text);
  } catch {
    return undefined; // the caller refuses it
  }
}
