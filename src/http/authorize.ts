// The hook that a route cannot forget: it runs on every route, before the body is read, and a route
// without `access` stops the start. Authentication first, then the right, by the one table in
// ../access/roles.ts.
import type { FastifyInstance, FastifyRequest } from 'fastify';
import { AppError, forbidden, notFound } from '../shared/errors.ts';
import {
  type Access,
  actionOf,
  type Caller,
  decide,
  type Denial,
  type ResolvedResource,
  type ResolvedBy,
  type TeamRef,
} from '../access/index.ts';
import type { Authenticator } from './authentication.ts';
import { methodNotAllowed, type PathForm, PathForms } from './path-forms.ts';
import type { CountRequest } from './rate-limits.ts';
import type { Callers } from './callers.ts';
import { type TokenRefusalReason, refusalReasonOf } from './token-refused.ts';

/** What the hook asks the layers above it for; each is one look at the database. */
export interface AuthorizationParts {
  readonly authenticator: Authenticator;
  readonly callers: Callers;
  readonly resolve: Readonly<
    Record<ResolvedBy, (caller: Caller, key: string) => Promise<ResolvedResource | undefined>>
  >;
  readonly countRequest: CountRequest;
  readonly recordDenial: (denial: Denial) => Promise<void>;
  /** Told of each failed authentication, with the action that was asked for. */
  readonly recordFailedAuthentication: (request: {
    requestId: string;
    address: string | null;
    action: string;
    reason: TokenRefusalReason | null;
  }) => void;
}

const pathKey = { team: 'team', credential: 'id', anyCredential: 'id' } as const satisfies Record<
  ResolvedBy,
  string
>;
const targetType = {
  team: 'team',
  credential: 'credential',
  anyCredential: 'credential',
} as const satisfies Record<ResolvedBy, string>;

/** Installs the hook; throws at start for a route that says no access. */
export function registerAuthorization(app: FastifyInstance, parts: AuthorizationParts): void {
  app.decorateRequest('caller', undefined);
  app.decorateRequest('sub', undefined);
  app.decorateRequest('resolved', undefined);
  app.decorateRequest('role', undefined);
  app.decorateRequest('grantPath', undefined);
  app.decorateRequest('countAgain', undefined);
  app.decorateRequest('isRepeated', false);
  const forms = new PathForms();
  app.addHook('onRoute', ({ method, url, config }) => {
    const access = config?.access;
    if (access === undefined) throw new Error(`route ${String(method)} ${url} says no access`);
    forms.add(url, [method].flat(), access === 'public');
  });
  app.addHook('onRequest', async (request) => {
    const { access } = request.routeOptions.config;
    // SECURITY: only what is no route has no access: the same answer for everybody, before a body
    // is read.
    if (access === undefined)
      throw await refusalOfNoRoute(
        request,
        forms.find(request.method, request.raw.url ?? ''),
        parts,
      );
    if (access === 'public') return;
    request.caller = await callerOf(request, access, parts);
    await authorize(request, request.caller, access, parts);
  });
}

/**
 * What is said where no route is. SECURITY: of a path that there is, by its form alone: nothing is
 * looked up, so that the answer is the same whether the thing exists, and whose it is.
 */
async function refusalOfNoRoute(
  request: FastifyRequest,
  form: PathForm | undefined,
  parts: AuthorizationParts,
): Promise<AppError> {
  if (form === undefined) return notFound();
  if (!form.isPublic) {
    const { sub } = await noted(request, 'authenticated', parts, () =>
      parts.authenticator.authenticate(request),
    );
    request.sub = sub;
    await parts.countRequest(sub, undefined);
  }
  return methodNotAllowed(form);
}

async function callerOf(
  request: FastifyRequest,
  access: Access,
  parts: AuthorizationParts,
): Promise<Caller> {
  const { id: requestId, address } = request;
  return noted(request, access, parts, async () => {
    const principal = await parts.authenticator.authenticate(request);
    request.sub = principal.sub;
    return parts.callers.callerOf(principal, { requestId, address });
  });
}

/** Runs what may find that nobody is authenticated, and has that recorded. */
async function noted<T>(
  { id: requestId, address }: FastifyRequest,
  access: Access,
  parts: AuthorizationParts,
  authenticate: () => Promise<T>,
): Promise<T> {
  try {
    return await authenticate();
  } catch (error) {
    if (error instanceof AppError && error.code === 'unauthenticated')
      parts.recordFailedAuthentication({
        requestId,
        address,
        action: actionOf(access),
        reason: refusalReasonOf(error) ?? null,
      });
    throw error;
  }
}

async function authorize(
  request: FastifyRequest,
  caller: Caller,
  access: Access,
  parts: AuthorizationParts,
): Promise<void> {
  const count = (team: TeamRef | undefined): Promise<void> => {
    request.countAgain = () => parts.countRequest(caller.sub, team);
    return request.countAgain();
  };
  if (typeof access === 'string' || 'each' in access) return count(undefined);
  if ('operator' in access) {
    await count(undefined);
    if (caller.isOperator) return;
    await parts.recordDenial({
      caller,
      team: undefined,
      action: access.operator,
      target: { type: 'vault', id: 'vault' },
      reason: 'notAnOperator',
    });
    throw forbidden();
  }
  const key = (request.params as Record<string, string>)[pathKey[access.by]] ?? '';
  const resolved = await parts.resolve[access.by](caller, key);
  const decision = decide(resolved, access.team);
  // SECURITY: refusals are counted too, and all in one place: a count of its own for a team that is
  // hidden would say that it exists.
  await count(decision.kind === 'allow' ? resolved?.team : undefined);
  if (decision.kind === 'allow') {
    request.resolved = resolved;
    request.role = decision.role;
    request.grantPath = decision.grantPath;
    return;
  }
  // SECURITY: the same writes and the same answer whether the thing exists or not. What was asked
  // for is said only by its form.
  await parts.recordDenial({
    caller,
    team: resolved?.team,
    action: access.team,
    target: { type: targetType[access.by], id: resolved === undefined ? 'unknown' : key },
    reason: decision.reason,
    isHidden: decision.kind === 'hide',
  });
  throw decision.kind === 'hide' ? notFound() : forbidden();
}
