// Everything that the vault can be asked, by those who may and by those who may not, and all that
// runs beside it. What comes out is judged as it comes: secrets only beside what they were stored
// with, nothing for outsiders, no answer of 500.
import type { AnyOperation } from '../../src/http/operation.ts';
import { callBroker, askTicket } from './broker.ts';
import { askLease, openAnswer } from './leases.ts';
import { generateEngineKey } from '../../src/client/index.ts';
import { jobsOf } from './jobs.ts';
import {
  evilHost,
  storedSecrets,
  own,
  type Owner,
  type TamperedStage,
  twice,
} from './tampered-stage.ts';
import type { Answer, TestVault } from './vault.ts';

export interface Asked {
  readonly label: string;
  /** The same whichever ids are made on the way. */
  readonly step: string;
  readonly as: string | null;
  readonly operationId: string;
  readonly url: string;
  readonly isRead: boolean;
  readonly status: number;
  readonly json: any;
}
export interface Walked {
  readonly asked: readonly Asked[];
  /** What must not be, whatever was tampered with. */
  readonly faults: readonly string[];
  /** The jobs that failed, by their names. */
  readonly failedJobs: ReadonlyMap<string, unknown>;
}
interface Options {
  readonly body?: unknown;
  readonly query?: string;
  readonly headers?: Record<string, string>;
  /** Nobody has a right to that: it is refused, whatever was tampered with. */
  readonly isForbidden?: true;
}
type Params = Readonly<Record<string, string>>;

const any = { 'if-match': '*' };

export interface WalkOptions {
  /** Whether a step is taken; all of them otherwise. */
  readonly isTaken?: (step: string) => boolean;
  /** Told of each step before it is taken; they are then taken one after the other. */
  readonly onStep?: (step: string) => void;
}
/** So many reads at once. */
const readsAtOnce = 6;
/** Stands for the answer to what was not asked. */
const notTaken = { status: 0, json: undefined };

class Walker {
  readonly asked: Asked[] = [];
  readonly faults: string[] = [];
  readonly failedJobs = new Map<string, unknown>();
  readonly stage: TamperedStage;
  readonly vault: TestVault;
  readonly owners: Map<string, Owner>;
  readonly #operations: ReadonlyMap<string, AnyOperation>;
  readonly #options: WalkOptions;
  readonly #known: ReadonlySet<string>;
  #waiting: (() => Promise<unknown>)[] = [];
  constructor(stage: TamperedStage, vault: TestVault, options: WalkOptions) {
    this.#options = options;
    this.#known = new Set([
      ...Object.values(stage.ids),
      ...Object.values(stage.keys).flat(),
      ...Object.values(stage.transfers),
      ...Object.values(stage.engines).map(({ id }) => id),
      ...stage.rotations,
    ]);
    this.stage = stage;
    this.vault = vault;
    this.owners = new Map(stage.secrets);
    this.#operations = new Map(vault.app.operations.map((each) => [each.operationId, each]));
  }

  id(name: string): string {
    const id = this.stage.ids[name];
    if (id === undefined) throw new Error(`no credential ${name}`);
    return id;
  }

  /** Whether the step is taken, of which `onStep` is then told. */
  takes(step: string): boolean {
    if (this.#options.isTaken?.(step) === false) return false;
    this.#options.onStep?.(step);
    return true;
  }

  stepOf(label: string): string {
    return label
      .replace(/[0-9a-f]{8}-[0-9a-f-]{27}/g, (id) => (this.#known.has(id) ? id : '*'))
      .replace(/\/keys\/[\w-]{43}$/, '/keys/*')
      .replace(/&cursor=.*/, '');
  }

  /** Reads of which none depends on another: some at once, when they are waited for. */
  later(...of: Parameters<Walker['ask']>): void {
    this.#waiting.push(() => this.ask(...of));
  }
  laterAll(...of: Parameters<Walker['askAll']>): void {
    this.#waiting.push(() => this.askAll(...of));
  }
  async waited(): Promise<void> {
    const waiting = this.#waiting;
    this.#waiting = [];
    const lanes = this.#options.onStep === undefined ? readsAtOnce : 1;
    await Promise.all(
      Array.from({ length: lanes }, async () => {
        for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) await next();
      }),
    );
  }

  async ask(
    as: string | null,
    operationId: string,
    params: Params = {},
    { body, query = '', headers = any, isForbidden }: Options = {},
  ): Promise<Asked> {
    const operation = this.#operations.get(operationId);
    if (operation === undefined) throw new Error(`no operation ${operationId}`);
    const url = `${operation.url.replace(/:(\w+)/g, (_, name: string) => encodeURIComponent(params[name] ?? raise(`${operationId} has no ${name}`)))}${query}`;
    const isRead = operation.method === 'GET';
    const label = `${as ?? 'nobody'} ${operation.method} ${url}`;
    const step = this.stepOf(label);
    if (!this.takes(step)) return { label, step, as, operationId, url, isRead, ...notTaken };
    const answer = await this.vault
      .call(as, operation.method, url, body, isRead ? {} : headers)
      .catch((error: unknown) => {
        this.faults.push(`${label}: ${String(error)}`);
        return { status: 599, json: undefined } as Answer;
      });
    return this.note(
      { label, step, as, operationId, url, isRead, status: answer.status, json: answer.json },
      isForbidden,
    );
  }

  note(asked: Asked, isForbidden?: true): Asked {
    this.asked.push(asked);
    const { label, status, json } = asked;
    if (status === 500 || status > 503)
      this.faults.push(`${label}: ${status} ${stackOf(this.vault.thrown.at(-1))}`);
    if (isForbidden === true && status < 400)
      this.faults.push(`${label}: ${status}, which nobody has a right to`);
    if (JSON.stringify(json ?? null).includes(`"${storedSecrets.access}`))
      this.faults.push(`${label}: shows a held token`);
    return asked;
  }

  /** Every page, two at a time, as one answer. */
  async askAll(as: string, operationId: string, params: Params, query = '?limit=2'): Promise<void> {
    let next: string | null | undefined;
    for (let pages = 0; pages < 100; pages += 1) {
      const { json } = await this.ask(as, operationId, params, {
        query: typeof next === 'string' ? `${query}&cursor=${next}` : query,
      });
      next = json?.nextCursor;
      if (typeof next !== 'string') return;
    }
    this.faults.push(`${operationId} ${query} has no end`);
  }

  /** A lease of one credential, opened: what came out is judged. */
  async lease(
    engine: keyof TamperedStage['engines'],
    credential: string,
    options: { isForbidden?: true } = {},
  ): Promise<void> {
    const label = `${engine} leases ${this.nameOf(credential)}`;
    if (!this.takes(label)) return;
    const answer = await askLease(this.vault, engine, [{ id: credential }], {
      onBehalfOf: engine === 'n8n' || engine === 'off' ? 'alice' : null,
    }).catch((error: unknown) => {
      this.faults.push(`a lease of ${engine}: ${String(error)}`);
      return undefined;
    });
    if (answer === undefined) return;
    this.note(
      {
        label,
        step: label,
        as: engine,
        operationId: 'createLease',
        url: credential,
        isRead: false,
        status: answer.status,
        json: null,
      },
      options.isForbidden,
    );
    if (answer.status !== 201) return;
    const opened = await openAnswer(this.vault, this.stage.engines[engine], answer).catch(
      (error: unknown) => {
        this.faults.push(`${label}: it does not open: ${String(error)}`);
        return undefined;
      },
    );
    for (const one of opened?.credentials ?? [])
      if (!one.notModified)
        this.judge(label, credential, one.fields as Readonly<Record<string, unknown>>);
  }

  /** SECURITY: what the whole test is for. */
  judge(label: string, credential: string, fields: Readonly<Record<string, unknown>>): void {
    if (JSON.stringify(fields).includes(evilHost))
      this.faults.push(`${label}: a secret beside a planted host`);
    const publicFields = Object.fromEntries(
      Object.entries(fields).filter(([, value]) => !this.owners.has(String(value))),
    );
    for (const value of Object.values(fields)) {
      const owner = this.owners.get(String(value));
      if (owner === undefined || owner.credential === 'held') continue;
      if (owner.credential !== credential)
        this.faults.push(
          `${label}: a secret of ${this.nameOf(owner.credential)} under ${this.nameOf(credential)}`,
        );
      const isOAuth = 'clientId' in fields || 'accessToken' in fields;
      if (!isOAuth && !owner.beside.has(JSON.stringify(publicFields)))
        this.faults.push(`${label}: beside other fields than it was stored with`);
    }
  }

  nameOf(id: string): string {
    return Object.entries(this.stage.ids).find(([, each]) => each === id)?.[0] ?? id;
  }

  async job(name: string, run: () => Promise<void>): Promise<void> {
    if (!this.takes(`job ${name}`)) return;
    try {
      await run();
    } catch (error) {
      this.failedJobs.set(name, error);
    }
  }
}

/** Asks for everything, once. Whoever calls puts the database back. */
export async function walkEverything(
  stage: TamperedStage,
  vault: TestVault,
  options: WalkOptions = {},
): Promise<Walked> {
  const walker = new Walker(stage, vault, options);
  stage.arrivals.length = 0;
  stage.dialled.length = 0;
  await tryForbidden(walker);
  await lease(walker);
  await read(walker);
  await write(walker);
  await work(walker);
  await tryForbidden(walker);
  await lease(walker);
  await end(walker);
  judgeArrivals(walker);
  return walker;
}

async function tryForbidden(walker: Walker): Promise<void> {
  const no = { isForbidden: true } as const;
  const { stage } = walker;
  const main = { id: walker.id('main') };
  const shared = { id: walker.id('shared') };
  const payments = { team: 'payments' };
  const rename = { body: { description: 'by nobody' }, ...no };
  for (const as of ['mallory', 'spy', 'sue']) {
    walker.later(as, 'getCredential', main, no);
    walker.later(as, 'getCredential', shared, no);
    walker.later(as, 'updateCredential', main, rename);
    walker.later(as, 'listMembers', payments, no);
    walker.later(as, 'updateTeam', payments, { body: { name: 'by nobody' }, ...no });
  }
  walker.later('mallory', 'exportTeam', payments, no);
  walker.later('mallory', 'startRotation', payments, no);
  walker.later(
    'mallory',
    'putMember',
    { ...payments, subject: 'mallory' },
    {
      body: { role: 'admin' },
      ...no,
    },
  );
  walker.later('mallory', 'acceptTransfer', { transfer: stage.transfers.left }, no);
  walker.later('mallory', 'offerTransfer', main, { body: { team: 'elsewhere' }, ...no });
  walker.later('mallory', 'restoreCredentialVersion', { ...main, version: '1' }, no);
  walker.later('mallory', 'listEngines', {}, no);
  walker.later('mallory', 'rotateRootKey', {}, no);
  for (const as of ['vera', 'eddie', 'audrey']) {
    walker.later(
      as,
      'putMember',
      { ...payments, subject: as },
      {
        body: { role: 'admin' },
        ...no,
      },
    );
    walker.later(as, 'updateTeam', payments, { body: { name: 'by nobody' }, ...no });
    walker.later(as, 'startRotation', payments, no);
    walker.later(
      as,
      'putTeamGrant',
      { ...main, team: 'elsewhere' },
      {
        body: { access: 'use' },
        ...no,
      },
    );
  }
  walker.later('vera', 'updateCredential', main, rename);
  walker.later('audrey', 'updateCredential', main, rename);
  walker.later('sam', 'updateCredential', shared, rename);
  walker.later('bella', 'updateCredential', shared, rename);
  await walker.waited();
  for (const [engine, name] of [
    ['spy', 'main'],
    ['spy', 'shared'],
    ['spy', 'own'],
    ['spare', 'main'],
    ['off', 'main'],
    ['bot', 'main'],
    ['bot', 'waiting'],
    ['n8n', 'own'],
    ['n8n', 'closed'],
    ['n8n', 'leaked'],
  ] as const)
    await walker.lease(engine, walker.id(name), no);
  const ticket = await askTicket(
    walker.vault,
    'spy',
    { id: walker.id('plain') },
    {
      host: 'upstream.test',
    },
  );
  walker.note(
    {
      label: 'spy asks for a ticket',
      step: 'spy asks for a ticket',
      as: 'spy',
      operationId: 'createBrokerTicket',
      url: '/v1/broker-tickets',
      isRead: false,
      status: ticket.status,
      json: null,
    },
    true,
  );
}

async function lease(walker: Walker): Promise<void> {
  for (const name of [
    'main',
    'control',
    'plain',
    'solver',
    'account',
    'brief',
    'shared',
    'old',
    'victim',
    'spoilt',
    'lost',
    'hook',
  ])
    await walker.lease('n8n', walker.id(name));
  for (const name of ['own', 'shared', 'offered']) await walker.lease('bot', walker.id(name));
}

const teams = ['payments', 'billing', 'leaky'] as const;
const adminOf = { payments: 'alice', billing: 'bella', leaky: 'alice' } as const;

async function read(walker: Walker): Promise<void> {
  const { stage } = walker;
  for (const operation of ['getLeaseKeys', 'getHealth', 'getReadiness'])
    walker.later(null, operation);
  walker.later('alice', 'listCredentialTypes');
  walker.later('alice', 'listOauthProviders');
  walker.later('alice', 'getCredentialType', { type: 'openai' });
  walker.later('alice', 'getCredentialType', { type: 'acme.crm' });
  for (const as of ['alice', 'vera', 'n8n', 'bot', 'sam', 'operator', 'mallory'])
    walker.later(as, 'whoami');
  for (const query of [
    '',
    '?sort=createdAt',
    '?sort=updatedAt&order=desc',
    '?sort=lastUsedAt',
    '?sort=expiresAt',
    '?sort=dueAt',
    '?view=names',
    '?deleted=true',
    '?problem=rotationDue',
    '?problem=undecryptable',
    '?problem=exposed',
    '?label=env:prod',
    '?updatedSince=2020-01-01T00:00:00Z',
    '?unusedSince=2090-01-01T00:00:00Z',
  ]) {
    walker.later('alice', 'listTeamCredentials', { team: 'payments' }, { query });
    walker.later('alice', 'listCredentials', {}, { query });
  }
  walker.laterAll('alice', 'listTeamCredentials', { team: 'payments' }, '?limit=7&sort=dueAt');
  walker.laterAll('alice', 'listCredentials', {}, '?limit=9&sort=updatedAt');
  walker.later('vera', 'listTeamCredentials', { team: 'payments' });
  walker.later('bella', 'listTeamCredentials', { team: 'billing' }, { query: '?shared=true' });
  walker.later('sam', 'listCredentials', {}, { query: '?shared=true' });
  for (const id of Object.values(stage.ids)) walker.later('alice', 'getCredential', { id });
  for (const [as, name] of [
    ['bella', 'own'],
    ['bella', 'shared'],
    ['sam', 'shared'],
    ['bella', 'offered'],
  ] as const)
    walker.later(as, 'getCredential', { id: walker.id(name) });
  walker.later('alice', 'listGrants', { id: walker.id('shared') });
  for (const name of ['account', 'begun', 'lost'])
    walker.later('alice', 'getOauthConnection', { id: walker.id(name) });
  for (const name of ['main', 'account', 'plain'])
    walker.later('alice', 'listCredentialVersions', { id: walker.id(name) });
  walker.later('operator', 'listEngines');
  walker.laterAll('operator', 'listEngines', {});
  for (const { id } of Object.values(stage.engines))
    walker.later('operator', 'getEngine', { engine: id });
  walker.later('operator', 'getStatus');
  walker.later('operator', 'listRootKeys');
  walker.later('alice', 'listTeams');
  walker.later('operator', 'listTeams');
  for (const team of teams) {
    const as = adminOf[team];
    walker.later(as, 'getTeam', { team });
    walker.later(as, 'listMembers', { team });
    walker.later(as, 'listKeys', { team });
    walker.later(as, 'listRotations', { team });
    walker.later(as, 'countTeamProblems', { team });
    walker.later(as, 'listTransfers', { team });
    walker.later(as, 'listWebhooks', { team });
    walker.later(as, 'listAuditEvents', { team }, { query: '?limit=200' });
    for (const key of stage.keys[team] ?? []) walker.later(as, 'getKey', { team, key });
  }
  walker.laterAll('alice', 'listMembers', { team: 'payments' });
  walker.laterAll('alice', 'listKeys', { team: 'payments' });
  walker.laterAll('alice', 'listRotations', { team: 'payments' }, '?limit=1');
  walker.laterAll('alice', 'listTransfers', { team: 'payments' });
  walker.laterAll('alice', 'listAuditEvents', { team: 'payments' }, '?limit=30');
  walker.later('audrey', 'listAuditEvents', { team: 'payments' });
  for (const [team, rotation] of [
    ['payments', 0],
    ['billing', 1],
    ['payments', 2],
  ] as const)
    walker.later(adminOf[team], 'getRotation', {
      team,
      rotation: stage.rotations[rotation]!,
    });
  const hook = { team: 'payments', credential: walker.id('hook') };
  walker.later('alice', 'getWebhook', hook);
  walker.later('alice', 'listWebhookDeliveries', hook);
  walker.laterAll('alice', 'listWebhookDeliveries', hook, '?limit=1');
  await walker.waited();
  // One at a time for a subject.
  for (const team of teams)
    await walker.ask(adminOf[team], 'exportTeam', { team }, { query: '?events=true' });
}

async function write(walker: Walker): Promise<void> {
  const { stage } = walker;
  const as = 'alice';
  const team = 'payments';
  const main = { id: walker.id('main') };
  const openai = (key: string, path: string) => ({
    apiKey: `sk-${key}`,
    baseUrl: `${stage.urls.upstream}/${path}`,
  });
  /** A secret by itself belongs beside whatever the vault has kept of that credential. */
  const ownAlone = (secret: string, credential: string): void => {
    const beside = new Set(
      [...walker.owners.values()]
        .filter((owner) => owner.credential === credential)
        .flatMap((owner) => [...owner.beside]),
    );
    walker.owners.set(secret, { credential, beside });
  };
  const nextKey = async (secret: string): Promise<void> => {
    ownAlone(secret, main.id);
    await walker.ask(as, 'updateCredential', main, { body: { fields: { apiKey: secret } } });
    await walker.lease('n8n', main.id);
  };

  // What is protected anew beside columns that were read.
  await walker.ask(as, 'updateCredential', main, { body: { description: 'another' } });
  await nextKey('sk-main-4-0f5c2b');
  for (const version of ['1', '2', '3']) {
    await walker.ask(as, 'restoreCredentialVersion', { ...main, version });
    await walker.lease('n8n', main.id);
    await nextKey(`sk-after-${version}-77e1a0`);
  }
  await walker.ask(as, 'destroyCredentialVersion', { ...main, version: '2' });
  for (const name of [
    'control',
    'account',
    'hook',
    'solver',
    'plain',
    'spoilt',
    'shared',
    'closed',
  ])
    await walker.ask(
      as,
      'updateCredential',
      { id: walker.id(name) },
      {
        body: { labels: { touched: 'yes' } },
      },
    );
  await walker.ask(
    as,
    'updateCredential',
    { id: walker.id('old') },
    {
      body: { expiresAt: null, rotateAfter: null },
    },
  );
  own(walker.owners, openai('put-51aa', 'one'), 'apiKey', walker.id('victim'));
  await walker.ask(
    as,
    'putCredential',
    { team, name: 'victim' },
    {
      query: '?dryRun=true',
      body: { type: 'openai', fields: openai('put-51aa', 'one') },
    },
  );
  await walker.ask(
    as,
    'putCredential',
    { team, name: 'victim' },
    {
      body: { type: 'openai', fields: openai('put-51aa', 'one') },
    },
  );
  await walker.lease('n8n', walker.id('victim'));

  // Made by a team's settings: the engine gets it through the broker only.
  const made = await walker.ask(
    as,
    'createCredential',
    { team },
    {
      body: { name: 'made', type: 'openai', fields: openai('made-8d0e', 'one') },
      headers: {},
    },
  );
  if (made.status === 201) {
    own(walker.owners, openai('made-8d0e', 'one'), 'apiKey', made.json.id);
    await walker.lease('n8n', made.json.id, { isForbidden: true });
  }
  const again = await walker.ask(
    as,
    'createCredential',
    { team },
    {
      body: twice,
      headers: { 'idempotency-key': 'kept' },
    },
  );
  if (again.status === 201) await walker.lease('n8n', again.json.id);
  await walker.ask(
    as,
    'changeCredentials',
    { team },
    {
      body: {
        items: [
          { op: 'create', name: 'bulk', type: 'bearer', fields: { token: 'tok-bulk-2231' } },
          { op: 'update', id: walker.id('control'), revision: '*', description: 'x' },
          { op: 'delete', id: walker.id('closed'), revision: '*' },
        ],
      },
      headers: {},
    },
  );
  await walker.ask(as, 'enableCredential', { id: walker.id('off') }, { headers: {} });
  await walker.lease('n8n', walker.id('off'));
  await walker.ask(as, 'disableCredential', { id: walker.id('off') }, { headers: {} });
  await walker.ask(as, 'deleteCredential', { id: walker.id('victim') });
  for (const name of ['removed', 'victim']) {
    await walker.ask(as, 'restoreCredential', { id: walker.id(name) }, { headers: {} });
    await walker.lease('n8n', walker.id(name));
  }
  await walker.ask(as, 'testConnection', main, { headers: {} });

  // Rights.
  await walker.ask(as, 'updateTeam', { team }, { body: { name: 'Another name' } });
  await walker.ask(as, 'updateTeam', { team: 'leaky' }, { body: { versionsKept: 7 } });
  await walker.ask(
    'operator',
    'createTeam',
    {},
    {
      body: { slug: 'made', name: 'made', admins: ['alice'] },
      headers: {},
    },
  );
  await walker.ask(as, 'putMember', { team, subject: 'vera' }, { body: { role: 'editor' } });
  await walker.ask(as, 'putMember', { team, subject: 'vera' }, { body: { role: 'viewer' } });
  await walker.ask(as, 'putMember', { team, subject: 'newbie' }, { body: { role: 'viewer' } });
  await walker.ask(as, 'removeMember', { team, subject: 'leaver' });
  const shared = { id: walker.id('shared') };
  await walker.ask(as, 'putTeamGrant', { ...shared, team: 'billing' }, { body: { access: 'use' } });
  await walker.ask(
    as,
    'putSubjectGrant',
    { ...shared, subject: 'sam' },
    {
      body: { access: 'read' },
    },
  );
  await walker.ask(as, 'putTeamGrant', { ...shared, team: 'leaky' }, { body: { access: 'read' } });
  await walker.ask(as, 'removeTeamGrant', { ...shared, team: 'leaky' });
  await walker.ask(
    'bella',
    'acceptTransfer',
    { transfer: stage.transfers.accepted },
    {
      headers: {},
    },
  );
  await walker.lease('bot', walker.id('offered'));
  await walker.ask('bella', 'declineTransfer', { transfer: stage.transfers.declined });
  await walker.ask(
    as,
    'offerTransfer',
    { id: walker.id('control') },
    {
      body: { team: 'billing' },
      headers: {},
    },
  );

  // Engines, and what they call with.
  const engine = { engine: stage.engines.spare.id };
  await walker.ask(
    'operator',
    'createEngine',
    {},
    {
      body: {
        name: 'fresh',
        subject: 'fresh-engine',
        keys: [generateEngineKey('X25519').publicJwk],
      },
      headers: {},
    },
  );
  await walker.ask('operator', 'updateEngine', engine, { body: { name: 'another name' } });
  await walker.ask(
    'operator',
    'updateEngine',
    { engine: stage.engines.off.id },
    {
      body: { name: 'still off' },
    },
  );
  const declaration = {
    title: 'Acme ERP',
    description: 'An API key of Acme.',
    fields: [{ name: 'apiKey', title: 'API key', class: 'secret', isRequired: true }],
  };
  const erp = { type: 'acme.erp' };
  await walker.ask('operator', 'putCredentialType', erp, { body: declaration, headers: {} });
  await walker.ask('operator', 'putCredentialType', erp, {
    body: { ...declaration, title: 'Another title' },
  });
  await walker.ask('operator', 'deleteCredentialType', erp);
  await walker.ask(
    'alice',
    'updateCredential',
    { id: walker.id('crm') },
    {
      body: { description: 'of a declared type' },
    },
  );
  const added = await walker.ask('operator', 'addEngineKey', engine, {
    body: { key: generateEngineKey('X25519').publicJwk },
    headers: {},
  });
  const kid = added.status === 201 ? added.json.keys?.at(-1)?.kid : undefined;
  await walker.ask('operator', 'removeEngineKey', { ...engine, kid: kid ?? 'A'.repeat(43) });
  await broker(walker);

  // Tokens that are held.
  const begun = await walker.ask(
    as,
    'startAuthorization',
    { id: walker.id('begun') },
    {
      headers: {},
    },
  );
  for (const state of [
    stage.authorization.state,
    begun.status === 201
      ? new URL(begun.json.authorizationUrl).searchParams.get('state')
      : undefined,
  ])
    if (typeof state === 'string')
      await walker.ask(
        as,
        'finishAuthorization',
        {},
        {
          body: { state, code: 'x' },
          headers: {},
        },
      );
  for (const name of ['begun', 'brief', 'account']) await walker.lease('n8n', walker.id(name));

  // Webhooks.
  const hook = { team, credential: walker.id('hook') };
  await walker.ask(as, 'putWebhook', hook, { body: { events: ['key.rotationEnded'] } });
  await walker.ask(as, 'testWebhook', hook, { headers: {} });
}

async function broker(walker: Walker): Promise<void> {
  const { stage, vault } = walker;
  const call = async (label: string, id: string, ticket: string): Promise<void> => {
    if (!walker.takes(label)) return;
    const { status } = await callBroker(stage.brokerPort, 'GET', `/broker/${id}/v1/models`, {
      authorization: `Bearer ${ticket}`,
    });
    walker.note({
      label,
      step: label,
      as: 'n8n',
      operationId: 'broker',
      url: `/broker/${id}`,
      isRead: false,
      status,
      json: null,
    });
  };
  await call('a call with a ticket', stage.ticket.id, stage.ticket.ticket);
  for (const [name, more] of [
    ['plain', { host: 'upstream.test' }],
    ['main', {}],
  ] as const) {
    const step = `n8n asks for a ticket for ${name}`;
    if (!walker.takes(step)) continue;
    const made = await askTicket(vault, 'n8n', { id: walker.id(name) }, more);
    walker.note({
      label: step,
      step,
      as: 'n8n',
      operationId: 'createBrokerTicket',
      url: '/v1/broker-tickets',
      isRead: false,
      status: made.status,
      json: null,
    });
    if (made.status !== 201) continue;
    await call(`a call with a new ticket for ${name}`, made.json.id, made.json.ticket);
    await walker.ask(
      'n8n',
      'updateBrokerTicket',
      { id: made.json.id },
      { body: { ttlSeconds: 600 } },
    );
    await walker.ask('n8n', 'deleteBrokerTicket', { id: made.json.id });
  }
}

async function work(walker: Walker): Promise<void> {
  const { stage } = walker;
  const jobs = jobsOf(walker.vault, stage.egress);
  await walker.job('move', () => jobs.move());
  for (const [as, team, rotates] of [
    ['alice', 'payments', false],
    ['bella', 'billing', true],
  ] as const) {
    await walker.ask(as, 'startRotation', { team }, { query: '?dryRun=true', headers: {} });
    const begun = await walker.ask(as, 'startRotation', { team }, { headers: {} });
    if (begun.status === 202 && !rotates)
      await walker.ask(as, 'cancelRotation', { team, rotation: begun.json.id });
  }
  await walker.job('move', () => jobs.move());
  const [old, next] = stage.keys['billing'] ?? [];
  const key = { team: 'billing', key: old! };
  await walker.ask('bella', 'retireKey', key, { headers: {} });
  await walker.ask('bella', 'scheduleKeyDestruction', key, { body: { days: 7 }, headers: {} });
  await walker.ask('bella', 'cancelKeyDestruction', key, { headers: {} });
  await walker.ask('bella', 'restoreKey', key, { headers: {} });
  await walker.ask(
    'bella',
    'markKeyCompromised',
    { team: 'billing', key: next! },
    {
      body: { reason: 'seen' },
      headers: {},
    },
  );
  await walker.ask('operator', 'rotateRootKey', {}, { headers: {} });
  await walker.ask(
    'operator',
    'markRootKeyCompromised',
    { fingerprint: stage.oldRoot },
    {
      body: { reason: 'seen' },
      headers: {},
    },
  );
  for (const name of ['schedule', 'move', 'look', 'deliver', 'keep', 'retain'] as const)
    await walker.job(name, () => jobs[name]());
  // A day later the row MACs are made anew.
  walker.vault.clock.ms += 130_000;
  for (const name of ['keep', 'reseal'] as const) await walker.job(name, () => jobs[name]());
  walker.vault.clock.ms -= 130_000;
  await walker.job('stop', () => jobs.stop());
}

/** What leaves less behind it, at the end. */
async function end(walker: Walker): Promise<void> {
  const { stage } = walker;
  const hook = { team: 'payments', credential: walker.id('hook') };
  await walker.ask('alice', 'deleteWebhook', hook);
  await walker.ask('alice', 'removeSubjectGrant', { id: walker.id('shared'), subject: 'sam' });
  await walker.ask('operator', 'deleteEngine', { engine: stage.engines.n8n.id });
  for (const name of ['main', 'account', 'leaked'])
    await walker.ask('alice', 'deleteCredential', { id: walker.id(name) });
  await walker.ask('alice', 'deleteTeam', { team: 'leaky' });
}

/** Secrets go to the server for which they are, and nothing goes to where nobody said. */
function judgeArrivals(walker: Walker): void {
  const { stage, faults } = walker;
  const isFor = (host: string, owner: Owner): boolean => {
    const name = walker.nameOf(owner.credential);
    const isOAuth = ['account', 'brief', 'begun', 'lost'].includes(name);
    if (owner.credential === 'held') return host === 'id.test';
    return host === (isOAuth ? 'id.test' : 'upstream.test');
  };
  for (const { host, text } of stage.arrivals)
    for (const [secret, owner] of walker.owners)
      if (text.includes(secret) && !isFor(host, owner))
        faults.push(`a secret of ${walker.nameOf(owner.credential)} came to ${host}`);
  for (const name of stage.dialled)
    if (name === evilHost) faults.push('a planted host was to be dialled');
}

const stackOf = (error: unknown): string => (error instanceof Error ? String(error.stack) : '');

function raise(message: string): never {
  throw new Error(message);
}
