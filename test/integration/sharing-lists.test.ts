// Lists with what is shared: each credential once, in its place, with the ways to it; page by page
// as in one go; nothing else.
import type { KyselyPlugin } from 'kysely';
import t, { type Test as Tap } from 'tap';
import { AuditLog } from '../../src/audit/record.ts';
import { CredentialLists } from '../../src/credentials/lists/listing.ts';
import { unbounded } from '../../src/access/issuers.ts';
import { intrude } from '../helpers/intruder.ts';
import { demand, storeOpenai } from '../helpers/leases.ts';
import { startVault, type TestVault } from '../helpers/vault.ts';

const any = { 'if-match': '*' };

/**
 * `payments` (alice) and `third` (theo) share some of what they have with `sales` (bella, vera) and
 * with vera herself.
 */
async function setStage(t: Tap): Promise<{
  vault: TestVault;
  ids: Record<string, string>;
  grant: (name: string, to: string, access?: string) => Promise<any>;
}> {
  const vault = await startVault(t);
  await vault.team('payments');
  await vault.team('third', ['theo']);
  await vault.team('sales', ['bella']);
  await vault.member('sales', 'vera', 'viewer', 'bella');
  const ids: Record<string, string> = {};
  const owners = { payments: 'alice', third: 'theo', sales: 'bella' } as const;
  for (const [team, name] of [
    ['payments', 'b-pay'],
    ['third', 'a-third'],
    ['sales', 'c-own'],
    ['payments', 'f-pay'],
    ['sales', 'e-own'],
    ['third', 'd-third'],
    ['payments', 'g-kept'],
    ['third', 'h-third'],
  ] as const) {
    ids[name] = (
      await storeOpenai(
        vault,
        team,
        name,
        `sk-${name}`,
        { labels: { half: name < 'd' ? 'first' : 'second' } },
        owners[team],
      )
    ).id;
  }
  const grant = (name: string, to: string, access = 'read'): Promise<any> =>
    demand(
      vault.call(
        name.endsWith('-third') ? 'theo' : 'alice',
        'PUT',
        `/v1/credentials/${ids[name]}/grants/${to}`,
        { access },
        any,
      ),
      200,
    );
  for (const [name, to] of [
    ['b-pay', 'teams/sales'],
    ['a-third', 'teams/sales'],
    ['f-pay', 'subjects/vera'],
    ['d-third', 'teams/sales'],
    ['d-third', 'subjects/vera'],
  ] as const)
    await grant(name, to);
  return { vault, ids, grant };
}
const namesOf = (answer: { items: { name: string }[] }): string[] =>
  answer.items.map(({ name }) => name);
const list = (vault: TestVault, as: string, query = ''): Promise<any> =>
  demand(vault.call(as, 'GET', `/v1/credentials${query}`), 200);
const ofTeam = (vault: TestVault, as: string, query = ''): Promise<any> =>
  demand(vault.call(as, 'GET', `/v1/teams/sales/credentials${query}`), 200);

t.test('what may be seen is listed once, in its place, and says by which ways', async (t) => {
  const { vault } = await setStage(t);
  const all = await list(vault, 'vera');
  t.same(namesOf(all), ['a-third', 'b-pay', 'c-own', 'd-third', 'e-own', 'f-pay']);
  const team = { kind: 'grant', team: 'sales', access: 'read' };
  const herself = { kind: 'grant', team: null, access: 'read' };
  const member = { kind: 'membership', team: 'sales', access: null };
  const through = all.items.map((each: any) =>
    each.through.toSorted((a: any, b: any) => String(b.team).localeCompare(String(a.team))),
  );
  t.same(through, [[team], [team], [member], [team, herself], [member], [herself]]);
  t.same(namesOf(await list(vault, 'bella')), ['a-third', 'b-pay', 'c-own', 'd-third', 'e-own']);
  t.same(namesOf(await list(vault, 'alice')), ['b-pay', 'f-pay', 'g-kept']);
  for (const as of ['operator', 'mallory']) t.same((await list(vault, as)).items, []);
  t.same(namesOf(await ofTeam(vault, 'vera')), ['c-own', 'e-own'], "a team's list is its own");
  t.same(
    namesOf(await ofTeam(vault, 'vera', '?shared=true')),
    ['a-third', 'b-pay', 'd-third'],
    'or what is shared with it',
  );
  t.same(namesOf(await list(vault, 'vera', '?shared=true')), [
    'a-third',
    'b-pay',
    'd-third',
    'f-pay',
  ]);
  t.same(
    (await ofTeam(vault, 'bella', '?shared=true')).items.map((each: any) => each.team),
    ['third', 'payments', 'third'],
  );
  t.equal(
    (await vault.call('vera', 'GET', '/v1/teams/payments/credentials?shared=true')).status,
    404,
  );
  t.match(await vault.call('vera', 'GET', '/v1/credentials?shared=true&deleted=true'), {
    status: 400,
    json: { errors: [{ pointer: '/query/shared', rule: 'notWithDeleted' }] },
  });
});

t.test(
  "what is shared with a team is not in another team's list, whoever is in both",
  async (t) => {
    const { vault, grant } = await setStage(t);
    await vault.team('fourth', ['bella']);
    await vault.member('fourth', 'vera', 'viewer', 'bella');
    await grant('g-kept', 'teams/fourth');
    for (const as of ['vera', 'bella'])
      t.same(namesOf(await ofTeam(vault, as, '?shared=true')), ['a-third', 'b-pay', 'd-third'], as);
    t.ok(
      namesOf(await list(vault, 'vera')).includes('g-kept'),
      'it is seen where both are looked at',
    );
  },
);

t.test('a member of the owner to whom it is granted besides sees it once', async (t) => {
  const { vault } = await setStage(t);
  await vault.member('payments', 'vera', 'viewer');
  const all = await list(vault, 'vera');
  t.same(namesOf(all), ['a-third', 'b-pay', 'c-own', 'd-third', 'e-own', 'f-pay', 'g-kept']);
  const waysTo = (answer: any, name: string): string[] =>
    answer.items.find((each: any) => each.name === name).through.map(({ kind }: any) => kind);
  t.same(
    [waysTo(all, 'b-pay'), waysTo(all, 'f-pay'), waysTo(all, 'g-kept')],
    [['membership', 'grant'], ['membership', 'grant'], ['membership']],
  );
  const shared = await list(vault, 'vera', '?shared=true');
  t.same(namesOf(shared), ['a-third', 'b-pay', 'd-third', 'f-pay']);
  t.same(waysTo(shared, 'b-pay'), ['membership', 'grant']);
  t.same(waysTo(await ofTeam(vault, 'vera', '?shared=true'), 'b-pay'), ['membership', 'grant']);
  const own = await demand(vault.call('vera', 'GET', '/v1/teams/payments/credentials'), 200);
  t.same(waysTo(own, 'b-pay'), ['membership', 'grant'], "in the team's own list too");
});

t.test('pages, orders, filters and names give what the whole list gives', async (t) => {
  const { vault, ids } = await setStage(t);
  for (const name of ['f-pay', 'a-third', 'c-own']) {
    const as = name.endsWith('-third') ? 'theo' : name.endsWith('-own') ? 'bella' : 'alice';
    await demand(
      vault.call(
        as,
        'PATCH',
        `/v1/credentials/${ids[name]}`,
        {
          description: 'touched',
          expiresAt: new Date(Date.now() + 86_400_000 * (name === 'f-pay' ? 1 : 2)).toISOString(),
        },
        any,
      ),
      200,
    );
  }
  const sorts = ['name', 'createdAt', 'updatedAt', 'lastUsedAt', 'expiresAt', 'dueAt'];
  for (const filter of [
    '',
    '&label=half:second',
    '&type=openai',
    '&namePrefix=d',
    '&problem=expiring',
    '&label=half:first&problem=expiring',
    '&shared=true',
  ]) {
    for (const sort of sorts) {
      for (const order of ['asc', 'desc']) {
        const query = `?sort=${sort}&order=${order}${filter}`;
        const whole = namesOf(await list(vault, 'vera', query));
        const paged: string[] = [];
        let cursor = '';
        do {
          const page = await list(vault, 'vera', `${query}&limit=2${cursor}`);
          paged.push(...namesOf(page));
          cursor = page.nextCursor === null ? '' : `&cursor=${page.nextCursor}`;
        } while (cursor !== '' && paged.length < 20);
        t.same(paged, whole, query);
        if (order === 'desc')
          t.same(
            whole.toReversed(),
            namesOf(await list(vault, 'vera', query.replace('desc', 'asc'))),
            `${query}, turned round`,
          );
      }
    }
  }
  t.same(namesOf(await list(vault, 'vera', '?label=half:second')), ['d-third', 'e-own', 'f-pay']);
  t.same(namesOf(await list(vault, 'vera', '?problem=expiring&sort=expiresAt')).length, 3);
  t.same(namesOf(await list(vault, 'vera', '?view=names')), [
    'a-third',
    'b-pay',
    'c-own',
    'd-third',
    'e-own',
    'f-pay',
  ]);
  t.same(namesOf(await list(vault, 'vera', '?view=names&limit=3&order=desc')), [
    'f-pay',
    'e-own',
    'd-third',
  ]);
  t.same(namesOf(await ofTeam(vault, 'vera', '?view=names&shared=true&namePrefix=b')), ['b-pay']);
});

t.test(
  'where the walk of the own rows ends early, what is shared beyond waits for its page',
  async (t) => {
    const { vault, ids, grant } = await setStage(t);
    const { db, keyring } = vault;
    for (let i = 0; i < 12; i += 1) {
      await storeOpenai(
        vault,
        'sales',
        `own-${String(i).padStart(2, '0')}`,
        'sk-x',
        {
          labels: { half: i % 3 === 0 ? 'second' : 'first', ...(i === 11 ? { rare: 'yes' } : {}) },
        },
        'bella',
      );
      const name = `own-${String(i).padStart(2, '0')}-pay`;
      ids[name] = (
        await storeOpenai(vault, 'payments', name, 'sk-x', {
          labels: {
            half: i % 4 === 0 ? 'first' : 'second',
            ...(i === 11 || i === 0 ? { rare: 'yes' } : {}),
          },
        })
      ).id;
      await grant(name, i % 2 === 0 ? 'teams/sales' : 'subjects/vera');
    }
    const audit = new AuditLog({
      db,
      keyring,
      now: Date.now,
      onError: (error) => {
        throw error;
      },
      onAlarm: () => undefined,
    });
    const subject = (
      await db
        .selectFrom('subject')
        .select('id')
        .where('sub', '=', 'vera')
        .executeTakeFirstOrThrow()
    ).id;
    const caller = {
      sub: 'vera',
      subject,
      isOperator: false,
      requestId: 'a-request',
      address: null,
    };
    for (const [label, size] of [
      ['half:second', 16],
      ['rare:yes', 3],
    ] as const) {
      const whole = namesOf(await list(vault, 'vera', `?label=${label}`));
      t.equal(whole.length, size);
      for (const walkedRowsMax of [1, 4, 7, 100]) {
        for (const limit of [1, 2, 3, 5]) {
          for (const order of ['asc', 'desc'] as const) {
            const lists = new CredentialLists({
              subjectBounds: unbounded,
              db,
              keyring,
              audit,
              now: Date.now,
              bounds: { walkedRowsMax, fewMax: 0 },
            });
            const listing = {
              filters: { labels: [label], isDeleted: false },
              sort: 'name' as const,
              order,
            };
            const seen: string[] = [];
            let after: readonly string[] | undefined;
            for (let pages = 0; pages < 60; pages += 1) {
              const { rows, end } = await lists.list(caller, undefined, listing, { limit, after });
              seen.push(...rows.slice(0, limit).map(({ row }) => row.name));
              after = rows.length > limit ? rows[limit - 1]!.place : end;
              if (after === undefined) break;
            }
            t.same(
              seen,
              order === 'asc' ? whole : whole.toReversed(),
              `${label}, ${walkedRowsMax} rows, pages of ${limit}, ${order}`,
            );
          }
        }
      }
    }
  },
);

t.test('a grant that goes between the looking and the reading is not shown', async (t) => {
  const { vault, ids } = await setStage(t);
  const { db, keyring } = vault;
  const audit = new AuditLog({
    db,
    keyring,
    now: Date.now,
    onError: (error) => {
      throw error;
    },
    onAlarm: () => undefined,
  });
  const subject = (
    await db.selectFrom('subject').select('id').where('sub', '=', 'vera').executeTakeFirstOrThrow()
  ).id;
  const plugin: KyselyPlugin = {
    transformQuery: ({ node }) => node,
    transformResult: async ({ result }) => {
      if (result.rows[0] !== undefined && 'row' in result.rows[0])
        await demand(
          vault.call(
            'alice',
            'DELETE',
            `/v1/credentials/${ids['f-pay']}/grants/subjects/vera`,
            undefined,
            any,
          ),
          204,
        );
      return result;
    },
  };
  const lists = new CredentialLists({
    subjectBounds: unbounded,
    db: db.withPlugin(plugin),
    keyring,
    audit,
    now: Date.now,
  });
  const { rows } = await lists.list(
    { sub: 'vera', subject, isOperator: false, requestId: 'a-request', address: null },
    undefined,
    { filters: { labels: [], isDeleted: false }, sort: 'name', order: 'asc' },
    { limit: 50, after: undefined },
  );
  t.same(
    rows.filter(({ isShown }) => isShown).map(({ row }) => row.name),
    ['a-third', 'b-pay', 'c-own', 'd-third', 'e-own'],
  );
});

t.test(
  'what is not shared any more is not listed: revoked, deleted, a team that is gone, a row that nobody sealed',
  async (t) => {
    const { vault, ids, grant } = await setStage(t);
    await demand(
      vault.call(
        'alice',
        'DELETE',
        `/v1/credentials/${ids['b-pay']}/grants/teams/sales`,
        undefined,
        any,
      ),
      204,
    );
    t.same(namesOf(await list(vault, 'vera')), ['a-third', 'c-own', 'd-third', 'e-own', 'f-pay']);
    await demand(
      vault.call('theo', 'DELETE', `/v1/credentials/${ids['a-third']}`, undefined, any),
      204,
    );
    t.same(namesOf(await list(vault, 'vera')), ['c-own', 'd-third', 'e-own', 'f-pay']);
    t.same(namesOf(await list(vault, 'vera', '?view=names')), [
      'c-own',
      'd-third',
      'e-own',
      'f-pay',
    ]);
    await demand(
      vault.call('theo', 'DELETE', `/v1/credentials/${ids['d-third']}`, undefined, any),
      204,
    );
    t.same(
      await list(vault, 'vera', '?deleted=true&limit=1'),
      { items: [], nextCursor: null },
      'not even in a cursor',
    );
    await demand(vault.call('theo', 'POST', `/v1/credentials/${ids['d-third']}/restore`), 200);
    await demand(
      vault.call('bella', 'DELETE', '/v1/teams/sales/members/vera', undefined, any),
      204,
    );
    t.same(namesOf(await list(vault, 'vera')), ['d-third', 'f-pay'], 'what is hers stays');
    const alarms = (): number => vault.logs.filter((line) => line.includes('"sealBroken"')).length;
    const before = alarms();
    await intrude(
      vault.db,
      `update credential_grant set access = 'use' where credential_id = '${ids['f-pay']}'`,
    );
    t.same(namesOf(await list(vault, 'vera')), ['d-third']);
    t.same(namesOf(await list(vault, 'vera', '?view=names')), ['d-third']);
    t.ok(alarms() > before, 'an alarm');
    await intrude(
      vault.db,
      `update credential_grant set credential_id = '${ids['g-kept']}', team_id = (select team_id from credential where id = '${ids['g-kept']}') where credential_id = '${ids['d-third']}'`,
    );
    t.same(namesOf(await list(vault, 'vera')), []);
    await grant('h-third', 'subjects/vera');
    t.same(namesOf(await list(vault, 'vera')), ['h-third']);
    await grant('h-third', 'teams/sales');
    for (const name of ['c-own', 'e-own'])
      await demand(
        vault.call('bella', 'DELETE', `/v1/credentials/${ids[name]}`, undefined, any),
        204,
      );
    t.same(namesOf(await list(vault, 'bella')), ['h-third']);
    await demand(vault.call('bella', 'DELETE', '/v1/teams/sales', undefined, any), 204);
    t.same(namesOf(await list(vault, 'bella')), []);
  },
);
