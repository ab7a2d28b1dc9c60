// Teams and members: slugs and subjects, tags, the last admin, engines and people.
import t from 'tap';
import { sql } from 'kysely';
import { generateEngineKey } from '../../src/client/index.ts';
import { intrude } from '../helpers/intruder.ts';
import { registerEngine } from '../helpers/leases.ts';
import { until } from '../helpers/processes.ts';
import { type Answer, startVault } from '../helpers/vault.ts';

const any = { 'if-match': '*' };
const member = (team: string, sub: string): string =>
  `/v1/teams/${team}/members/${encodeURIComponent(sub)}`;
const codes = (...answers: Answer[]): string[] =>
  answers.map(({ status, json }) => `${status} ${json?.code ?? ''}`.trim()).sort();

t.test('teams', async (t) => {
  const vault = await startVault(t);
  const { call, db } = vault;

  t.test('201: a team with its admins, its first key and one event', async (t) => {
    const made = await call('operator', 'POST', '/v1/teams', {
      slug: 'payments',
      name: 'Payments',
      admins: ['bob', 'alice'],
    });
    t.equal(made.status, 201, made.text);
    t.equal(made.headers['etag'], '"1"');
    t.equal(made.headers['location'], undefined, 'who may not read it is not sent there');
    t.match(made.json, {
      slug: 'payments',
      name: 'Payments',
      revision: 1,
      createdBy: 'operator',
      tokenFormat: 'fernet',
    });
    const members = (await call('alice', 'GET', '/v1/teams/payments/members')).json.items;
    t.match(members, [
      { subject: 'alice', role: 'admin', intact: true, revision: 1 },
      { subject: 'bob', role: 'admin', intact: true },
    ]);
    t.match((await call('alice', 'GET', '/v1/teams/payments/keys')).json.items, [
      { version: 1, state: 'active' },
    ]);
    const events = await sql<{ action: string; details: { admins: string[] } }>`
      select action, details from audit_event join team on team.id = team_id where slug = 'payments'`.execute(
      db,
    );
    t.match(events.rows, [
      { action: 'team.create', details: { admins: [/^[0-9a-f-]{36}$/, /^[0-9a-f-]{36}$/] } },
    ]);
  });

  t.test('201: Location is for an operator who is among the admins, and still is', async (t) => {
    const body = { slug: 'own', name: 'Own', admins: ['operator', 'alice'] };
    const key = { 'idempotency-key': 'own' };
    const made = await call('operator', 'POST', '/v1/teams', body, key);
    t.equal(made.headers['location'], '/v1/teams/own');
    t.equal((await call('operator', 'GET', '/v1/teams/own')).status, 200);
    t.equal(
      (await call('operator', 'POST', '/v1/teams', body, key)).headers['location'],
      '/v1/teams/own',
      'a repetition',
    );
    await call('alice', 'DELETE', member('own', 'operator'), undefined, any);
    const again = await call('operator', 'POST', '/v1/teams', body, key);
    t.match(again, { status: 201, json: { slug: 'own' } });
    t.equal(again.headers['location'], undefined, 'a repetition after the role has gone');
    t.equal((await call('operator', 'GET', '/v1/teams/own')).status, 404);
  });

  t.test('400: slugs, names and subjects that are none', async (t) => {
    const good = { slug: 'fine-team', name: 'x', admins: ['x'] };
    const bad: readonly (readonly [object, string])[] = [
      [{ slug: 'a' }, '/slug'],
      [{ slug: 'A-team' }, '/slug'],
      [{ slug: '-team' }, '/slug'],
      [{ slug: 'te am' }, '/slug'],
      [{ slug: 'té' }, '/slug'],
      [{ slug: 'a'.repeat(40) }, '/slug'],
      [{ slug: 'team\n' }, '/slug'],
      [{ slug: 7 }, '/slug'],
      [{ name: '' }, '/name'],
      [{ name: ' x' }, '/name'],
      [{ name: 'x\u0000' }, '/name'],
      [{ name: '\ud800' }, '/name'],
      [{ name: 'x'.repeat(101) }, '/name'],
      [{ admins: [] }, '/admins'],
      [{ admins: ['a', 'a'] }, '/admins'],
      [{ admins: ['a '] }, '/admins/0'],
      [{ admins: [''] }, '/admins/0'],
      [{ admins: ['é'] }, '/admins/0'],
      [{ admins: ['x'.repeat(256)] }, '/admins/0'],
      [{ admins: Array.from({ length: 21 }, (_, i) => `s${i}`) }, '/admins'],
      [{ extra: 1 }, '/extra'],
    ];
    for (const [change, pointer] of bad) {
      const answer = await call('operator', 'POST', '/v1/teams', { ...good, ...change });
      t.equal(answer.status, 400, JSON.stringify(change).slice(0, 60));
      t.equal(answer.json.errors?.[0]?.pointer, pointer);
    }
    t.equal(
      (await db.selectFrom('team').select('id').where('slug', '=', 'fine-team').execute()).length,
      0,
      'nothing is stored',
    );
    for (const slug of ['ab', 'a'.repeat(39), '0-'])
      t.equal((await call('operator', 'POST', '/v1/teams', { ...good, slug })).status, 201, slug);
  });

  t.test(
    '409: a slug that is taken; one of several at once wins, and no half of a team stays',
    async (t) => {
      t.equal(
        (
          await call('operator', 'POST', '/v1/teams', {
            slug: 'payments',
            name: 'x',
            admins: ['x'],
          })
        ).json.code,
        'slugTaken',
      );
      const answers = await Promise.all(
        Array.from({ length: 6 }, (_, i) =>
          call('operator', 'POST', '/v1/teams', {
            slug: 'contested',
            name: 'x',
            admins: [`a${i}`],
          }),
        ),
      );
      t.strictSame(codes(...answers), ['201', ...Array<string>(5).fill('409 slugTaken')]);
      const { rows } = await sql<{
        n: number;
      }>`select count(*) as n from data_key left join team on team.id = team_id where team.id is null or slug = 'contested'`.execute(
        db,
      );
      t.equal(rows[0]?.n, 1);
    },
  );

  t.test(
    'creations that name the same people in other orders do not wait for each other for ever',
    async (t) => {
      const people = Array.from({ length: 8 }, (_, i) => `crowd-${i}`);
      const answers = await Promise.all(
        Array.from({ length: 12 }, (_, i) =>
          call('operator', 'POST', '/v1/teams', {
            slug: `crowd-${i}`,
            name: 'x',
            admins: [...people.slice(i % 8), ...people.slice(0, i % 8)].toSorted(
              i % 2 === 0 ? undefined : () => -1,
            ),
          }),
        ),
      );
      t.ok(
        answers.every(({ status }) => status === 201),
        codes(...answers).join(),
      );
    },
  );

  t.test(
    'Idempotency-Key: a repeated creation answers with the team, another body is refused',
    async (t) => {
      const body = { slug: 'once', name: 'Once', admins: ['alice'] };
      const answers = await Promise.all(
        [1, 2, 3].map(() =>
          call('operator', 'POST', '/v1/teams', body, { 'idempotency-key': 'k1' }),
        ),
      );
      t.strictSame(codes(...answers), ['201', '201', '201']);
      t.equal(
        (
          await call(
            'operator',
            'POST',
            '/v1/teams',
            { ...body, name: 'Twice' },
            { 'idempotency-key': 'k1' },
          )
        ).json.code,
        'idempotencyKeyReused',
      );
    },
  );

  t.test('PATCH: 428, 412, 200 and an ETag that grows only by a change', async (t) => {
    const patch = (body: object, ifMatch?: string): Promise<Answer> =>
      call(
        'alice',
        'PATCH',
        '/v1/teams/payments',
        body,
        ifMatch === undefined ? {} : { 'if-match': ifMatch },
      );
    t.equal((await patch({ name: 'X' })).status, 428);
    t.equal((await patch({ name: 'X' }, '"7"')).status, 412);
    t.equal((await patch({ name: 'X' }, 'W/"7"')).status, 412, 'nor a weak one');
    t.equal((await patch({ name: 'X' }, '1')).status, 400, 'a tag has quotes');
    t.equal((await patch({ slug: 'other' }, '"1"')).status, 400, 'the slug never changes');
    const changed = await patch({ name: 'Money' }, '"1"');
    t.match(
      [changed.status, changed.headers['etag'], changed.json],
      [200, '"2"', { name: 'Money', revision: 2, updatedBy: 'alice' }],
    );
    const same = await patch({ name: 'Money' }, '"2"');
    t.match([same.status, same.headers['etag']], [200, '"2"'], 'nothing changed');
    t.equal((await patch({}, '*')).headers['etag'], '"2"');
    const twins = await Promise.all(
      Array.from({ length: 8 }, (_, i) => patch({ name: `Money ${i}` }, '"2"')),
    );
    t.strictSame(codes(...twins), ['200', ...Array<string>(7).fill('412 preconditionFailed')]);
    const now = (await call('alice', 'GET', '/v1/teams/payments')).json;
    const held = await Promise.all([
      patch({ name: now.name }, '*'),
      patch({ name: 'Between' }, '*'),
      patch({ name: now.name }, '*'),
    ]);
    const stored = (await call('alice', 'GET', '/v1/teams/payments')).json;
    const last = held.toSorted((a, b) => b.json.revision - a.json.revision)[0];
    t.equal(last?.json.name, stored.name, 'the answer with the newest tag says what is stored');
  });
});

t.test('members', async (t) => {
  const vault = await startVault(t);
  const { call, db } = vault;
  await vault.team('payments');

  t.test(
    'PUT asks for If-Match only of a member; a tag of somebody who is gone does not bring them back',
    async (t) => {
      const put = (role: string, ifMatch?: string): Promise<Answer> =>
        call(
          'alice',
          'PUT',
          member('payments', 'eve'),
          { role },
          ifMatch === undefined ? {} : { 'if-match': ifMatch },
        );
      t.equal((await put('viewer', '"1"')).status, 412, 'no member has this tag');
      const added = await put('viewer');
      t.match(
        [added.status, added.headers['etag'], added.json],
        [
          200,
          '"1"',
          {
            subject: 'eve',
            role: 'viewer',
            actsForItself: false,
            intact: true,
            createdBy: 'alice',
          },
        ],
      );
      t.equal((await put('editor')).status, 428);
      t.equal((await put('editor', '"9"')).status, 412);
      t.match((await put('editor', '"1"')).headers['etag'], '"2"');
      const remove = (ifMatch?: string): Promise<Answer> =>
        call(
          'alice',
          'DELETE',
          member('payments', 'eve'),
          undefined,
          ifMatch === undefined ? {} : { 'if-match': ifMatch },
        );
      t.equal((await remove()).status, 428);
      t.equal((await remove('"1"')).status, 412);
      t.equal((await remove('"2"')).status, 204);
      t.equal((await remove('*')).status, 404);
      t.equal(
        (await put('editor', '"2"')).status,
        412,
        'she was removed, and the writer has not seen it',
      );
      t.equal((await put('nothing', '*')).status, 400);
      t.match(
        (
          await call('alice', 'PUT', member('payments', 'eve'), {
            role: 'viewer',
            actsForItself: true,
          })
        ).json,
        { errors: [{ pointer: '/actsForItself', rule: 'engineOnly' }] },
      );
      const both = await Promise.all([put('viewer'), put('viewer'), put('viewer'), put('viewer')]);
      t.ok(
        codes(...both).every((code) =>
          ['200', '412 preconditionFailed', '428 preconditionRequired'].includes(code),
        ),
        codes(...both).join(),
      );
      t.equal(codes(...both).filter((code) => code === '200').length, 1);
    },
  );

  t.test('every subject has its path, percent-encoded', async (t) => {
    const subjects = [
      'a/b@c',
      '/',
      '//',
      '%',
      '%2F',
      '100%25',
      'a?b#c',
      'a;b=c',
      'a\\b',
      '"q"',
      '{}',
      'x'.repeat(255),
      '/'.repeat(255),
      "~!$&'()*+,:=",
      'auth0|5f7c',
      'adfs|corp|Jane Doe',
      '*',
    ];
    for (const sub of subjects) {
      const put = await call('alice', 'PUT', member('payments', sub), { role: 'viewer' });
      t.match([put.status, put.json?.subject], [200, sub], sub.slice(0, 30));
      t.equal(
        (await call(sub, 'GET', '/v1/teams/payments')).status,
        200,
        'it is the one in the token',
      );
      t.equal(
        (
          await call(
            'alice',
            'PUT',
            member('payments', sub),
            { role: 'editor' },
            { 'if-match': '"1"' },
          )
        ).status,
        200,
      );
      t.equal(
        (await call('alice', 'DELETE', member('payments', sub), undefined, { 'if-match': '"2"' }))
          .status,
        204,
      );
      t.equal((await call(sub, 'GET', '/v1/teams/payments')).status, 404);
    }
    for (const raw of ['%20', 'a%20', '%20b', '%C3%A9', '%00', '%7F', 'x'.repeat(256)])
      t.equal(
        (await call('alice', 'PUT', `/v1/teams/payments/members/${raw}`, { role: 'viewer' }))
          .status,
        400,
        raw.slice(0, 20),
      );
    t.equal(
      (await call('alice', 'PUT', '/v1/teams/payments/members/a/b', { role: 'viewer' })).status,
      404,
      'a bare slash is another path',
    );
  });

  t.test('the list is by subject, in pages', async (t) => {
    await vault.team('crowded', ['ann']);
    const subs = ['Z', 'a', 'b', 'B', '_', '~', '10', '9', 'ann'];
    for (const sub of subs.slice(0, -1)) await vault.member('crowded', sub, 'viewer', 'ann');
    const seen: string[] = [];
    let cursor = '';
    do {
      const page = (await call('ann', 'GET', `/v1/teams/crowded/members?limit=2${cursor}`)).json;
      seen.push(...page.items.map(({ subject }: { subject: string }) => subject));
      cursor = page.nextCursor === null ? '' : `&cursor=${page.nextCursor}`;
    } while (cursor !== '');
    t.strictSame(seen, subs.toSorted());
  });

  t.test('409 lastAdmin: removed, made something less, or both at once', async (t) => {
    const last = [
      await call('alice', 'DELETE', member('payments', 'alice'), undefined, any),
      await call('alice', 'PUT', member('payments', 'alice'), { role: 'editor' }, any),
    ];
    t.strictSame(codes(...last), ['409 lastAdmin', '409 lastAdmin']);
    t.equal(
      (await call('alice', 'PUT', member('payments', 'alice'), { role: 'admin' }, any)).status,
      200,
      'the same again is no loss',
    );
    for (let round = 0; round < 10; round += 1) {
      const slug = `round-${round}`;
      await vault.team(slug, ['ann', 'ben']);
      const act =
        round % 3 === 0
          ? ['DELETE', 'DELETE']
          : round % 3 === 1
            ? ['PUT', 'PUT']
            : ['DELETE', 'PUT'];
      const answers = await Promise.all([
        call(
          'ann',
          act[0] ?? '',
          member(slug, 'ben'),
          act[0] === 'PUT' ? { role: 'viewer' } : undefined,
          any,
        ),
        call(
          'ben',
          act[1] ?? '',
          member(slug, 'ann'),
          act[1] === 'PUT' ? { role: 'viewer' } : undefined,
          any,
        ),
      ]);
      const left = await sql<{
        n: number;
      }>`select count(*) as n from membership join team on team.id = team_id where slug = ${slug} and role = 'admin'`.execute(
        db,
      );
      t.equal(left.rows[0]?.n, 1, `one admin stays (${act.join()}): ${codes(...answers).join()}`);
      // The slower one finds that they are the last, or that they are in the team no more.
      t.ok(
        codes(...answers).every((code) =>
          ['200', '204', '409 lastAdmin', '403 forbidden', '404 notFound'].includes(code),
        ),
        codes(...answers).join(),
      );
      t.equal(answers.filter(({ status }) => status < 300).length, 1);
    }
  });

  t.test(
    '409 lastAdmin: an admin whose row was changed past the vault keeps no team',
    async (t) => {
      await vault.team('bent', ['ann', 'ben']);
      await intrude(
        db,
        `update membership set seal = decode(repeat('00', 34), 'hex') where subject_id = (select id from subject where sub = 'ben') and team_id = (select id from team where slug = 'bent')`,
      );
      t.match((await call('ann', 'GET', '/v1/teams/bent/members')).json.items, [
        { subject: 'ann', intact: true },
        { subject: 'ben', intact: false },
      ]);
      t.equal((await call('ben', 'GET', '/v1/teams/bent')).status, 404);
      t.strictSame(
        codes(
          await call('ann', 'DELETE', member('bent', 'ann'), undefined, any),
          await call('ann', 'PUT', member('bent', 'ann'), { role: 'viewer' }, any),
        ),
        ['409 lastAdmin', '409 lastAdmin'],
      );
      t.equal(
        (await call('ann', 'PUT', member('bent', 'ben'), { role: 'admin' }, any)).status,
        200,
        'an admin puts them back',
      );
      t.equal((await call('ben', 'GET', '/v1/teams/bent')).status, 200);
      t.equal((await call('ann', 'DELETE', member('bent', 'ann'), undefined, any)).status, 204);
    },
  );

  t.test('the last row that says admin stays even for who forgets to ask', async (t) => {
    const of = `team_id = (select id from team where slug = 'payments') and role = 'admin'`;
    for (const statement of [
      `delete from membership where ${of}`,
      `update membership set role = 'viewer' where ${of}`,
    ]) {
      await t.rejects(sql.raw(statement).execute(db), /a team keeps at least one admin/);
    }
  });

  t.test(
    'two who take each other into two teams do not wait for each other for ever',
    async (t) => {
      await vault.team('left', ['ann']);
      await vault.team('right', ['ben']);
      for (let round = 0; round < 30; round += 1) {
        const answers = await Promise.all([
          call('ann', 'PUT', member('left', 'ben'), { role: 'viewer' }),
          call('ben', 'PUT', member('right', 'ann'), { role: 'viewer' }),
        ]);
        t.strictSame(codes(...answers), ['200', '200']);
        await Promise.all([
          call('ann', 'DELETE', member('left', 'ben'), undefined, any),
          call('ben', 'DELETE', member('right', 'ann'), undefined, any),
        ]);
      }
    },
  );

  t.test('who becomes a member while they become an engine is one of the two', async (t) => {
    await vault.team('waiting');
    const register = (): Promise<Answer> =>
      call('operator', 'POST', '/v1/engines', {
        name: 'late',
        subject: 'late',
        keys: [generateEngineKey('X25519').publicJwk],
      });
    // Known, because somebody let them in once.
    await vault.member('waiting', 'late', 'viewer');
    await call('alice', 'DELETE', member('waiting', 'late'), undefined, any);
    let registration: Promise<Answer> | undefined;
    await db.transaction().execute(async (trx) => {
      await sql`insert into membership (team_id, subject_id, role, revision, seal, created_at, created_by, updated_at, updated_by)
        select team.id, subject.id, 'viewer', 1, ''::bytea, now(), subject.id, now(), subject.id from team, subject where slug = 'waiting' and sub = 'late'`.execute(
        trx,
      );
      let isDone = false;
      registration = register().finally(() => {
        isDone = true;
      });
      await until(
        async () =>
          isDone ||
          (
            await sql`select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`.execute(
              trx,
            )
          ).rows.length > 0,
      );
    });
    t.equal((await registration)?.json.code, 'holdsARole');
  });

  t.test('engines hold no other role, people are no engines, whatever comes first', async (t) => {
    await registerEngine(vault, 'n8n');
    t.equal(
      (await call('alice', 'PUT', member('payments', 'n8n'), { role: 'viewer' })).json.code,
      'isAnEngine',
    );
    t.equal(
      (await call('alice', 'PUT', member('payments', 'petra'), { role: 'engine' })).json.code,
      'notAnEngine',
    );
    t.match(
      (
        await call('alice', 'PUT', member('payments', 'n8n'), {
          role: 'engine',
          actsForItself: true,
        })
      ).json,
      { role: 'engine', actsForItself: true },
    );
    t.equal(
      (await call('alice', 'PUT', member('payments', 'n8n'), { role: 'editor' }, any)).json.code,
      'isAnEngine',
    );
    t.equal(
      (
        await call('operator', 'POST', '/v1/teams', {
          slug: 'by-engine',
          name: 'x',
          admins: ['n8n'],
        })
      ).json.code,
      'isAnEngine',
    );
    t.equal(
      (
        await call('operator', 'POST', '/v1/engines', {
          name: 'a person',
          subject: 'alice',
          keys: [generateEngineKey('X25519').publicJwk],
        })
      ).json.code,
      'holdsARole',
    );
    for (let round = 0; round < 8; round += 1) {
      const sub = `both-${round}`;
      const [asPerson, asEngine] = await Promise.all([
        call('alice', 'PUT', member('payments', sub), { role: 'viewer' }),
        call('operator', 'POST', '/v1/engines', {
          name: sub,
          subject: sub,
          keys: [generateEngineKey('X25519').publicJwk],
        }),
      ]);
      t.ok(
        (asPerson.status === 200) !== (asEngine.status === 201),
        `one of the two: ${codes(asPerson, asEngine).join()}`,
      );
      t.equal(codes(asPerson, asEngine).filter((code) => code.startsWith('409')).length, 1);
    }
    const disabled = await registerEngine(vault, 'resting');
    t.equal(
      (await call('operator', 'PATCH', `/v1/engines/${disabled.id}`, { state: 'disabled' }, any))
        .status,
      200,
    );
    t.equal(
      (await call('alice', 'PUT', member('payments', 'resting'), { role: 'engine' })).json.code,
      'notAnEngine',
      'nor a disabled one',
    );
  });
});
