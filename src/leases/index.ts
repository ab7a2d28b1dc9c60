// The door to leases, and to the decision on the use of a credential, which tickets rest on too.
// What statements take along of it stands in sql.ts.
export { oauthOfLease } from './access-tokens.ts';
export { decideAll, decideEngine, type Granted, type Rule } from './decide.ts';
export { markUndecryptable, openGranted } from './opening.ts';
export { basisOf } from './recording.ts';
export { findLeasable, foundOf, recordIfUnchanged, type UseRow } from './repository.ts';
export { registerLeases } from './routes.ts';
export { LeasesService } from './service.ts';
export { smallBytesMax, storedBytesOf } from './sizes.ts';
export type { FoundRow, RecipientRow, Reference } from './types.ts';
export { UsageCounter } from './usage.ts';
