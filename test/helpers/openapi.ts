// The OpenAPI document as tests read it: every schema by its place, and what a response could
// carry.
import { credentialTypes } from '../../src/credentials/types/registry.ts';

export type Json = Record<string, any>;
export interface Placed {
  readonly place: string;
  readonly schema: Json;
}

const methods = ['get', 'put', 'post', 'delete', 'patch', 'options', 'head', 'trace'];
// Every keyword that may stand in a schema; one that is not here could hide a schema from the walk.
const plainKeywords = [
  '$ref',
  'type',
  'enum',
  'const',
  'format',
  'pattern',
  'minLength',
  'maxLength',
  'minimum',
  'maximum',
  'minItems',
  'maxItems',
  'maxProperties',
  'required',
  'description',
  'examples',
  'default',
  'writeOnly',
  'uniqueItems',
  'discriminator',
];

export interface DocumentOperation {
  readonly path: string;
  readonly method: string;
  readonly operation: Json;
}

/** Every operation of the document. */
export function operationsOf(document: Json): DocumentOperation[] {
  return Object.entries(document['paths'] as Json).flatMap(([path, item]) =>
    Object.entries(item as Json).map(([method, operation]) => {
      if (!methods.includes(method)) throw new Error(`${path} has a member ${method}`);
      return { path, method: method.toUpperCase(), operation: operation as Json };
    }),
  );
}

/** What a local reference stands for; anything else as it is. */
export function resolve(document: Json, node: Json): Json {
  const { $ref } = node as { $ref?: string };
  if ($ref === undefined) return node;
  const found = $ref
    .replace(/^#\//, '')
    .split('/')
    .reduce<Json | undefined>((at, step) => at?.[step], document);
  if (!$ref.startsWith('#/') || found === undefined) throw new Error(`${$ref} leads nowhere`);
  return resolve(document, found);
}

/**
 * The schema and every schema inside it, by place; with a document, references are followed, each
 * once.
 */
export function* walk(
  schema: Json,
  place: string,
  document?: Json,
  seen = new Set<string>(),
): Generator<Placed> {
  const { $ref } = schema as { $ref?: string };
  if ($ref !== undefined && document !== undefined) {
    const name = $ref.split('/').at(-1) ?? '';
    if (!seen.has($ref)) yield* walk(resolve(document, schema), name, document, seen.add($ref));
  }
  yield { place, schema };
  for (const [keyword, value] of Object.entries(schema)) {
    if (keyword === 'properties')
      for (const [name, each] of Object.entries(value as Json))
        yield* walk(each as Json, `${place}/${name}`, document, seen);
    else if (keyword === 'items') yield* walk(value as Json, `${place}[]`, document, seen);
    else if (keyword === 'propertyNames')
      yield* walk(value as Json, `${place}{name}`, document, seen);
    else if (keyword === 'additionalProperties') {
      if (typeof value === 'object') yield* walk(value as Json, `${place}{}`, document, seen);
    } else if (keyword === 'anyOf' || keyword === 'oneOf')
      for (const each of value as Json[]) {
        // One that only says which members have to be there has no place for a value.
        if (Object.keys(each).join() !== 'required') yield* walk(each, place, document, seen);
      }
    else if (!plainKeywords.includes(keyword))
      throw new Error(`${place} has ${keyword}, which this walk does not know`);
  }
}

/**
 * The content and headers of every answer of every operation, each schema with all that it leads
 * to.
 */
export function* responseSchemas(document: Json): Generator<Placed> {
  const seen = new Set<string>();
  for (const { operation } of operationsOf(document)) {
    for (const [status, each] of Object.entries(operation['responses'] as Json)) {
      const { content = {}, headers = {} } = resolve(document, each as Json) as {
        content?: Json;
        headers?: Json;
      };
      for (const { schema } of Object.values(content) as Json[])
        yield* walk(schema as Json, `${operation['operationId']} ${status}`, document, seen);
      for (const [name, header] of Object.entries(headers))
        yield* walk(
          resolve(document, header as Json)['schema'] as Json,
          `${operation['operationId']} ${status} ${name}`,
          document,
          seen,
        );
    }
  }
}

const secretNames = new Set(
  credentialTypes.flatMap((type) =>
    Object.entries(type.fields).flatMap(([name, field]) =>
      field.class === 'secret' ? [name.toLowerCase()] : [],
    ),
  ),
);
const privateJwkMembers = ['d', 'p', 'q', 'dp', 'dq', 'qi', 'oth', 'k'];
const telling =
  /secret|passw|passphrase|token|credentials?value|api_?key|webhook|private|plain|wrapped|sealed|ticket|material/i;

/** Properties of answers that sound like a secret and are none, with the reason. */
export const soundsSecret: Readonly<Record<string, string>> = {
  'AuditEvent/key': 'the id of a data key',
  'BrokerTicket/credentials[]/ticket':
    'random; stands for one credential at the broker and opens nothing',
  'BrokerTicket/ticket': 'random; stands for one credential at the broker and opens nothing',
  'Credential/secretFields': 'the names of the fields, no values',
  'CredentialSeen/secretFields': 'the names of the fields, no values',
  'CredentialVersion/secretFields': 'the names of the fields, no values',
  'ExportConnection/key': 'the id of a data key',
  'ExportEvent/key': 'the id of a data key',
  'ExportTeam/tokenFormat': 'how tokens at rest are made',
  'ExportVersion/key': 'the id of a data key',
  'ExportVersion/secretFields': 'the names of the fields, no values',
  'Lease/credentials[]/tokenId': 'names an access token by a counter, and tells nothing of it',
  'Lease/sealed':
    'secrets, encrypted to the public key that an operator registered for the calling engine',
  'OAuthProvider/tokenUrl': 'the address of an endpoint',
  'Team/tokenFormat': 'how tokens at rest are made',
  'TeamWithRole/tokenFormat': 'how tokens at rest are made',
  'PolicyLimits/ticketSeconds': 'how long tickets last',
};

/** Answers with names that callers choose, with the reason why no secret value is under them. */
export const openMaps: Readonly<Record<string, string>> = {
  Labels: 'metadata by its definition',
  'FieldsSchema/dependentRequired': 'names of fields',
  PublicFields: 'only fields that the type, or for `custom` the creator, calls public',
  AuditDetails: 'names, ids and counts, written by the vault',
  'Problem/rows': 'counts by table',
  'FieldsSchema/properties':
    'rules for fields, with no place for a value but a default of the type',
};

export interface Leaks {
  readonly faults: string[];
  readonly usedNames: Set<string>;
  readonly usedMaps: Set<string>;
}

/** Every way in which an answer of the document could carry a secret. */
export function findLeaks(document: Json): Leaks {
  const faults: string[] = [];
  const usedNames = new Set<string>();
  const usedMaps = new Set<string>();
  for (const { place, schema } of responseSchemas(document)) {
    if (schema['writeOnly'] === true) faults.push(`${place} is writeOnly`);
    if (/Input$|Create$|Update$|Put$/.test(String(schema['$ref'] ?? '')))
      faults.push(`${place} is made for requests: ${schema['$ref']}`);
    for (const name of Object.keys((schema['properties'] ?? {}) as Json)) {
      const known =
        secretNames.has(name.toLowerCase()) ||
        privateJwkMembers.includes(name) ||
        telling.test(name);
      if (!known) continue;
      const at = `${place}/${name}`;
      if (Object.hasOwn(soundsSecret, at)) usedNames.add(at);
      else faults.push(`${at} sounds like a secret`);
    }
    const isObject = schema['type'] === 'object' || schema['properties'] !== undefined;
    const { additionalProperties: more } = schema;
    if (isObject && more === undefined) faults.push(`${place} is open`);
    if (more === true) faults.push(`${place} takes anything`);
    if (typeof more === 'object') {
      if (schema['maxProperties'] === undefined) faults.push(`${place} is an unbounded map`);
      if (Object.hasOwn(openMaps, place)) usedMaps.add(place);
      else faults.push(`${place} is a map that nobody listed`);
    }
    if (Object.keys(schema).every((keyword) => ['description', 'examples'].includes(keyword)))
      faults.push(`${place} takes anything`);
  }
  return { faults, usedNames, usedMaps };
}
