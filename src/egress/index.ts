// The door to the egress: everything that the vault dials goes through it.
export type { AllowRule } from './allow.ts';
export { type Answer, discard, send } from './exchange.ts';
export { EgressFailed, egressFailure, type EgressStep } from './failure.ts';
export { hostName, type Origin, parseTarget, type DialTarget } from './names.ts';
export type { OwnEndpoint } from './own.ts';
export { raced } from './raced.ts';
export type { Resolve } from './resolve.ts';
export type { Dispatcher } from 'undici';
export { ConfiguredDocuments } from './documents.ts';
export { type CheckedOrigin, Egress, type EgressParts, type EgressRequest } from './egress.ts';
export type { Upgraded } from './upgrade.ts';
