// What a credential's row says, as SQL for the statements of other repositories.
export { exposedSql } from './health.ts';
export { rowMacColumns } from './repository.ts';
