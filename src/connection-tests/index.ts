// The door to tests of connections.
export { registerConnections } from './routes.ts';
export { ConnectionsService } from './service.ts';
