// The acts of the demo, in their order. Each shows something and checks it.
import { generateEngineKey, openLease } from '../client/index.ts';
import type { Db } from '../db/client.ts';
import type { CredentialId } from '../shared/ids.ts';
import { useBroker } from './demo-broker.ts';
import { demoSecret, type Stage } from './demo-stage.ts';
import type { DemoUpstream } from './demo-upstream.ts';

interface Credential {
  readonly id: string;
  readonly name: string;
  readonly secretFields: string[];
  readonly publicFields: object;
  readonly health: string;
  readonly version: number;
}
interface Rotation {
  readonly id: string;
  readonly state: string;
  readonly total: number;
  readonly done: number;
  readonly failed: number;
  readonly rowsPerSecond: number;
}
interface Key {
  readonly id: string;
  readonly version: number;
  readonly state: string;
  readonly rows: number;
}
interface Lease {
  readonly id: string;
  readonly sealed: string;
}
interface Page<T> {
  readonly items: T[];
  readonly nextCursor: string | null;
}
interface AuditEvent {
  readonly at: string;
  readonly actor: string | null;
  readonly action: string;
  readonly decision: string;
  readonly reason: string | null;
  readonly intact: boolean;
}

/** What the acts know of each other. */
interface World {
  readonly db: Db;
  /** What the vault's leases are issued as. */
  readonly url: string;
  readonly apiKey: string;
  readonly password: string;
  readonly engineKey: ReturnType<typeof generateEngineKey>;
}
interface Stored {
  readonly openai: string;
  readonly smtp: string;
}

const team = '/v1/teams/payments';
const manyCount = 600;
const atOnce = 20;
const tokenCharsShown = 28;

/** Plays everything. Throws NotAsTold. */
export async function play(
  stage: Stage,
  { db, url, upstream }: { db: Db; url: string; upstream: DemoUpstream },
): Promise<void> {
  const world: World = {
    db,
    url,
    apiKey: demoSecret(),
    password: demoSecret(),
    engineKey: generateEngineKey(),
  };
  await makeTeam(stage);
  const stored = await storeCredentials(stage, world);
  await readMetadata(stage, world, stored);
  await beRefused(stage, stored);
  await registerEngine(stage, world);
  await leaseAll(stage, world);
  await rotate(stage, world, stored);
  await moveToken(stage, world, stored);
  await useBroker(stage, upstream);
  await showAuditLog(stage);
  stage.chapter('What never came out');
  checkAnswers(stage, world);
}

async function makeTeam(stage: Stage): Promise<void> {
  stage.chapter('A team and its people');
  await stage.call('operator', 'POST', '/v1/teams', {
    body: { slug: 'payments', name: 'Payments', admins: ['alice'] },
    expects: 201,
    shows: pick('slug', 'name', 'tokenFormat'),
  });
  for (const [subject, role] of [
    ['erin', 'editor'],
    ['victor', 'viewer'],
  ]) {
    await stage.call('alice', 'PUT', `${team}/members/${subject}`, {
      body: { role },
      expects: 200,
      shows: pick('subject', 'role', 'createdBy'),
    });
  }
}

async function storeCredentials(stage: Stage, { apiKey, password }: World): Promise<Stored> {
  stage.chapter('Two credentials');
  stage.say('Secrets go in and stay in; the demo writes its own as «…».');
  const store = (body: object): Promise<Credential> =>
    stage.call<Credential>('erin', 'POST', `${team}/credentials`, {
      body,
      expects: 201,
      shows: pick('id', 'secretFields', 'publicFields'),
    });
  const openai = await store({ name: 'openai-prod', type: 'openai', fields: { apiKey } });
  const smtp = await store({
    name: 'smtp-prod',
    type: 'smtp',
    fields: { host: 'mail.example.com', username: 'billing@example.com', password },
  });
  return { openai: openai.id, smtp: smtp.id };
}

async function readMetadata(stage: Stage, world: World, { openai }: Stored): Promise<void> {
  stage.chapter('Reading gives metadata only');
  const { items } = await stage.call<Page<Credential>>('victor', 'GET', `${team}/credentials`, {
    expects: 200,
    shows: (page) => page.items.map(pick('name', 'type', 'secretFields', 'health')),
  });
  stage.check(
    'the list names both credentials and their secret fields',
    items.length === 2 &&
      items[0]?.secretFields[0] === 'apiKey' &&
      items[1]?.secretFields[0] === 'password',
  );
  await stage.call('alice', 'GET', `/v1/credentials/${openai}`, {
    expects: 200,
    shows: pick('name', 'publicFields', 'secretFields', 'version', 'health'),
  });
  checkAnswers(stage, world);
}

async function beRefused(stage: Stage, { openai }: Stored): Promise<void> {
  stage.chapter('Being refused');
  stage.say('A viewer may look, not write:');
  await stage.call('victor', 'POST', `${team}/credentials`, {
    body: { name: 'mine', type: 'bearer', fields: { token: demoSecret() } },
    expects: 403,
  });
  stage.say();
  stage.say('For a stranger the team and what is in it do not exist:');
  await stage.call('mallory', 'GET', `${team}/credentials`, { expects: 404 });
  await stage.call('mallory', 'GET', `/v1/credentials/${openai}`, { expects: 404 });
  stage.say();
  stage.say('An editor cannot send a stored key to another host without knowing the key:');
  await stage.call('erin', 'PATCH', `/v1/credentials/${openai}`, {
    body: { fields: { baseUrl: 'https://evil.example' } },
    ifMatch: '*',
    expects: 422,
  });
  stage.say();
  stage.say('People never lease, not even admins:');
  await stage.call('alice', 'POST', '/v1/leases', {
    body: { credentials: [{ id: openai }], purpose: 'curiosity' },
    expects: 403,
  });
}

async function registerEngine(stage: Stage, { engineKey }: World): Promise<void> {
  stage.chapter('A workflow engine');
  stage.say('The engine made a key pair; the operator registers the public half.');
  const { kty, crv, x } = engineKey.publicJwk;
  await stage.call('operator', 'POST', '/v1/engines', {
    body: { name: 'n8n production', subject: 'n8n', keys: [{ kty, crv, x }] },
    expects: 201,
    shows: pick('id', 'subject', 'state'),
  });
  await stage.call('alice', 'PUT', `${team}/members/n8n`, {
    body: { role: 'engine' },
    expects: 200,
    shows: pick('subject', 'role', 'actsForItself'),
  });
}

async function leaseAll(stage: Stage, world: World): Promise<void> {
  stage.chapter('A sealed lease');
  const fields = await lease(stage, world, ['openai-prod', 'smtp-prod']);
  stage.check(
    "opened with the engine's private key it holds the API key that was stored, to the byte",
    fields['openai-prod']?.['apiKey'] === world.apiKey,
  );
  stage.check(
    'and the SMTP password, with host and user name beside it',
    fields['smtp-prod']?.['password'] === world.password &&
      fields['smtp-prod']?.['host'] === 'mail.example.com',
  );
}

/** Leases by name, opens, and gives the fields by name. */
async function lease(
  stage: Stage,
  { url, engineKey }: World,
  names: readonly string[],
): Promise<Record<string, Readonly<Record<string, unknown>>>> {
  const { sealed } = await stage.call<Lease>('n8n', 'POST', '/v1/leases', {
    body: {
      credentials: names.map((name) => ({ team: 'payments', name })),
      purpose: 'invoice run',
      runId: 'run-2031',
      onBehalfOf: 'erin',
    },
    expects: 201,
    shows: (answer) => ({ id: answer.id, sealed: `${answer.sealed.slice(0, 40)}…` }),
  });
  const keys = await stage.quietly<{ keys: [] }>('n8n', 'GET', '/.well-known/jwks.json', {
    expects: 200,
  });
  const { credentials } = await openLease(sealed, {
    privateKeys: [engineKey.privateJwk],
    audience: 'n8n',
    vault: { issuer: url, keys },
  });
  return Object.fromEntries(
    credentials.map((each) => [each.name, each.notModified ? {} : each.fields]),
  );
}

async function rotate(stage: Stage, world: World, { openai }: Stored): Promise<void> {
  stage.chapter('A new key while everything runs');
  await storeMany(stage);
  const before = await tokenOf(world.db, openai);
  stage.say(
    `in the database: token = ${before.slice(0, tokenCharsShown)}… (${before.length} ` +
      `characters of Fernet)`,
  );
  const started = await stage.call<Rotation>('alice', 'POST', `${team}/key-rotations`, {
    expects: 202,
    shows: pick('id', 'state', 'total'),
  });
  const ended = await follow(stage, started);
  stage.check(
    `all ${ended.total} tokens were re-encrypted, none failed`,
    ended.state === 'completed' &&
      ended.done === ended.total &&
      ended.total === manyCount + 2 &&
      ended.failed === 0,
  );
  const { items } = await stage.call<Page<Key>>('alice', 'GET', `${team}/keys`, {
    expects: 200,
    shows: (page) => page.items.map(pick('version', 'state', 'rows')),
  });
  const former = items.find(({ state }) => state === 'decryptOnly');
  stage.check(
    'nothing is left under the old key',
    former?.rows === 0 && items.find(({ state }) => state === 'active')?.rows === manyCount + 2,
  );
  await stage.call('alice', 'POST', `${team}/keys/${former?.id}/retire`, {
    expects: 200,
    shows: pick('version', 'state', 'rows'),
  });
  const after = await tokenOf(world.db, openai);
  stage.say();
  stage.say(`in the database: token = ${after.slice(0, tokenCharsShown)}…`);
  stage.check(
    'it is another token, and still Fernet',
    after !== before && after.startsWith('gAAAAA') && before.startsWith('gAAAAA'),
  );
  const fields = await lease(stage, world, ['openai-prod']);
  stage.check(
    'a lease brings the same API key as before',
    fields['openai-prod']?.['apiKey'] === world.apiKey,
  );
}

async function storeMany(stage: Stage): Promise<void> {
  stage.say(`erin stores ${manyCount} more credentials, so that there is something to move …`);
  for (let first = 0; first < manyCount; first += atOnce) {
    await Promise.all(
      Array.from({ length: atOnce }, (_, index) =>
        stage.quietly('erin', 'POST', `${team}/credentials`, {
          body: {
            name: `service-${first + index + 1}`,
            type: 'bearer',
            fields: { token: demoSecret() },
          },
          expects: 201,
        }),
      ),
    );
  }
}

async function follow(stage: Stage, { id }: Rotation): Promise<Rotation> {
  stage.say();
  for (let shown = -1; ; ) {
    const rotation = await stage.quietly<Rotation>('alice', 'GET', `${team}/key-rotations/${id}`, {
      expects: 200,
    });
    if (rotation.done !== shown) stage.say(bar(rotation));
    shown = rotation.done;
    if (rotation.state !== 'running') return rotation;
  }
}

function bar({ done, total, rowsPerSecond }: Rotation): string {
  const width = 40;
  const filled = Math.round((done / total) * width);
  return (
    `[${'█'.repeat(filled)}${'░'.repeat(width - filled)}] ` +
    `${String(done).padStart(String(total).length)} of ${total}` +
    `${done === 0 || rowsPerSecond === 0 ? '' : `, ${Math.round(rowsPerSecond)} a second`}`
  );
}

async function moveToken(
  stage: Stage,
  { db, ...world }: World,
  { openai, smtp }: Stored,
): Promise<void> {
  stage.chapter('Somebody writes to the database past the vault');
  const own = await tokenOf(db, openai);
  const foreign = await tokenOf(db, smtp);
  stage.say(
    'sql        update credential_version set token = (the token of smtp-prod) where ' +
      'credential_id = (openai-prod)',
  );
  await setToken(db, openai, foreign);
  await stage.call('n8n', 'POST', '/v1/leases', {
    body: { credentials: [{ id: openai }], purpose: 'invoice run', onBehalfOf: 'erin' },
    expects: 422,
  });
  const { health } = await stage.call<Credential>('alice', 'GET', `/v1/credentials/${openai}`, {
    expects: 200,
    shows: pick('name', 'health', 'problems'),
  });
  stage.check(
    'a token opens under its own binding only, though team and key are the same',
    health === 'undecryptable',
  );
  stage.say();
  stage.say('sql        and back again');
  await setToken(db, openai, own);
  const fields = await lease(stage, { db, ...world }, ['openai-prod']);
  stage.check('the credential works again', fields['openai-prod']?.['apiKey'] === world.apiKey);
}

async function showAuditLog(stage: Stage): Promise<void> {
  stage.chapter('The audit log');
  const events: AuditEvent[] = [];
  for (let cursor = ''; ; ) {
    const page = await stage.quietly<Page<AuditEvent>>(
      'alice',
      'GET',
      `${team}/audit-events?limit=200${cursor}`,
      { expects: 200 },
    );
    events.unshift(...page.items.toReversed());
    if (page.nextCursor === null) break;
    cursor = `&cursor=${page.nextCursor}`;
  }
  stage.say(
    `${'time'.padEnd(14)}${'who'.padEnd(11)}${'action'.padEnd(24)}${'decision'.padEnd(10)}reason`,
  );
  for (const { event, count } of runsOf(events)) {
    const action = event.action + (count === 1 ? '' : ` ×${count}`);
    const cells = [
      event.at.slice(11, 23).padEnd(14),
      (event.actor ?? '').padEnd(11),
      action.padEnd(24),
      event.decision.padEnd(10),
      event.reason ?? '',
    ];
    stage.say(cells.join('').trimEnd());
  }
  const denials = events.filter(({ decision }) => decision === 'deny').map(({ reason }) => reason);
  stage.check(
    'what was refused stands there too',
    ['role', 'notMember', 'undecryptable'].every((reason) => denials.includes(reason)),
  );
  stage.check(
    'the MAC of every event holds',
    events.every(({ intact }) => intact),
  );
}

/** Events that say the same one after another, as one line with their count. */
function runsOf(events: readonly AuditEvent[]): { event: AuditEvent; count: number }[] {
  const runs: { event: AuditEvent; count: number }[] = [];
  for (const event of events) {
    const last = runs.at(-1);
    if (
      last !== undefined &&
      last.event.action === event.action &&
      last.event.actor === event.actor &&
      last.event.reason === event.reason
    )
      last.count += 1;
    else runs.push({ event, count: 1 });
  }
  return runs;
}

/** A search that finds what is there and does not find the secrets. */
function checkAnswers(stage: Stage, { apiKey, password }: World): void {
  const { answers } = stage.search('');
  stage.check(
    `searched in all ${answers} answers so far: the name openai-prod is found`,
    stage.search('openai-prod').hits > 0,
  );
  stage.check(
    'the API key and the SMTP password are in none of them',
    stage.search(apiKey).hits + stage.search(password).hits === 0,
  );
}

async function tokenOf(db: Db, credential: string): Promise<string> {
  return (
    await db
      .selectFrom('credential_version')
      .select('token')
      .where('credential_id', '=', credential as CredentialId)
      .executeTakeFirstOrThrow()
  ).token;
}

async function setToken(db: Db, credential: string, token: string): Promise<void> {
  await db
    .updateTable('credential_version')
    .set({ token })
    .where('credential_id', '=', credential as CredentialId)
    .execute();
}

const pick =
  (...names: readonly string[]) =>
  (answer: unknown): Record<string, unknown> =>
    Object.fromEntries(names.map((name) => [name, (answer as Record<string, unknown>)[name]]));
