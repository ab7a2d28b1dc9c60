// What a caller of one document would miss in the next: docs/openapi.md says which changes those are.
import { type Json, operationsOf, resolve } from './openapi.ts';

type Way = 'in' | 'out';
interface Pair {
  readonly before: Json;
  readonly after: Json;
}

/** Closed lists that may grow within a version, by the name of the schema. */
const mayGrow = new Set(['Problem/code', 'Rule']);

/** Each broken promise, by its place. */
export function brokenPromises(documents: Pair): string[] {
  const found: string[] = [];
  const after = new Map(
    operationsOf(documents.after).map((each) => [`${each.method} ${each.path}`, each.operation]),
  );
  for (const { method, path, operation: old } of operationsOf(documents.before)) {
    const at = `${method} ${path}`;
    const operation = after.get(at);
    if (operation === undefined) found.push(`${at}: the operation is gone`);
    else found.push(...ofOperation({ before: old, after: operation }, documents, at));
  }
  return found;
}

function* ofOperation({ before, after }: Pair, documents: Pair, at: string): Generator<string> {
  if (before['operationId'] !== after['operationId']) yield `${at}: another operationId`;
  const names = (document: Json, operation: Json): Map<string, Json> =>
    new Map(
      ((operation['parameters'] ?? []) as Json[])
        .map((each) => resolve(document, each))
        .map((each) => [`${each['in']} ${each['name']}`, each]),
    );
  const [old, now] = [names(documents.before, before), names(documents.after, after)];
  for (const [name, parameter] of old) {
    const kept = now.get(name);
    if (kept === undefined) yield `${at}: the parameter ${name} is gone`;
    else {
      if (kept['required'] === true && parameter['required'] !== true)
        yield `${at}: the parameter ${name} has to be there`;
      yield* ofSchemas(
        { before: parameter['schema'], after: kept['schema'] },
        documents,
        'in',
        `${at} ${name}`,
      );
    }
  }
  for (const [name, parameter] of now)
    if (!old.has(name) && parameter['required'] === true)
      yield `${at}: the parameter ${name} has to be there`;
  const body = (operation: Json): Json | undefined =>
    operation['requestBody']?.content?.['application/json']?.schema as Json | undefined;
  const [sent, taken] = [body(before), body(after)];
  if (sent === undefined && after['requestBody']?.required === true)
    yield `${at}: a body has to be there`;
  if (sent !== undefined && taken === undefined) yield `${at}: it takes no body`;
  if (sent !== undefined && taken !== undefined)
    yield* ofSchemas({ before: sent, after: taken }, documents, 'in', `${at} body`);
  for (const [status, answer] of Object.entries(before['responses'] as Json)) {
    if (!status.startsWith('2')) continue;
    const kept = after['responses'][status] as Json | undefined;
    if (kept === undefined) {
      yield `${at}: ${status} is gone`;
      continue;
    }
    const [was, is] = [resolve(documents.before, answer), resolve(documents.after, kept)];
    for (const name of Object.keys((was['headers'] ?? {}) as Json))
      if (is['headers']?.[name] === undefined) yield `${at} ${status}: the header ${name} is gone`;
    for (const [type, { schema }] of Object.entries((was['content'] ?? {}) as Json)) {
      const other = is['content']?.[type]?.schema as Json | undefined;
      if (other === undefined) yield `${at} ${status}: ${type} is gone`;
      else yield* ofSchemas({ before: schema, after: other }, documents, 'out', `${at} ${status}`);
    }
  }
}

const narrowing = {
  maxLength: 'less',
  maximum: 'less',
  maxItems: 'less',
  maxProperties: 'less',
  minLength: 'more',
  minimum: 'more',
  minItems: 'more',
} as const;

function* ofSchemas(
  pair: Pair,
  documents: Pair,
  way: Way,
  at: string,
  seen = new Set<string>(),
): Generator<string> {
  const named = String(pair.after['$ref'] ?? '')
    .split('/')
    .at(-1)!;
  const place = named === '' ? at : named;
  const key = JSON.stringify([pair.before['$ref'], pair.after['$ref'], way]);
  if (pair.before['$ref'] !== undefined) {
    if (seen.has(key)) return;
    seen.add(key);
  }
  const before = { ...resolve(documents.before, pair.before), ...pair.before };
  const after = { ...resolve(documents.after, pair.after), ...pair.after };
  const go = (was: unknown, is: unknown, to: string): Generator<string> =>
    ofSchemas({ before: was as Json, after: is as Json }, documents, way, to, seen);
  const [had, has] = [before, after].map(
    (each) => (each['anyOf'] ?? each['oneOf']) as Json[] | undefined,
  );
  if (had !== undefined || has !== undefined) {
    const nameOf = (each: Json): string =>
      String(each['$ref'] ?? `${each['type']} ${each['const'] ?? ''}`);
    const olds = new Map((had ?? [pair.before]).map((each) => [nameOf(each), each]));
    const news = new Map((has ?? [pair.after]).map((each) => [nameOf(each), each]));
    for (const [name, each] of way === 'in' ? olds : news) {
      const other = (way === 'in' ? news : olds).get(name);
      if (other === undefined)
        yield `${place}: ${way === 'in' ? 'takes no more' : 'also gives'} ${name}`;
      else yield* way === 'in' ? go(each, other, place) : go(other, each, place);
    }
    return;
  }
  if (JSON.stringify(before['type']) !== JSON.stringify(after['type']))
    yield `${place}: another type`;
  const words = (schema: Json): unknown[] | undefined =>
    schema['enum'] ?? (schema['const'] === undefined ? undefined : [schema['const']]);
  const [said, says] = [words(before), words(after)];
  if (
    way === 'in' &&
    says !== undefined &&
    !(said ?? [undefined]).every((each) => says.includes(each))
  )
    yield `${place}: takes fewer words`;
  if (
    way === 'out' &&
    said !== undefined &&
    !mayGrow.has(place) &&
    !(says ?? [undefined]).every((each) => said.includes(each))
  )
    yield `${place}: gives more words`;
  if (way === 'in') {
    for (const [keyword, direction] of Object.entries(narrowing)) {
      const [old, now] = [before[keyword], after[keyword]] as (number | undefined)[];
      if (now === undefined || old === now) continue;
      if (old === undefined || (direction === 'less' ? now < old : now > old))
        yield `${place}: ${keyword} is ${direction}`;
    }
    for (const keyword of ['pattern', 'format', 'uniqueItems'])
      if (after[keyword] !== undefined && after[keyword] !== before[keyword])
        yield `${place}: another ${keyword}`;
  }
  const members = (schema: Json): Json => (schema['properties'] ?? {}) as Json;
  const required = (schema: Json): string[] => (schema['required'] ?? []) as string[];
  for (const [name, member] of Object.entries(members(before))) {
    const other = members(after)[name];
    if (other === undefined) yield `${place}/${name}: the member is gone`;
    else yield* go(member, other, `${place}/${name}`);
  }
  if (way === 'in')
    for (const name of required(after))
      if (!required(before).includes(name)) yield `${place}/${name}: has to be there`;
  if (way === 'out')
    for (const name of required(before))
      if (!required(after).includes(name)) yield `${place}/${name}: may be missing`;
  if (before['items'] !== undefined && after['items'] !== undefined)
    yield* go(before['items'], after['items'], `${place}[]`);
  if (
    typeof before['additionalProperties'] === 'object' &&
    typeof after['additionalProperties'] === 'object'
  )
    yield* go(before['additionalProperties'], after['additionalProperties'], `${place}{}`);
}
