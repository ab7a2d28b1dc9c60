// The part of a call's path that the audit log records. A path can hold a secret or somebody's
// name, so only what looks like a name of the API does.
import { isPlainName } from '../shared/names.ts';
import { isUnder } from '../credentials/index.ts';

const segmentsMax = 3;

/**
 * The longest prefix of the policy that the path is under; otherwise its first segments, as far as
 * they are plain words. Never a query.
 */
export function pathShown(pathAndQuery: string, prefixes: readonly string[] | undefined): string {
  const [path = ''] = pathAndQuery.split('?', 1);
  const prefix = prefixes
    ?.filter((each) => isUnder(path, each))
    .sort((a, b) => b.length - a.length)[0];
  if (prefix !== undefined) return path === prefix ? prefix : `${prefix.replace(/\/$/, '')}/…`;
  const segments = path.split('/').slice(1);
  const until = segments.findIndex((segment) => !isPlainName(segment));
  const shown = segments.slice(0, Math.min(segmentsMax, until < 0 ? segments.length : until));
  const isWhole =
    shown.length === segments.length ||
    (shown.length === segments.length - 1 && segments.at(-1) === '');
  return `/${[...shown, ...(isWhole ? [] : ['…'])].join('/')}`;
}
