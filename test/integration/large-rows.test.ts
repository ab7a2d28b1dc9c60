// Lists, versions, exports, changes of many, takings over and rotations of credentials that are as
// large as they may be: what is in memory at once, and what is done before others have their turn,
// does not grow with them.
import { sql } from 'kysely';
import t from 'tap';
import { listEvents } from '../../src/audit-events/repository.ts';
import { AuditLog } from '../../src/audit/record.ts';
import { showEvent } from '../../src/audit-events/schemas.ts';
import { bulkStoredBytesMax } from '../../src/credentials/bulk-routes.ts';
import { ExportsService } from '../../src/exports/service.ts';
import { listRunningRotations, reencryptBatch, type Position } from '../../src/keys/rotation.ts';
import { type Report, storeAll } from '../../src/cli/import/store.ts';
import type { VaultCall } from '../../src/cli/target.ts';
import type { CredentialId, SubjectId, TeamId } from '../../src/shared/ids.ts';
import { credentialVersions } from '../../src/keys/tables/credential-version.ts';
import { moveTokensOf } from '../../src/keys/tables/rehoming.ts';
import { storeMany, storeWide, watchKeyring, wideFields } from '../helpers/large.ts';
import { demand } from '../helpers/leases.ts';
import { until } from '../helpers/processes.ts';
import { startVault, type TestVault } from '../helpers/vault.ts';
import { waitOf } from '../helpers/waits.ts';
import { findActiveKey } from '../../src/credentials/repository.ts';

const MiB = 1024 * 1024;

t.test('wide credentials', async (t) => {
  const vault = await startVault(t);
  await vault.team('payments');
  await vault.team('partners', ['bob']);
  const wide = await storeWide(vault, 'payments', 26, { labels: { env: 'prod' } });
  const ids = wide.map(({ id }) => id).sort();
  const work = watchKeyring(vault);

  await t.test('a page of a list ends when it is long, and the next one goes on', async (t) => {
    for (const url of [
      '/v1/teams/payments/credentials?limit=200',
      '/v1/teams/payments/credentials?limit=20&sort=updatedAt&order=desc',
      '/v1/teams/payments/credentials?limit=200&label=env:prod',
      '/v1/credentials?limit=200',
    ]) {
      work.reset();
      const pages = await pagesOf(vault, 'alice', url);
      t.strictSame(pages.flatMap(({ ids }) => ids).sort(), ids, url);
      t.ok(pages.length >= 3, `${pages.length} pages`);
      for (const { bytes } of pages) t.ok(bytes < 5 * MiB, `${bytes} bytes`);
      t.ok(work.rows <= 26 + 2 * pages.length, 'nothing is verified but what is shown');
    }
    for (const { id } of wide.slice(0, 14))
      await demand(
        vault.call(
          'alice',
          'PUT',
          `/v1/credentials/${id}/grants/teams/partners`,
          { access: 'read' },
          { 'if-match': '*' },
        ),
        200,
      );
    const own = await storeMany(vault, 'partners', 3, 20, { by: 'bob' });
    const pages = await pagesOf(vault, 'bob', '/v1/credentials?limit=200');
    t.strictSame(
      pages.flatMap(({ ids }) => ids).sort(),
      [...wide.slice(0, 14), ...own].map(({ id }) => id).sort(),
      'what is shared stands among the rest',
    );
    t.ok(pages.length >= 2);
    for (const { bytes } of pages) t.ok(bytes < 5 * MiB);
  });

  await t.test('so does a page of versions', async (t) => {
    await demand(
      vault.call(
        'alice',
        'PATCH',
        '/v1/teams/payments',
        { versionsKept: 100 },
        { 'if-match': '*' },
      ),
      200,
    );
    const [{ id }] = wide as [{ id: string }];
    for (let version = 2; version <= 25; version += 1)
      await demand(
        vault.call(
          'alice',
          'PATCH',
          `/v1/credentials/${id}`,
          { fields: { ...wideFields(), p0: `${version}`, secret: `secret ${version}` } },
          { 'if-match': '*' },
        ),
        200,
      );
    const pages = await pagesOf(vault, 'alice', `/v1/credentials/${id}/versions?limit=200`);
    t.strictSame(
      pages.flatMap(({ versions }) => versions),
      Array.from({ length: 25 }, (_, index) => 25 - index),
    );
    t.ok(pages.length >= 3);
    for (const { bytes } of pages) t.ok(bytes < 5 * MiB);
  });

  await t.test('an export holds a few rows at a time, and has them all', async (t) => {
    const { db, keyring } = vault;
    const now = Date.now;
    const fail = (): never => {
      throw new Error('nothing fails here');
    };
    const service = new ExportsService({
      db,
      keyring,
      audit: new AuditLog({ db, keyring, now, onError: fail, onAlarm: fail }),
      now,
      listEvents,
      showEvent,
    });
    const lines = await service.exportTeam(
      {
        sub: 'alice',
        subject: await idOf<SubjectId>(vault, 'subject', 'sub', 'alice'),
        isOperator: false,
        requestId: 'a-request',
        address: null,
      },
      { id: await idOf<TeamId>(vault, 'team', 'slug', 'payments'), slug: 'payments' },
      { withEvents: false },
    );
    const counts: Record<string, number> = {};
    let most = 0;
    for await (const batch of lines) {
      most = Math.max(most, Buffer.byteLength(JSON.stringify(batch)));
      for (const { kind } of batch) counts[kind] = (counts[kind] ?? 0) + 1;
    }
    t.match(counts, { credential: 26, version: 50, end: 1 });
    t.ok(most < 2 * MiB, `${most} bytes at once`);
    const { text } = await vault.call('alice', 'GET', '/v1/teams/payments/export?events=false');
    t.equal(
      text.trimEnd().split('\n').length,
      Object.values(counts).reduce((a, b) => a + b),
    );
  });
});

t.test('large credentials', async (t) => {
  const vault = await startVault(t);
  await vault.team('payments');
  await vault.team('partners', ['bob']);
  const large = await storeMany(vault, 'payments', 40);
  const { db, keyring } = vault;
  const work = watchKeyring(vault);
  const payments = await idOf<TeamId>(vault, 'team', 'slug', 'payments');

  await t.test(
    'changes of many open what they may together; the others are refused, and not opened',
    async (t) => {
      work.reset();
      const { results } = await demand(
        vault.call('alice', 'POST', '/v1/teams/payments/credentials/bulk', {
          items: [
            ...large.map(({ id }) => ({ op: 'update', id, revision: '*', fields: { f0: 'new' } })),
            { op: 'update', id: large[39]!.id, revision: '*', description: 'opens nothing' },
          ],
        }),
        200,
      );
      const bytes = await storedBytes(vault);
      const fit = Math.floor(bulkStoredBytesMax / bytes);
      t.ok(fit > 20 && fit < 38, `${fit} of 40`);
      t.strictSame(
        results.map(({ status }: { status: number }) => status),
        [...Array(fit).fill(200), ...Array(40 - fit).fill(400), 200],
      );
      t.match(results[39].problem, {
        code: 'invalidRequest',
        errors: [{ pointer: '/items/39', rule: 'size' }],
      });
      t.equal(work.openings.length, fit);
    },
  );

  await t.test('an import that updates them sends what is beyond in another request', async (t) => {
    const reports: Report[] = [];
    const call: VaultCall = async (method, path, body) => {
      const { status, json } = await vault.call('alice', method, path, body);
      if (status >= 400) throw new Error(`${status} ${json.code}`);
      return { status, body: json };
    };
    for (const [index, { id }] of large.entries())
      await demand(
        vault.call(
          'alice',
          'PATCH',
          `/v1/credentials/${id}`,
          { labels: { 'import/n8n': `id ${index}` } },
          { 'if-match': '*' },
        ),
        200,
      );
    await storeAll(
      call,
      { team: 'payments', system: 'n8n', isUpdate: true, isDryRun: false },
      large.map((_, index) => ({
        id: `id ${index}`,
        name: `large ${index}`,
        type: 'custom',
        // What the source does not have is cleared: what is to stay large comes along.
        fields: Object.fromEntries(
          Array.from({ length: 7 }, (_, field) => [`f${field}`, 'i'.repeat(64 * 1024)]),
        ),
        notes: [],
      })),
      (report) => {
        reports.push(report);
      },
    );
    t.strictSame(
      reports.map(({ id, action, reason }) => [id, action, reason]),
      large.map((_, index) => [`id ${index}`, 'updated', undefined]),
    );
  });

  await t.test('four of a team run at once, the others wait their turn', async (t) => {
    const running = Array.from({ length: 8 }, (_, request) =>
      vault.call('bob', 'POST', '/v1/teams/partners/credentials/bulk', {
        items: Array.from({ length: 20 }, (_, index) => ({
          op: 'create',
          name: `small ${request} ${index}`,
          type: 'bearer',
          fields: { token: 'a-small-one' },
        })),
      }),
    );
    await until(async () => (await waitOf(vault, 'bulkChanges')).inUse >= 1);
    for (const { status } of await Promise.all(running)) t.equal(status, 200);
    t.match(await waitOf(vault, 'bulkChanges'), { inUse: 0, refused: 0 });
  });

  await t.test('a credential with much behind it is moved a little at a time', async (t) => {
    const [{ id }] = large as [{ id: string }];
    for (let version = 0; version < 4; version += 1)
      await demand(
        vault.call(
          'alice',
          'PATCH',
          `/v1/credentials/${id}`,
          { fields: { f1: `${version}` } },
          { 'if-match': '*' },
        ),
        200,
      );
    const offer = await demand(
      vault.call('alice', 'POST', `/v1/credentials/${id}/transfers`, { team: 'partners' }),
      201,
    );
    const versions = (await vault.call('alice', 'GET', `/v1/credentials/${id}/versions`)).json.items
      .length;
    t.ok(versions >= 5);
    work.reset();
    await demand(vault.call('bob', 'POST', `/v1/transfers/${offer.id}/accept`), 200);
    t.equal(work.openings.length, versions);
    t.equal(new Set(work.openings).size, versions, 'others have a turn between any two');
  });

  await t.test('one with too much is refused before anything of it is opened', async (t) => {
    const [, { id }] = large as [unknown, { id: string }];
    const partners = await idOf<TeamId>(vault, 'team', 'slug', 'partners');
    work.reset();
    await t.rejects(
      db.transaction().execute(async (trx) =>
        moveTokensOf(
          trx,
          keyring,
          credentialVersions,
          {
            credential: id as CredentialId,
            type: 'custom',
            from: payments,
            to: partners,
            key: (await findActiveKey(trx, partners))!,
            at: new Date(),
          },
          1 * MiB,
        ),
      ),
      { code: 'stateConflict', message: /destroy earlier ones/ },
    );
    t.equal(work.openings.length, 0);
  });

  await t.test('a rotation moves no more of them at once than a few megabytes', async (t) => {
    await demand(vault.call('alice', 'POST', '/v1/teams/payments/key-rotations'), 202);
    const [rotation] = await listRunningRotations(db);
    const parts = {
      db,
      keyring,
      now: Date.now,
      audit: new AuditLog({
        db,
        keyring,
        now: Date.now,
        onError: () => undefined,
        onAlarm: () => undefined,
      }),
    };
    const bytes = await storedBytes(vault, 'min');
    let moved = 0;
    let after: Position | undefined;
    for (let isFirst = true; isFirst || after !== undefined; isFirst = false) {
      const batch = await reencryptBatch(parts, rotation!, { limit: 400, passOver: [], after });
      t.ok((batch.moved - 1) * bytes < 8 * MiB, `${batch.moved} tokens in one batch`);
      if (after === undefined) t.ok(batch.rowsMax <= 20, 'and the next one need not hold more');
      moved += batch.moved;
      after = batch.last;
    }
    const { rows } = await sql<{ count: number }>`
      select count(*) from credential_version where team_id = ${payments}`.execute(db);
    t.equal(moved, rows[0]!.count);
    vault.start();
    await until(async () => (await listRunningRotations(db)).length === 0);
  });
});

interface Page {
  readonly ids: string[];
  readonly versions: number[];
  readonly bytes: number;
}

/** Every page of a list. */
async function pagesOf(vault: TestVault, as: string, url: string): Promise<Page[]> {
  const pages: Page[] = [];
  for (let cursor: string | null = ''; cursor !== null; ) {
    const { status, json, text } = await vault.call(
      as,
      'GET',
      cursor === '' ? url : `${url}&cursor=${cursor}`,
    );
    if (status !== 200) throw new Error(text);
    pages.push({
      ids: json.items.map(({ id }: { id: string }) => id),
      versions: json.items.map(({ version }: { version: number }) => version),
      bytes: Buffer.byteLength(text),
    });
    cursor = json.nextCursor;
  }
  return pages;
}

const idOf = async <T>(
  { db }: TestVault,
  table: 'subject' | 'team',
  column: string,
  value: string,
): Promise<T> => {
  const { rows } = await sql<{ id: T }>`
    select id from ${sql.table(table)} where ${sql.ref(column)} = ${value}`.execute(db);
  return rows[0]!.id;
};

/** How many bytes are stored of a large one, the largest or the smallest. */
async function storedBytes({ db }: TestVault, which: 'max' | 'min' = 'max'): Promise<number> {
  const { rows } = await sql<{ bytes: number }>`
    select ${sql.raw(which)}(octet_length(token) + octet_length(public_fields::text) + octet_length(policy::text)) as bytes
    from credential_version where octet_length(token) > 100000`.execute(db);
  return rows[0]!.bytes;
}
