// The end of a team, and the lists of teams.
import t from 'tap';
import { sql } from 'kysely';
import { intrude } from '../helpers/intruder.ts';
import { registerEngine } from '../helpers/leases.ts';
import { until } from '../helpers/processes.ts';
import { startVault } from '../helpers/vault.ts';

const any = { 'if-match': '*' };
const bearer = (name: string): object => ({
  name,
  type: 'bearer',
  fields: { token: 'a-secret-token' },
});

t.test('deleting a team', async (t) => {
  const vault = await startVault(t);
  const { call, db } = vault;
  await vault.team('payments');
  const {
    json: { id },
  } = await call('alice', 'POST', '/v1/teams/payments/credentials', bearer('one'));
  t.equal((await call('alice', 'DELETE', '/v1/teams/payments', undefined)).status, 428);
  t.equal(
    (await call('alice', 'DELETE', '/v1/teams/payments', undefined, any)).json.code,
    'teamNotEmpty',
  );
  await call('alice', 'DELETE', `/v1/credentials/${id}`, undefined, any);
  t.equal(
    (await call('alice', 'DELETE', '/v1/teams/payments', undefined, { 'if-match': '"9"' })).status,
    412,
  );
  t.equal(
    (await call('alice', 'DELETE', '/v1/teams/payments', undefined, { 'if-match': '"1"' })).status,
    204,
  );
  for (const url of [
    '/v1/teams/payments',
    '/v1/teams/payments/members',
    '/v1/teams/payments/credentials',
    '/v1/teams/payments/audit-events',
    '/v1/teams/payments/keys',
  ]) {
    t.equal((await call('alice', 'GET', url)).status, 404, url);
  }
  t.equal(
    (await call('alice', 'POST', '/v1/teams/payments/credentials', bearer('two'))).status,
    404,
  );
  t.strictSame((await call('alice', 'GET', '/v1/teams')).json.items, []);
  t.strictSame((await call('alice', 'GET', '/v1/whoami')).json.teams, []);
  t.strictSame((await call('alice', 'GET', '/v1/credentials?deleted=true')).json.items, []);
  t.equal(
    (
      await call('operator', 'POST', '/v1/teams', {
        slug: 'payments',
        name: 'again',
        admins: ['alice'],
      })
    ).json.code,
    'slugTaken',
    'a slug is never given again',
  );

  t.test(
    'no credential lands in a team that is being deleted, and none that did not land stands in the audit log',
    async (t) => {
      for (let round = 0; round < 12; round += 1) {
        const slug = `race-${round}`;
        await vault.team(slug);
        const key: Record<string, string> =
          round % 2 === 0 ? {} : { 'idempotency-key': `k-${round}` };
        const [gone, ...made] = await Promise.all([
          call('alice', 'DELETE', `/v1/teams/${slug}`, undefined, any),
          ...Array.from({ length: 4 }, (_, i) =>
            call(
              'alice',
              'POST',
              `/v1/teams/${slug}/credentials`,
              bearer(`c${i}`),
              key['idempotency-key'] === undefined
                ? {}
                : { 'idempotency-key': `${key['idempotency-key']}-${i}` },
            ),
          ),
        ]);
        const {
          rows: [found],
        } = await sql<{ living: number; events: number; deleted: boolean }>`
        select (select count(*) from credential where team_id = team.id and state <> 'deleted') as living, team.deleted_at is not null as deleted,
          (select count(*) from audit_event where team_id = team.id and action = 'credential.create' and decision = 'allow') as events
        from team where slug = ${slug}`.execute(db);
        const landed = made.filter(({ status }) => status === 201).length;
        t.match(
          found,
          gone.status === 204
            ? { living: 0, events: 0, deleted: true }
            : { living: landed, events: landed, deleted: false },
          `${gone.status}, ${landed} landed`,
        );
        t.ok(made.every(({ status }) => status === 201 || status === 404));
      }
    },
  );

  t.test('a creation that waited for the deletion finds no team and leaves no event', async (t) => {
    await vault.team('slow');
    const {
      rows: [team],
    } = await sql<{ id: string }>`select id from team where slug = 'slow'`.execute(db);
    let creation: ReturnType<typeof call> | undefined;
    await db.transaction().execute(async (trx) => {
      await sql`select 1 from team where id = ${team?.id} for update`.execute(trx); // as the service does, in this order
      await sql`update team set deleted_at = now() where id = ${team?.id}`.execute(trx);
      creation = call('alice', 'POST', '/v1/teams/slow/credentials', bearer('late'));
      await until(
        async () =>
          (
            await sql`select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`.execute(
              trx,
            )
          ).rows.length > 0,
      );
    });
    t.equal((await creation)?.status, 404);
    const { rows } =
      await sql`select 1 from audit_event where team_id = ${team?.id} and action = 'credential.create'`.execute(
        db,
      );
    t.equal(rows.length, 0);
  });
});

t.test('the teams that one is shown', async (t) => {
  const vault = await startVault(t);
  const { call, db } = vault;
  const engine = await registerEngine(vault, 'n8n');
  const slugs = ['zeta', 'alpha', 'beta', 'mid-9', 'mid-10'];
  for (const slug of slugs) {
    await vault.team(slug);
    await vault.member(slug, 'n8n', 'engine');
  }
  await vault.team('foreign', ['ann']);
  for (const name of ['one', 'two'])
    await call('alice', 'POST', '/v1/teams/alpha/credentials', bearer(name));
  t.equal((await call('n8n', 'GET', '/v1/credentials?limit=1')).json.items.length, 1);
  const walk = async (as: string): Promise<string[]> => {
    const seen: string[] = [];
    for (let cursor = ''; ; ) {
      const page = (await call(as, 'GET', `/v1/teams?limit=2${cursor}`)).json;
      seen.push(
        ...page.items.map(({ slug, role }: { slug: string; role: string }) => `${slug} ${role}`),
      );
      if (page.nextCursor === null) return seen;
      cursor = `&cursor=${page.nextCursor}`;
    }
  };
  t.strictSame(
    await walk('alice'),
    slugs.toSorted().map((slug) => `${slug} admin`),
  );
  t.strictSame((await call('alice', 'GET', '/v1/whoami')).json, {
    subject: 'alice',
    isOperator: false,
    teams: slugs.toSorted().map((team) => ({ team, role: 'admin' })),
  });
  t.strictSame((await call('operator', 'GET', '/v1/whoami')).json, {
    subject: 'operator',
    isOperator: true,
    teams: [],
  });
  t.strictSame(await walk('stranger'), []);
  t.strictSame(
    await walk('n8n'),
    slugs.toSorted().map((slug) => `${slug} engine`),
  );

  t.test('a role that does not count shows no team, not even in a cursor', async (t) => {
    await call('operator', 'PATCH', `/v1/engines/${engine.id}`, { state: 'disabled' }, any);
    const page = await call('n8n', 'GET', '/v1/teams?limit=1');
    t.strictSame(page.json, { items: [], nextCursor: null });
    const one = await call('n8n', 'GET', '/v1/credentials?limit=1');
    t.strictSame(one.json, { items: [], nextCursor: null });
    t.strictSame((await call('n8n', 'GET', '/v1/whoami')).json.teams, []);
  });

  t.test('a broken row hides its team, says so, and breaks nothing', async (t) => {
    await intrude(
      db,
      `update membership set revision = revision + 1 where subject_id = (select id from subject where sub = 'alice') and team_id = (select id from team where slug = 'beta')`,
    );
    t.strictSame(
      await walk('alice'),
      slugs
        .filter((slug) => slug !== 'beta')
        .toSorted()
        .map((slug) => `${slug} admin`),
    );
    const { rows } =
      await sql`select 1 from audit_event join team on team.id = team_id where slug = 'beta' and reason = 'sealBroken' and audit_event.action = 'team.read'`.execute(
        db,
      );
    t.ok(rows.length > 0);
    t.ok(vault.logs.some((line) => line.includes('"event":"sealBroken"')));
  });
});
