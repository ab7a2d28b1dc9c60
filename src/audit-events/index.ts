// The door to the reading of audit events.
export { type EventFilters, type EventRow, listEvents } from './repository.ts';
export { registerAccessRecords, registerAudit } from './routes.ts';
export { event, showEvent } from './schemas.ts';
