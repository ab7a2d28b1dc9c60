// What the vault's own keys are for, one purpose each.

/** Bound into the wrapping of each of them. */
export type SystemPurpose = 'rowSeal' | 'auditMac' | 'cursor' | 'idempotency' | 'leaseSigning';
/** What others make MACs for; row MACs have methods of their own. */
export type MacPurpose = Exclude<SystemPurpose, 'leaseSigning' | 'rowSeal'>;
