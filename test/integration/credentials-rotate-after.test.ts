// When a secret should be replaced: a reminder that every way of writing takes, that stops nothing,
// and that opens nothing.
import t from 'tap';
import { sql } from 'kysely';
import { startVault } from '../helpers/vault.ts';

const any = { 'if-match': '*' };
const [past, later] = ['2020-01-01T00:00:00.000Z', '2099-01-31T00:00:00.000Z'];

t.test('rotateAfter', async (t) => {
  const vault = await startVault(t);
  const { call, db } = vault;
  await vault.team('payments');
  const url = '/v1/teams/payments/credentials';
  const body = { name: 'a', type: 'bearer', fields: { token: 'x' } };
  const made = await call('alice', 'POST', url, { ...body, rotateAfter: past });
  const { id } = made.json;
  const read = async (which = id): Promise<any> =>
    (await call('alice', 'GET', `/v1/credentials/${which}`)).json;

  t.test(
    'is kept when it is left out, cleared by null, and no problem when it is over',
    async (t) => {
      t.match(
        [made.status, made.json],
        [201, { rotateAfter: past, expiresAt: null, health: 'ok', problems: [] }],
      );
      t.match(await read(), { rotateAfter: past, health: 'ok' });
      t.match(
        (await call('alice', 'PATCH', `/v1/credentials/${id}`, { description: 'd' }, any)).json,
        { rotateAfter: past },
      );
      t.match(
        (await call('alice', 'PATCH', `/v1/credentials/${id}`, { rotateAfter: null }, any)).json,
        { rotateAfter: null, version: 1 },
      );
      t.match(
        (await call('alice', 'PATCH', `/v1/credentials/${id}`, { rotateAfter: later }, any)).json,
        { rotateAfter: later, version: 1, revision: 4 },
      );
      t.match(
        (await call('alice', 'PATCH', `/v1/credentials/${id}`, { rotateAfter: later }, any)).json,
        { revision: 4 },
        'the same again is no change',
      );
      const {
        json: {
          items: [event],
        },
      } = await call('alice', 'GET', `/v1/teams/payments/audit-events?target=${id}`);
      t.match(event, { action: 'credential.update', details: { changed: ['rotateAfter'] } });
    },
  );

  t.test('goes through upsert, bulk, delete and restore', async (t) => {
    const { name: _, ...rest } = body;
    t.match((await call('alice', 'PUT', `${url}/b`, { ...rest, rotateAfter: later })).json, {
      action: 'created',
      credential: { rotateAfter: later },
    });
    t.match((await call('alice', 'PUT', `${url}/b`, { type: 'bearer', fields: {} }, any)).json, {
      action: 'unchanged',
      credential: { rotateAfter: later },
    });
    t.match(
      (
        await call(
          'alice',
          'PUT',
          `${url}/b?dryRun=true`,
          { type: 'bearer', fields: {}, rotateAfter: null },
          any,
        )
      ).json,
      { action: 'changed', credential: { rotateAfter: null } },
    );
    const items = [
      { op: 'create', ...body, name: 'c', rotateAfter: later },
      { op: 'update', id, revision: '*', rotateAfter: past },
      { op: 'update', id, revision: '*', description: 'e' },
    ];
    t.match((await call('alice', 'POST', `${url}/bulk`, { items })).json.results, [
      { credential: { rotateAfter: later } },
      { credential: { rotateAfter: past } },
      { credential: { rotateAfter: past } },
    ]);
    t.equal((await call('alice', 'DELETE', `/v1/credentials/${id}`, undefined, any)).status, 204);
    t.match((await call('alice', 'POST', `/v1/credentials/${id}/restore`)).json, {
      rotateAfter: past,
    });
  });

  t.test('is changed where the stored value does not open', async (t) => {
    await sql`alter table credential_version disable trigger user`.execute(db);
    await sql`update credential_version set token = 'gAAAA' || substr(token, 6, 40) where credential_id = ${id}`.execute(
      db,
    );
    await sql`alter table credential_version enable trigger user`.execute(db);
    t.match(
      (await call('alice', 'PATCH', `/v1/credentials/${id}`, { rotateAfter: null }, any)).json,
      { rotateAfter: null },
    );
    t.match(
      (await call('alice', 'PATCH', `/v1/credentials/${id}`, { rotateAfter: later }, any)).json,
      { rotateAfter: later },
    );
  });
});
