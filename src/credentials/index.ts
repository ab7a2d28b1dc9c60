// The door to credentials. What statements take along of it stands in sql.ts.
export { type Authority, authorityOf, awsHosts, isAwsTarget } from './aws-services.ts';
export {
  type AllFields,
  brokeredBytesMin,
  injectionFaults,
  isTakenHeader,
  plainInjection,
} from './injectable.ts';
export { bulkGate, registerCredentialBulk } from './bulk-routes.ts';
export { undecryptable } from './change.ts';
export type { CredentialRow } from './rows.ts';
export { isDeclared, shownType } from './declared/names.ts';
export { registerDeclaredTypes } from './declared/routes.ts';
export { declaredMac, declaredMacHolds, type ProtectedType } from './declared/rows.ts';
export { DeclaredTypes } from './declared/service.ts';
export { StoredTypes } from './declared/stored-types.ts';
export { Discovery } from './discovery.ts';
export { oauthClient } from './stored-tokens.ts';
export { CredentialHistory } from './history/history.ts';
export { registerCredentialHistory } from './history/routes.ts';
export { CredentialLists } from './lists/listing.ts';
export { registerCredentialLists } from './lists/routes.ts';
export {
  isUnder,
  isWiderPolicy,
  limitDefaults,
  type Limits,
  type Policy,
  policyJson,
  renewOnDefault,
  takesAwsServices,
} from './policy.ts';
export { registerOAuthProviders } from './provider-routes.ts';
export { findProvider, oauthProviders } from './providers/catalogue.ts';
export {
  type OAuthProvider,
  type Placeholder,
  placeholderNames,
  quirkNames,
} from './providers/define.ts';
export { fixedSuffix } from './providers/fill.ts';
export { writtenNames } from './providers/write-out.ts';
export type { PublicFields, PublicValue } from './public-values.ts';
export { findActiveKey, lockActiveKey, lockCredential } from './repository.ts';
export { bytesOfCredential } from './room-repository.ts';
export { type Growth, roomOf, type Stay, TeamRoom } from './room.ts';
export { registerCredentials } from './routes.ts';
export { canShowCredential, credential, publicFields } from './schemas.ts';
export {
  verifyCredentialRowMac,
  verifyListedRowMac,
  credentialRowMac,
  type CredentialMacFields,
} from './row-mac.ts';
export { CredentialsService } from './service.ts';
export { shownFields, shownFieldsOf } from './shown.ts';
export {
  type Alias,
  type AliasField,
  type ConnectionTest,
  type CredentialType,
  type FieldSpec,
  type HttpTest,
  type OAuthSettings,
  type System,
  tlsWords,
} from './types/define.ts';
export { withoutVersion } from './types/openai.ts';
export { type StandIn, standInOf } from './types/stand-ins.ts';
export { credentialTypes, findType, oauthTypeNames } from './types/registry.ts';
export { CredentialUpsert } from './upsert.ts';
export type { InUse } from './use.ts';
export { KeyMoved, UndecryptableVersion, underActiveKey } from './versions.ts';
