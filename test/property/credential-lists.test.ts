// Lists against what a naive computation over all rows says: every filter with every order, in
// pages of any size, however little the search may look at; and what stays as it is stands in the
// pages once, whatever happens to the rest meanwhile.
import fc from 'fast-check';
import t from 'tap';
import { AuditLog } from '../../src/audit/record.ts';
import { type Bounds, CredentialLists, type Listing } from '../../src/credentials/lists/listing.ts';
import type { CredentialFilters } from '../../src/credentials/lists/filters.ts';
import { type ProblemName, problemNames } from '../../src/credentials/health.ts';
import { orders, type SortName, sortNames } from '../../src/credentials/lists/sorts.ts';
import { Cursors } from '../../src/http/paging.ts';
import { type CredentialId, newId, type SubjectId } from '../../src/shared/ids.ts';
import { unbounded } from '../../src/access/issuers.ts';
import { fillCredentials, type Filled, plain } from '../helpers/filled.ts';
import { startVault, type TestVault } from '../helpers/vault.ts';
import type { Caller } from '../../src/access/caller.ts';

const dayUs = 86_400_000_000;
const nowUs = Date.now() * 1000;
const runs = Number(process.env['PROPERTY_RUNS'] ?? 250);
const moment = fc
  .tuple(fc.integer({ min: -30, max: 30 }), fc.constantFrom(0, 1, 999, 1000))
  .map(
    ([days, microseconds]) => nowUs - (nowUs % 1000) + days * dayUs + microseconds + 3_600_000_000,
  );
const past = moment.map((at) => at - 400 * dayUs);
const chance = (oneIn: number): fc.Arbitrary<boolean> =>
  fc.integer({ min: 1, max: oneIn }).map((n) => n === 1);
const credential: fc.Arbitrary<Omit<Filled, 'id' | 'name'>> = fc.record({
  team: fc.constantFrom('one', 'one', 'two', 'foreign'),
  type: fc.constantFrom('bearer', 'openai', 'oauth2'),
  labels: fc.constantFrom({}, { env: 'prod' }, { env: 'dev', region: 'eu' }),
  state: fc.constantFrom('enabled', 'enabled', 'enabled', 'disabled', 'deleted'),
  expiresAt: fc.option(moment),
  rotateAfter: fc.option(moment),
  createdAt: past,
  updatedAt: past,
  usedAt: fc.option(past),
  isUndecryptable: chance(8),
  isExposed: chance(8),
  isRefreshFailed: chance(8),
  isRejected: chance(8),
  isOutdated: chance(8),
});
const filtersOf: fc.Arbitrary<Partial<CredentialFilters>> = fc.record(
  {
    type: fc.constantFrom('bearer', 'openai', 'oauth2', 'slack'),
    labels: fc.constantFrom(['env:prod'], ['env:dev', 'region:eu'], ['env:none']),
    namePrefix: fc.constantFrom('a', 'ab', 'é', 'none'),
    problem: fc.constantFrom(...problemNames),
    expiresBefore: moment.map(dateOf),
    dueBefore: moment.map(dateOf),
    unusedSince: past.map(dateOf),
    updatedSince: past.map(dateOf),
    isDeleted: fc.constant(true),
  },
  { requiredKeys: [] },
);
const listingOf = fc
  .record({
    filters: filtersOf,
    sort: fc.constantFrom(...sortNames),
    order: fc.constantFrom(...orders),
    limit: fc.integer({ min: 1, max: 12 }),
    isOfTeam: fc.boolean(),
  })
  .map((each) => ({
    ...each,
    sort: each.filters.isDeleted === true ? ('createdAt' as const) : each.sort,
  }));
type Asked = typeof listingOf extends fc.Arbitrary<infer T> ? T : never;

function dateOf(microseconds: number): Date {
  return new Date(Math.floor(microseconds / 1000));
}

t.test('lists', async (t) => {
  const vault = await startVault(t);
  for (const slug of ['one', 'two']) await vault.team(slug);
  await vault.team('foreign', ['ann']);
  for (const slug of ['one', 'two']) {
    // so that each key that the rows were ever under is one of theirs
    await vault.call('alice', 'POST', `/v1/teams/${slug}/key-rotations`);
    const { items } = (await vault.call('alice', 'GET', `/v1/teams/${slug}/keys`)).json;
    await vault.call(
      'alice',
      'POST',
      `/v1/teams/${slug}/keys/${items.find((key: any) => key.state !== 'active').id}/mark-compromised`,
      { reason: 'a test' },
    );
  }
  const rows = fc.sample(credential, { numRuns: 240, seed: 7 }).map(
    (row, n): Filled => ({
      ...row,
      id: newId<CredentialId>(),
      name: `${['a', 'ab', 'b', 'é', '日'][n % 5]}${(n * 37) % 100}-${n}`,
      isRefreshFailed: row.isRefreshFailed && row.type === 'oauth2',
      isRejected: row.isRejected && row.type === 'oauth2',
      isOutdated: row.isOutdated && row.type === 'oauth2',
    }),
  );
  await fillCredentials(vault, rows);
  const team = {
    id: (
      await vault.db
        .selectFrom('team')
        .select('id')
        .where('slug', '=', 'one' as never)
        .executeTakeFirstOrThrow()
    ).id,
    slug: 'one',
  };
  const subject = (
    await vault.db
      .selectFrom('subject')
      .select('id')
      .where('sub', '=', 'alice')
      .executeTakeFirstOrThrow()
  ).id as SubjectId;
  const caller: Caller = {
    sub: 'alice',
    subject,
    isOperator: false,
    requestId: newId(),
    address: null,
  };
  const listsWith = (bounds?: Partial<Bounds>): CredentialLists => listsOf(vault, bounds);
  const walk = (
    lists: CredentialLists,
    asked: Asked,
    between?: () => Promise<unknown>,
  ): Promise<string[]> =>
    walkPages(
      vault,
      lists,
      {
        caller,
        team: asked.isOfTeam ? team : undefined,
        listing: listingFor(asked),
        limit: asked.limit,
      },
      between,
    );

  t.test('what was under a key of another team is found in the team that it came to', async (t) => {
    const { items } = (
      await vault.call('ann', 'GET', '/v1/teams/foreign/credentials?problem=exposed&limit=200')
    ).json;
    const expected = rows
      .filter((row) => row.team === 'foreign' && row.isExposed && row.state !== 'deleted')
      .map(({ id }) => id);
    t.ok(expected.length > 0);
    t.same(items.map(({ id }: any) => id).sort(), expected.sort());
  });

  t.test('every filter with every order is what a naive computation says', async (t) => {
    const each: readonly Partial<CredentialFilters>[] = [
      {},
      { type: 'openai' },
      { labels: ['env:prod'] },
      { namePrefix: 'ab' },
      ...problemNames.map((problem) => ({ problem })),
      { expiresBefore: dateOf(nowUs) },
      { dueBefore: dateOf(nowUs) },
      { unusedSince: dateOf(nowUs - 400 * dayUs) },
      { updatedSince: dateOf(nowUs - 400 * dayUs) },
    ];
    for (const bounds of [
      undefined,
      { walkedRowsMax: 9, fewMax: 0 },
      { walkedRowsMax: 40, fewMax: 10 },
      { bytesMax: 1_000 },
      { walkedRowsMax: 40, fewMax: 10, bytesMax: 300 },
    ]) {
      const lists = listsWith(bounds);
      for (const filters of each) {
        for (const sort of sortNames) {
          for (const order of orders) {
            for (const isOfTeam of [true, false]) {
              const asked = { filters, sort, order, limit: 30, isOfTeam };
              t.same(
                await walk(lists, asked),
                naive(rows, asked),
                JSON.stringify({ ...asked, bounds }),
              );
            }
          }
        }
      }
    }
    const found = naive(rows, {
      filters: {},
      sort: 'name',
      order: 'asc',
      limit: 1,
      isOfTeam: false,
    });
    t.ok(
      found.length > 100 && new Set(rows.map(({ updatedAt }) => updatedAt)).size < rows.length,
      'there are enough of them, and equals among them',
    );
  });

  t.test('so is any mixture of them, in pages of any size', async () => {
    await fc.assert(
      fc.asyncProperty(
        listingOf,
        fc.constantFrom<Partial<Bounds> | undefined>(
          undefined,
          { walkedRowsMax: 3, fewMax: 4 },
          { walkedRowsMax: 25, fewMax: 0 },
          { bytesMax: 1 },
          { walkedRowsMax: 9, fewMax: 4, bytesMax: 250 },
        ),
        async (asked, bounds) => {
          const [found, expected] = [await walk(listsWith(bounds), asked), naive(rows, asked)];
          if (JSON.stringify(found) !== JSON.stringify(expected))
            throw new Error(`${found.length} instead of ${expected.length}`);
        },
      ),
      { numRuns: runs },
    );
  });

  t.test('the counts are those of the lists', async (t) => {
    const { total, problems } = await listsWith().countProblems(team);
    const naively = (problem?: ProblemName): number =>
      naive(rows, {
        filters: problem === undefined ? {} : { problem },
        sort: 'name',
        order: 'asc',
        limit: 1,
        isOfTeam: true,
      }).length;
    t.same(
      { total, problems },
      {
        total: naively(),
        problems: Object.fromEntries(problemNames.map((problem) => [problem, naively(problem)])),
      },
    );
    t.ok(Object.values(problems).every((count) => count > 0));
  });

  t.test(
    'what stays as it is stands in the pages once, while others come, change and go',
    async (t) => {
      let serial = 0;
      const movers: string[] = [];
      const disturb = async (): Promise<void> => {
        const fresh = plain('one', `${['a', 'm', 'é', '日'][serial % 4]}-mover-${(serial += 1)}`);
        movers.push(fresh.id);
        await fillCredentials(vault, [
          { ...fresh, expiresAt: nowUs + serial * dayUs, usedAt: nowUs - serial * dayUs },
        ]);
        const moved = movers[(serial * 7) % movers.length]!;
        await vault.call(
          'alice',
          serial % 3 === 0 ? 'DELETE' : 'PATCH',
          `/v1/credentials/${moved}`,
          serial % 3 === 0
            ? undefined
            : {
                name: `z-moved-${serial}`,
                rotateAfter: new Date(Date.now() - serial * 1000).toISOString(),
              },
          { 'if-match': '*' },
        );
      };
      for (const sort of sortNames) {
        for (const order of orders) {
          for (const [filters, bounds] of [
            [{}, undefined],
            [{ labels: ['env:prod'] }, { walkedRowsMax: 11, fewMax: 0 }],
          ] as const) {
            const asked = { filters, sort, order, limit: 10, isOfTeam: serial % 2 === 0 };
            const seen = await walk(listsWith(bounds), asked, disturb);
            t.same(
              seen.filter((id) => !movers.includes(id)),
              naive(rows, asked),
              `${sort} ${order}`,
            );
          }
        }
      }
    },
  );
});

const listsOf = ({ db, keyring }: TestVault, bounds?: Partial<Bounds>): CredentialLists => {
  const fail = (): never => {
    throw new Error('a row MAC does not verify');
  };
  return new CredentialLists({
    subjectBounds: unbounded,
    db,
    keyring,
    audit: new AuditLog({ db, keyring, now: Date.now, onError: fail, onAlarm: fail }),
    now: Date.now,
    ...(bounds === undefined ? {} : { bounds }),
  });
};

const listingFor = ({ filters, sort, order }: Asked): Listing => ({
  filters: { labels: [], isDeleted: false, ...filters },
  sort,
  order,
});

async function walkPages(
  { keyring }: TestVault,
  lists: CredentialLists,
  {
    caller,
    team,
    listing,
    limit,
  }: {
    caller: Caller;
    team: { id: never; slug: string } | undefined | any;
    listing: Listing;
    limit: number;
  },
  between: () => Promise<unknown> = async () => undefined,
): Promise<string[]> {
  const cursors = new Cursors(keyring);
  const identity = { list: 'test', subject: 'alice', filters: {} };
  const seen: string[] = [];
  for (let cursor: string | null | undefined; cursor !== null; await between()) {
    const page = cursors.page({ limit, cursor }, identity);
    const found = await lists.list(caller, team, listing, page);
    const { items, nextCursor } = cursors.cut(
      found.rows,
      page,
      identity,
      ({ place }) => place,
      found.end,
    );
    if (items.length > limit || items.some(({ isShown }) => !isShown))
      throw new Error('a page is as it should not be');
    seen.push(...items.map(({ row }) => row.id));
    cursor = nextCursor;
  }
  return seen;
}

/** The ids of the list, from all rows there are. */
function naive(rows: readonly Filled[], { filters, sort, order, isOfTeam }: Asked): string[] {
  const {
    type,
    labels = [],
    namePrefix,
    problem,
    expiresBefore,
    dueBefore,
    unusedSince,
    updatedSince,
    isDeleted = false,
  } = filters;
  const before = (at: number | null, limit: Date | undefined): boolean =>
    limit === undefined || (at !== null && at < limit.getTime() * 1000);
  const passes = (row: Filled): boolean =>
    (isOfTeam ? row.team === 'one' : row.team !== 'foreign') &&
    (row.state === 'deleted') === isDeleted &&
    (type === undefined || row.type === type) &&
    labels.every((label) => row.labels[label.split(':')[0]!] === label.split(':')[1]) &&
    (namePrefix === undefined || row.name.startsWith(namePrefix)) &&
    (problem === undefined || problemsOf(row).includes(problem)) &&
    before(row.expiresAt, expiresBefore) &&
    before(dueOf(row), dueBefore) &&
    before(row.usedAt ?? row.createdAt, unusedSince) &&
    (updatedSince === undefined || row.updatedAt >= updatedSince.getTime() * 1000);
  const key: Record<SortName, (row: Filled) => number | string | null> = {
    name: (row) => row.name,
    createdAt: (row) => row.id,
    updatedAt: (row) => row.updatedAt,
    lastUsedAt: (row) => row.usedAt ?? row.createdAt,
    expiresAt: (row) => row.expiresAt,
    dueAt: dueOf,
  };
  const compare = (a: number | string, b: number | string): number =>
    typeof a === 'number' && typeof b === 'number'
      ? a - b
      : Buffer.compare(Buffer.from(String(a)), Buffer.from(String(b)));
  const sorted = rows
    .filter((row) => passes(row) && key[sort](row) !== null)
    .toSorted((a, b) => compare(key[sort](a)!, key[sort](b)!) || compare(a.id, b.id));
  return (order === 'asc' ? sorted : sorted.toReversed()).map(({ id }) => id);
}

const dueOf = ({ expiresAt, rotateAfter }: Filled): number | null =>
  expiresAt === null || rotateAfter === null
    ? (expiresAt ?? rotateAfter)
    : Math.min(expiresAt, rotateAfter);

function problemsOf(row: Filled): ProblemName[] {
  const expiresMs = row.expiresAt === null ? Infinity : row.expiresAt / 1000;
  const has: Record<ProblemName, boolean> = {
    disabled: row.state === 'disabled',
    undecryptable: row.isUndecryptable,
    exposed: row.isExposed,
    refreshFailed: row.isRefreshFailed,
    notConnected: row.type === 'oauth2',
    rejectedByUpstream: row.isRejected,
    providerOutdated: row.isOutdated,
    expired: expiresMs <= Date.now(),
    expiring: expiresMs > Date.now() && expiresMs <= Date.now() + 14 * 86_400_000,
  };
  return problemNames.filter((problem) => has[problem]);
}
