// All that the use of a credential is decided on, as SQL for the statements of other repositories.
export { isUsedThoughExposed, useColumns, useJoins } from './repository.ts';
