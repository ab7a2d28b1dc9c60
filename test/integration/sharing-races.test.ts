// Revocation against use: what changes between reading and recording is seen by the statement that
// records, of leases and of calls alike.
import { findType } from '../../src/credentials/types/registry.ts';
import { type KyselyPlugin, sql } from 'kysely';
import t from 'tap';
import { AuditLog } from '../../src/audit/record.ts';
import { Calls } from '../../src/broker/call.ts';
import { CallLimits } from '../../src/broker/limits.ts';
import { CredentialsService } from '../../src/credentials/service.ts';
import { decide } from '../../src/access/decide.ts';
import { LeasesService } from '../../src/leases/service.ts';
import type { AppError } from '../../src/shared/errors.ts';
import type { CredentialId, SubjectId } from '../../src/shared/ids.ts';
import { unbounded } from '../../src/access/issuers.ts';
import { presenting, startBroker } from '../helpers/broker.ts';
import { demand, registerEngine, vaultIssuer } from '../helpers/leases.ts';
import type { Caller } from '../../src/access/caller.ts';

const any = { 'if-match': '*' };

t.test('a grant that goes while it is used', async (t) => {
  const stage = await startBroker(t, () => undefined, {
    policy: { delivery: ['lease', 'broker'] },
  });
  const { vault, credential } = stage;
  const { db, keyring } = vault;
  const now = (): number => Date.now() + vault.clock.ms;
  await vault.team('sales', ['bella']);
  await registerEngine(vault, 'bot');
  await registerEngine(vault, 'lone');
  await vault.member('sales', 'bot', 'engine', 'bella');
  await vault.member('sales', 'ed', 'editor', 'bella');
  const url = (to: string): string => `/v1/credentials/${credential}/grants/${to}`;
  const share = (to = 'teams/sales', access = 'use'): Promise<any> =>
    demand(vault.call('alice', 'PUT', url(to), { access }, any), 200);
  const unshare = (to = 'teams/sales'): Promise<any> =>
    demand(vault.call('alice', 'DELETE', url(to), undefined, any), 204);
  await share();
  await share('subjects/lone');
  await share('subjects/nora');

  let act: (() => Promise<unknown>) | undefined;
  let readings = 0;
  const plugin: KyselyPlugin = {
    transformQuery: ({ node }) => node,
    // Every statement of the services comes by here; only a reading has this column.
    transformResult: async ({ result }) => {
      if (
        result.rows[0] !== undefined &&
        'behalf_grants' in result.rows[0] &&
        (readings += 1) === 1
      )
        await act?.();
      return result;
    },
  };
  const audit = new AuditLog({
    db,
    keyring,
    now,
    onError: (error) => {
      throw error;
    },
    onAlarm: () => undefined,
  });
  const parts = {
    db: db.withPlugin(plugin),
    keyring,
    audit,
    now,
    usage: { count: () => undefined },
    types: { find: async (name: string) => findType(name) },
    accessTokens: {
      accessTokenFor: () => {
        throw new Error('nothing here is held');
      },
    },
  };
  const leases = new LeasesService({
    subjectBounds: unbounded,
    ...parts,
    issuer: () => vaultIssuer,
  });
  const calls = new Calls({
    subjectBounds: unbounded,
    ...parts,
    limits: new CallLimits(now, 1_000),
    outcomes: { add: () => undefined },
  });
  const callerOf = async (sub: string): Promise<Caller> => ({
    sub,
    subject: (
      await db.selectFrom('subject').select('id').where('sub', '=', sub).executeTakeFirstOrThrow()
    ).id as SubjectId,
    isOperator: false,
    requestId: 'a-request',
    address: null,
  });
  const allowed = async (action: string): Promise<number> =>
    (
      await db
        .selectFrom('audit_event')
        .select('id')
        .where('action', '=', action)
        .where('decision', '=', 'allow')
        .execute()
    ).length;
  const failure = ({ code, errors = [] }: AppError): string =>
    [code, ...errors.map(({ rule }) => rule)].join(' ');

  const lease = async (as: string, onBehalfOf: string): Promise<string> =>
    leases
      .createLease(await callerOf(as), {
        references: [{ id: credential as CredentialId }],
        purpose: 'a race',
        runId: undefined,
        onBehalfOf: { sub: onBehalfOf, isProven: false },
        keyId: undefined,
        ttlSeconds: 60,
      })
      .then(() => 'leased', failure);
  const tickets = new Map<string, { id: string; ticket: string }>();
  for (const [as, onBehalfOf] of [
    ['bot', 'ed'],
    ['lone', 'nora'],
    ['n8n', 'nora'],
  ] as const) {
    tickets.set(
      `${as} ${onBehalfOf}`,
      await demand(
        vault.call(as, 'POST', '/v1/broker-tickets', {
          credential: { id: credential },
          purpose: 'a race',
          onBehalfOf,
          ttlSeconds: 3_600,
        }),
        201,
      ),
    );
  }
  const call = async (as: string, onBehalfOf: string): Promise<string> => {
    const { id, ticket } = tickets.get(`${as} ${onBehalfOf}`)!;
    return calls
      .admit({
        ...presenting({ id }, ticket),
        method: 'GET',
        pathAndQuery: '/v1/x',
        isUpgrade: false,
        requestId: 'a-request',
        address: null,
      })
      .then((admitted) => {
        admitted.leave();
        return 'called';
      }, failure);
  };

  const teamGrant = { events: 2, as: 'bot', onBehalfOf: 'ed' };
  const ownGrant = { events: 1, as: 'lone', onBehalfOf: 'nora' };
  const behalfGrant = { events: 1, as: 'n8n', onBehalfOf: 'nora' };
  const removed = /notFound$/;
  const behalf = /onBehalfOfRefused$/;
  const cases: readonly (readonly [
    what: string,
    who: typeof teamGrant,
    act: () => Promise<unknown>,
    undo: () => Promise<unknown>,
    got: RegExp,
  ])[] = [
    ["the team's grant is removed", teamGrant, () => unshare(), () => share(), removed],
    [
      "the team's grant is narrowed",
      teamGrant,
      () => share('teams/sales', 'read'),
      () => share(),
      removed,
    ],
    [
      'the engine leaves the receiving team',
      teamGrant,
      () =>
        demand(vault.call('bella', 'DELETE', '/v1/teams/sales/members/bot', undefined, any), 204),
      () => vault.member('sales', 'bot', 'engine', 'bella'),
      removed,
    ],
    [
      'the person loses the role there',
      teamGrant,
      () => vault.member('sales', 'ed', 'viewer', 'bella'),
      () => vault.member('sales', 'ed', 'editor', 'bella'),
      behalf,
    ],
    [
      'the receiving team goes, past the service',
      teamGrant,
      () => sql`update team set deleted_at = now() where slug = 'sales'`.execute(db),
      () => sql`update team set deleted_at = null where slug = 'sales'`.execute(db),
      removed,
    ],
    [
      "the engine's own grant is removed",
      ownGrant,
      () => unshare('subjects/lone'),
      () => share('subjects/lone'),
      removed,
    ],
    [
      "the person's own grant is removed",
      ownGrant,
      () => unshare('subjects/nora'),
      () => share('subjects/nora'),
      behalf,
    ],
    [
      "the person's own grant is narrowed, the engine is a member",
      behalfGrant,
      () => share('subjects/nora', 'read'),
      () => share('subjects/nora'),
      behalf,
    ],
  ];
  for (const [kind, action, use] of [
    ['lease', 'credential.lease', lease],
    ['call', 'credential.use', call],
  ] as const) {
    for (const [what, { as, onBehalfOf, events }, change, undo, got] of cases) {
      await t.test(`${kind}: ${what}: refused, and nothing stands as used`, async (t) => {
        vault.clock.ms += 61_000;
        const run = async (
          meanwhile?: () => Promise<unknown>,
        ): Promise<{ outcome: string; recorded: number; readings: number }> => {
          const before = await allowed(action);
          act = meanwhile;
          readings = 0;
          const outcome = await use(as, onBehalfOf);
          return { outcome, recorded: (await allowed(action)) - before, readings };
        };
        const good = {
          outcome: kind === 'lease' ? 'leased' : 'called',
          recorded: events,
          readings: 1,
        };
        t.strictSame(await run(), good);
        t.strictSame(await run(), good, 'again, by what is remembered if anything is');
        const raced = await run(change);
        t.match(raced.outcome, got);
        t.match(raced, { recorded: 0, readings: 2 });
        t.match((await run()).outcome, got, 'and stays so');
        await undo();
        t.strictSame(await run(), good);
      });
    }
  }

  await t.test(
    'a test of the connection: the grant is held when the secret is opened',
    async (t) => {
      const service = new CredentialsService({
        subjectBounds: unbounded,
        ...parts,
        canShow: () => true,
      });
      const eddie = await callerOf('ed');
      const resolved = await service.resolveCredential(eddie, credential);
      const decision = decide(resolved, 'credential.use');
      if (decision.kind !== 'allow' || resolved === undefined) throw new Error('not allowed');
      const use = (): Promise<string> =>
        service
          .openForUse(
            eddie,
            resolved.resource,
            { action: 'credential.test', details: {} },
            decision.grantPath,
          )
          .then(() => 'opened', failure);
      t.equal(await use(), 'opened');
      await sql`update team set deleted_at = now() where slug = 'sales'`.execute(db);
      t.equal(await use(), 'notFound', 'the receiving team is gone');
      await sql`update team set deleted_at = null where slug = 'sales'`.execute(db);
      t.equal(await use(), 'opened');
      await share('teams/sales', 'read');
      t.equal(await use(), 'notFound');
      await share();
      t.equal(await use(), 'notFound', 'changed is another one');
    },
  );

  await t.test(
    'a grant that is removed and given again in between is another one: read anew, used, recorded with the new one',
    async (t) => {
      act = async () => {
        await unshare();
        await share();
      };
      readings = 0;
      t.equal(await lease('bot', 'ed'), 'leased');
      t.equal(readings, 2);
      const { id } = await db
        .selectFrom('credential_grant')
        .select('id')
        .where('grantee_kind', '=', 'team')
        .executeTakeFirstOrThrow();
      const { details } = await db
        .selectFrom('audit_event')
        .select('details')
        .where('action', '=', 'credential.lease')
        .orderBy('id', 'desc')
        .executeTakeFirstOrThrow();
      t.same(details['grants'], [id]);
    },
  );
});
