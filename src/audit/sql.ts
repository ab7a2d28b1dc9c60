// The recording of an event as SQL, for statements that do something and record it at once.
export { recordedSql } from './event.ts';
