// The door to engines and their keys.
export { type JwkInput, type PublicJwk, readPublicJwk } from './jwk.ts';
export { registerEngines } from './routes.ts';
export { canShowEngine } from './schemas.ts';
export { engineKeySealHolds, type SealedEngineKey, sealEngineKey } from './seal.ts';
export { EnginesService } from './service.ts';
