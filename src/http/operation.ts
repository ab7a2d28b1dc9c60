// One way to add a route. Whoever adds an operation says its access, its problems and its schemas
// in one place; what is said here is what runs and what openapi.yaml prints.
import type { FastifyInstance, FastifyReply, FastifyRequest, HTTPMethods } from 'fastify';
import { z } from 'zod';
import type { ErrorCode } from '../shared/errors.ts';
import type { Role } from '../db/tables.ts';
import { checkGuards } from './preconditions.ts';
import { problem } from './schemas.ts';
import { problemMediaType, problems } from './problem.ts';
import type { Access, Caller, ResolvedResource, TeamRef, GrantPath } from '../access/index.ts';

export type Tag =
  | 'service'
  | 'account'
  | 'teams'
  | 'members'
  | 'credential types'
  | 'credentials'
  | 'sharing'
  | 'engines'
  | 'leases'
  | 'oauth'
  | 'broker'
  | 'keys'
  | 'root keys'
  | 'webhooks'
  | 'audit';

/**
 * What one operation promises. `P`, `Q`, `B` are the parsed path, query and body, `R` the answer,
 * `A` the access.
 */
export interface Operation<P, Q, B, R, A extends Access = Access> {
  readonly method: Extract<HTTPMethods, 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE'>;
  /** With fastify's `:name` parameters. */
  readonly url: string;
  readonly access: A;
  readonly operationId: string;
  readonly summary: string;
  readonly description?: string;
  readonly tag: Tag;
  readonly params?: z.ZodType<P>;
  readonly query?: z.ZodType<Q>;
  readonly body?: z.ZodType<B>;
  /** The body may be left out; the handler then gets null. */
  readonly isBodyOptional?: true;
  /** The answer's status and schema; no schema means 204. */
  readonly success: {
    readonly status: 200 | 201 | 202 | 204;
    readonly schema?: z.ZodType<R>;
    readonly description: string;
    readonly mediaType?: string;
    /** Whether the answer says where to read it: to everybody, or only to whom it may be said. */
    readonly location?: true | 'ifReadable';
    /**
     * Operations that read what is answered: by their id, where each of their parameters comes
     * from, as OpenAPI says it.
     */
    readonly links?: Readonly<Record<string, Readonly<Record<string, string>>>>;
  };
  /** A second kind of answer, given as `new Otherwise(value)`. */
  readonly otherwise?: {
    readonly status: 200;
    readonly schema: z.ZodType;
    readonly description: string;
  };
  /** Codes that this operation adds to those that its access, body and guards bring. */
  readonly problems?: readonly ErrorCode[];
  /** `ifMatch: 'existing'`: asked for only when the thing is there already. */
  readonly guards?: {
    readonly ifMatch?: true | 'existing';
    readonly idempotencyKey?: true;
    readonly etag?: true;
  };
  readonly isProbe?: true;
  /**
   * Messages that the vault sends because of it, by their type: printed as the document's webhooks.
   */
  readonly sends?: Readonly<
    Record<string, { readonly summary: string; readonly schema: z.ZodType }>
  >;
  readonly handler: (input: Input<P, Q, B, A>) => Promise<R | Otherwise | Streamed>;
}

/**
 * An answer that is sent as it is made, a stream of bytes. The handler sees to it that each part
 * fits the operation's schema.
 */
export class Streamed {
  readonly stream: unknown;
  constructor(stream: unknown) {
    this.stream = stream;
  }
}

/** An answer of the operation's second kind. */
export class Otherwise {
  readonly value: unknown;
  constructor(value: unknown) {
    this.value = value;
  }
}

/**
 * What a handler gets: `caller` unless the access is public, `scope` only where the access names a
 * team.
 */
export type Input<P, Q, B, A extends Access> = {
  readonly params: P;
  readonly query: Q;
  readonly body: B;
  readonly request: FastifyRequest;
  readonly reply: FastifyReply;
} & (A extends 'public' ? unknown : { readonly caller: Caller }) &
  (A extends { readonly team: unknown } ? { readonly scope: TeamScope } : unknown);

/**
 * The team that was authorised, the role that allowed it, and what the path found there. `way` is
 * the grant where it took one.
 */
export interface TeamScope<T = unknown> {
  readonly team: TeamRef;
  readonly role: Role;
  readonly resource: T;
  readonly grantPath: GrantPath | undefined;
  readonly resolved: Pick<ResolvedResource, 'role' | 'grantPaths'>;
}

/** What the document generator and the completeness tests read of every operation. */
export type AnyOperation = Operation<unknown, unknown, unknown, unknown>;

declare module 'fastify' {
  interface FastifyContextConfig {
    access?: Access;
    operation?: AnyOperation;
  }
  interface FastifyRequest {
    caller: Caller | undefined;
    /** Whom the token speaks of, from its verification on. */
    sub: string | undefined;
    resolved: ResolvedResource | undefined;
    role: Role | undefined;
    grantPath: GrantPath | undefined;
    /** Counts it once more against the limit that it was counted against; throws rateLimited. */
    countAgain: (() => Promise<void>) | undefined;
    /** Whether it repeats an earlier one, by its idempotency key. */
    isRepeated: boolean;
  }
  interface FastifyInstance {
    operations: AnyOperation[];
  }
}

// An operation without a body takes none: what somebody thought it would heed is refused, not
// ignored.
const noBody = z.strictObject({}).nullish();

/** Adds the operation to the app and to the list that openapi.yaml is made from. */
export function addOperation<
  const A extends Access,
  P = undefined,
  Q = undefined,
  B = undefined,
  R = undefined,
>(app: FastifyInstance, operation: Operation<P, Q, B, R, A>): void {
  const any = operation as unknown as AnyOperation;
  app.operations.push(any);
  const { success } = operation;
  const refusal = { content: { [problemMediaType]: { schema: problem } } };
  app.route({
    method: methodsOf(operation),
    url: operation.url,
    config: {
      access: operation.access,
      operation: any,
      ...(operation.isProbe === undefined ? {} : { isProbe: operation.isProbe }),
    },
    schema: {
      ...(operation.params === undefined ? {} : { params: operation.params }),
      ...(operation.query === undefined ? {} : { querystring: operation.query }),
      ...(operation.method === 'GET'
        ? {}
        : {
            body:
              operation.body === undefined
                ? noBody
                : operation.isBodyOptional === true
                  ? operation.body.nullish()
                  : operation.body,
          }),
      response: {
        ...(success.schema === undefined ? {} : { [success.status]: success.schema }),
        ...(operation.otherwise === undefined
          ? {}
          : { [operation.otherwise.status]: operation.otherwise.schema }),
        default: refusal,
      },
    },
    handler: async (request, reply) => {
      checkGuards(request, operation.guards);
      const answer = await operation.handler({
        params: request.params,
        query: request.query,
        body: request.body,
        ...authorizedOf(operation.access, request),
        request,
        reply,
      } as Input<P, Q, B, A>);
      if (answer instanceof Otherwise && operation.otherwise !== undefined)
        return reply.code(operation.otherwise.status).send(answer.value);
      void reply.code(success.status);
      if (success.schema === undefined) return reply.send();
      if (success.mediaType !== undefined) void reply.type(success.mediaType);
      return answer instanceof Streamed ? reply.send(answer.stream) : answer;
    },
  });
}

/**
 * What the hooks before the handler found out about the caller, as far as the access asks for it.
 * Throws where a hook that the access asks for did not run.
 */
function authorizedOf(
  access: Access,
  { caller, resolved, role, grantPath }: FastifyRequest,
): { readonly caller?: Caller; readonly scope?: TeamScope } {
  if (access === 'public') return {};
  if (caller === undefined) throw new TypeError('a request without a caller');
  if (typeof access === 'string' || !('team' in access)) return { caller };
  if (resolved === undefined || role === undefined) throw new TypeError('a request without a team');
  return {
    caller,
    scope: {
      team: resolved.team,
      role,
      resource: resolved.resource,
      grantPath,
      resolved: resolved,
    },
  };
}

/** Whether HEAD asks the same of it: a probe or a public document. */
export const takesHead = ({ method, access }: Pick<AnyOperation, 'method' | 'access'>): boolean =>
  method === 'GET' && access === 'public';

const methodsOf = (
  operation: Pick<AnyOperation, 'method' | 'access'>,
): (AnyOperation['method'] | 'HEAD')[] =>
  takesHead(operation) ? [operation.method, 'HEAD'] : [operation.method];

/** What is refused before a route is looked for, or while the vault stops. */
const problemsOfEverything: readonly ErrorCode[] = [
  'invalidUrl',
  'malformedHttp',
  'requestTimeout',
  'expectationFailed',
  'headersTooLarge',
  'notReady',
];

/**
 * What is refused before there is an operation, or while the vault stops: it belongs to all and to
 * none.
 */
export const problemsOfNoOperation: readonly ErrorCode[] = [
  ...problemsOfEverything,
  'methodNotAllowed',
];

/** What the broker's listener answers by itself, each with the header `vault-error: true`. */
export const problemsOfBroker: readonly ErrorCode[] = [
  ...problemsOfEverything,
  'misdirected',
  'ticketInvalid',
  'brokerRefused',
  'rangeRefused',
  'notFound',
  'stateConflict',
  'payloadTooLarge',
  'rateLimited',
  'internal',
  'unsupportedCall',
  'upstreamUnreachable',
  'upstreamUnusable',
  'keyUnavailable',
  'databaseUnavailable',
  'commitUnknown',
  'upstreamTimeout',
];

/**
 * Every code that an operation can answer with: its own and those that its access, body and guards
 * bring.
 */
export function problemCodesOf(operation: AnyOperation): ErrorCode[] {
  const { access, guards, method } = operation;
  const codes = new Set<ErrorCode>([
    'invalidRequest',
    'rateLimited',
    'internal',
    ...(operation.problems ?? []),
  ]);
  const add = (...more: ErrorCode[]): void => {
    for (const code of more) codes.add(code);
  };
  if (access !== 'public')
    add('unauthenticated', 'databaseUnavailable', 'identityProviderUnavailable');
  if (access !== 'public' && method !== 'GET') add('commitUnknown');
  if (typeof access === 'object') add('forbidden');
  if (typeof access === 'object' && 'team' in access) add('notFound');
  if (method !== 'GET') add('malformedJson', 'payloadTooLarge', 'unsupportedMediaType');
  if (guards?.ifMatch) add('preconditionRequired', 'preconditionFailed');
  // Repeated after the thing was deleted, it finds nothing.
  if (guards?.idempotencyKey) add('idempotencyKeyReused', 'stateConflict', 'notFound');
  return [...codes].sort((a, b) => problems[a].status - problems[b].status || (a < b ? -1 : 1));
}
