// The door to exports.
export { registerExports } from './routes.ts';
export { ExportsService } from './service.ts';
