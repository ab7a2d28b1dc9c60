// How the document says refusals: a response for each code, one for each set of codes that share a
// status in an operation, and for each code an example that all of these name.
import type { ErrorCode } from '../shared/errors.ts';
import { type Json, ref, type Schemas } from './json-schemas.ts';
import { type AnyOperation, problemCodesOf, problemsOfNoOperation } from './operation.ts';
import { problemMediaType, problemOf, problems } from './problem.ts';
import { problemExample as errorOf } from './problem-examples.ts';
import { exampleRequestId, problem as problemSchema } from './schemas.ts';

// What most operations of a kind can answer, and no operation has to say of itself.
const ofAll: readonly ErrorCode[] = ['rateLimited', 'internal'];
const ofCallers: readonly ErrorCode[] = [
  ...ofAll,
  'unauthenticated',
  'forbidden',
  'notFound',
  'databaseUnavailable',
  'identityProviderUnavailable',
];
const common = {
  Public: ofAll,
  Read: ofCallers,
  Write: [...ofCallers, 'payloadTooLarge', 'unsupportedMediaType', 'commitUnknown'],
} as const satisfies Record<string, readonly ErrorCode[]>;
const statusOf = (code: ErrorCode): number => problems[code].status;

/** The responses and examples that operations name. */
export class Refusals {
  readonly #schemas: Schemas;
  readonly #named = new Map<string, Json>();
  readonly #examples = new Map<ErrorCode, Json>();
  constructor(schemas: Schemas) {
    this.#schemas = schemas;
  }

  /**
   * By status; each is a reference. What most operations of its kind can answer stands together
   * under `default`, unless the status has a code more.
   */
  of(operation: AnyOperation): Json {
    const { access, method } = operation;
    const kind = access === 'public' ? 'Public' : method === 'GET' ? 'Read' : 'Write';
    const usual = new Set<ErrorCode>(common[kind]);
    const byStatus = [...Map.groupBy(problemCodesOf(operation), statusOf)].sort(
      ([a], [b]) => a - b,
    );
    const own = byStatus.filter(([, codes]) => !codes.every((code) => usual.has(code)));
    const rest = byStatus.filter(([, codes]) => codes.every((code) => usual.has(code)));
    const missing = [...new Set(common[kind].map(statusOf))]
      .filter((status) => !rest.some(([each]) => each === status))
      .sort((a, b) => a - b);
    return {
      ...Object.fromEntries(
        own.map(([status, codes]) => [
          String(status),
          this.#name(codes.map(capital).join('Or'), codes),
        ]),
      ),
      default: this.#name(
        `Other${kind}${missing.map((status) => `Not${status}`).join('')}`,
        [...rest.flatMap(([, codes]) => codes), ...problemsOfNoOperation],
        kind === 'Write' && missing.length === 0,
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

  #name(name: string, codes: readonly ErrorCode[], isShown = true): Json {
    const response = this.#response(codes, isShown);
    const known = this.#named.get(name);
    if (known !== undefined && JSON.stringify(known) !== JSON.stringify(response))
      throw new Error(`two responses are named ${name}`);
    this.#named.set(name, response);
    return ref('responses', name);
  }

  #response(codes: readonly ErrorCode[], isShown: boolean): Json {
    if (isShown) for (const code of codes) this.#examples.set(code, problemExample(code));
    const statuses = codes.map((code) => problems[code].status);
    const isOf = (...some: number[]): boolean => statuses.some((each) => some.includes(each));
    return {
      description: codes.length === 1 ? `${problems[codes[0]!].title}.` : 'By `code`.',
      headers: {
        'X-Request-Id': ref('headers', 'RequestId'),
        ...(isOf(405) ? { Allow: ref('headers', 'Allow') } : {}),
        ...(isOf(401) ? { 'WWW-Authenticate': ref('headers', 'WwwAuthenticate') } : {}),
        ...(isOf(429, 503) ? { 'Retry-After': ref('headers', 'RetryAfter') } : {}),
      },
      ...(isShown ? {} : { 'x-problems': codes }),
      content: {
        [problemMediaType]: {
          schema: this.#schemas.add(problemSchema, 'output'),
          ...(isShown
            ? { examples: Object.fromEntries(codes.map((code) => [code, ref('examples', code)])) }
            : {}),
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
