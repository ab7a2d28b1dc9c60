// The door to the checks of every row that the vault protects.
export { recomputeRowMacs } from './recompute-row-macs.ts';
export { verifyAll } from './verify.ts';
