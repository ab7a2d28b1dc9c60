// The door to the embedded way to run.
export { runDemo } from './demo.ts';
export { type LocalVault, startLocal } from './run.ts';
export { localToken } from './token.ts';
