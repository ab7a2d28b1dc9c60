// The door to the audit: what is recorded, and what records it. What statements take along of it
// stands in sql.ts.
export {
  type AuditEvent,
  credentialTarget,
  type EventInput,
  eventsThrough,
  type RecordedValues,
  verifyAddress,
  verifyEvent,
} from './event.ts';
export { type Alarm, type AlarmReason, AuditLog, type MadeEvent } from './record.ts';
