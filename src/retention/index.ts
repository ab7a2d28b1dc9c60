// The door to what is destroyed when.
export { Retention } from './service.ts';
