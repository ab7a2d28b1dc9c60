// The door to engines and their keys.
export { type JwkInput, type PublicJwk, readPublicJwk } from './jwk.ts';
export { registerEngines } from './routes.ts';
export { canShowEngine } from './schemas.ts';
export { verifyEngineKeyRowMac, type EngineKeyMacFields, engineKeyRowMac } from './row-mac.ts';
export { EnginesService } from './service.ts';
