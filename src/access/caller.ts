// Who calls, for whom, and about which team.
import type { SubjectId, TeamId } from '../shared/ids.ts';

/** Who calls, as far as an operation needs to know it. */
export interface Caller {
  readonly sub: string;
  readonly subject: SubjectId;
  readonly isOperator: boolean;
  /** The token is one that only an engine may have: no other role counts. */
  readonly isEngineOnly?: true;
  /**
   * Of somebody whom nobody has given a right: the issuer. The id is then of this request only, and
   * stands in no row.
   */
  readonly strangerOf?: string;
  readonly requestId: string;
  /** The peer's address; it goes nowhere but into the audit's erasable side row. */
  readonly address: string | null;
}

/** The team that a request is about. */
export interface TeamRef {
  readonly id: TeamId;
  readonly slug: string;
}

/** For whom an engine asks; `isProven` when that person's own token came with the request. */
export interface OnBehalfOf {
  readonly sub: string;
  readonly isProven: boolean;
}

/** The engine behind a broker ticket as the caller of this request. */
export const callerOfTicket = (
  { sub, subject }: Pick<Caller, 'sub' | 'subject'>,
  { requestId, address }: Pick<Caller, 'requestId' | 'address'>,
): Caller => ({ sub, subject, isOperator: false, requestId, address });
