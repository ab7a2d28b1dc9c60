// Whether an answer is one that openapi.yaml promises for the operation: its status, its code, its
// media type, its headers, and its body against the schema.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse } from 'yaml';
import { problems } from '../../src/http/problem.ts';
import type { ErrorCode } from '../../src/shared/errors.ts';
import { takes } from './json-schema.ts';
import { type DocumentOperation, type Json, operationsOf, resolve } from './openapi.ts';

/** The committed document. */
export const committedDocument = parse(
  readFileSync(join(import.meta.dirname, '../../openapi.yaml'), 'utf8'),
) as Json;

const byId: ReadonlyMap<string, DocumentOperation> = new Map(
  operationsOf(committedDocument).map((each) => [String(each.operation['operationId']), each]),
);
/** Every operation of the document, by its id. */
export const documentOperations = byId;

export interface AnyAnswer {
  readonly status: number;
  header(name: string): string | undefined;
  readonly text: string;
}

// An answer has them wherever they are documented; the others it has where there is something to say.
const requiredHeaders = ['etag', 'x-request-id'];

/** What of the answer the document does not promise; empty where all of it is. */
export function undocumented(operationId: string, answer: AnyAnswer): string[] {
  const found = byId.get(operationId);
  const responses = found?.operation['responses'] as Json | undefined;
  if (found === undefined || responses === undefined)
    return [`there is no operation ${operationId}`];
  const own = responses[String(answer.status)] as Json | undefined;
  const response = resolve(committedDocument, own ?? (responses['default'] as Json));
  if (own === undefined && answer.status < 400) return [`status ${answer.status}`];
  if (found.method.toUpperCase() === 'HEAD')
    return [...headerFaults(response, answer), ...(answer.text === '' ? [] : ['a body'])];
  return [
    ...headerFaults(response, answer),
    ...(answer.status < 400 ? bodyFaults(response, answer) : problemFaults(responses, answer)),
  ];
}

/** The code of an answer without a body, as one to HEAD is: what the document promises for its status. */
export function codeByStatus(operationId: string, status: number): string | undefined {
  const responses = (byId.get(operationId)?.operation['responses'] ?? {}) as Json;
  return [responses[String(status)], responses['default']]
    .filter((each) => each !== undefined)
    .flatMap((each) => codesOf(resolve(committedDocument, each as Json)))
    .find((code) => problems[code as ErrorCode].status === status);
}

function headerFaults(response: Json, answer: AnyAnswer): string[] {
  const documented = Object.entries((response['headers'] ?? {}) as Json);
  return documented.flatMap(([name, given]) => {
    const value = answer.header(name);
    if (value === undefined)
      // `default` stands for several statuses, and one of them alone says how to authenticate.
      return requiredHeaders.includes(name.toLowerCase()) ||
        (answer.status === 401 && name.toLowerCase() === 'www-authenticate')
        ? [`no header ${name}`]
        : [];
    const schema = resolve(committedDocument, given as Json)['schema'] as Json;
    const { format: _, ...plain } = schema;
    const typed = schema['type'] === 'integer' ? Number(value) : value;
    return takes(plain, typed, committedDocument) ? [] : [`header ${name}`];
  });
}

function bodyFaults(response: Json, { header, text }: AnyAnswer): string[] {
  const content = response['content'] as Json | undefined;
  if (content === undefined) return text === '' ? [] : ['a body'];
  const type = mediaTypeOf(header('content-type'));
  const schema = (content[type] as Json | undefined)?.['schema'] as Json | undefined;
  if (schema === undefined) return [`media type ${type}`];
  const lines = type === 'application/x-ndjson' ? text.trimEnd().split('\n') : [text];
  return lines.every((line) => takes(schema, parsed(line), committedDocument)) ? [] : ['the body'];
}

/** A code stands with one status, the operation's own or one that belongs to all. */
function problemFaults(responses: Json, { status, header, text }: AnyAnswer): string[] {
  const type = mediaTypeOf(header('content-type'));
  if (type !== 'application/problem+json') return [`media type ${type} of a ${status}`];
  const problem = parsed(text) as { code?: unknown; status?: unknown; requestId?: unknown };
  const schema = { $ref: '#/components/schemas/Problem' };
  if (!takes(schema, problem, committedDocument)) return [`the problem of a ${status}`];
  const known = [responses[String(status)], responses['default']]
    .filter((each) => each !== undefined)
    .flatMap((each) => codesOf(resolve(committedDocument, each as Json)));
  return [
    ...(known.includes(String(problem.code)) ? [] : [`code ${String(problem.code)}`]),
    ...(problem.status === status ? [] : ['another status in the body']),
    ...(problem.requestId === header('x-request-id') ? [] : ['another request id in the body']),
  ];
}

const codesOf = (response: Json): string[] =>
  (response['x-problems'] as string[] | undefined) ??
  Object.keys((response['content']?.['application/problem+json']?.examples ?? {}) as Json);
const mediaTypeOf = (contentType: string | undefined): string =>
  (contentType ?? 'none').split(';')[0]!.trim();

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
