// Parameters of a query or a form by which a caller could steer what the policy was not asked
// about: frameworks read `_method` and its relatives there, and some the path. Nothing is taken out
// of a query or a body: such a call passes to the byte or not at all. Pure.
import { checkNamed, hasPrefixes, shapeOf, type Whereabouts } from './named.ts';
import { BrokerRefusal } from './refusal.ts';
import { foldedName, isSteering } from './steering.ts';
import type { Policy } from '../credentials/index.ts';

/** What the names say in every framework that knows them: another method. */
const methodNames: ReadonlySet<string> = new Set([
  '-method',
  '-http-method',
  '-httpmethod',
  'http-method-override',
  'method-override',
  'x-http-method',
  'x-http-method-override',
  'x-method',
  'x-method-override',
]);
/** What they say in some, where the value is a method. */
const perhapsMethodNames: ReadonlySet<string> = new Set([
  'method',
  'http-method',
  'httpmethod',
  'verb',
  '-verb',
  'http-verb',
]);
const verbs = /^(?:GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS|TRACE|CONNECT|MERGE|COPY|MOVE)$/;

/** Whether parameters can be anything to the policy. */
export const judgesParameters = (policy: Policy): boolean =>
  policy.methods !== undefined || hasPrefixes(policy);

/**
 * A parameter's name as frameworks take it: leading blanks go, what is no letter is a line, and
 * what stands in brackets is an index.
 */
export function foldedParameter(name: string): string {
  const text = name.trimStart();
  const bracket = text.indexOf('[', 1);
  return foldedName(bracket < 0 ? text : text.slice(0, bracket));
}

/** Whether a parameter of this folded name is judged at all. */
export const isJudged = (folded: string): boolean =>
  methodNames.has(folded) ||
  perhapsMethodNames.has(folded) ||
  namesPath(folded) ||
  shapeOfParameter(folded) !== undefined;

/** Throws BrokerRefusal `method`, `pathPrefix` for a parameter that steers past the policy. */
export function checkParameter(
  policy: Policy,
  where: Whereabouts,
  { name, value }: { readonly name: string; readonly value: string },
): void {
  const folded = foldedParameter(name);
  if (policy.methods !== undefined) {
    const method = value.trim().toUpperCase();
    const isAllowed = (policy.methods as readonly string[]).includes(method);
    const isMeant =
      methodNames.has(folded) || (perhapsMethodNames.has(folded) && verbs.test(method));
    if (isMeant && method !== '' && !isAllowed) throw new BrokerRefusal('method');
  }
  if (!hasPrefixes(policy)) return;
  if (namesPath(folded)) throw new BrokerRefusal('pathPrefix');
  const shape = shapeOfParameter(folded);
  if (shape !== undefined && value !== '') checkNamed(policy, where, { shape, value });
}

/** Headers that say another path, as parameters. */
const namesPath = (folded: string): boolean =>
  folded.startsWith('x-') && /(?:url|uri|path)$/.test(folded) && isSteering(folded);

/** Headers that name a resource, as parameters; other words are anybody's. */
const shapeOfParameter = (folded: string): ReturnType<typeof shapeOf> =>
  folded.startsWith('x-') || folded === 'rest-route' ? shapeOf(folded) : undefined;

/** The same for every parameter of a query, whatever separates them. */
export function checkQuery(policy: Policy, where: Whereabouts, query: string): void {
  if (query === '' || !judgesParameters(policy)) return;
  for (const text of query.includes(';') ? [query, query.replaceAll(';', '&')] : [query])
    for (const [name, value] of new URLSearchParams(text))
      checkParameter(policy, where, { name, value });
}
