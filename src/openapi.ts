// The bytes of openapi.yaml, from the operations of a composed app. Committed; a test makes them afresh and compares.
import { pino } from 'pino';
import { stringify } from 'yaml';
import { buildApp } from './app.ts';
import { generateRootKey, Keyring, parseRootKeys } from './crypto/index.ts';
import { openDatabase } from './db/client.ts';
import { openapiDocument } from './http/document.ts';

/** The document as YAML. Composes the app without starting anything: no connection is made. */
export async function openapiYaml(): Promise<string> {
  const database = openDatabase({ url: 'postgresql://nobody@localhost/nothing', onError: () => undefined });
  const vault = await buildApp({
    db: database.db, keyring: new Keyring({ roots: parseRootKeys(generateRootKey()), now: Date.now }), logger: pino({ level: 'silent' }), now: Date.now,
    verification: { issuer: 'document', audience: 'document', source: { secret: generateRootKey() } }, operators: [], tokenFormat: 'fernet',
    publicUrl: () => 'https://vault.example', rateLimits: { address: 0, subject: 0 }, trustedProxies: [], tls: undefined, readiness: [],
  });
  try {
    return stringify(openapiDocument(vault.app.operations), { schema: 'yaml-1.1', lineWidth: 0, aliasDuplicateObjects: false });
  } finally {
    await vault.stop();
    await database.close();
  }
}
