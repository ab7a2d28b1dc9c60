// The client, and both examples of docs/engines.md as they stand there, against a vault that
// listens.
import { randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'tap';
import { LeaseInvalid, VaultClient, VaultProblem } from '../../src/client/index.ts';
import { askLease, registerEngine, storeOpenai } from '../helpers/leases.ts';
import { runModule } from '../helpers/processes.ts';
import { runPython, skipWithoutPython } from '../helpers/python.ts';
import { startVault } from '../helpers/vault.ts';

const document = readFileSync(join(import.meta.dirname, '../../docs/engines.md'), 'utf8');
const example = (language: string): string =>
  [...document.matchAll(new RegExp(`^\`\`\`${language}\n(.*?)^\`\`\``, 'gms'))].at(-1)?.[1] ?? '';

test('an engine outside', async (t) => {
  let url = '';
  const vault = await startVault(t, { publicUrl: () => url });
  await vault.app.listen({ host: '127.0.0.1', port: 0 });
  url = `http://127.0.0.1:${(vault.app.server.address() as AddressInfo).port}`;
  await vault.team('payments');
  const engine = await registerEngine(vault, 'n8n');
  await vault.member('payments', 'n8n', 'engine');
  const canary = `sk-${randomBytes(24).toString('hex')}`;
  await storeOpenai(vault, 'payments', 'openai-prod', canary);
  const request = {
    credentials: [{ team: 'payments', name: 'openai-prod' }],
    purpose: 'a test',
    onBehalfOf: 'alice',
  };
  const client = (more: object = {}): VaultClient =>
    new VaultClient({
      baseUrl: `${url}/`,
      subject: 'n8n',
      token: () => vault.token('n8n'),
      privateKeys: engine.privateKeys,
      ...more,
    });

  await t.test('the client gives what it asked for', async (t) => {
    const lease = await client().lease(request);
    t.match(lease.credentials, [
      {
        team: 'payments',
        name: 'openai-prod',
        version: 1,
        notModified: false,
        fields: { apiKey: canary },
      },
    ]);
    t.match(
      (
        await client().lease({
          ...request,
          credentials: [{ ...request.credentials[0], knownVersion: 1 } as never],
        })
      ).credentials,
      [{ notModified: true }],
    );
  });

  await t.test('a refusal of the vault is a problem with its code and its rules', async (t) => {
    const refusal = (call: Promise<unknown>): Promise<unknown> =>
      call.then(
        () => 'given',
        (error: unknown) => error,
      );
    for (const [call, expected] of [
      [
        () => client().lease({ ...request, onBehalfOf: 'stranger' }),
        {
          status: 422,
          code: 'leaseRefused',
          errors: [{ pointer: '/credentials/0', rule: 'onBehalfOfRefused' }],
        },
      ],
      [
        () => client({ token: () => 'no.real.token' }).lease(request),
        { status: 401, code: 'unauthenticated', errors: [] },
      ],
      [
        () => client({ token: () => vault.token('alice') }).lease(request),
        { status: 403, code: 'forbidden' },
      ],
    ] as const) {
      const error = await refusal(call());
      t.ok(error instanceof VaultProblem);
      t.match(error, expected);
    }
  });

  await t.test(
    'a vault that is not the one it says, or a lease that is not ours, is refused',
    async (t) => {
      await t.rejects(
        client({ issuer: 'https://other.test' }).lease(request),
        new LeaseInvalid('issuer'),
      );
      await t.rejects(client({ subject: 'zapier' }).lease(request), new LeaseInvalid('audience'));
      await t.rejects(client({ privateKeys: [] }).lease(request), new LeaseInvalid('notOurKey'));
    },
  );

  await t.test('the TypeScript of docs/engines.md runs', async (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'vault-engine-'));
    t.teardown(() => {
      rmSync(folder, { recursive: true });
    });
    writeFileSync(join(folder, 'key.json'), JSON.stringify(engine.privateKeys[0]));
    Object.assign(process.env, {
      VAULT_URL: url,
      VAULT_TOKEN: await vault.token('n8n'),
      ENGINE_KEY_FILE: join(folder, 'key.json'),
    });
    const program = runModule(t, example('ts'));
    t.equal(await program.ended, 0);
    t.match(program.output(), /^openai-prod \[.*'apiKey'.*\]\n$/);
  });

  for (const curve of ['X25519', 'P-256'] as const) {
    await t.test(
      `the Python of docs/engines.md opens a lease to ${curve}, and refuses what it should`,
      { skip: skipWithoutPython },
      async (t) => {
        const sub = `python-${curve}`;
        const { privateKeys } = await registerEngine(vault, sub, curve);
        await vault.member('payments', sub, 'engine');
        const { json } = await askLease(vault, sub, request.credentials);
        const { json: jwks } = await vault.call(null, 'GET', '/.well-known/jwks.json');
        const given = {
          sealed: json.sealed,
          private_jwk: privateKeys[0],
          jwks,
          issuer: url,
          audience: sub,
        };
        const open = (more: object = {}): unknown =>
          runPython(
            `${example('python')}
try:
    answer(open_lease(**given))
except Exception as error:
    answer(type(error).__name__)`,
            { ...given, ...more },
          );
        t.match(open(), { 'openai-prod': { apiKey: canary } });
        t.equal(open({ issuer: 'https://other.test' }), 'ValueError');
        t.equal(open({ audience: 'n8n' }), 'ValueError');
        t.equal(open({ private_jwk: engine.privateKeys[0] }), 'ValueError');
        t.equal(open({ jwks: { keys: [] } }), 'StopIteration');
        const [stranger] = (await (await startVault(t)).call(null, 'GET', '/.well-known/jwks.json'))
          .json.keys as [object];
        t.equal(
          open({ jwks: { keys: [{ ...stranger, kid: jwks.keys[0].kid }] } }),
          'InvalidSignature',
        );
        const parts = json.sealed.split('.');
        t.equal(
          open({
            sealed: [
              ...parts.slice(0, 3),
              `${parts[3].startsWith('A') ? 'B' : 'A'}${parts[3].slice(1)}`,
              parts[4],
            ].join('.'),
          }),
          'InvalidTag',
        );
      },
    );
  }
});
