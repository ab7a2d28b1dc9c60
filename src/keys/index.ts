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
