// A vault with one of everything that a path can name, and somebody in each role of its team.
import type { AnyOperation } from '../../src/http/operation.ts';
import { demand, registerEngine, storeOpenai } from './leases.ts';
import { typeSamples } from './type-samples.ts';
import { type Answer, startVault, type TestVault } from './vault.ts';

/**
 * A vault with one of everything that a path can name, and somebody in each role of the team
 * `payments`.
 */
export async function startFilled(
  t: Parameters<typeof startVault>[0],
  options: Parameters<typeof startVault>[1] = {},
) {
  const vault = await startVault(t, options);
  const people = {
    viewer: 'vera',
    editor: 'eddie',
    admin: 'alice',
    auditor: 'audrey',
    engine: 'n8n',
  };
  await vault.team('payments', [people.admin]);
  const engine = await registerEngine(vault, people.engine);
  const {
    keys: [{ kid }],
  } = await demand(vault.call('operator', 'GET', `/v1/engines/${engine.id}`), 200);
  for (const role of ['viewer', 'editor', 'auditor', 'engine'] as const)
    await vault.member('payments', people[role], role);
  const credential = await storeOpenai(vault, 'payments', 'openai', 'sk-test');
  await vault.team('receiving', ['rita']);
  const transfer = await demand(
    vault.call(people.admin, 'POST', `/v1/credentials/${credential.id}/transfers`, {
      team: 'receiving',
    }),
    201,
  );
  const { public: open, secret } = typeSamples['webhook']!;
  const receiver = await demand(
    vault.call(people.admin, 'POST', '/v1/teams/payments/credentials', {
      name: 'receiver',
      type: 'webhook',
      fields: { ...open, ...secret },
    }),
    201,
  );
  await demand(
    vault.call(people.admin, 'PUT', `/v1/teams/payments/webhooks/${receiver.id}`, {
      events: ['key.overdue'],
    }),
    200,
  );
  const rotation = await demand(
    vault.call(people.admin, 'POST', '/v1/teams/payments/key-rotations'),
    202,
  );
  const parts: Record<string, string> = {
    team: 'payments',
    id: credential.id,
    engine: engine.id,
    kid,
    key: rotation.toKey,
    rotation: rotation.id,
    transfer: transfer.id,
    subject: people.viewer,
    type: 'openai',
    fingerprint: '0123456789abcdef',
    version: '1',
    name: 'openai',
    credential: receiver.id,
  };
  const fill = ({ url }: AnyOperation, other: Record<string, string> = {}): string =>
    url.replaceAll(/:([A-Za-z]+)/g, (_, name: string) => {
      const part = other[name] ?? parts[name];
      if (part === undefined) throw new Error(`say what stands for :${name} in ${url}`);
      return part;
    });
  return { vault, people, parts, fill };
}

/** Calls with a body that no operation can read; a GET has none. */
export const callBroken = (
  vault: TestVault,
  as: string,
  { method }: AnyOperation,
  url: string,
): Promise<Answer> =>
  method === 'GET' ? vault.call(as, method, url) : vault.call(as, method, url, '{');
