// The caller behind a request: the only code that makes a caller. Issuer, kind and restriction are
// asked here and, for each team, in ./rights.ts and ./grants.ts; a route asks for none of them.
import { AppError } from '../shared/errors.ts';
import { newId, type SubjectId } from '../shared/ids.ts';
import { Recent } from '../shared/recent.ts';
import type { Principal } from './authentication.ts';
import type { Caller, Issuers } from '../access/index.ts';
import { TokenRefused } from './token-refused.ts';

const operateScope = 'vault:operate';
const enginesMax = 10_000;

export interface CallersParts {
  readonly issuers: Issuers;
  /** The platform operators, by their whole subjects. */
  readonly operators: ReadonlySet<string>;
  /** The id of a subject that somebody has let in; undefined for everybody else. */
  readonly findSubject: (sub: string) => Promise<SubjectId | undefined>;
  /** The same for whom the configuration lets in. */
  readonly ensureSubject: (sub: string) => Promise<SubjectId>;
  /** Whether an engine is registered for the subject. */
  readonly isEngine: (subject: SubjectId) => Promise<boolean>;
}

/** Makes callers. */
export class Callers {
  readonly #parts: CallersParts;
  /** Found to be engines. What they may is asked of their rows each time. */
  readonly #engines = new Recent<SubjectId, true>(enginesMax);
  constructor(parts: CallersParts) {
    this.#parts = parts;
  }

  /**
   * The caller behind a valid token. Throws unauthenticated for one that may only be an engine's
   * and is not.
   */
  async callerOf(
    principal: Principal,
    request: { readonly requestId: string; readonly address: string | null },
  ): Promise<Caller> {
    const { findSubject, ensureSubject } = this.#parts;
    const { sub, issuer, isEngineOnly } = principal;
    const isOperator = this.#isOperator(principal);
    const subject = await (isOperator ? ensureSubject : findSubject)(sub);
    if (isEngineOnly === true && !(await this.#isEngine(subject)))
      throw new AppError('unauthenticated', 'Send a valid token in the Authorization header.', {
        cause: new TokenRefused('lifetime'),
      });
    return {
      sub,
      // A subject without any right is not stored: some issuers have everybody as a subject.
      subject: subject ?? newId<SubjectId>(),
      ...(subject === undefined ? { strangerOf: issuer.issuer ?? 'none' } : {}),
      ...(isEngineOnly === true ? { isEngineOnly } : {}),
      isOperator,
      ...request,
    };
  }

  /**
   * SECURITY: by the scope only where the issuer's entry says so, for everybody can be given a
   * scope somewhere; by name only as the whole subject; and never a subject that is restricted to
   * teams or has a token that lives longer than a day.
   */
  #isOperator({ sub, scopes, issuer, isEngineOnly }: Principal): boolean {
    const { issuers, operators } = this.#parts;
    return (
      isEngineOnly !== true &&
      issuers.mayOperate(sub) &&
      (operators.has(sub) || (issuer.areOperators && scopes.includes(operateScope)))
    );
  }

  async #isEngine(subject: SubjectId | undefined): Promise<boolean> {
    if (subject === undefined) return false;
    if (this.#engines.get(subject) !== undefined) return true;
    if (!(await this.#parts.isEngine(subject))) return false;
    this.#engines.set(subject, true);
    return true;
  }
}
