// The door to the rights: who calls, what they may do, and whether the rows that say so are the
// vault's. What statements take along of it stands in sql.ts.
export { type Caller, callerOfTicket, type OnBehalfOf, type TeamRef } from './caller.ts';
export { decide, type Decision, type Denial, type Located, type Way, wayFor } from './decide.ts';
export {
  type GrantRow,
  grantSealHolds,
  holdGrant,
  listGrantsTo,
  noWays,
  type SealedGrant,
  sealGrant,
  waysOf,
} from './grants.ts';
export {
  engineSealHolds,
  membershipSealHolds,
  type Person,
  type RightsParts,
  type RightsRow,
  type SealedEngine,
  type SealedMembership,
  sealEngine,
  sealMembership,
  type Standing,
  standingOf,
} from './rights.ts';
export {
  type Access,
  actionOf,
  isAllowed,
  type LocatedBy,
  operatorActions,
  roles,
  rolesFor,
  type TeamAction,
  teamActions,
} from './roles.ts';
export {
  type ClaimValue,
  demandBounds,
  type FixedKey,
  type Issuer,
  issuerOf,
  Issuers,
  type KeySource,
  knownAlgorithms,
  type OneIssuer,
  prefixesMeet,
  type SubjectBounds,
  type TokenType,
  unbounded,
  usualAlgorithms,
  usualLifetimeSeconds,
  usualRules,
  usualTypes,
} from './issuers.ts';
export {
  algorithmsFor,
  AnswerUnfit,
  fixedKey,
  keyFor,
  readFixedKeys,
  type ReadKeys,
  readKeys,
  type VerifyingKey,
} from './verifying-keys.ts';
export {
  findSettings,
  isOfBefore,
  type MacedTeam,
  refusesExposed,
  settingsCount,
  type SettingsJson,
  settingsOf,
  teamMac,
  teamMacVersion,
  type TeamSettingsRow,
  writeMac,
} from './team-settings.ts';
