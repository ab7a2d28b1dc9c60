// Rights as SQL: columns, joins and conditions for the statements of repositories. Beside each
// stands what reads them, behind index.ts: without it they count for nothing.
export { grantsSql, grantsStandSql } from './grants.ts';
export { rightsColumns, rightsJoin } from './rights.ts';
export { settingsColumns, settingsJson } from './team-settings.ts';
