// The document promises no less than the one of the last release. That one is committed, because a
// clone may have no history: `gzip -9nc` of the JSON, made afresh with each release
// (docs/openapi.md).
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import t from 'tap';
import { parse } from 'yaml';
import { brokenPromises } from '../helpers/openapi-changes.ts';
import type { Json } from '../helpers/openapi.ts';

const root = join(import.meta.dirname, '../..');
const released = JSON.parse(
  gunzipSync(readFileSync(join(root, 'test/vectors/openapi/released.json.gz'))).toString(),
) as Json;
const current = parse(readFileSync(join(root, 'openapi.yaml'), 'utf8')) as Json;

t.test('nothing that was promised is gone', (t) => {
  t.ok(Object.keys(released['paths'] as Json).length > 40, 'there is something to compare');
  t.same(brokenPromises({ before: released, after: current }), []);
  t.end();
});

t.test('each rule finds what it is for', (t) => {
  const schemas = (document: Json): Json => document['components'].schemas as Json;
  const plants: Record<string, [change: (document: Json) => void, found: RegExp]> = {
    'an operation that is gone': [(d) => delete d['paths']['/v1/whoami'], /whoami: the operation/],
    'another operationId': [
      (d) => {
        d['paths']['/v1/whoami'].get.operationId = 'me';
      },
      /another operationId/,
    ],
    'a member of an answer that is gone': [
      (d) => delete schemas(d)['Team'].properties.slug,
      /Team\/slug: the member is gone/,
    ],
    'a member that may be missing': [
      (d) => schemas(d)['Team'].required.shift(),
      /Team\/slug: may be missing/,
    ],
    'a word that may be answered': [
      (d) => schemas(d)['Credential'].properties.health.enum.push('odd'),
      /health: gives more words/,
    ],
    'a word that is taken no more': [(d) => schemas(d)['Role'].enum.shift(), /takes fewer words/],
    'a member that is taken no more': [
      (d) => delete schemas(d)['CredentialCreate'].properties.labels,
      /CredentialCreate\/labels: the member is gone/,
    ],
    'a member that has to be there': [
      (d) => schemas(d)['CredentialCreate'].required.push('labels'),
      /CredentialCreate\/labels: has to be there/,
    ],
    'a shorter text': [
      (d) => {
        schemas(d)['Name'].maxLength = 10;
      },
      /Name: maxLength is less/,
    ],
    'a longer text at the least': [
      (d) => {
        schemas(d)['Name'].minLength = 10;
      },
      /Name: minLength is more/,
    ],
    'another pattern': [
      (d) => {
        schemas(d)['TeamSlug'].pattern = '^a$';
      },
      /TeamSlug: another pattern/,
    ],
    'another type': [
      (d) => {
        schemas(d)['Team'].properties.intact = { type: 'string' };
      },
      /Team\/intact: another type/,
    ],
    'null where there was none': [
      (d) => {
        schemas(d)['Team'].properties.createdAt = {
          anyOf: [{ $ref: '#/components/schemas/Time' }, { type: 'null' }],
        };
      },
      /also gives null/,
    ],
    'null that is taken no more': [
      (d) => {
        schemas(d)['CredentialUpdate'].properties.labels = {
          $ref: '#/components/schemas/LabelsInput',
        };
      },
      /takes no more null/,
    ],
    'a parameter that is gone': [
      (d) => d['paths']['/v1/teams'].get.parameters.shift(),
      /the parameter query \w+ is gone/,
    ],
    'a parameter that has to be there': [
      (d) => {
        d['components'].parameters.LimitInQuery.required = true;
      },
      /query limit has to be there/,
    ],
    'a status that is gone': [
      (d) => delete d['paths']['/v1/whoami'].get.responses['200'],
      /200 is gone/,
    ],
    'a header that is gone': [
      (d) => delete d['paths']['/v1/credentials/{id}'].get.responses['200'].headers.ETag,
      /the header ETag is gone/,
    ],
    'a media type that is gone': [
      (d) => {
        d['paths']['/v1/whoami'].get.responses['200'].content = {};
      },
      /application\/json is gone/,
    ],
  };
  for (const [what, [plant, found]] of Object.entries(plants)) {
    const after = structuredClone(current);
    plant(after);
    t.match(brokenPromises({ before: current, after }).join('\n'), found, what);
  }
  t.end();
});

t.test('what may be added within a version is no fault', (t) => {
  const after = structuredClone(current);
  const schemas = after['components'].schemas as Json;
  schemas['Team'].properties.more = { type: 'boolean' };
  schemas['CredentialCreate'].properties.more = { type: 'boolean' };
  schemas['Problem'].properties.code.enum.push('more');
  schemas['Rule'].enum.push('more');
  schemas['Name'].maxLength = 1_000;
  after['paths']['/v1/more'] = structuredClone(after['paths']['/v1/whoami']);
  t.same(brokenPromises({ before: current, after }), []);
  t.end();
});
