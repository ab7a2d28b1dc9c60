// The door to accounts that are connected by OAuth.
export { NoAccessToken, reasons } from './failures.ts';
export { situationOf } from './held.ts';
export type { OAuthCredential } from './place.ts';
export { Provider } from './provider.ts';
export { findHeld } from './repository.ts';
export { registerOAuth } from './routes.ts';
export { OAuthService } from './service.ts';
export { AccessTokens } from './tokens.ts';
