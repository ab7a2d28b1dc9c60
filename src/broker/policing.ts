// What of a call the policy decides once it is known where the call goes. Pure.
import { checkNamed, hasPrefixes, shapeOf } from './named.ts';
import { checkQuery } from './parameters.ts';
import { checkRange } from './ranges.ts';
import { foldedName } from './steering.ts';
import type { Target } from './target.ts';
import type { Policy } from '../credentials/index.ts';

/** A call as it came, as far as it is judged. */
export interface JudgedCall {
  readonly method: string;
  readonly pathAndQuery: string;
  /** Name, value, name, value; none where nobody sent any. */
  readonly rawHeaders?: readonly string[];
}

/**
 * Throws BrokerRefusal for what goes past the policy beside the path: `method`, `pathPrefix` for a
 * parameter or a header that names another method or resource, `range` for a part of an answer that
 * may be a part of a secret.
 */
export function checkRequest(
  policy: Policy,
  { target, isObjectStore }: { readonly target: Target; readonly isObjectStore: boolean },
  { method, pathAndQuery, rawHeaders = [] }: JudgedCall,
): void {
  const at = pathAndQuery.indexOf('?');
  const path = at < 0 ? pathAndQuery : pathAndQuery.slice(0, at);
  const where = { target, path };
  if (at >= 0) checkQuery(policy, where, pathAndQuery.slice(at + 1));
  if (hasPrefixes(policy)) checkHeaders(policy, where, rawHeaders);
  if (!isObjectStore) checkRange(rawHeaders, method);
}

function checkHeaders(
  policy: Policy,
  where: { readonly target: Target; readonly path: string },
  rawHeaders: readonly string[],
): void {
  for (let i = 0; i + 1 < rawHeaders.length; i += 2) {
    const shape = shapeOf(foldedName(rawHeaders[i]!));
    if (shape === undefined) continue;
    // Node gives bytes as latin-1; what is named is UTF-8.
    const value = Buffer.from(rawHeaders[i + 1]!, 'latin1').toString();
    checkNamed(policy, where, { shape, value });
  }
}
