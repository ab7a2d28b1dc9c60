// The bytes of openapi.yaml, from the operations of a composed app. Committed; a test makes them
// afresh and compares.
import { pino } from 'pino';
import { Document, visit } from 'yaml';
import { buildApp } from './app.ts';
import { generateRootKey, Keyring, parseRootKeys } from './crypto/index.ts';
import { openDatabase } from './db/client.ts';
import { DatabaseClock } from './db/clock.ts';
import { Egress } from './egress/index.ts';
import { openapiDocument } from './http/document.ts';
import { issuerOf } from './access/issuers.ts';

/** The document as YAML. Composes the app without starting anything: no connection is made. */
export async function openapiYaml(): Promise<string> {
  const database = openDatabase({
    url: 'postgresql://nobody@localhost/nothing',
    onError: () => undefined,
  });
  const vault = await buildApp({
    db: database.db,
    keyring: new Keyring({ roots: parseRootKeys(generateRootKey()), now: Date.now }),
    rootKeys: [],
    logger: pino({ level: 'silent' }),
    clock: new DatabaseClock({ db: database.db }),
    issuers: [
      issuerOf({
        issuer: 'document',
        audience: 'document',
        keys: { kind: 'secret', secret: generateRootKey() },
      }),
    ],
    fetchDocumentFor: () => async () => {
      throw new Error('nothing is fetched');
    },
    operators: [],
    tokenFormat: 'fernet',
    publicUrl: () => 'https://vault.example',
    brokerUrl: () => undefined,
    rateLimits: { address: 0, subject: 0 },
    trustedProxies: [],
    tls: undefined,
    readiness: [],
    egress: new Egress({ allow: [], own: () => [] }),
    oauthRedirectUri: undefined,
    brokerCallsMax: 1,
  });
  try {
    return asYaml(openapiDocument(vault.app.operations));
  } finally {
    await vault.stop();
    await database.close();
  }
}

// What a reader of YAML 1.1 would take for a time, a truth value or a number to the base of 60.
const ambiguous = /^(?:[0-9]{4}-[0-9].*|y|n|yes|no|on|off|[0-9:]+)$/i;

function asYaml(value: unknown): string {
  const document = new Document(value, { aliasDuplicateObjects: false });
  visit(document, {
    Scalar: (_key, node) => {
      if (typeof node.value === 'string' && ambiguous.test(node.value)) node.type = 'QUOTE_DOUBLE';
    },
  });
  return document.toString({ lineWidth: 0 });
}
