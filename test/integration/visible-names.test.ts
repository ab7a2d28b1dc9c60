// Names that look the same are the same, in every operation that gives one; and those of before stay
// usable and are listed.
import t from 'tap';
import { sql } from 'kysely';
import { verifyAll, type OddName } from '../../src/integrity/verify.ts';
import { credentialRowMac } from '../../src/credentials/row-mac.ts';
import { generateEngineKey } from '../../src/client/index.ts';
import { askLease, demand, registerEngine, storeOpenai } from '../helpers/leases.ts';
import { type Answer, startVault, type TestVault } from '../helpers/vault.ts';

const odd: readonly (readonly [string, string])[] = [
  ['openai-prod\u3164', 'invisible'],
  ['openai\u2800prod', 'invisible'],
  ['openai\u00a0prod', 'blanks'],
  ['openai  prod', 'blanks'],
  ['\u0301openai', 'combining'],
  ['cafe\u0301', 'normalized'],
  ['..', 'dots'],
];
const any = { 'if-match': '*' };
const fields = { apiKey: 'sk-test' };

t.test('no operation gives a name that looks like another', async (t) => {
  const vault = await startVault(t);
  await vault.team('payments');
  const { id } = await storeOpenai(vault, 'payments', 'openai-prod', 'sk-test');
  const engine = await registerEngine(vault, 'n8n');
  const refused = (answer: Answer, pointer: string, rule: string, what: string): void => {
    t.match(
      answer,
      {
        status: 400,
        json: { code: 'invalidRequest', errors: [{ pointer, rule: `name.${rule}` }] },
      },
      `${what}: ${answer.text}`,
    );
  };
  const list = '/v1/teams/payments/credentials';
  for (const [name, rule] of odd) {
    // A path cannot end in dots: no client sends it as it is.
    const of = (what: string): string => `${what} ${JSON.stringify(name)}`;
    refused(
      await vault.call('alice', 'POST', list, { name, type: 'openai', fields }),
      '/name',
      rule,
      of('create'),
    );
    refused(
      await vault.call('alice', 'PATCH', `/v1/credentials/${id}`, { name }, any),
      '/name',
      rule,
      of('rename'),
    );
    if (rule !== 'dots')
      for (const dry of ['', '?dryRun=true'])
        refused(
          await vault.call(
            'alice',
            'PUT',
            `/v1/teams/payments/credentials/${encodeURIComponent(name)}${dry}`,
            { type: 'openai', fields },
          ),
          '/params/name',
          rule,
          of(`upsert${dry}`),
        );
    const bulk = await vault.call('alice', 'POST', `${list}/bulk`, {
      items: [
        { op: 'create', name, type: 'openai', fields },
        { op: 'update', id, revision: '*', name },
      ],
    });
    t.notMatch(bulk.text, '"status":20', of(`bulk ${bulk.text}`));
    t.match(bulk.text, `name.${rule}`, of('bulk'));
    refused(
      await vault.call('operator', 'POST', '/v1/engines', {
        name,
        subject: 'another',
        keys: [generateEngineKey().publicJwk],
      }),
      '/name',
      rule,
      of('an engine'),
    );
    refused(
      await vault.call('operator', 'PATCH', `/v1/engines/${engine.id}`, { name }, any),
      '/name',
      rule,
      of("an engine's other name"),
    );
    refused(
      await vault.call('operator', 'POST', '/v1/teams', { slug: 'other', name, admins: ['alice'] }),
      '/name',
      rule,
      of('a team'),
    );
    refused(
      await vault.call('alice', 'PATCH', '/v1/teams/payments', { name }, any),
      '/name',
      rule,
      of("a team's other name"),
    );
  }
});

/** Calls a credential what an earlier version would have let it be called. */
async function callIt(vault: TestVault, id: string, name: string): Promise<void> {
  const { rows } = await sql<any>`
    select credential.id, credential.team_id as team, type, state, state_before as "stateBefore", current_version as version, expires_at as "expiresAt",
      credential.revision, public_fields as "publicFields", policy, secret_field_names as "secretFieldNames"
    from credential join credential_version held on held.credential_id = credential.id and held.version = current_version
    where credential.id = ${id}`.execute(vault.db);
  const seal = credentialRowMac(vault.keyring, { ...rows[0], name });
  await sql`update credential set name = ${name}, seal = ${seal} where id = ${id}`.execute(
    vault.db,
  );
}

t.test('a name of before stays usable, and is listed', async (t) => {
  const vault = await startVault(t);
  await vault.team('payments');
  await vault.team('receiving', ['rita']);
  await registerEngine(vault, 'n8n');
  await vault.member('payments', 'n8n', 'engine');
  const { id } = await storeOpenai(vault, 'payments', 'openai-prod', 'sk-test');
  const name = 'openai-prod\u3164';
  await callIt(vault, id, name);
  t.match(await vault.call('alice', 'GET', `/v1/credentials/${id}`), {
    status: 200,
    json: { name },
  });
  t.equal((await askLease(vault, 'n8n', [{ team: 'payments', name }])).status, 201, 'leased by it');
  const patch = (body: object): Promise<Answer> =>
    vault.call('alice', 'PATCH', `/v1/credentials/${id}`, body, any);
  t.equal((await patch({ description: 'x' })).status, 200);
  t.equal((await patch({ name, description: 'y' })).status, 200, 'sent along as it is');
  t.equal(
    (
      await vault.call(
        'alice',
        'PUT',
        `/v1/teams/payments/credentials/${encodeURIComponent(name)}`,
        { type: 'openai', fields, description: 'z' },
        any,
      )
    ).status,
    200,
    'found by it',
  );
  t.match(
    await vault.call('alice', 'POST', `/v1/credentials/${id}/transfers`, { team: 'receiving' }),
    { status: 409, json: { code: 'stateConflict' } },
    'to another team it goes under a name that can be told from others',
  );
  const odds: OddName[] = [];
  const verified = await verifyAll(
    { db: vault.db, keyring: vault.keyring },
    { onFinding: () => undefined, onOddName: (each) => odds.push(each), isStopping: () => false },
  );
  t.same(odds, [{ table: 'credential', row: id, rule: 'invisible' }]);
  t.match(verified, { oddNames: 1, findings: 0 }, 'which is no fault of what is stored');
  t.equal((await patch({ name: 'openai' })).status, 200);
  const offer = await demand(
    vault.call('alice', 'POST', `/v1/credentials/${id}/transfers`, { team: 'receiving' }),
    201,
  );
  await callIt(vault, id, name);
  t.match(
    await vault.call('rita', 'POST', `/v1/transfers/${offer.id}/accept`),
    { status: 409, json: { code: 'stateConflict' } },
    'and so when it is taken over',
  );
});
