// The door to root keys as the database knows them.
export { registerRootKeys } from './routes.ts';
export { RootKeysService } from './service.ts';
