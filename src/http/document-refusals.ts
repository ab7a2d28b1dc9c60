// How the document says refusals: a response for each code, one for each set of codes that share a
// status in an operation, and for each code an example that all of these name.
import type { ErrorCode } from '../shared/errors.ts';
import { type Json, ref, type Schemas } from './json-schemas.ts';
import { type AnyOperation, problemCodesOf, problemsOfNoOperation } from './operation.ts';
import { problemMediaType, problemOf, problems } from './problem.ts';
import { problemExample as errorOf } from './problem-examples.ts';
import { exampleRequestId, problem as problemSchema } from './schemas.ts';

const common: readonly ErrorCode[] = [
  'unauthenticated',
  'forbidden',
  'payloadTooLarge',
  'unsupportedMediaType',
  'rateLimited',
  'internal',
  'databaseUnavailable',
  'commitUnknown',
  'identityProviderUnavailable',
];
const isCommon: ReadonlySet<ErrorCode> = new Set(common);
const commonStatuses: ReadonlySet<number> = new Set(common.map((code) => problems[code].status));

/** The responses and examples that operations name. */
export class Refusals {
  readonly #schemas: Schemas;
  readonly #named = new Map<string, Json>();
  readonly #examples = new Map<ErrorCode, Json>();
  constructor(schemas: Schemas) {
    this.#schemas = schemas;
  }

  /**
   * By status; each is a reference. Statuses whose codes nearly every operation has stand together
   * under `default`.
   */
  of(operation: AnyOperation): Json {
    const codes = problemCodesOf(operation);
    const byStatus = [...Map.groupBy(codes, (code) => problems[code].status)].sort(
      ([a], [b]) => a - b,
    );
    const [common, own] = [true, false].map((wanted) =>
      byStatus.filter(
        ([status, each]) =>
          (commonStatuses.has(status) && each.every((code) => isCommon.has(code))) === wanted,
      ),
    ) as [typeof byStatus, typeof byStatus];
    const { access } = operation;
    const kind =
      access === 'public'
        ? 'Public'
        : `${access === 'authenticated' ? 'Own' : ''}${operation.method === 'GET' ? 'Read' : 'Write'}`;
    const apart = own.flatMap(([status]) => (commonStatuses.has(status) ? [status] : []));
    return {
      ...Object.fromEntries(
        own.map(([status, each]) => [
          String(status),
          this.#name(each.map(capital).join('Or'), each),
        ]),
      ),
      default: this.#name(
        `OtherProblemOf${kind}${apart.map((status) => `Not${status}`).join('')}`,
        [...common.flatMap(([, each]) => each), ...problemsOfNoOperation],
      ),
    };
  }

  responses(): Record<string, Json> {
    return sorted(this.#named);
  }

  examples(): Record<string, Json> {
    return sorted(this.#examples);
  }

  /** The same answer to HEAD. */
  withoutContent(response: Json): Json {
    const name =
      String(response['$ref'] ?? '')
        .split('/')
        .at(-1) ?? '';
    const { content: _, ...rest } = this.#named.get(name) ?? response;
    if (name === '') return rest;
    this.#named.set(`${name}OfHead`, rest);
    return ref('responses', `${name}OfHead`);
  }

  #name(name: string, codes: readonly ErrorCode[]): Json {
    const response = this.#response(codes);
    const known = this.#named.get(name);
    if (known !== undefined && JSON.stringify(known) !== JSON.stringify(response))
      throw new Error(`two responses are named ${name}`);
    this.#named.set(name, response);
    return ref('responses', name);
  }

  #response(codes: readonly ErrorCode[]): Json {
    for (const code of codes) this.#examples.set(code, problemExample(code));
    const statuses = codes.map((code) => problems[code].status);
    const isOf = (...some: number[]): boolean => statuses.some((each) => some.includes(each));
    return {
      description:
        codes.length === 1
          ? `${problems[codes[0]!].title}.`
          : `One of ${codes.map((code) => `\`${code}\``).join(', ')}.`,
      headers: {
        'X-Request-Id': ref('headers', 'RequestId'),
        ...(isOf(405) ? { Allow: ref('headers', 'Allow') } : {}),
        ...(isOf(401) ? { 'WWW-Authenticate': ref('headers', 'WwwAuthenticate') } : {}),
        ...(isOf(429, 503) ? { 'Retry-After': ref('headers', 'RetryAfter') } : {}),
      },
      'x-problems': codes,
      content: {
        [problemMediaType]: {
          schema: this.#schemas.add(problemSchema, 'output'),
          examples: Object.fromEntries(codes.map((code) => [code, ref('examples', code)])),
        },
      },
    };
  }
}

/** A problem document as an operation could answer with it. */
const problemExample = (code: ErrorCode): Json => ({
  value: problemOf(errorOf(code), exampleRequestId),
});

const capital = (code: string): string => `${code.charAt(0).toUpperCase()}${code.slice(1)}`;
const sorted = (map: ReadonlyMap<string, Json>): Record<string, Json> =>
  Object.fromEntries([...map].sort(([a], [b]) => (a < b ? -1 : 1)));
