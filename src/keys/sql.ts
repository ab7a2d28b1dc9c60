// What statements of others take along of keys: for repositories only.
export { hasTokensSql, rotationFailureCountSql, rotationFailuresSql } from './tables/counts.ts';
export { oauthTokens } from './tables/oauth-token.ts';
