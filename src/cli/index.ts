// The door to what people type.
export { exportSecrets } from './export/export.ts';
export { newRecipient } from './export/recipient.ts';
export { importCredentials } from './import/import.ts';
export { writeNew } from './output.ts';
export { providersPage } from './providers.ts';
export { rotate } from './rotate.ts';
export { OptionsUnfit, readOptions } from './target.ts';
export { verify } from './verify.ts';
