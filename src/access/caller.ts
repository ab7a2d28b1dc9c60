// Who calls, for whom, and about which team.
import type { SubjectId, TeamId } from '../shared/ids.ts';

/** Who calls, as far as an operation needs to know it. */
export interface Caller {
  readonly sub: string;
  readonly subject: SubjectId;
  readonly isOperator: boolean;
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
