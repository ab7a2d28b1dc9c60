// The door to the configuration.
export { ConfigInvalid, type LocalConfig, readConfig, type ServeConfig } from './config.ts';
export type { Environment } from './reader.ts';
export { issuersOf } from './issuers.ts';
