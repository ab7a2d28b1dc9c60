// The door to cryptography: other folders import only this file. Tokens are reached through
// Keyring, never through the codec.
export { canonicalJson, findCanonicalJson } from './canonical.ts';
export type { Binding, SecretFields } from './envelope.ts';
export { DecryptionFailed, EpochReturned, KeyUnavailable, RootKeyInvalid } from './errors.ts';
export { failureOfKeys } from './failures.ts';
export {
  fernetKey,
  keyOfPassphrase,
  looksLikeToken,
  openForeignToken,
  openSaltedText,
} from './foreign.ts';
export type { TokenFormat } from './fernet.ts';
export type { WrappedDataKey } from './key-cache.ts';
export { Keyring } from './keyring.ts';
export type { RowMacTableName } from './keyring.ts';
export { recipientKey, type RecipientKey } from './nested-jwt.ts';
export { generateRootKey, parseRootKeys, RootKeys } from './root-keys/root-keys.ts';
export type { KeyContext, Wrapped } from './root-keys/root-keys.ts';
export type { MacPurpose, SystemPurpose } from './purposes.ts';
export { Secret } from './secret.ts';
export type { LeaseJwk, Mac, WrappedSystemKey } from './system-keys.ts';
