// A call as it comes, and as it may go out.
import type { BrokerAddress } from './addresses.ts';
import type { Rendered } from './injection.ts';
import type { CredentialId } from '../shared/ids.ts';
import type { Presented } from './ticket-extraction.ts';
import type { Target } from './target.ts';
import type { HangUp } from '../shared/hang-up.ts';
import type { Caller } from '../access/index.ts';
import type { EventInput } from '../audit/index.ts';
import type { Limits, Policy } from '../credentials/index.ts';
/** A call as it came. */
export interface Call {
  /** Where the call says it goes. */
  readonly at: BrokerAddress;
  readonly presented: Presented | undefined;
  readonly method: string;
  /** As the caller wrote it, behind the address. */
  readonly pathAndQuery: string;
  /** It wants to become something else: a WebSocket, or what nobody carries. */
  readonly isUpgrade: boolean | 'webSocket';
  /** Name, value, name, value, as Node gives them. */
  readonly rawHeaders?: readonly string[];
  readonly requestId: string;
  readonly address: string | null;
  /** Whether the caller is still there; who went away waits for nothing. */
  readonly hangUp?: HangUp;
}

/**
 * A call that may go out and stands in the audit log. `leave` is to be called at its end, however
 * it ends.
 */
export interface Admitted {
  readonly caller: Caller;
  readonly presented: Presented;
  readonly team: string;
  readonly credential: CredentialId;
  readonly policy: Policy;
  readonly target: Target;
  /** The caller's path is behind another one, which it must not leave. */
  readonly isBehindPath: boolean;
  /** What comes back is stored: its length and its parts are its own. */
  readonly isObjectStore: boolean;
  readonly rendered: Rendered;
  /** Path and query for the upstream, with the secret where the type has it there. */
  readonly path: string;
  /** The upstream's path in which the caller's paths lie. */
  readonly root: string;
  /** The path as the caller wrote it. */
  readonly callPath: string;
  readonly limits: Readonly<Record<keyof Limits, number>>;
  readonly event: EventInput;
  /**
   * Where an access token is stored: the call rendered with another one than the upstream has just
   * refused; undefined where there is none.
   */
  readonly renew: (() => Promise<Rendered | undefined>) | undefined;
  /** The statuses of the upstream at which `renew` is asked. */
  readonly renewOn: readonly number[];
  readonly leave: () => void;
}
