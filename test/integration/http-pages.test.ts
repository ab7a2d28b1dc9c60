// Pages: every item once, whatever happens meanwhile; a cursor is good for one list, one set of
// filters and one caller.
import t from 'tap';
import { type Answer, startVault } from '../helpers/vault.ts';

const vault = await startVault(t);
await vault.team('payments', ['alice', 'adam']);
await vault.team('sales');
const list = '/v1/teams/payments/credentials';
const names = Array.from({ length: 7 }, (_, n) => `key-${n}`);
for (const name of names)
  await vault.call('alice', 'POST', list, {
    name,
    type: 'openai',
    fields: { apiKey: 'sk' },
    labels: { env: 'prod' },
  });
await vault.call('alice', 'POST', '/v1/teams/sales/credentials', {
  name: 'other',
  type: 'openai',
  fields: { apiKey: 'sk' },
});

const get = (url: string, as = 'alice'): Promise<Answer> => vault.call(as, 'GET', url);
const firstCursor = async (url: string): Promise<string> => (await get(url)).json.nextCursor;

t.test('every item once', async (test) => {
  for (const limit of [1, 2, 3, 7, 200]) {
    const seen: string[] = [];
    let cursor: string | null = '';
    while (cursor !== null) {
      const { json }: Answer = await get(
        `${list}?limit=${limit}${cursor === '' ? '' : `&cursor=${cursor}`}`,
      );
      test.ok(json.items.length <= limit);
      seen.push(...json.items.map((item: { name: string }) => item.name));
      cursor = json.nextCursor;
    }
    test.same(seen, names, `in pages of ${limit}`);
  }
});

t.test('a cursor outlives its item', async (test) => {
  const page = await get(`${list}?limit=3`);
  const { id } = page.json.items[2];
  await vault.call('alice', 'DELETE', `/v1/credentials/${id}`, undefined, { 'if-match': '*' });
  const next = await get(`${list}?limit=3&cursor=${page.json.nextCursor}`);
  test.same(
    next.json.items.map((item: { name: string }) => item.name),
    ['key-3', 'key-4', 'key-5'],
  );
});

t.test('a cursor of another list is refused', async (test) => {
  const cursor = await firstCursor(`${list}?limit=2`);
  const ofAll = await firstCursor('/v1/credentials?limit=2');
  const ofMembers = await firstCursor('/v1/teams/payments/members?limit=1');
  const ofEvents = await firstCursor('/v1/teams/payments/audit-events?limit=1');
  test.equal(
    (await get(`${list}?limit=5&cursor=${cursor}`)).status,
    200,
    'of this list, with another limit',
  );
  const flipped = (text: string, at: number): string =>
    `${text.slice(0, at)}${text[at] === 'A' ? 'B' : 'A'}${text.slice(at + 1)}`;
  const key = (text: string): string =>
    Buffer.concat([Buffer.from(cursor, 'base64url').subarray(0, 34), Buffer.from(text)]).toString(
      'base64url',
    );
  for (const [what, url, as] of [
    ['another caller', `${list}?cursor=${cursor}`, 'adam'],
    ['another team', `/v1/teams/sales/credentials?cursor=${cursor}`],
    ['all teams', `/v1/credentials?cursor=${cursor}`],
    ['one team, of all teams', `${list}?cursor=${ofAll}`],
    ['members', `/v1/teams/payments/members?cursor=${cursor}`],
    ['keys, of members', `/v1/teams/payments/keys?cursor=${ofMembers}`],
    ['rotations, of members', `/v1/teams/payments/key-rotations?cursor=${ofMembers}`],
    ['credentials, of members', `${list}?cursor=${ofMembers}`],
    ['credentials, of events', `${list}?cursor=${ofEvents}`],
    ['another type', `${list}?type=openai&cursor=${cursor}`],
    ['another label', `${list}?label=env:prod&cursor=${cursor}`],
    ['another prefix', `${list}?namePrefix=key&cursor=${cursor}`],
    ['deleted ones', `${list}?deleted=true&cursor=${cursor}`],
    ['an expected problem', `${list}?problem=expired&cursor=${cursor}`],
    ['a short one', `${list}?cursor=${cursor.slice(0, -1)}`],
    ['a shorter one', `${list}?cursor=${cursor.slice(0, 40)}`],
    ['one character', `${list}?cursor=A`],
    ['a longer one', `${list}?cursor=${cursor}AAAA`],
    ['another key version', `${list}?cursor=${flipped(cursor, 1)}`],
    ['another MAC', `${list}?cursor=${flipped(cursor, 20)}`],
    ['another place', `${list}?cursor=${flipped(cursor, cursor.length - 3)}`],
    ["a place of one's own", `${list}?cursor=${key('["key-5"]')}`],
    ['a place that is no JSON', `${list}?cursor=${key('}{')}`],
    ['zeros', `${list}?cursor=${Buffer.alloc(64).toString('base64url')}`],
  ] as [string, string, string?][]) {
    const answer = await get(url, as);
    test.match(answer, { status: 400, json: { code: 'invalidCursor' } }, what);
    test.notOk(answer.text.includes('key-'), what);
  }
  test.notOk(vault.logs.some((line) => line.includes('requestFailed')));
});
