// How much a lease can make a replica do: sizes are asked before anything is read or opened, what is
// open at once is bounded, and while much is opened everybody else is answered.
import { request as httpRequest } from 'node:http';
import t from 'tap';
import { AuditLog } from '../../src/audit/record.ts';
import { LeasesService } from '../../src/leases/service.ts';
import type { CredentialId, SubjectId } from '../../src/shared/ids.ts';
import { unbounded } from '../../src/access/issuers.ts';
import { largeBytes, storeMany, storeWide, watchKeyring } from '../helpers/large.ts';
import {
  askLease,
  openAnswer,
  registerEngine,
  rulesOf,
  storeOpenai,
  vaultIssuer,
} from '../helpers/leases.ts';
import { until } from '../helpers/processes.ts';
import { startVault, type TestVault } from '../helpers/vault.ts';
import { waitOf } from '../helpers/waits.ts';
import type { Caller } from '../../src/access/caller.ts';

t.test('leases of much', async (t) => {
  const vault = await startVault(t);
  await vault.team('payments');
  await vault.team('secretive', ['mallory']);
  const engine = await registerEngine(vault, 'n8n');
  await registerEngine(vault, 'other');
  await vault.member('payments', 'n8n', 'engine');
  await vault.member('payments', 'other', 'engine');
  const large = await storeMany(vault, 'payments', 100);
  const small = await storeOpenai(vault, 'payments', 'small', 'sk-small-one');
  const work = watchKeyring(vault);

  await t.test('100 × 448 KiB: refused, and nothing is read or opened', async (t) => {
    work.reset();
    const refused = await askLease(vault, 'n8n', large);
    t.match(refused, { status: 422, json: { code: 'leaseRefused' } });
    t.strictSame(rulesOf(refused), ['/credentials size']);
    t.equal(work.openings.length, 0, 'nothing is opened');
    t.equal(work.rows, 0, 'nor is there any content to verify');
  });

  await t.test(
    'less than may be read, and more than may be sent: nothing is opened either',
    async (t) => {
      work.reset();
      t.strictSame(rulesOf(await askLease(vault, 'n8n', large.slice(0, 24))), [
        '/credentials size',
      ]);
      t.equal(work.openings.length, 0);
    },
  );

  await t.test('as much as may be sent: each opened in a turn of its own', async (t) => {
    work.reset();
    const answer = await askLease(vault, 'n8n', large.slice(0, 18));
    t.equal(answer.status, 201);
    const { openings } = work;
    t.equal(openings.length, 18);
    t.equal(new Set(openings).size, openings.length, 'others have had a turn between any two');
    const opened = await openAnswer(vault, engine, answer);
    t.equal(opened.credentials.length, 18);
    t.match(opened.credentials[17], { fields: { f0: /^y{65536}$/, f6: /^y{65536}$/ } });
    work.reset();
    for (let i = 0; i < 8; i += 1)
      t.equal((await askLease(vault, 'n8n', large.slice(0, 18))).status, 201, 'room is given back');
  });

  await t.test(
    'what is known to be too large only from within is opened no further than that',
    async (t) => {
      const most = 18 * largeBytes;
      const rest = 8 * 1024 * 1024 - most + 4_000;
      const [filler] = await storeMany(vault, 'payments', 1, rest, { name: 'filler' });
      work.reset();
      const answer = await askLease(
        vault,
        'n8n',
        [...large.slice(0, 18), filler!, { id: small.id }, large[18]!].slice(0, 20),
      );
      t.strictSame(rulesOf(answer), ['/credentials size']);
      t.equal(work.openings.length, 19, 'the one behind it stays closed');
    },
  );

  await t.test('a version that the engine has already is neither read nor counted', async (t) => {
    work.reset();
    const answer = await askLease(
      vault,
      'n8n',
      large.map((each) => ({ ...each, knownVersion: 1 })),
    );
    t.equal(answer.status, 201);
    t.ok(answer.json.credentials.every((each: { notModified: boolean }) => each.notModified));
    t.equal(work.openings.length, 0);
    t.strictSame(
      rulesOf(
        await askLease(
          vault,
          'n8n',
          large.map((each) => ({ ...each, knownVersion: 2 })),
        ),
      ),
      ['/credentials size'],
      'another version is',
    );
  });

  await t.test('sizes say nothing of what the engine may not know of', async (t) => {
    const foreign = await storeMany(vault, 'secretive', 40, largeBytes, { by: 'mallory' });
    const tiny = await storeOpenai(vault, 'secretive', 'tiny', 'sk-tiny-one', {}, 'mallory');
    const brokerOnly = await storeOpenai(vault, 'payments', 'broker-only', 'sk-broker-only', {
      policy: { delivery: ['broker'], allowedHosts: [] },
    });
    const beside = [{ id: small.id }, { id: brokerOnly.id }];
    work.reset();
    const withLarge = await askLease(vault, 'n8n', [...beside, ...foreign]);
    t.strictSame(rulesOf(withLarge), [
      '/credentials/1 deliveryNotAllowed',
      ...foreign.map((_, index) => `/credentials/${index + 2} notFound`),
    ]);
    t.ok(work.openings.length <= 1, 'only what is small and its own');
    t.strictSame(
      rulesOf(await askLease(vault, 'n8n', [...beside, { id: tiny.id }])),
      ['/credentials/1 deliveryNotAllowed', '/credentials/2 notFound'],
      'the same rules as beside a small one',
    );
    work.reset();
    t.strictSame(
      rulesOf(await askLease(vault, 'n8n', [...large.slice(0, 18), foreign[0]!])),
      ['/credentials/18 notFound'],
      'one that is foreign refuses a lease that would fit',
    );
    t.equal(work.openings.length, 0, 'and what it refuses is not opened');
    t.strictSame(
      rulesOf(await askLease(vault, 'n8n', [...large.slice(0, 60), foreign[0]!])),
      ['/credentials size', '/credentials/60 notFound'],
      'both are said',
    );
  });

  await t.test('public fields count like secrets: they are read and compared too', async (t) => {
    const wide = await storeWide(vault, 'payments', 45);
    work.reset();
    t.strictSame(rulesOf(await askLease(vault, 'n8n', wide)), ['/credentials size']);
    t.equal(work.rows, 0, 'none of them was made canonical');
    const answer = await askLease(vault, 'n8n', wide.slice(0, 8));
    t.equal(answer.status, 201);
    t.equal(work.openings.length, 8);
    t.equal(new Set(work.openings).size, 8);
  });

  await t.test('what is open at once is bounded, for one engine and for all', async (t) => {
    const { service, callerOf } = await serviceOf(vault, { engine: 25_000_000, all: 40_000_000 });
    const [first, second] = [await callerOf('n8n'), await callerOf('other')];
    const lease = (caller: Caller, credentials: readonly { id: string }[]) =>
      service.createLease(caller, {
        references: credentials.map(({ id }) => ({ id: id as CredentialId })),
        purpose: 'a test',
        runId: undefined,
        onBehalfOf: { sub: 'alice', isProven: false },
        keyId: undefined,
        ttlSeconds: 60,
      });
    const much = large.slice(0, 18); // some 11 MB as stored
    const refusal = { code: 'rateLimited', retryAfterSeconds: 1 };
    const held = [await lease(first, much), await lease(first, much)];
    work.reset();
    await t.rejects(lease(first, much), refusal, 'the engine has no more room');
    t.equal(work.openings.length, 0, 'and what has no room is not opened');
    t.equal((await lease(first, [small])).credentials.length, 1, 'a small one still has');
    held.push(await lease(second, much));
    await t.rejects(lease(second, much), refusal, 'all together have no more');
    t.equal(service.counts.refused, 2);
    for (const { leave } of held) leave();
    const again = await lease(second, much);
    again.leave();
    again.leave();
    for (const { leave } of [await lease(second, much), await lease(first, much)]) leave();
    t.ok(service.counts.inUse > 0, 'the small one was not given back');
    t.ok(service.counts.inUse < 4_096);
    await t.rejects(lease(first, large), { code: 'leaseRefused' });
    t.ok(service.counts.inUse < 4_096, 'a refused one holds nothing');
  });

  await t.test('the room is taken until the answer has left, or the engine has', async (t) => {
    const url = new URL(await vault.app.listen({ host: '127.0.0.1', port: 0 }));
    const body = JSON.stringify({
      credentials: large.slice(0, 18),
      purpose: 'a test',
      onBehalfOf: 'alice',
    });
    const request = httpRequest({
      host: url.hostname,
      port: url.port,
      method: 'POST',
      path: '/v1/leases',
      agent: false,
      headers: {
        authorization: `Bearer ${await vault.token('n8n')}`,
        'content-type': 'application/json',
        'content-length': Buffer.byteLength(body),
      },
    });
    request.on('error', () => undefined).end(body);
    const status = await new Promise<number | undefined>((resolve) => {
      request.on('response', (response) => {
        response.pause();
        resolve(response.statusCode);
      });
    });
    t.equal(status, 201);
    t.ok((await waitOf(vault, 'leasedBytes')).inUse > 8_000_000, 'nobody has read it');
    request.destroy();
    await until(async () => (await waitOf(vault, 'leasedBytes')).inUse === 0);
    t.pass('who went away holds nothing');
  });
});

async function serviceOf(
  { db, keyring, clock }: TestVault,
  openBytesMax: { engine: number; all: number },
): Promise<{ service: LeasesService; callerOf: (sub: string) => Promise<Caller> }> {
  const now = (): number => Date.now() + clock.ms;
  const audit = new AuditLog({
    db,
    keyring,
    now,
    onError: (error) => {
      throw error;
    },
    onAlarm: () => undefined,
  });
  const service = new LeasesService({
    subjectBounds: unbounded,
    db,
    keyring,
    audit,
    now,
    usage: { count: () => undefined },
    accessTokens: {
      accessTokenFor: () => {
        throw new Error('nothing here is held');
      },
    },
    issuer: () => vaultIssuer,
    openBytesMax,
  });
  return {
    service,
    callerOf: async (sub) => ({
      sub,
      subject: (
        await db.selectFrom('subject').select('id').where('sub', '=', sub).executeTakeFirstOrThrow()
      ).id as SubjectId,
      isOperator: false,
      requestId: 'a-request',
      address: '192.0.2.7',
    }),
  };
}
