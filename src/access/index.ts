// The door to the rights: who calls, what they may do, and whether the rows that say so are the
// vault's. What statements take along of it stands in sql.ts.
export { type Caller, callerOfTicket, type OnBehalfOf, type TeamRef } from './caller.ts';
export {
  decide,
  type Decision,
  type Denial,
  type ResolvedResource,
  type GrantPath,
  grantPathFor,
} from './decide.ts';
export {
  type GrantRow,
  verifyGrantRowMac,
  holdGrant,
  listGrantsTo,
  noGrantPaths,
  type GrantMacFields,
  grantRowMac,
  grantPathsOf,
} from './grants.ts';
export {
  verifyEngineRowMac,
  verifyMembershipRowMac,
  type Person,
  type RightsParts,
  type RightsRow,
  type EngineMacFields,
  type MembershipMacFields,
  engineRowMac,
  membershipRowMac,
  type EffectiveRole,
  effectiveRoleOf,
} from './rights.ts';
export {
  type Access,
  actionOf,
  isAllowed,
  type ResolvedBy,
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
  verifyTeamRowMac,
  type SettingsJson,
  settingsOf,
  teamRowMac,
  teamMacVersion,
  type TeamSettingsRow,
  writeMac,
} from './team-settings.ts';
