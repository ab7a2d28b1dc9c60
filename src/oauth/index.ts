// The door to accounts that are connected by OAuth.
export { NoAccessToken, reasons } from './failures.ts';
export { situationOf } from './token-set.ts';
export type { OAuthCredential } from './token-binding.ts';
export { Provider } from './provider.ts';
export { findStoredTokens } from './repository.ts';
export { registerOAuth } from './routes.ts';
export { OAuthService } from './service.ts';
export { AccessTokens } from './tokens.ts';
