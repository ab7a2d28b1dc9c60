// Requests of every kind to every operation, drawn from openapi.yaml: whatever comes in, what goes
// out is what the document promises, is never a 5xx, and repeats neither a secret nor what was
// wrong. FUZZ_RUNS and FUZZ_SEED (npm run test:fuzz) make it longer, or play one run again.
import fc from 'fast-check';
import t from 'tap';
import {
  committedDocument,
  documentOperations,
  undocumented,
} from '../helpers/documented-answers.ts';
import { startFilled } from '../helpers/filled-team.ts';
import { demand, storeOpenai } from '../helpers/leases.ts';
import type { Json } from '../helpers/openapi.ts';
import { typeSamples } from '../helpers/type-samples.ts';
import type { Answer, TestVault } from '../helpers/vault.ts';
import { type FuzzRequest, requestTo, secretCanary, valueCanary } from '../fuzz/requests.ts';

const runs = Number(process.env['FUZZ_RUNS'] ?? 3_000);
const seed = Number(process.env['FUZZ_SEED'] ?? 20_261);
/** A fresh team, before too much of the one before is gone. */
const runsPerTeam = 250;

t.test(
  'whatever is asked of an operation, its answer is one that the document promises',
  async (t) => {
    const { vault, people, parts } = await startFilled(t);
    const things = new Map(Object.entries(parts).map(([name, value]) => [name, [value]]));
    const callers: readonly (string | null)[] = [
      ...['alice', 'operator', people.editor, people.engine, people.viewer, people.auditor],
      ...['stranger', null],
    ];
    const statuses = new Map<string, number>();
    const done = new Set<string>();
    const operations = [...documentOperations.keys()];
    const request = fc.constantFrom(...operations).chain(requestTo);
    let count = 0;
    await fc.assert(
      fc.asyncProperty(request, async (each) => {
        count += 1;
        if (count % runsPerTeam === 1) await refill(vault, things, `fuzzed-${count}`, people);
        // Mostly somebody who may; anybody else now and then.
        const isAnybody = each.as % 4 === 0;
        const as = isAnybody
          ? callers[Math.floor(each.as / 4) % callers.length]!
          : whoMay(each.operation, people);
        const answer = await send(vault, each, as, things);
        learn(things, answer);
        statuses.set(`${answer.status}`, (statuses.get(`${answer.status}`) ?? 0) + 1);
        if (answer.status < 300) done.add(each.operation);
        const faults = faultsOf(each, answer);
        if (faults.length > 0)
          throw new Error(
            `${each.operation} as ${as}: ${faults.join('; ')}\n${answer.text.slice(0, 2_000)}`,
          );
      }),
      { seed, numRuns: runs, endOnFailure: true },
    );
    t.equal(
      count,
      runs,
      `${runs} requests from seed ${seed}: ${JSON.stringify(Object.fromEntries(statuses))}`,
    );
    t.ok(done.size > 40, `${done.size} operations were done, and not only refused`);
    for (const status of [
      '200',
      '201',
      '204',
      '400',
      '401',
      '403',
      '404',
      '409',
      '412',
      '415',
      '422',
    ])
      t.ok(statuses.has(status), `some are answered ${status}`);
    // What a guard would let through unseen: the search itself finds what is planted.
    const planted = { status: 400, headers: {}, text: `{"detail":"${valueCanary}"}`, json: {} };
    const any = { operation: 'whoami', as: 0, parts: {}, query: [], headers: {}, body: undefined };
    t.ok(
      faultsOf(any, planted).includes('the value comes back'),
      'the search finds what is planted',
    );
  },
);

function faultsOf({ operation }: FuzzRequest, answer: Answer): string[] {
  const { status, headers, text } = answer;
  const header = (name: string): string | undefined => {
    const value = headers[name.toLowerCase()];
    return value === undefined ? undefined : String(value);
  };
  const everything = `${JSON.stringify(headers)}\n${text}`;
  return [
    ...(status >= 500 ? [`${status}`] : []),
    ...undocumented(operation, { status, header, text }),
    ...(everything.includes(secretCanary) ? ['a secret comes back'] : []),
    ...(status >= 400 && everything.includes(valueCanary) ? ['the value comes back'] : []),
  ];
}

function send(
  vault: TestVault,
  { operation, parts, query, headers, body }: FuzzRequest,
  as: string | null,
  things: ReadonlyMap<string, readonly string[]>,
): Promise<Answer> {
  const { method, path } = documentOperations.get(operation)!;
  const filled = path.replaceAll(/\{(\w+)\}/g, (_, name: string) => {
    const part = parts[name]!;
    if ('text' in part) return encoded(part.text);
    const known = things.get(name) ?? ['1'];
    return encoded(known[part.pick % known.length]!);
  });
  const search = query.map(([name, value]) => `${encoded(name)}=${encoded(value)}`).join('&');
  const type = body === undefined ? {} : { 'content-type': 'application/json' };
  return vault.call(as, method, search === '' ? filled : `${filled}?${search}`, body, {
    ...type,
    ...headers,
  });
}

/** As a client would; a lone surrogate as its bytes. */
const encoded = (text: string): string => {
  try {
    return encodeURIComponent(text);
  } catch {
    return '%ed%a0%80';
  }
};

/** Ids in answers are things that the next request may name. */
function learn(things: Map<string, string[]>, { status, json }: Answer): void {
  if (status >= 300 || typeof json !== 'object' || json === null) return;
  const keep = (name: string, value: unknown): void => {
    if (typeof value !== 'string') return;
    const known = things.get(name) ?? [];
    if (!known.includes(value)) things.set(name, [...known.slice(-20), value]);
  };
  const one = json as Record<string, unknown>;
  if (one['secretFields'] !== undefined) keep('id', one['id']);
  if (one['toKey'] !== undefined) keep('rotation', one['id']);
  if (one['ticket'] !== undefined) keep('id', one['id']);
  if (one['from'] !== undefined && one['to'] !== undefined) keep('transfer', one['id']);
  if (one['type'] === 'webhook') keep('credential', one['id']);
  if (Array.isArray(one['keys']) && one['subject'] !== undefined) {
    keep('engine', one['id']);
    for (const { kid } of one['keys'] as { kid: string }[]) keep('kid', kid);
  }
}

/** Somebody whom the operation's action lets in. */
function whoMay(operation: string, people: People): string | null {
  const action = String(documentOperations.get(operation)!.operation['x-action']);
  if (action === 'public') return null;
  if (action === 'credential.lease') return people.engine;
  return /^(team.create|engine|rootKey|status)/.test(action) ? 'operator' : people.admin;
}

type People = Awaited<ReturnType<typeof startFilled>>['people'];

/** A team with a credential, a webhook, a rotation and somebody in every role. */
async function refill(
  vault: TestVault,
  things: Map<string, string[]>,
  slug: string,
  { admin, editor, engine, viewer, auditor }: People,
): Promise<void> {
  await vault.team(slug, [admin]);
  const of = `/v1/teams/${slug}`;
  // Whoever was made an admin, an engine or nothing by then is asked all the same.
  for (const [sub, role] of Object.entries({ editor, viewer, auditor, engine }).map(
    ([role, sub]) => [sub, role] as const,
  ))
    await vault.call(admin, 'PUT', `${of}/members/${sub}`, { role });
  const { id } = await storeOpenai(vault, slug, 'openai', 'sk-fuzzed-first', {}, admin);
  const { public: open, secret } = typeSamples['webhook']!;
  const webhook = { name: 'receiver', type: 'webhook', fields: { ...open, ...secret } };
  const receiver = await demand(vault.call(admin, 'POST', `${of}/credentials`, webhook), 201);
  const events = ['key.overdue'];
  await demand(vault.call(admin, 'PUT', `${of}/webhooks/${receiver.id}`, { events }), 200);
  const rotation = await demand(vault.call(admin, 'POST', `${of}/key-rotations`), 202);
  const { items } = await demand(vault.call(admin, 'GET', `${of}/keys`), 200);
  things.set('team', [slug]);
  things.set('name', ['openai', 'receiver', 'fresh']);
  things.set('id', [id, id, receiver.id]);
  things.set('credential', [receiver.id, id]);
  things.set('rotation', [rotation.id]);
  things.set(
    'key',
    items.map((key: Json) => key['id'] as string),
  );
  things.set('version', ['1', '2']);
  things.set('subject', [editor, viewer, auditor, engine, 'guest']);
}

t.test('the document is the one that is committed, and none of its operations is left out', (t) => {
  t.equal(documentOperations.size > 70, true);
  t.ok((committedDocument['paths'] as Json)['/v1/credentials'] !== undefined);
  for (const operation of documentOperations.keys())
    t.doesNotThrow(() => fc.sample(requestTo(operation), { numRuns: 3, seed: 1 }), operation);
  t.end();
});
