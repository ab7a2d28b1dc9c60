// Acceptance: everything moves with its numbers and times, re-encrypted, and what others had ends; or nothing moves at all.
import { sql } from 'kysely';
import t, { type Test as Tap } from 'tap';
import { type Finding, verifyAll } from '../../src/integrity/verify.ts';
import type { CredentialId } from '../../src/shared/ids.ts';
import { startAuthorizationServer } from '../helpers/authorization-server.ts';
import { askTicket } from '../helpers/broker.ts';
import { intrude } from '../helpers/intruder.ts';
import { askLease, demand, openAnswer, registerEngine, rulesOf, storeOpenai, type TestEngine } from '../helpers/leases.ts';
import { begin, callbackOf, connect, leaseFields, oauthStage, storeOAuth } from '../helpers/oauth.ts';
import { until } from '../helpers/processes.ts';
import { typeSamples } from '../helpers/type-samples.ts';
import { type Answer, startVault, type TestVault } from '../helpers/vault.ts';

const any = { 'if-match': '*' };
const both = { policy: { delivery: ['lease', 'broker'], allowedHosts: [] } };

interface Stage { readonly vault: TestVault; readonly id: string; readonly bot: TestEngine }

/** `payments` (alice, engine n8n) and `billing` (bella, engine bot); a credential of three versions. */
async function setStage(t: Tap): Promise<Stage> {
  const vault = await startVault(t);
  await vault.team('payments');
  await vault.team('billing', ['bella']);
  await registerEngine(vault, 'n8n');
  await vault.member('payments', 'n8n', 'engine');
  const bot = await registerEngine(vault, 'bot');
  await vault.member('billing', 'bot', 'engine', 'bella');
  const { id } = await storeOpenai(vault, 'payments', 'moving', 'sk-first', { ...both, labels: { env: 'prod' } });
  for (const apiKey of ['sk-second', 'sk-third']) await demand(vault.call('alice', 'PATCH', `/v1/credentials/${id}`, { fields: { apiKey } }, any), 200);
  return { vault, id, bot };
}
const offer = (vault: TestVault, id: string, as = 'alice', to = 'billing'): Promise<any> => demand(vault.call(as, 'POST', `/v1/credentials/${id}/transfers`, { team: to }), 201);
const accept = (vault: TestVault, transfer: { id: string }, as = 'bella'): Promise<Answer> => vault.call(as, 'POST', `/v1/transfers/${transfer.id}/accept`);
const versionsOf = async ({ db }: TestVault, id: string): Promise<any[]> => (await sql`
  select version, credential_version.created_at, public_fields, policy, data_key_id, key_history, team.slug, token, substring(token from 1 for 12) as time
  from credential_version join team on team.id = team_id where credential_id = ${id} order by version`.execute(db)).rows;
const keysOf = async ({ db }: TestVault, slug: string): Promise<string[]> => (await sql<{ id: string }>`
  select data_key.id from data_key join team on team.id = team_id where slug = ${slug} order by version`.execute(db)).rows.map(({ id }) => id);
const scan = async (vault: TestVault): Promise<Finding[]> => {
  const found: Finding[] = [];
  await verifyAll(vault, { onFinding: (finding) => { found.push(finding); }, isStopping: () => false });
  return found;
};
const events = async (vault: TestVault, team: string, admin: string, action: string): Promise<any[]> => (await demand(vault.call(admin, 'GET', `/v1/teams/${team}/audit-events?action=${action}&limit=200`), 200)).items;
const rotate = async (vault: TestVault, team: string, admin: string): Promise<any> => {
  const { id } = await demand(vault.call(admin, 'POST', `/v1/teams/${team}/key-rotations`), 202);
  return until(async () => {
    const rotation = await demand(vault.call(admin, 'GET', `/v1/teams/${team}/key-rotations/${id}`), 200);
    return rotation.state !== 'running' && rotation;
  });
};

t.test('a credential moves with all that it is, and what others had of it ends', async (t) => {
  const { vault, id, bot } = await setStage(t);
  await vault.team('sales', ['sam']);
  const path = `/v1/credentials/${id}`;
  await demand(vault.call('alice', 'PUT', `${path}/grants/teams/sales`, { access: 'use' }), 200);
  await demand(vault.call('alice', 'PUT', `${path}/grants/subjects/nora`, { access: 'read' }), 200);
  const ticket = await demand(askTicket(vault, 'n8n', { id }), 201);
  await demand(askLease(vault, 'n8n', [{ id }]), 201);
  const seen = await demand(vault.call('alice', 'GET', path), 200);
  const before = await versionsOf(vault, id);
  const [paymentsKey, billingKey] = [(await keysOf(vault, 'payments'))[0]!, (await keysOf(vault, 'billing'))[0]!];
  const transfer = await offer(vault, id);
  const accepted = await accept(vault, transfer);
  t.match(accepted, { status: 200, headers: { etag: '"4"' }, json: { credential: id, team: 'billing', name: 'moving', type: 'openai', revision: 4 } });

  const after = await versionsOf(vault, id);
  t.same(after.map(({ version, created_at, public_fields, policy, time }) => ({ version, created_at, public_fields, policy, time })),
    before.map(({ version, created_at, public_fields, policy, time }) => ({ version, created_at, public_fields, policy, time })), 'numbers, times, policies, and the times within the tokens');
  t.ok(after.every(({ slug, data_key_id, token }, i) => slug === 'billing' && data_key_id === billingKey && token !== before[i].token));
  t.ok(after.every(({ key_history }) => key_history.join() === [paymentsKey, billingKey].join()), 'the list of keys follows');
  t.same(await scan(vault), []);
  const { revision, updatedAt, updatedBy, team, through, ...same } = await demand(vault.call('bella', 'GET', path), 200);
  const { revision: _, updatedAt: __, updatedBy: ___, team: ____, through: _____, ...was } = seen;
  t.same(same, was, 'policy, labels, version, creation');
  t.match({ revision, updatedBy, team, through }, { revision: seen.revision + 1, updatedBy: 'bella', team: 'billing', through: [{ kind: 'membership', team: 'billing' }] });
  t.match((await openAnswer(vault, bot, await askLease(vault, 'bot', [{ id }], { onBehalfOf: 'bella' }))).credentials, [{ team: 'billing', fields: { apiKey: 'sk-third' } }]);
  await demand(vault.call('bella', 'POST', `${path}/versions/1/restore`), 200);
  t.match((await openAnswer(vault, bot, await askLease(vault, 'bot', [{ team: 'billing', name: 'moving' }], { onBehalfOf: 'bella' }))).credentials, [{ fields: { apiKey: 'sk-first' } }]);

  for (const as of ['alice', 'sam', 'nora']) t.equal((await vault.call(as, 'GET', path)).status, 404, as);
  t.same(rulesOf(await askLease(vault, 'n8n', [{ id }])), ['/credentials/0 notFound'], 'also what was leased before');
  t.same(rulesOf(await askLease(vault, 'n8n', [{ team: 'payments', name: 'moving' }])), ['/credentials/0 notFound']);
  t.equal((await vault.call('n8n', 'DELETE', `/v1/broker-tickets/${ticket.id}`)).status, 404, 'the ticket is gone');
  t.same((await demand(vault.call('bella', 'GET', `${path}/grants`), 200)).items, []);
  t.same((await demand(vault.call('bella', 'GET', '/v1/teams/billing/transfers'), 200)).items, []);
  t.equal((await accept(vault, transfer)).status, 404);

  const [[source], [target]] = [await events(vault, 'payments', 'alice', 'transfer.accept'), await events(vault, 'billing', 'bella', 'transfer.accept')];
  t.match(source, { actor: 'bella', target: { id }, key: null, details: { transfer: transfer.id, from: 'payments', to: 'billing', versions: 3, grants: 2, tickets: 1 }, intact: true });
  t.match(target, { actor: 'bella', target: { id }, key: billingKey, details: { from: 'payments' }, intact: true });
  t.match(await events(vault, 'sales', 'sam', 'grant.remove'), [{ details: { owner: 'payments', cause: 'transfer' } }]);
  t.match(await events(vault, 'payments', 'alice', 'grant.remove'), [{ details: { cause: 'transfer' } }, { details: { cause: 'transfer' } }]);
});

t.test('a key of the former team that becomes known still exposes what moved away', async (t) => {
  const { vault, id } = await setStage(t);
  await demand(accept(vault, await offer(vault, id)), 200);
  const [key] = await keysOf(vault, 'payments');
  const problems = async (): Promise<string[]> => (await demand(vault.call('bella', 'GET', `/v1/credentials/${id}`), 200)).problems;
  t.same(await problems(), []);
  await demand(vault.call('alice', 'POST', `/v1/teams/payments/keys/${key}/mark-compromised`, { reason: 'a laptop' }), 200);
  t.same(await problems(), ['exposed']);
  t.same((await demand(vault.call('bella', 'GET', '/v1/teams/billing/credentials?problem=exposed'), 200)).items.map((each: any) => each.id), [id]);
  await demand(vault.call('bella', 'PATCH', '/v1/teams/billing', { refuseExposedLeases: true }, any), 200);
  t.same(rulesOf(await askLease(vault, 'bot', [{ id }], { onBehalfOf: 'bella' })), ['/credentials/0 exposed']);
  await demand(vault.call('bella', 'PATCH', `/v1/credentials/${id}`, { fields: { apiKey: 'sk-newest-value' } }, any), 200);
  t.same(await problems(), []);
});

t.test('a connected account moves along, with its own list of keys; what was begun ends; a refresh is waited for', async (t) => {
  const server = await startAuthorizationServer(t);
  const stage = await oauthStage(t, server);
  const { vault } = stage;
  const bot = await registerEngine(vault, 'bot');
  await vault.team('billing', ['bella']);
  await vault.member('billing', 'bot', 'engine', 'bella');
  await vault.member('billing', 'alice', 'editor', 'bella');
  const { id } = await storeOAuth(stage, 'sheets');
  await connect(stage, id);
  const begun = await begin(stage, id);
  const held = async (): Promise<any> => vault.db.selectFrom('oauth_token').select(['sequence', 'token', 'data_key_id', 'key_history', 'connected_at']).executeTakeFirstOrThrow();
  const before = await held();
  const transfer = await offer(vault, id);
  await sql`update oauth_token set claim_id = '019aa7c2-5b1e-7c3a-9d52-0a4f6e1b2c3d', claimed_until = now() + interval '1 minute'`.execute(vault.db);
  t.match(await accept(vault, transfer), { status: 409, json: { code: 'stateConflict' } });
  t.same((await held()).token, before.token);
  await sql`update oauth_token set claim_id = null, claimed_until = null`.execute(vault.db);
  await demand(accept(vault, transfer), 200);
  const after = await held();
  t.match(after, { sequence: before.sequence, connected_at: before.connected_at, key_history: [...await keysOf(vault, 'payments'), ...await keysOf(vault, 'billing')], data_key_id: (await keysOf(vault, 'billing'))[0] });
  t.not(after.token, before.token);
  t.same(await scan(vault), []);
  t.equal((await leaseFields({ ...stage, engine: bot }, id))['accessToken'], server.given.accessTokens[0]);
  t.equal((await vault.call('alice', 'POST', '/v1/oauth/callbacks', callbackOf(await server.visit(begun.authorizationUrl)))).status, 400, 'what was begun for the other team');
  vault.clock.ms += 7_200_000;
  t.equal((await leaseFields({ ...stage, engine: bot }, id))['accessToken'], server.given.accessTokens[1], 'and is refreshed there');
  const [key] = await keysOf(vault, 'payments');
  await demand(vault.call('alice', 'POST', `/v1/teams/payments/keys/${key}/mark-compromised`, { reason: 'x' }), 200);
  t.ok((await demand(vault.call('bella', 'GET', `/v1/credentials/${id}`), 200)).problems.includes('exposed'));

  await t.test('an account that does not open holds it back', async (t) => {
    const { id: other } = await storeOAuth(stage, 'other');
    await connect(stage, other);
    const transfer = await offer(vault, other);
    await intrude(vault.db, `update oauth_token set token = (select token from oauth_token where credential_id = '${id}') where credential_id = '${other}'`);
    t.match(await accept(vault, transfer), { status: 409, json: { code: 'undecryptable' } });
    t.equal((await vault.call('alice', 'GET', `/v1/credentials/${other}`)).json.team, 'payments');
  });

  await t.test('one that was never connected moves without', async (t) => {
    const { id: bare } = await storeOAuth(stage, 'bare');
    await demand(accept(vault, await offer(vault, bare)), 200);
    t.same((await scan(vault)).filter(({ fault }) => fault !== 'tokenDoesNotOpen'), []);
  });
});

t.test('a receiver of the team\'s notifications is none any more when it has moved', async (t) => {
  const { vault } = await setStage(t);
  const { public: open, secret } = typeSamples['webhook']!;
  const { id } = await demand(vault.call('alice', 'POST', '/v1/teams/payments/credentials', { name: 'receiver', type: 'webhook', fields: { ...open, ...secret } }), 201);
  await demand(vault.call('alice', 'PUT', `/v1/teams/payments/webhooks/${id}`, { events: ['key.overdue'] }), 200);
  await demand(vault.call('alice', 'POST', `/v1/teams/payments/webhooks/${id}/test`), 202);
  await demand(accept(vault, await offer(vault, id)), 200);
  for (const table of ['webhook', 'notification'] as const) t.equal((await vault.db.selectFrom(table).select('team_id').execute()).length, 0, table);
  t.same(await scan(vault), []);
});

t.test('refused, and nothing has changed: a name that is taken, a version that does not open, a key that is away', async (t) => {
  const { vault, id } = await setStage(t);
  await demand(vault.call('alice', 'PUT', `/v1/credentials/${id}/grants/subjects/nora`, { access: 'read' }), 200);
  await demand(askTicket(vault, 'n8n', { id }), 201);
  const transfer = await offer(vault, id);
  const state = async (): Promise<unknown> => [
    (await sql`select * from credential order by id`.execute(vault.db)).rows, (await sql`select team_id, credential_id, version, data_key_id, token, key_history from credential_version order by credential_id, version`.execute(vault.db)).rows,
    (await sql`select * from credential_grant`.execute(vault.db)).rows, (await sql`select * from broker_ticket`.execute(vault.db)).rows, (await sql`select * from credential_transfer`.execute(vault.db)).rows,
  ];
  const refused = async (code: string, status: number): Promise<void> => {
    const before = await state();
    t.match(await accept(vault, transfer), { status, json: { code } });
    t.same(await state(), before, `${code}: nothing has changed`);
    t.same((await events(vault, 'billing', 'bella', 'transfer.accept')).filter(({ decision }: any) => decision === 'allow'), []);
  };
  const clash = await storeOpenai(vault, 'billing', 'moving', 'sk-other', {}, 'bella');
  await refused('nameTaken', 409);
  await demand(vault.call('bella', 'PATCH', `/v1/credentials/${clash.id}`, { name: 'other' }, any), 200);
  const token = async (version: number): Promise<string> => (await versionsOf(vault, id))[version - 1].token;
  for (const version of [1, 3]) {
    const [good, bad] = [await token(version), await token(2)];
    await intrude(vault.db, `update credential_version set token = '${bad}' where credential_id = '${id}' and version = ${version}`);
    await refused('undecryptable', 409);
    t.match(await events(vault, 'payments', 'alice', 'transfer.accept'), [{ decision: 'deny', reason: 'undecryptable', credentialVersion: version }]);
    await intrude(vault.db, `update credential_version set token = '${good}', undecryptable_at = null where credential_id = '${id}' and version = ${version}`, `delete from audit_event where reason = 'undecryptable'`);
  }
  await intrude(vault.db, `update data_key set state = 'retired' where team_id = (select team_id from credential where id = '${id}')`);
  await refused('undecryptable', 409);
  await intrude(vault.db, `update data_key set state = 'active' where state = 'retired'`);
  const roots = (await sql<{ id: string; root: string }>`select id, root_fingerprint as root from data_key`.execute(vault.db)).rows;
  await intrude(vault.db, `insert into root_key (fingerprint, canary) values ('00000000000000ff', '\\x00')`, `update data_key set root_fingerprint = '00000000000000ff', root_history = root_history || '00000000000000ff'::text where team_id = (select id from team where slug = 'billing')`);
  vault.keyring.forget();
  await refused('keyUnavailable', 503);
  for (const { id: key, root } of roots) await intrude(vault.db, `update data_key set root_fingerprint = '${root}' where id = '${key}'`);
  await demand(accept(vault, transfer), 200);
  t.same((await scan(vault)).filter(({ table }) => table !== 'root_key'), []);
});

t.test('rotations of both teams while credentials move: every token ends under its own team\'s active key', async (t) => {
  const vault = await startVault(t);
  await vault.team('payments');
  await vault.team('billing', ['bella']);
  const ids: string[] = [];
  for (let i = 0; i < 40; i += 1) {
    const { id } = await storeOpenai(vault, i % 2 === 0 ? 'payments' : 'billing', `moving-${i}`, `sk-${i}`, {}, i % 2 === 0 ? 'alice' : 'bella');
    await demand(vault.call(i % 2 === 0 ? 'alice' : 'bella', 'PATCH', `/v1/credentials/${id}`, { fields: { apiKey: `sk-${i}-next` } }, any), 200);
    ids.push(id);
  }
  vault.start();
  const move = async (id: string, i: number): Promise<string> => {
    const [from, to] = i % 2 === 0 ? ['alice', 'bella'] : ['bella', 'alice'];
    const made = await offer(vault, id, from, i % 2 === 0 ? 'billing' : 'payments');
    for (;;) {
      const { status, json } = await accept(vault, made, to);
      if (json?.code !== 'keyBusy') return `${status} ${json?.code ?? ''}`;
    }
  };
  const [moved, ...rotations] = await Promise.all([Promise.all(ids.map(move)), rotate(vault, 'payments', 'alice'), rotate(vault, 'billing', 'bella')]);
  t.same(moved.filter((outcome) => outcome !== '200 '), []);
  t.same(rotations.map(({ state, failed }) => ({ state, failed })), [{ state: 'completed', failed: 0 }, { state: 'completed', failed: 0 }]);
  t.same(await scan(vault), []);
  const astray = await sql`select 1 from credential_version version join data_key on data_key.id = version.data_key_id join credential on credential.id = version.credential_id
    where data_key.state <> 'active' or data_key.team_id <> version.team_id or credential.team_id <> version.team_id`.execute(vault.db);
  t.equal(astray.rows.length, 0);
  for (const [team, admin] of [['payments', 'alice'], ['billing', 'bella']] as const) {
    for (const key of (await keysOf(vault, team)).slice(0, -1)) await demand(vault.call(admin, 'POST', `/v1/teams/${team}/keys/${key}/retire`), 200);
  }
  t.equal((await sql`select 1 from credential_version where credential_id = ${ids[0]}`.execute(vault.db)).rows.length, 2);
});

t.test('a version that a rotation could not open moves once it is repaired, and leaves the rotation', async (t) => {
  const { vault, id } = await setStage(t);
  vault.start();
  const good = (await versionsOf(vault, id))[0].token;
  await intrude(vault.db, `update credential_version set token = (select token from credential_version where credential_id = '${id}' and version = 2) where credential_id = '${id}' and version = 1`);
  const rotation = await rotate(vault, 'payments', 'alice');
  t.match(rotation, { state: 'completedWithFailures', failed: 1 });
  const failures = async (): Promise<any[]> => (await demand(vault.call('alice', 'GET', `/v1/teams/payments/key-rotations/${rotation.id}`), 200)).failures;
  t.match(await failures(), [{ credential: id, version: 1 }]);
  const transfer = await offer(vault, id);
  t.match(await accept(vault, transfer), { status: 409, json: { code: 'undecryptable' } });
  await intrude(vault.db, `update credential_version set token = '${good}' where credential_id = '${id}' and version = 1`);
  await demand(accept(vault, transfer), 200);
  t.same(await failures(), [], 'what has moved away is told to the former team no more');
  t.same(await scan(vault), []);
  const [former] = await keysOf(vault, 'payments');
  await demand(vault.call('alice', 'POST', `/v1/teams/payments/keys/${former}/retire`), 200);
});

t.test('two connections: whoever comes second sees what the first has done', async (t) => {
  const { vault, id } = await setStage(t);
  const path = `/v1/credentials/${id}`;
  /** Holds a lock until `asked` waits for it, then lets go. */
  const behind = async (statement: string, ask: () => Promise<Answer>): Promise<Answer> => {
    let asked: Promise<Answer> | undefined;
    await vault.db.transaction().execute(async (trx) => {
      await sql.raw(statement).execute(trx);
      asked = ask();
      await until(async () => (await sql<{ n: number }>`select count(*)::int as n from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()`.execute(vault.db)).rows[0]!.n > 0);
    });
    return asked!;
  };
  await demand(vault.call('alice', 'POST', '/v1/teams/payments/key-rotations'), 202);   // nobody moves but the batch below
  const first = await offer(vault, id);
  const { rows: [held] } = await sql<any>`
    select version.token, version.team_id as team, version.public_fields, version.policy, jsonb_object_agg(data_key.state, data_key.id) as keys from credential_version version join data_key on data_key.team_id = version.team_id
    where version.credential_id = ${id} and version.version = 2 group by 1, 2, 3, 4`.execute(vault.db);
  const keyNamed = async (key: string): Promise<any> => (await sql`select id, team_id as team, version, format, root_fingerprint as "rootFingerprint", wrapped from data_key where id = ${key}`.execute(vault.db)).rows[0];
  const moved = vault.keyring.reseal(await keyNamed(held.keys.decryptOnly), await keyNamed(held.keys.active), {
    team: held.team, credential: id as CredentialId, version: 2, type: 'openai', publicFields: held.public_fields, policy: held.policy,
  }, held.token);
  t.equal((await behind(`update credential_version set token = '${moved}', data_key_id = '${held.keys.active}' where credential_id = '${id}' and version = 2`, () => accept(vault, first))).status, 200, 'behind a batch of a rotation');
  t.same(await scan(vault), []);
  const back = await offer(vault, id, 'bella', 'payments');
  t.equal((await behind(`select 1 from credential where id = '${id}' for no key update`, () => accept(vault, back, 'alice'))).status, 200, 'behind a change');
  const deleted = await offer(vault, id);
  t.equal((await behind(`select 1 from credential where id = '${id}' for no key update; delete from credential_transfer where id = '${deleted.id}'`, () => accept(vault, deleted))).status, 404, 'behind a withdrawal');

  const raced = await offer(vault, id);
  const outcomes = await Promise.all([accept(vault, raced), accept(vault, raced), vault.call('alice', 'DELETE', `/v1/transfers/${raced.id}`)]);
  const won = outcomes.filter(({ status }) => status < 300);
  t.equal(won.length, 1, `one of three wins: ${String(outcomes.map(({ status }) => status))}`);
  t.ok(outcomes.every(({ status }) => [200, 204, 404].includes(status)));
  const { slug: owner } = (await sql<{ slug: string }>`select slug from credential join team on team.id = team_id where credential.id = ${id}`.execute(vault.db)).rows[0]!;
  const admin = owner === 'payments' ? 'alice' : 'bella';

  for (const [what, ask] of [
    ['an update', () => vault.call(admin, 'PATCH', path, { fields: { apiKey: 'sk-late-value' } }, any)], ['a deletion', () => vault.call(admin, 'DELETE', path, undefined, any)],
    ['a grant', () => vault.call(admin, 'PUT', `${path}/grants/subjects/nora`, { access: 'use' }, any)], ['a restored version', () => vault.call(admin, 'POST', `${path}/versions/1/restore`)],
  ] as const) {
    const there = await offer(vault, id, admin, owner === 'payments' ? 'billing' : 'payments');
    const [taken, changed] = await Promise.all([accept(vault, there, admin === 'alice' ? 'bella' : 'alice'), ask()]);
    t.ok([[200, 200], [200, 404], [200, 204], [404, 204], [404, 200]].some(([a, b]) => taken.status === a && changed.status === b), `${what}: ${taken.status} ${changed.status}`);
    t.same(await scan(vault), [], `${what}: all of it holds`);
    t.equal((await sql`select 1 from credential_grant`.execute(vault.db)).rows.length <= (taken.status === 200 ? 0 : 1) || taken.status !== 200, true, 'no grant survives');
    if (changed.status === 204 && taken.status !== 200) await demand(vault.call(admin, 'POST', `${path}/restore`), 200);
    if (taken.status === 200) await demand(accept(vault, await offer(vault, id, admin === 'alice' ? 'bella' : 'alice', owner), admin), 200);
    await sql`delete from credential_transfer`.execute(vault.db);
  }
});
