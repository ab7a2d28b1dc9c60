// What can go wrong at the engine's end. No text repeats what a lease or an answer holds.

/** Why a lease is not accepted. */
export type LeaseFault =
  | 'malformed' // not a sealed lease
  | 'notOurKey' // sealed to a key that was not given
  | 'notDecrypted' // does not open with that key
  | 'notSigned' // not signed by a key of the vault
  | 'issuer'
  | 'audience'
  | 'expired'
  | 'notYet';

/** The lease is not to be used. */
export class LeaseInvalid extends Error {
  override name = 'LeaseInvalid';
  readonly fault: LeaseFault;
  constructor(fault: LeaseFault) {
    super(`the lease is not valid (${fault})`);
    this.fault = fault;
  }
}

/** The vault refused (RFC 9457). `errors` names the references that were refused and why. */
export class VaultProblem extends Error {
  override name = 'VaultProblem';
  readonly status: number;
  readonly code: string;
  readonly errors: readonly { readonly pointer: string; readonly rule: string }[];
  readonly requestId: string | undefined;
  constructor(status: number, document: { code?: unknown; errors?: unknown; requestId?: unknown }) {
    const code = typeof document.code === 'string' ? document.code : 'unknown';
    super(`the vault answered ${status} ${code}`);
    this.status = status;
    this.code = code;
    this.errors = Array.isArray(document.errors) ? (document.errors as VaultProblem['errors']) : [];
    this.requestId = typeof document.requestId === 'string' ? document.requestId : undefined;
  }
}
