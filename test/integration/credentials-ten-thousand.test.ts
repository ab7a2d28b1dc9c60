// One credential among ten thousand whose stored value does not open: everything but its use goes
// on, for it and for all others.
import t from 'tap';
import { sql } from 'kysely';
import { fillCredentials, plain } from '../helpers/filled.ts';
import { intrude } from '../helpers/intruder.ts';
import { openSecrets } from '../helpers/stored.ts';
import { startVault } from '../helpers/vault.ts';

const any = { 'if-match': '*' };
const rows = 10_000;

t.test('one undecryptable credential among ten thousand', async (t) => {
  const vault = await startVault(t);
  const { call, db } = vault;
  await vault.team('payments');
  const url = '/v1/teams/payments/credentials';
  const {
    json: { id },
  } = await call('alice', 'POST', url, {
    name: 'n-05000-broken',
    type: 'smtp',
    fields: { host: 'mail', username: 'me', password: 'p' },
  });
  await fillCredentials(
    vault,
    Array.from({ length: rows - 1 }, (_, n) => ({
      ...plain('payments', `n-${String(n).padStart(5, '0')}`),
      isUndecryptable: false,
    })),
  );
  const spoil = async (): Promise<void> => {
    await sql`alter table credential_version disable trigger user`.execute(db);
    await sql`update credential_version set token = (select token from credential_version other where other.credential_id <> ${id} limit 1) where credential_id = ${id} and version = (select current_version from credential where id = ${id})`.execute(
      db,
    );
    await sql`alter table credential_version enable trigger user`.execute(db);
  };
  const walk = async (query: string): Promise<Map<string, any>> => {
    const seen = new Map<string, any>();
    for (let [cursor, pages] = ['', 0]; ; pages += 1) {
      const { status, json } = await call('alice', 'GET', `${url}?limit=200${query}${cursor}`);
      t.equal(status, 200);
      for (const item of json.items) {
        t.notOk(seen.has(item.id), 'no row twice');
        seen.set(item.id, item);
      }
      if (json.nextCursor === null || pages > rows) return seen;
      cursor = `&cursor=${json.nextCursor}`;
    }
  };
  const counts = async (): Promise<any> =>
    (await call('alice', 'GET', '/v1/teams/payments/problems')).json;
  const patch = (body: object): ReturnType<typeof call> =>
    call('alice', 'PATCH', `/v1/credentials/${id}`, body, any);

  await spoil();
  t.match(await patch({ fields: { username: 'you' } }), {
    status: 409,
    json: { code: 'undecryptable' },
  });

  t.test('lists have every row once, in every order and with filters', async (t) => {
    for (const query of [
      '',
      '&sort=updatedAt&order=desc',
      '&sort=lastUsedAt',
      '&type=smtp',
      '&namePrefix=n-05',
      '&view=names',
    ]) {
      const seen = await walk(query);
      t.ok(seen.has(id), query);
      if (query.includes('view')) continue;
      t.strictSame(
        [...seen.values()]
          .filter(({ health }) => health !== 'ok')
          .map((item) => [item.id, item.health]),
        [[id, 'undecryptable']],
        query,
      );
      t.equal(
        seen.size,
        query.includes('type') ? 1 : query.includes('Prefix') ? 1_001 : rows,
        query,
      );
    }
  });

  t.test('the filter finds it and nothing else, the counts count it', async (t) => {
    for (const query of ['', '&sort=dueAt', '&sort=createdAt&order=desc', '&type=smtp']) {
      t.strictSame(
        [...(await walk(`&problem=undecryptable${query}`)).keys()],
        query.includes('dueAt') ? [] : [id],
        query,
      );
    }
    t.strictSame(await counts(), {
      total: rows,
      problems: {
        disabled: 0,
        undecryptable: 1,
        exposed: 0,
        refreshFailed: 0,
        rejectedByUpstream: 0,
        expired: 0,
        expiring: 0,
        notConnected: 0,
        providerOutdated: 0,
      },
    });
  });

  t.test('it is renamed, disabled, given a date, and repaired', async (t) => {
    t.match(
      await patch({
        name: 'renamed',
        rotateAfter: '2020-01-01T00:00:00Z',
        labels: { env: 'prod' },
      }),
      { status: 200, json: { name: 'renamed', health: 'undecryptable' } },
    );
    t.match((await call('alice', 'POST', `/v1/credentials/${id}/disable`)).json, {
      problems: ['disabled', 'undecryptable'],
    });
    t.match((await counts()).problems, { disabled: 1, undecryptable: 1 });
    t.strictSame(
      [...(await walk('&dueBefore=2026-01-01T00:00:00Z&sort=dueAt&label=env:prod')).keys()],
      [id],
    );
    t.match((await call('alice', 'POST', `/v1/credentials/${id}/enable`)).json, {
      problems: ['undecryptable'],
    });
    t.match(await patch({ fields: { username: 'me', password: 'q' } }), {
      status: 200,
      json: { health: 'ok' },
    });
    await intrude(
      db,
      `delete from credential_version where credential_id = '${id}' and version = 1`,
    );
    t.match(await openSecrets(vault, id), { password: 'q' });
    t.match((await counts()).problems, { disabled: 0, undecryptable: 0 });
    t.equal((await walk('&problem=undecryptable')).size, 0);
  });

  t.test('broken again it is deleted, and nothing else is', async (t) => {
    await spoil();
    t.equal((await patch({ fields: { username: 'you' } })).status, 409);
    t.equal((await counts()).problems.undecryptable, 1);
    t.equal((await call('alice', 'DELETE', `/v1/credentials/${id}`, undefined, any)).status, 204);
    t.strictSame(await counts(), {
      total: rows - 1,
      problems: {
        disabled: 0,
        undecryptable: 0,
        exposed: 0,
        refreshFailed: 0,
        rejectedByUpstream: 0,
        expired: 0,
        expiring: 0,
        notConnected: 0,
        providerOutdated: 0,
      },
    });
    t.strictSame([...(await walk('&deleted=true')).keys()], [id]);
    t.strictSame([...(await walk('&deleted=true&problem=undecryptable')).keys()], [id]);
  });
});
