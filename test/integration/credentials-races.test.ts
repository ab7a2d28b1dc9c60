// Many at once: one of the twins wins, and what was acknowledged is there, a rotation of the key
// under way or not.
import fc from 'fast-check';
import t from 'tap';
import { sql } from 'kysely';
import { until } from '../helpers/processes.ts';
import { openVersions } from '../helpers/stored.ts';
import { type Answer, startVault } from '../helpers/vault.ts';

const any = { 'if-match': '*' };

t.test('one of many', async (t) => {
  const vault = await startVault(t);
  const { call, db } = vault;
  await vault.team('payments');
  await call('alice', 'PATCH', '/v1/teams/payments', { versionsKept: 100 }, any);
  const store = async (name: string): Promise<string> =>
    (
      await call('alice', 'POST', '/v1/teams/payments/credentials', {
        name,
        type: 'bearer',
        fields: { token: 'v1' },
      })
    ).json.id;
  const eventsOf = async (id: string, action: string): Promise<number> =>
    (
      await sql<{
        n: number;
      }>`select count(*) as n from audit_event where target_id = ${id} and action = ${action}`.execute(
        db,
      )
    ).rows[0]?.n ?? 0;
  const codes = (answers: Answer[]): string[] =>
    answers.map(({ status, json }) => `${status} ${json?.code ?? ''}`.trim()).sort();

  t.test(
    '20 changes with one ETag: one wins, the rest are stale, and one event says so',
    async (t) => {
      for (const body of [
        (i: number) => ({ fields: { token: `w${i}` } }),
        (i: number) => ({ description: `w${i}` }),
        (i: number) => ({ name: `w${i}`, fields: { token: `w${i}` } }),
      ]) {
        const id = await store(`twins-${Math.random()}`);
        const answers = await Promise.all(
          Array.from({ length: 20 }, (_, i) =>
            call('alice', 'PATCH', `/v1/credentials/${id}`, body(i), { 'if-match': '"1"' }),
          ),
        );
        t.strictSame(codes(answers), ['200', ...Array<string>(19).fill('412 preconditionFailed')]);
        t.equal(await eventsOf(id, 'credential.update'), 1);
        const winner = answers.find(({ status }) => status === 200);
        const { through, ...seen } = (await call('alice', 'GET', `/v1/credentials/${id}`)).json;
        t.strictSame(seen, winner?.json);
        t.match(through, [{ kind: 'membership' }]);
      }
    },
  );

  t.test('20 changes of whatever it is: every one counts, in one order', async (t) => {
    const id = await store('everybody');
    const answers = await Promise.all(
      Array.from({ length: 20 }, (_, i) =>
        call('alice', 'PATCH', `/v1/credentials/${id}`, { fields: { token: `w${i}` } }, any),
      ),
    );
    t.ok(
      answers.every(({ status }) => status === 200),
      codes(answers).join(),
    );
    t.strictSame(
      answers.map(({ json }) => json.version).toSorted((a, b) => a - b),
      Array.from({ length: 20 }, (_, i) => i + 2),
    );
    const versions = await openVersions(vault, id);
    for (const [i, { json }] of answers.entries())
      t.equal(versions[json.version - 1]?.fields['token'], `w${i}`);
    t.equal(await eventsOf(id, 'credential.update'), 20);
  });

  t.test('deleted, disabled and renamed at once', async (t) => {
    for (let round = 0; round < 6; round += 1) {
      const [id, other] = [await store(`mixed-${round}`), await store(`other-${round}`)];
      const answers = await Promise.all([
        call('alice', 'DELETE', `/v1/credentials/${id}`, undefined, any),
        call('alice', 'DELETE', `/v1/credentials/${id}`, undefined, any),
        call('alice', 'POST', `/v1/credentials/${id}/disable`),
        call('alice', 'POST', `/v1/credentials/${id}/disable`),
        call('alice', 'PATCH', `/v1/credentials/${other}`, { name: `mixed-${round}` }, any),
      ]);
      t.equal(
        answers.slice(0, 2).filter(({ status }) => status === 204).length,
        1,
        codes(answers).join(),
      );
      t.ok(answers.slice(2, 4).filter(({ status }) => status === 200).length <= 1);
      t.ok([200, 409].includes(answers[4]?.status ?? 0), 'the name is free or not yet');
      t.equal(await eventsOf(id, 'credential.delete'), 1);
    }
  });

  t.test('one name for several: renamed and made at once', async (t) => {
    const ids = await Promise.all(Array.from({ length: 8 }, (_, i) => store(`from-${i}`)));
    const answers = await Promise.all([
      ...ids.map((id) =>
        call('alice', 'PATCH', `/v1/credentials/${id}`, { name: 'the one name' }, any),
      ),
      ...Array.from({ length: 8 }, () =>
        call('alice', 'POST', '/v1/teams/payments/credentials', {
          name: 'the one name',
          type: 'bearer',
          fields: { token: 'x' },
        }),
      ),
    ]);
    t.equal(answers.filter(({ status }) => status < 300).length, 1);
    t.equal(answers.filter(({ json }) => json.code === 'nameTaken').length, 15);
  });
});

t.test('writers during rotations lose nothing, in whatever order things happen', async (t) => {
  const vault = await startVault(t);
  vault.start();
  const { call, db } = vault;
  let run = 0;
  type Step = {
    readonly kind: 'create' | 'patch' | 'merge' | 'delete' | 'rotate';
    readonly at: number;
  };
  const step: fc.Arbitrary<Step> = fc.record({
    kind: fc.constantFrom('create', 'patch', 'merge', 'patch', 'merge', 'delete', 'rotate'),
    at: fc.nat(1000),
  });

  await fc.assert(
    fc.asyncProperty(
      fc.array(step, { minLength: 15, maxLength: 40 }),
      fc.integer({ min: 2, max: 8 }),
      async (steps, width) => {
        const slug = `team-${(run += 1)}`;
        await vault.team(slug);
        const known = new Map<string, { a: string; b: string; version: number } | 'deleted'>();
        const busy = new Set<string>();
        let serial = 0;
        const act = async ({ kind, at }: Step): Promise<void> => {
          const value = `${slug}-${(serial += 1)}`;
          if (kind === 'rotate') {
            const { status } = await call('alice', 'POST', `/v1/teams/${slug}/key-rotations`);
            if (![202, 409].includes(status)) throw new Error(`rotate: ${status}`);
            return;
          }
          const idle = [...known]
            .filter(([id, held]) => held !== 'deleted' && !busy.has(id))
            .map(([id]) => id);
          const id = idle[at % Math.max(1, idle.length)];
          if (kind === 'create' || id === undefined) {
            const made = await call('alice', 'POST', `/v1/teams/${slug}/credentials`, {
              name: value,
              type: 'custom',
              fields: { a: value, b: value },
            });
            if (made.status !== 201) throw new Error(`create: ${made.text}`);
            known.set(made.json.id, { a: value, b: value, version: 1 });
            return;
          }
          busy.add(id);
          const held = known.get(id) as { a: string; b: string; version: number };
          const next =
            kind === 'delete'
              ? 'deleted'
              : { a: value, b: kind === 'merge' ? held.b : value, version: held.version + 1 };
          const answer =
            kind === 'delete'
              ? await call('alice', 'DELETE', `/v1/credentials/${id}`, undefined, any)
              : await call(
                  'alice',
                  'PATCH',
                  `/v1/credentials/${id}`,
                  { fields: kind === 'merge' ? { a: value } : { a: value, b: value } },
                  any,
                );
          if (answer.status >= 300) throw new Error(`${kind}: ${answer.text}`);
          known.set(id, next);
          busy.delete(id);
        };
        const queue = [...steps];
        await Promise.all(
          Array.from({ length: width }, async () => {
            for (let next = queue.shift(); next !== undefined; next = queue.shift())
              await act(next);
          }),
        );

        const {
          rows: [team],
        } = await sql<{ id: string }>`select id from team where slug = ${slug}`.execute(db);
        await until(
          async () =>
            (
              await sql`select 1 from key_rotation where team_id = ${team?.id} and state = 'running'`.execute(
                db,
              )
            ).rows.length === 0,
        );
        for (const [id, held] of known) {
          const versions = await openVersions(vault, id);
          if (held === 'deleted') continue;
          const newest = versions.at(-1);
          if (
            newest?.fields['a'] !== held.a ||
            newest.fields['b'] !== held.b ||
            newest.binding.version !== held.version
          )
            throw new Error(`acknowledged and lost: ${id}`);
        }
        const { rows: strays } = await sql`
      select 1 from credential_version version join data_key key on key.id = version.data_key_id where version.team_id = ${team?.id} and key.state <> 'active'
        and exists (select 1 from key_rotation where team_id = ${team?.id})`.execute(db);
        if (strays.length > 0) throw new Error('tokens stayed behind');
        const {
          rows: [auditLog],
        } = await sql<{
          n: number;
        }>`select count(*) as n from audit_event where team_id = ${team?.id} and action like 'credential.%' and decision = 'allow'`.execute(
          db,
        );
        const writes = steps.filter(({ kind }) => kind !== 'rotate').length;
        if (auditLog?.n !== writes)
          throw new Error(`events: ${auditLog?.n}, acknowledged writes: ${writes}`);
      },
    ),
    { numRuns: 12, endOnFailure: true },
  );
  t.pass('every token opens, and every acknowledged value is there');
});
