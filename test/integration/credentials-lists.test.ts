// Lists: what they filter, that pages are whole and without doubles, whose things stand in them,
// and that they need no scan.
import { sql } from 'kysely';
import t from 'tap';
import { afterPrefix } from '../../src/credentials/lists/filters.ts';
import { labelsMax } from '../../src/shared/limits.ts';
import { startVault } from '../helpers/vault.ts';

const any = { 'if-match': '*' };
const byCodePoint = (a: string, b: string): number =>
  Buffer.compare(Buffer.from(a), Buffer.from(b));

t.test('lists', async (t) => {
  const vault = await startVault(t);
  const { call, db } = vault;
  for (const slug of ['payments', 'sales']) await vault.team(slug);
  await vault.team('foreign', ['ann']);
  await vault.member('payments', 'vera', 'viewer');
  const store = async (
    team: string,
    name: string,
    more: object = {},
    by = 'alice',
  ): Promise<string> => {
    const answer = await call(by, 'POST', `/v1/teams/${team}/credentials`, {
      name,
      type: 'bearer',
      fields: { token: 'x' },
      ...more,
    });
    if (answer.status !== 201) throw new Error(answer.text);
    return answer.json.id;
  };
  const names = async (
    query = '',
    as = 'alice',
    url = '/v1/teams/payments/credentials',
  ): Promise<string[]> => {
    const answer = await call(as, 'GET', `${url}${query}`);
    if (answer.status !== 200) throw new Error(answer.text);
    return answer.json.items.map(({ name }: { name: string }) => name);
  };
  const walk = async (
    query: string,
    as = 'alice',
    url = '/v1/teams/payments/credentials',
    between: () => Promise<unknown> = async () => undefined,
  ): Promise<string[]> => {
    const seen: string[] = [];
    for (let cursor = ''; ; ) {
      const page = (await call(as, 'GET', `${url}?${query}${cursor}`)).json;
      seen.push(...page.items.map(({ id }: { id: string }) => id));
      if (page.nextCursor === null) return seen;
      cursor = `&cursor=${page.nextCursor}`;
      await between();
    }
  };
  const odd = [
    '100%',
    '100_',
    '100\\',
    'a',
    'A',
    'Z',
    'z',
    'é',
    'q\u0301',
    'ä',
    'zz',
    '\ufffd',
    '\uffee',
    '🔑',
    '😀key',
    '\u{1fbf9}',
    'a\u{2a6d0}',
    'a\u{2a6d0}b',
    'aa',
    'a%b',
    'a_b',
    'a\\b',
    "a'b",
    'a"b',
    '-',
    '~',
    '日本',
    '日本語',
    'ﬀ',
  ];
  for (const name of odd) await store('payments', name);

  t.test('names are in the order of their code points', async (t) => {
    t.strictSame(await names('?limit=200'), odd.toSorted(byCodePoint));
    t.strictSame(await names('?limit=200', 'alice', '/v1/credentials'), odd.toSorted(byCodePoint));
  });

  t.test('namePrefix means every character as it is', async (t) => {
    for (const prefix of [
      '1',
      '100%',
      '100_',
      '100\\',
      'a',
      'A',
      'a%',
      'a_',
      'a\\',
      'é',
      'e',
      '日本',
      '🔑',
      '😀',
      '\u{1fbf9}',
      '\u{10ffff}',
      'a\u{2a6d0}',
      '\ufffd',
      "'",
      '"',
      'nothing',
      '%',
      '_',
      '\ud7ff',
      '\ue000',
    ]) {
      t.strictSame(
        await names(`?limit=200&namePrefix=${encodeURIComponent(prefix)}`),
        odd.filter((name) => name.startsWith(prefix)).toSorted(byCodePoint),
        JSON.stringify(prefix),
      );
    }
    t.strictSame(
      [
        afterPrefix('a'),
        afterPrefix('a\u{10ffff}'),
        afterPrefix('\u{10ffff}'),
        afterPrefix('\ud7ff'),
        afterPrefix('\uffff'),
      ],
      ['b', 'b', undefined, '\ue000', '\u{10000}'],
    );
    for (const bad of ['', '%00', 'a%0a', `${'x'.repeat(101)}`])
      t.equal(
        (await call('alice', 'GET', `/v1/teams/payments/credentials?namePrefix=${bad}`)).status,
        400,
        bad,
      );
  });

  t.test(
    'labels with the same bit are still two labels, and those with every bit are found',
    async (t) => {
      await vault.team('bits');
      const bitOf = async (value: string): Promise<string> =>
        (
          await sql<{
            bit: string;
          }>`select label_bits(${JSON.stringify({ env: value })}::jsonb)::text as bit`.execute(db)
        ).rows[0]!.bit;
      const prod = await bitOf('prod');
      let same = 0;
      while ((await bitOf(`like-prod-${same}`)) !== prod) same += 1;
      await store('bits', 'prod', { labels: { env: 'prod' } });
      await store('bits', 'same', { labels: { env: `like-prod-${same}` } });
      await store('bits', 'other', { labels: { other: 'x' } });
      const many = Object.fromEntries(
        Array.from({ length: labelsMax }, (_, n) => [`label-${n}`, `${n}`]),
      );
      await store('bits', 'many', { labels: many });
      const url = '/v1/teams/bits/credentials';
      for (const sort of ['name', 'createdAt', 'updatedAt', 'lastUsedAt']) {
        t.strictSame(await names(`?sort=${sort}&label=env:prod`, 'alice', url), ['prod'], sort);
        t.strictSame(await names(`?sort=${sort}&label=env:like-prod-${same}`, 'alice', url), [
          'same',
        ]);
        for (const [name, value] of Object.entries(many))
          t.strictSame(await names(`?sort=${sort}&label=${name}:${value}`, 'alice', url), ['many']);
      }
      t.strictSame(await names('?label=label-1:1&label=label-2:2', 'alice', url), ['many']);
    },
  );

  t.test('filters: type, labels, problems, deleted, and several at once', async (t) => {
    await vault.team('filters');
    const url = '/v1/teams/filters/credentials';
    await store('filters', 'plain');
    await store('filters', 'prod', { labels: { env: 'prod', 'team/owner': 'a:b' } });
    await store('filters', 'prod-eu', {
      labels: { env: 'prod', region: 'eu' },
      type: 'openai',
      fields: { apiKey: 'x' },
    });
    await store('filters', 'dev', {
      labels: { env: 'dev', empty: '' },
      expiresAt: '2020-01-01T00:00:00Z',
    });
    const soon = new Date(Date.now() + 13 * 86_400_000).toISOString();
    await store('filters', 'soon', { expiresAt: soon });
    await store('filters', 'later', {
      expiresAt: new Date(Date.now() + 15 * 86_400_000).toISOString(),
    });
    const off = await store('filters', 'off', { expiresAt: soon });
    await call('alice', 'POST', `/v1/credentials/${off}/disable`);
    const gone = await store('filters', 'gone', { labels: { env: 'prod' } });
    await call('alice', 'DELETE', `/v1/credentials/${gone}`, undefined, any);
    const expected: readonly (readonly [string, string[]])[] = [
      ['', ['dev', 'later', 'off', 'plain', 'prod', 'prod-eu', 'soon']],
      ['?type=openai', ['prod-eu']],
      ['?type=slack', []],
      ['?label=env:prod', ['prod', 'prod-eu']],
      ['?label=env:prod&label=region:eu', ['prod-eu']],
      ['?label=env:prod&label=env:dev', []],
      ['?label=team/owner:a:b', ['prod']],
      ['?label=empty:', ['dev']],
      ['?label=env:', []],
      ['?label=env:Prod', []],
      ['?problem=disabled', ['off']],
      ['?problem=expired', ['dev']],
      ['?problem=expiring', ['off', 'soon']],
      ['?problem=undecryptable', []],
      ['?deleted=true', ['gone']],
      ['?deleted=false', ['dev', 'later', 'off', 'plain', 'prod', 'prod-eu', 'soon']],
      ['?deleted=true&label=env:prod&namePrefix=g', ['gone']],
      ['?type=openai&label=env:prod&namePrefix=prod&problem=disabled', []],
      ['?namePrefix=prod&type=bearer', ['prod']],
    ];
    for (const [query, found] of expected)
      t.strictSame(await names(query, 'alice', url), found, query);
    const { items } = (await call('alice', 'GET', url)).json;
    t.match(Object.fromEntries(items.map(({ name, health }: any) => [name, health])), {
      dev: 'expired',
      soon: 'expiring',
      later: 'ok',
      off: 'disabled',
      plain: 'ok',
    });
    t.match(items.find(({ name }: any) => name === 'off').problems, ['disabled', 'expiring']);
    t.match((await call('alice', 'GET', `${url}?deleted=true`)).json.items, [
      { id: gone, deletedAt: /Z$/, secretFields: ['token'] },
    ]);
    for (const bad of [
      '?type=nothing',
      '?label=',
      '?label=env',
      '?label=ENV:x',
      '?problem=ok',
      '?deleted=yes',
      '?limit=0',
      '?limit=201',
      '?limit=1.5',
      '?limit=-1',
      '?limit=abc',
      '?limit=01',
      '?extra=1',
      '?limit=1&limit=2',
      '?cursor=',
      '?cursor=abc',
      `?cursor=${'A'.repeat(200)}`,
      `?${'label=a:b&'.repeat(6)}`,
    ]) {
      t.equal((await call('alice', 'GET', `${url}${bad}`)).status, 400, bad);
    }
    for (const limit of [1, 200])
      t.equal((await call('alice', 'GET', `${url}?limit=${limit}`)).status, 200);
  });

  t.test('pages of every size hold everything once, while others write', async (t) => {
    await vault.team('pages');
    const url = '/v1/teams/pages/credentials';
    const ids = new Map<string, string>();
    for (let i = 0; i < 23; i += 1)
      ids.set(await store('pages', `p-${String((i * 7) % 23).padStart(3, '0')}`), '');
    for (const limit of [1, 2, 5, 22, 23, 24]) {
      const seen = await walk(`limit=${limit}`, 'alice', url);
      t.strictSame(new Set(seen), new Set(ids.keys()), `limit ${limit}`);
      t.equal(seen.length, 23);
    }
    let extra = 0;
    const seen = await walk('limit=3', 'alice', url, async () => {
      await Promise.all([
        store('pages', `p-${String((extra += 1)).padStart(3, '0')}-new`),
        store('pages', `a-${extra}`),
        store('pages', `z-${extra}`),
      ]);
    });
    t.equal(new Set(seen).size, seen.length, 'no doubles');
    t.ok(
      [...ids.keys()].every((id) => seen.includes(id)),
      'what was there all the time is there',
    );
    const doomed = await store('pages', 'doomed');
    await call('alice', 'DELETE', `/v1/credentials/${doomed}`, undefined, any);
    for (const id of [...ids.keys()].slice(0, 9))
      await call('alice', 'DELETE', `/v1/credentials/${id}`, undefined, any);
    t.strictSame(
      await walk('limit=4&deleted=true', 'alice', url),
      [...ids.keys()].slice(0, 9).concat(doomed).toSorted(),
      'deleted ones by id',
    );
  });

  t.test('a cursor is good for its caller, its list and its filters', async (t) => {
    const { nextCursor } = (await call('alice', 'GET', '/v1/teams/payments/credentials?limit=1'))
      .json;
    const refused: readonly (readonly [string, string])[] = [
      ['vera', '/v1/teams/payments/credentials?limit=1'],
      ['alice', '/v1/teams/sales/credentials?limit=1'],
      ['alice', '/v1/credentials?limit=1'],
      ['alice', '/v1/teams/payments/credentials?type=bearer'],
      ['alice', '/v1/teams/payments/credentials?deleted=true'],
      ['alice', '/v1/teams/payments/members?limit=1'],
      ['alice', '/v1/teams?limit=1'],
    ];
    for (const [as, url] of refused)
      t.equal(
        (await call(as, 'GET', `${url}&cursor=${nextCursor}`)).json.code,
        'invalidCursor',
        `${as} ${url}`,
      );
    t.equal(
      (await call('alice', 'GET', `/v1/teams/payments/credentials?limit=5&cursor=${nextCursor}`))
        .status,
      200,
      'another limit is fine',
    );
    const bytes = Buffer.from(nextCursor, 'base64url');
    for (const at of [0, 1, 2, 20, bytes.length - 1]) {
      const tampered = Buffer.from(bytes);
      tampered[at] = (tampered[at] ?? 0) ^ 1;
      t.equal(
        (
          await call(
            'alice',
            'GET',
            `/v1/teams/payments/credentials?cursor=${tampered.toString('base64url')}`,
          )
        ).json.code,
        'invalidCursor',
      );
    }
  });

  t.test('several teams are one list, with the rights of each', async (t) => {
    await store('sales', 'b-of-sales');
    await store('sales', '100%');
    await store('foreign', 'hidden', {}, 'ann');
    const all = [...odd, 'b-of-sales', '100%'].toSorted(byCodePoint);
    const merged = (await names('?limit=200', 'alice', '/v1/credentials')).filter((name) =>
      all.includes(name),
    );
    t.strictSame(merged, all);
    const seen = await walk('limit=3', 'alice', '/v1/credentials');
    t.equal(new Set(seen).size, seen.length);
    t.notOk((await names('?limit=200', 'alice', '/v1/credentials')).includes('hidden'));
    t.strictSame(
      await names('?limit=200', 'vera', '/v1/credentials'),
      odd.toSorted(byCodePoint),
      'a viewer of one team',
    );
    t.strictSame(await names('', 'ann', '/v1/credentials'), ['hidden']);
    t.strictSame(await names('', 'nobody', '/v1/credentials'), []);
    t.strictSame(await names('', 'operator', '/v1/credentials'), [], 'an operator sees none');
    t.strictSame(await names('?label=env:none', 'alice', '/v1/credentials'), []);
    await vault.member('sales', 'vera', 'auditor');
    t.ok(
      (await names('?limit=200', 'vera', '/v1/credentials')).includes('b-of-sales'),
      'a role counts at the next request',
    );
    await call('alice', 'DELETE', '/v1/teams/sales/members/vera', undefined, any);
    t.notOk((await names('?limit=200', 'vera', '/v1/credentials')).includes('b-of-sales'));
  });
});
