// The door to the checks of every row that the vault protects.
export { resealAll } from './reseal.ts';
export { verifyAll } from './verify.ts';
