// The door to data keys and the vault's own, their rotation and their end.
export { KeyLifeService } from './life.ts';
export { registerRotations } from './rotation-routes.ts';
export { registerKeys } from './routes.ts';
export { KeyScheduler } from './scheduler.ts';
export { key, rotation } from './schemas.ts';
export { KeysService } from './service.ts';
export { SystemKeyKeeper } from './system-key-keeper.ts';
export { checkCanaries, insertNextSystemKeys, loadKeyring, openKeyring } from './system-keys.ts';
export { RotationWorker } from './worker.ts';
export { ciphertextTables } from './tables/list.ts';
export { oauthPlace } from './tables/oauth-token.ts';
export { lockTokens, moveTokens, releaseTokens, UnmovableToken } from './tables/rehoming.ts';
export {
  type CiphertextTable,
  type DescribedKind,
  type ExportForm,
  placeOf,
  type SpelledKind,
} from './tables/table.ts';
export { listStoredTokens, type TokenInTable } from './tables/walking.ts';
