// Many credentials in one request: each by itself, and none of another team.
import t from 'tap';
import { randomBytes } from 'node:crypto';
import { sql } from 'kysely';
import { openSecrets } from '../helpers/stored.ts';
import { type Answer, startVault } from '../helpers/vault.ts';

t.test('many in one request', async (t) => {
  const vault = await startVault(t);
  const { call, db } = vault;
  await vault.team('payments');
  await vault.team('elsewhere', ['otto', 'ed']);
  for (const [sub, role] of [
    ['ed', 'editor'],
    ['vera', 'viewer'],
  ] as const)
    await vault.member('payments', sub, role);
  const bulk = (items: readonly object[], as = 'ed', team = 'payments'): Promise<Answer> =>
    call(as, 'POST', `/v1/teams/${team}/credentials/bulk`, { items });
  const create = (name: string, more: object = {}): object => ({
    op: 'create',
    name,
    type: 'openai',
    fields: { apiKey: `secret of ${name}` },
    ...more,
  });
  const outcomes = ({ json }: Answer): string[] =>
    json.results.map(({ status, problem }: { status: number; problem?: { code: string } }) =>
      `${status} ${problem?.code ?? ''}`.trim(),
    );

  t.test('stored, changed and deleted, with an event for each', async (t) => {
    const made = await bulk(Array.from({ length: 100 }, (_, i) => create(`c${i}`)));
    t.equal(made.status, 200);
    t.ok(outcomes(made).every((each) => each === '201'));
    const ids: string[] = made.json.results.map(
      ({ credential }: { credential: { id: string } }) => credential.id,
    );
    t.strictSame(
      made.json.results.map(({ credential }: { credential: { name: string } }) => credential.name),
      ids.map((_, i) => `c${i}`),
      'in their order',
    );
    t.strictSame(await openSecrets(vault, ids[7]!), { apiKey: 'secret of c7' });
    const mixed = await bulk([
      { op: 'update', id: ids[0], revision: 1, fields: { apiKey: 'new' } },
      { op: 'update', id: ids[1], revision: '*', description: 'x' },
      { op: 'delete', id: ids[2], revision: 1 },
      create('c2'),
    ]);
    t.strictSame(
      outcomes(mixed),
      ['200', '200', '204', '201'],
      'one after the other: a name that was freed is free',
    );
    t.strictSame(await openSecrets(vault, ids[0]!), { apiKey: 'new' });
    const { rows } = await sql<{
      action: string;
      n: number;
    }>`select action, count(*)::int as n from audit_event where action like 'credential.%' group by action order by action`.execute(
      db,
    );
    t.strictSame(rows, [
      { action: 'credential.create', n: 101 },
      { action: 'credential.delete', n: 1 },
      { action: 'credential.update', n: 2 },
    ]);
  });

  t.test('a refused one stops nothing, and says where it stands', async (t) => {
    const canary = randomBytes(12).toString('hex');
    const {
      json: { id },
    } = await call('ed', 'POST', '/v1/teams/payments/credentials', {
      name: 'known',
      type: 'openai',
      fields: { apiKey: 'x' },
    });
    const answer = await bulk([
      create('c0'),
      create('fresh'),
      create('wrong', { fields: { apiKey: canary, [`x${canary}`]: canary } }),
      { op: 'update', id, revision: 9, description: 'x' },
      { op: 'update', id, revision: 1, fields: { baseUrl: 'https://evil.test' } },
      {
        op: 'update',
        id,
        revision: '*',
        policy: { delivery: ['lease', 'broker'], allowedHosts: [] },
        fields: { apiKey: canary },
      },
      { op: 'delete', id: '01931f00-0000-7000-8000-00000000000b', revision: '*' },
      create('fresher'),
    ]);
    t.strictSame(outcomes(answer), [
      '409 nameTaken',
      '201',
      '400 invalidRequest',
      '412 preconditionFailed',
      '422 secretRequired',
      '403 forbidden',
      '404 notFound',
      '201',
    ]);
    t.match(answer.json.results[2].problem.errors[0].pointer, /^\/items\/2\/fields/);
    t.strictSame(answer.json.results[4].problem.errors, [
      { pointer: '/items/4/fields/apiKey', rule: 'secretRequired' },
    ]);
    t.notMatch(answer.text, canary);
  });

  t.test('nothing of another team', async (t) => {
    const {
      json: { id },
    } = await call('otto', 'POST', '/v1/teams/elsewhere/credentials', {
      name: 'theirs',
      type: 'openai',
      fields: { apiKey: 'x' },
    });
    t.strictSame(
      outcomes(
        await bulk([
          { op: 'update', id, revision: '*', description: 'x' },
          { op: 'delete', id, revision: '*' },
        ]),
      ),
      ['404 notFound', '404 notFound'],
      'not even by somebody who may there',
    );
    t.match((await call('otto', 'GET', `/v1/credentials/${id}`)).json, {
      revision: 1,
      description: null,
    });
    t.equal((await bulk([create('x')], 'vera')).status, 403);
    t.equal((await bulk([create('x')], 'stranger')).status, 404);
    t.equal((await bulk([create('x')], 'otto')).status, 404);
  });

  t.test('what cannot be read changes nothing at all', async (t) => {
    const count = async (): Promise<number> =>
      (await sql<{ n: number }>`select count(*)::int as n from credential`.execute(db)).rows[0]!.n;
    const before = await count();
    for (const items of [
      [],
      Array.from({ length: 101 }, (_, i) => create(`m${i}`)),
      [create('good'), { op: 'replace' }],
      [create('good'), { op: 'update', id: 'x', revision: 1 }],
      [create('good'), { op: 'delete', id: '01931f00-0000-7000-8000-00000000000b' }],
      [create('good'), { ...create('bad'), id: '01931f00-0000-7000-8000-00000000000b' }],
    ])
      t.equal((await bulk(items)).status, 400, JSON.stringify(items).slice(0, 80));
    t.equal(await count(), before);
  });

  t.test('when the database goes the rest is not tried', async (t) => {
    const {
      rows: [{ n: before } = { n: 0 }],
    } = await sql<{ n: number }>`select count(*)::int as n from credential`.execute(db);
    await sql`create function refuse() returns trigger language plpgsql as $$ begin if new.name = 'second' then raise exception 'gone' using errcode = '57P01'; end if; return new; end $$`.execute(
      db,
    );
    await sql`create trigger refuse before insert on credential for each row execute function refuse()`.execute(
      db,
    );
    const answer = await bulk([create('first'), create('second'), create('third')]);
    t.strictSame(outcomes(answer), ['201', '503 databaseUnavailable', '503 databaseUnavailable']);
    await sql`drop trigger refuse on credential`.execute(db);
    t.equal(
      (await sql<{ n: number }>`select count(*)::int as n from credential`.execute(db)).rows[0]!.n,
      before + 1,
    );
  });

  t.test(
    'when it goes under one, that one is unknown, and of the rest nothing was changed',
    async (t) => {
      await sql`create function end_it() returns trigger language plpgsql as $$ begin if new.name = 'fifth' then perform pg_terminate_backend(pg_backend_pid()); end if; return new; end $$`.execute(
        db,
      );
      await sql`create trigger end_it before insert on credential for each row execute function end_it()`.execute(
        db,
      );
      const answer = await bulk([create('fourth'), create('fifth'), create('sixth')]);
      t.strictSame(outcomes(answer), ['201', '503 commitUnknown', '503 databaseUnavailable']);
      await sql`drop trigger end_it on credential`.execute(db);
      const { rows } = await sql<{ name: string }>`
      select name from credential where name in ('fourth', 'fifth', 'sixth')`.execute(db);
      t.strictSame(rows, [{ name: 'fourth' }]);
    },
  );
});
