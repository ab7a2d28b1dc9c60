// What lists are for besides pages of credentials: names for completion, counts of problems; and
// what a list refuses.
import { sql } from 'kysely';
import t from 'tap';
import { explain, indexesOf, noting, scannedWhole } from '../../bench/plans.ts';
import { cases } from '../../bench/lists-cases.ts';
import { AuditLog } from '../../src/audit/record.ts';
import { CredentialLists } from '../../src/credentials/lists/listing.ts';
import { credentialListQuery, listingOf } from '../../src/credentials/lists/schemas.ts';
import { Retention } from '../../src/retention/service.ts';
import { newId } from '../../src/shared/ids.ts';
import { unbounded } from '../../src/access/issuers.ts';
import { fillCredentials, plain } from '../helpers/filled.ts';
import { tampered, intrude } from '../helpers/intruder.ts';
import { startVault } from '../helpers/vault.ts';
import type { Caller } from '../../src/access/caller.ts';

const any = { 'if-match': '*' };

t.test('names, counts, refusals', async (t) => {
  const vault = await startVault(t);
  const { call, db, keyring } = vault;
  for (const slug of ['payments', 'sales']) await vault.team(slug);
  await vault.team('foreign', ['ann']);
  const url = '/v1/teams/payments/credentials';
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
  const openai = { type: 'openai', fields: { apiKey: 'x' } };
  const [a, b, c] = [
    await store('payments', 'openai-a', openai),
    await store('payments', 'openai-b', { ...openai, labels: { env: 'prod' } }),
    await store('payments', 'zero'),
  ];
  const d = await store('sales', 'openai-c');
  const gone = await store('payments', 'openai-gone');
  await call('alice', 'DELETE', `/v1/credentials/${gone}`, undefined, any);
  await store('foreign', 'openai-foreign', {}, 'ann');

  t.test(
    'names are id, team, name and type, by prefix and type, of one team or of all that the caller may read',
    async (t) => {
      const named = (id: string, team: string, name: string, type = 'bearer'): object => ({
        id,
        team,
        name,
        type,
      });
      t.strictSame((await call('alice', 'GET', `${url}?view=names`)).json, {
        items: [
          named(a, 'payments', 'openai-a', 'openai'),
          named(b, 'payments', 'openai-b', 'openai'),
          named(c, 'payments', 'zero'),
        ],
        nextCursor: null,
      });
      t.strictSame(
        (await call('alice', 'GET', '/v1/credentials?view=names&namePrefix=openai-')).json.items,
        [
          named(a, 'payments', 'openai-a', 'openai'),
          named(b, 'payments', 'openai-b', 'openai'),
          named(d, 'sales', 'openai-c'),
        ],
      );
      t.strictSame(
        (
          await call(
            'alice',
            'GET',
            '/v1/credentials?view=names&namePrefix=openai-&type=openai&order=desc',
          )
        ).json.items.map(({ id }: any) => id),
        [b, a],
      );
      t.strictSame((await call('nobody', 'GET', '/v1/credentials?view=names')).json, {
        items: [],
        nextCursor: null,
      });
      t.equal((await call('ann', 'GET', `${url}?view=names`)).json.code, 'notFound');
      const seen: string[] = [];
      for (let cursor = ''; ; ) {
        const { items, nextCursor } = (
          await call('alice', 'GET', `/v1/credentials?view=names&limit=1${cursor}`)
        ).json;
        seen.push(...items.map(({ id }: any) => id));
        if (nextCursor === null) break;
        t.equal(
          (await call('alice', 'GET', `/v1/credentials?limit=1&cursor=${nextCursor}`)).json.code,
          'invalidCursor',
          'a cursor of names is none of credentials',
        );
        cursor = `&cursor=${nextCursor}`;
      }
      t.strictSame(seen, [a, b, d, c]);
    },
  );

  t.test(
    'what a list does not know is refused by its name, and so is what excludes something else',
    async (t) => {
      const refused: readonly (readonly [string, string])[] = [
        ['sort=size', '/query/sort'],
        ['order=up', '/query/order'],
        ['view=secrets', '/query/view'],
        ['expiresBefore=tomorrow', '/query/expiresBefore'],
        ['dueBefore=2027-01-01', '/query/dueBefore'],
        ['unusedSince=', '/query/unusedSince'],
        ['updatedSince=9999-12-31T23:59:59-14:00', '/query/updatedSince'],
        ['usedSince=2027-01-01T00:00:00Z', '/query/usedSince'],
        ['deleted=true&sort=name', '/query/sort'],
        ['view=names&sort=dueAt', '/query/sort'],
        ['view=names&problem=expired', '/query/problem'],
        ['view=names&label=env:prod', '/query/label'],
        ['view=names&deleted=true', '/query/deleted'],
        ['view=names&dueBefore=2027-01-01T00:00:00Z', '/query/dueBefore'],
      ];
      for (const [query, pointer] of refused) {
        for (const list of [url, '/v1/credentials'])
          t.match(
            await call('alice', 'GET', `${list}?${query}`),
            { status: 400, json: { code: 'invalidRequest', errors: [{ pointer }] } },
            query,
          );
      }
      const { nextCursor } = (await call('alice', 'GET', `${url}?limit=1&sort=updatedAt`)).json;
      for (const other of [
        'sort=createdAt',
        'sort=updatedAt&order=desc',
        'sort=updatedAt&dueBefore=2027-01-01T00:00:00Z',
        '',
      ]) {
        t.equal(
          (await call('alice', 'GET', `${url}?${other}&cursor=${nextCursor}`.replace('?&', '?')))
            .json.code,
          'invalidCursor',
          other,
        );
      }
      t.equal(
        (await call('alice', 'GET', `${url}?sort=updatedAt&order=asc&cursor=${nextCursor}`)).status,
        200,
      );
    },
  );

  t.test('problems are counted for members, and for nobody else', async (t) => {
    await call('alice', 'POST', `/v1/credentials/${c}/disable`);
    const none = {
      undecryptable: 0,
      exposed: 0,
      refreshFailed: 0,
      rejectedByUpstream: 0,
      expired: 0,
      expiring: 0,
      notConnected: 0,
      providerOutdated: 0,
    };
    t.strictSame((await call('alice', 'GET', '/v1/teams/payments/problems')).json, {
      total: 3,
      problems: { disabled: 1, ...none },
    });
    t.strictSame((await call('ann', 'GET', '/v1/teams/foreign/problems')).json, {
      total: 1,
      problems: { disabled: 0, ...none },
    });
    for (const stranger of ['ann', 'operator', 'nobody'])
      t.equal((await call(stranger, 'GET', '/v1/teams/payments/problems')).status, 404, stranger);
  });

  t.test(
    'a row that somebody changed past the vault is listed nowhere, which is recorded, and takes its place in a page',
    async (t) => {
      const denials = async (): Promise<any[]> =>
        (await call('alice', 'GET', `/v1/teams/payments/audit-events?target=${b}&decision=deny`))
          .json.items;
      await tampered(
        db,
        {
          table: 'credential',
          statement: `update credential set expires_at = null, name = 'openai-x' where id = '${b}'`,
        },
        async () => {
          for (const [list, sort] of [
            [url, 'name'],
            ['/v1/credentials', 'updatedAt'],
            [url, 'lastUsedAt'],
          ] as const) {
            const seen: string[] = [];
            for (let cursor = ''; ; ) {
              const { items, nextCursor } = (
                await call('alice', 'GET', `${list}?limit=1&sort=${sort}${cursor}`)
              ).json;
              seen.push(...items.map(({ id }: any) => id));
              if (nextCursor === null) break;
              cursor = `&cursor=${nextCursor}`;
            }
            t.strictSame(
              seen.toSorted(),
              (list === url ? [a, c] : [a, c, d]).toSorted(),
              `${list} ${sort}`,
            );
          }
          t.match(await denials(), [
            { action: 'credential.read', reason: 'sealBroken' },
            { reason: 'sealBroken' },
            { reason: 'sealBroken' },
          ]);
        },
      );
      t.strictSame(
        (await call('alice', 'GET', `${url}?namePrefix=openai-b`)).json.items.map(
          ({ id }: any) => id,
        ),
        [b],
      );
    },
  );

  t.test('every list is found by indexes, names by those on names alone', async (t) => {
    await vault.team('large');
    await fillCredentials(
      vault,
      Array.from({ length: 12_000 }, (_, n) => ({
        ...plain('large', `n-${String((n * 7_919) % 12_000).padStart(5, '0')}`),
        state: n % 10 === 0 ? ('deleted' as const) : ('enabled' as const),
        expiresAt: n % 9 === 0 ? (Date.now() + n * 1e6) * 1000 : null,
        usedAt: n % 3 === 0 ? (Date.now() - n * 1e6) * 1000 : null,
        isUndecryptable: n % 1_000 === 1,
      })),
    );
    await sql`vacuum analyze`.execute(db);
    const noted = noting(db);
    const fail = (): never => {
      throw new Error('a row MAC does not verify');
    };
    const lists = new CredentialLists({
      subjectBounds: unbounded,
      db: noted.db,
      keyring,
      audit: new AuditLog({ db, keyring, now: Date.now, onError: fail, onAlarm: fail }),
      now: Date.now,
    });
    const { id: subject } = await db
      .selectFrom('subject')
      .select('id')
      .where('sub', '=', 'alice')
      .executeTakeFirstOrThrow();
    const caller: Caller = {
      sub: 'alice',
      subject,
      isOperator: false,
      requestId: newId(),
      address: null,
    };
    const { id } = await db
      .selectFrom('team')
      .select('id')
      .where('slug', '=', 'large')
      .executeTakeFirstOrThrow();
    for (const [name, query] of cases) {
      for (const team of [{ id, slug: 'large' }, undefined]) {
        noted.statements.length = 0;
        const listing = listingOf(
          credentialListQuery.parse(Object.fromEntries(new URLSearchParams(query))),
        );
        const isNames = query.includes('view=names');
        const page = {
          limit: 50,
          after: listing.sort === 'name' ? ['n-06000', newId()] : undefined,
        };
        await (isNames
          ? lists.listNames(caller, team, listing, page)
          : lists.list(caller, team, listing, page));
        const plans = await Promise.all(
          noted.statements
            .slice(team === undefined ? 2 : 0)
            .map((statement) => explain(db, statement)),
        );
        for (const plan of plans) t.strictSame(scannedWhole(plan), [], `${name}\n${plan}`);
        if (query === 'problem=exposed')
          t.equal(plans.length, 1, 'a team without a marked key is not walked');
        if (!isNames) continue;
        for (const plan of plans)
          t.match(plan, /Index Only Scan using credential_living_name on credential\b/, plan);
        t.strictSame(
          plans
            .flatMap(indexesOf)
            .filter((index) => !/^(?:team|credential_living_name$)/.test(index)),
          [],
          'nothing else is read',
        );
        t.notMatch(plans.join('\n'), /credential_version|credential_usage|token/);
      }
    }
  });

  t.test('the row of use comes with a credential, moves with it and goes with it', async (t) => {
    const rows = async (id: string): Promise<object[]> =>
      (
        await sql<object>`
      select team.slug, use_count, last_used_at, made_at = credential.created_at as made from credential_usage usage join credential on credential.id = credential_id join team on team.id = usage.team_id where credential_id = ${id}`.execute(
          db,
        )
      ).rows;
    const moving = await store('payments', 'moving');
    t.strictSame(await rows(moving), [
      { slug: 'payments', use_count: 0, last_used_at: null, made: true },
    ]);
    await sql`insert into credential_usage (credential_id, use_count, last_used_at) values (${moving}, 2, now()) on conflict (credential_id) do update set use_count = 2`.execute(
      db,
    ); // as an older release counts
    t.match(await rows(moving), [{ slug: 'payments', use_count: 2 }]);
    await intrude(db, `delete from credential_usage where credential_id = '${moving}'`);
    await sql`insert into credential_usage (credential_id, use_count, last_used_at) values (${moving}, 3, now())`.execute(
      db,
    );
    t.match(
      await rows(moving),
      [{ slug: 'payments', use_count: 3, made: true }],
      'and knows its team where nobody says it',
    );
    const {
      json: { id: offer },
      status,
    } = await call('alice', 'POST', `/v1/credentials/${moving}/transfers`, { team: 'sales' });
    t.equal(status, 201);
    t.equal((await call('alice', 'POST', `/v1/transfers/${offer}/accept`)).status, 200);
    t.match(await rows(moving), [{ slug: 'sales', use_count: 3 }]);
    t.ok(
      (await call('alice', 'GET', '/v1/teams/sales/credentials?sort=lastUsedAt')).json.items.some(
        ({ id }: any) => id === moving,
      ),
    );
    await call('alice', 'DELETE', `/v1/credentials/${moving}`, undefined, any);
    vault.clock.ms += 40 * 86_400_000;
    await new Retention({
      db,
      audit: new AuditLog({
        db,
        keyring,
        now: Date.now,
        onError: () => undefined,
        onAlarm: () => undefined,
      }),
      clock: vault.databaseClock,
      onError: () => undefined,
    }).run();
    t.strictSame(
      (await sql`select 1 from credential_usage where credential_id = ${moving}`.execute(db)).rows,
      [],
    );
  });
});
