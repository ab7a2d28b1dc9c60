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

/** More than this often nobody escapes. */
const depthMax = 8;

/**
 * Whether a path may go to where nothing is held to a part of it: no reader finds a dot segment or
 * a control character, however often what is escaped is undone. Everything else is the upstream's
 * affair.
 */
export function isFreePath(path: string): boolean {
  if (!path.startsWith('/') || path.startsWith('//') || decoded(path) === undefined) return false;
  let text = path;
  for (let depth = 0; depth <= depthMax; depth += 1) {
    const judged = text.replace(invisible, '').normalize('NFKC');
    if (controls.test(judged) || judged.split(/[/\\]/).some(isDotSegment)) return false;
    const undone = text.replace(escapes, unescaped);
    if (undone === text) return true;
    text = undone;
  }
  return false;
}

/**
 * The path as a reader has it who takes an escaped slash for a slash. SECURITY: once; one that is
 * escaped again stays, and is nobody's plain path.
 */
export const withSlashes = (path: string): string => path.replace(/%2f/gi, '/');

const controls = /\p{Cc}/u;
const escapes = /(?:%[0-9a-f]{2})+/gi;
const unescaped = (escaped: string): string => {
  const bytes = Buffer.from(escaped.replaceAll('%', ''), 'hex');
  return bytes.toString();
};
// `..;x` is a dot segment to servers that know path parameters.
const isDotSegment = (segment: string): boolean => dotSegmentForm.test(segment.split(';', 1)[0]!);

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
  return !separator.test(judged) && !hiddenSeparator.test(judged) && !isDotSegment(judged);
}

/** Undefined for what is no percent-encoded UTF-8. */
export function decoded(text: string): string | undefined {
  try {
    return decodeURIComponent(text);
  } catch {
    return undefined; // the caller refuses it
  }
}
