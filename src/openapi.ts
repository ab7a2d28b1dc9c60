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
import { issuerOf } from './access/index.ts';

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

/** How long a mapping or a list may be to stand on one line, and how deep it may go. */
const lineMax = 400;

function asYaml(value: unknown): string {
  const document = new Document(value, { aliasDuplicateObjects: false });
  visit(document, {
    Scalar: (_key, node) => {
      if (typeof node.value !== 'string') return;
      if (
        ambiguous.test(node.value) ||
        isOutsidePlane0.test(node.value) ||
        node.value.includes('?') // a key, to a reader of YAML 1.1 inside braces
      )
        node.type = 'QUOTE_DOUBLE';
    },
    Collection: (_key, node) => {
      if (isShort(node.toJSON())) node.flow = true;
    },
  });
  return (
    document
      .toString({ lineWidth: 0, indent: 1, flowCollectionPadding: false })
      // Much of what stands outside the first plane cannot be seen.
      .replace(/[\u{10000}-\u{10ffff}]/gu, (character) => {
        const code = character.codePointAt(0)!;
        return `\\U${code.toString(16).toUpperCase().padStart(8, '0')}`;
      })
  );
}
const isOutsidePlane0 = /[\u{10000}-\u{10ffff}]/u;

const isShort = (value: object): boolean => {
  if (Array.isArray(value) && value.every((each) => typeof each === 'string')) return true;
  const text = JSON.stringify(value);
  return text.length <= lineMax && !text.includes('\\n');
};
