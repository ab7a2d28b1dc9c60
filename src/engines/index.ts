// The door to engines and their keys.
export { type JwkInput, type PublicJwk, readPublicJwk } from './jwk.ts';
export { canShowEngine, registerEngines } from './routes.ts';
export { verifyEngineKeyRowMac, type EngineKeyMacFields, engineKeyRowMac } from './row-mac.ts';
export { EnginesService } from './service.ts';
