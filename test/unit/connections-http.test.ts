// What each type's test over HTTP asks, and where.
import t from 'tap';
import { testHttp } from '../../src/connection-tests/http.ts';
import { TestFailed } from '../../src/connection-tests/report.ts';
import { credentialTypes } from '../../src/credentials/types/registry.ts';
import type { Egress, EgressRequest } from '../../src/egress/index.ts';

const key = 'sk-0123456789';
const table: Readonly<
  Record<
    string,
    readonly [fields: Record<string, string>, url: string, header: Record<string, string>]
  >
> = {
  openai: [
    { apiKey: key, baseUrl: 'https://api.openai.com' },
    'https://api.openai.com/v1/models',
    { authorization: `Bearer ${key}` },
  ],
  google: [
    { apiKey: key },
    'https://generativelanguage.googleapis.com/v1beta/models',
    { 'x-goog-api-key': key },
  ],
  cohere: [{ apiKey: key }, 'https://api.cohere.com/v1/models', { authorization: `Bearer ${key}` }],
  anthropic: [
    { apiKey: key, baseUrl: 'https://api.anthropic.com' },
    'https://api.anthropic.com/v1/models',
    { 'x-api-key': key, 'anthropic-version': '2023-06-01' },
  ],
  customLlm: [
    { apiKey: key, baseUrl: 'http://models.test:8000/v1/' },
    'http://models.test:8000/v1/models',
    { authorization: `Bearer ${key}` },
  ],
  telegram: [
    { botToken: '123456:ABC-def' },
    'https://api.telegram.org/bot123456:ABC-def/getMe',
    {},
  ],
  grist: [
    { apiKey: key, serverUrl: 'https://grist.test/base' },
    'https://grist.test/base/api/orgs',
    { authorization: `Bearer ${key}` },
  ],
};

/** Runs a test with an egress that notes what it is asked for and answers with a status. */
async function ask(
  name: string,
  fields: Record<string, string>,
  status = 200,
): Promise<{ asked: EgressRequest[]; failed: unknown }> {
  const type = credentialTypes.find((one) => one.name === name);
  if (type?.test?.kind !== 'http') throw new Error(`${name} has no test over HTTP`);
  const asked: EgressRequest[] = [];
  const egress = {
    request: async (request: EgressRequest) => {
      asked.push(request);
      return { status, headers: new Headers(), body: Buffer.alloc(0) };
    },
  } as unknown as Egress;
  const target = {
    egress,
    team: 'payments',
    fields,
    wire: { isTls: false },
    timeoutMs: 1_000,
    now: Date.now,
  };
  return testHttp(
    target,
    type,
    { delivery: ['lease'], allowedHosts: ['elsewhere.test'] },
    type.test,
  ).then(
    () => ({ asked, failed: undefined }),
    (failed: unknown) => ({ asked, failed }),
  );
}

t.test('each type asks its own destination, in its own way', async (t) => {
  for (const [name, [fields, url, headers]] of Object.entries(table)) {
    const {
      asked: [request],
      failed,
    } = await ask(name, fields);
    t.equal(failed, undefined, name);
    t.match(request, { url, method: 'GET', team: 'payments' }, name);
    t.same(request?.headers, headers, name);
  }
});

t.test(
  'every type with a test over HTTP can be asked: it has an injection and a destination of its own',
  async (t) => {
    for (const { name, test, broker } of credentialTypes) {
      if (test?.kind !== 'http') continue;
      t.ok(broker !== undefined && broker.upstream.kind !== 'policy', name);
      t.match(test.path, /^\/[\w/.{}=?%-]*$/, name);
    }
  },
);

t.test(
  'a value or a destination that fits no request ends the test before anything is asked',
  async (t) => {
    for (const [name, fields, step] of [
      ['openai', { apiKey: 'sk-with\nbreak', baseUrl: 'https://api.openai.com' }, 'login'],
      ['customLlm', { apiKey: key, baseUrl: 'https://127.0.0.1/' }, 'name'],
      ['telegram', { botToken: '1:a/../../x' }, 'login'],
    ] as const) {
      const { asked, failed } = await ask(name, fields);
      t.same(asked, [], name);
      t.match(failed, { step, outcome: 'failed' }, name);
      t.ok(failed instanceof TestFailed);
    }
  },
);
