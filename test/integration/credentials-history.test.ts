// What was before: versions brought back and destroyed, deleted credentials restored.
import t from 'tap';
import { sql } from 'kysely';
import { AuditLog } from '../../src/audit/record.ts';
import { CredentialHistory } from '../../src/credentials/history/history.ts';
import { findCredentialWithRights } from '../../src/credentials/repository.ts';
import type { CredentialId, SubjectId } from '../../src/shared/ids.ts';
import { intrude } from '../helpers/intruder.ts';
import { until } from '../helpers/processes.ts';
import { openSecrets, openVersions } from '../helpers/stored.ts';
import { type Answer, startVault } from '../helpers/vault.ts';

const any = { 'if-match': '*' };

t.test('the history of credentials', async (t) => {
  const vault = await startVault(t);
  vault.start();
  const { call, db } = vault;
  await vault.team('payments');
  await vault.member('payments', 'ed', 'editor');
  await vault.member('payments', 'vera', 'viewer');
  let n = 0;
  const make = async (more: object = {}): Promise<string> => {
    const answer = await call('ed', 'POST', '/v1/teams/payments/credentials', {
      name: `c${(n += 1)}`,
      type: 'openai',
      fields: { apiKey: 'first' },
      ...more,
    });
    if (answer.status !== 201) throw new Error(answer.text);
    return answer.json.id;
  };
  const patch = (id: string, body: object, as = 'ed'): Promise<Answer> =>
    call(as, 'PATCH', `/v1/credentials/${id}`, body, any);
  const restore = (id: string, version: number, as = 'ed'): Promise<Answer> =>
    call(as, 'POST', `/v1/credentials/${id}/versions/${version}/restore`);
  const destroy = (id: string, version: number, as = 'alice'): Promise<Answer> =>
    call(as, 'DELETE', `/v1/credentials/${id}/versions/${version}`);
  const versionsOf = async (id: string): Promise<number[]> =>
    (await call('vera', 'GET', `/v1/credentials/${id}/versions`)).json.items.map(
      ({ version }: { version: number }) => version,
    );
  const events = async (
    id: string,
    action: string,
  ): Promise<{ version: number; details: Record<string, unknown>; decision: string }[]> =>
    (
      await sql<{ version: number; details: Record<string, unknown>; decision: string }>`
    select credential_version as version, details, decision from audit_event where target_id = ${id} and action = ${action}`.execute(
        db,
      )
    ).rows;

  t.test('a version comes back as a new one', async (t) => {
    const id = await make();
    await patch(id, { fields: { apiKey: 'second' } });
    const answer = await restore(id, 1);
    t.match(
      [answer.status, answer.headers['etag'], answer.json],
      [200, '"3"', { version: 3, revision: 3 }],
    );
    t.strictSame(await openSecrets(vault, id), { apiKey: 'first' });
    t.strictSame(
      (await openVersions(vault, id)).map(({ fields }) => fields),
      [{ apiKey: 'first' }, { apiKey: 'second' }, { apiKey: 'first' }],
      'and nothing is overwritten',
    );
    t.match(await events(id, 'credential.restoreVersion'), [{ version: 3, details: { from: 1 } }]);
    t.equal((await restore(id, 3)).json.code, 'stateConflict', 'the current one is there already');
    for (const version of [4, 999_999_999])
      t.equal((await restore(id, version)).status, 404, String(version));
    for (const version of ['0', '-1', '1.5', 'x', '9999999999'])
      t.equal(
        (await call('ed', 'POST', `/v1/credentials/${id}/versions/${version}/restore`)).status,
        400,
        version,
      );
    t.equal((await restore(id, 1, 'vera')).status, 403);
    t.equal((await restore(id, 1, 'stranger')).status, 404);
  });

  t.test('one that goes elsewhere, or further, comes back by an admin only', async (t) => {
    for (const [what, change] of [
      ['public fields', { fields: { baseUrl: 'https://eu.example.com', apiKey: 'moved' } }],
      ['policy', { policy: { delivery: [], allowedHosts: [] } }],
    ] as const) {
      const id = await make();
      t.equal((await patch(id, change)).status, 200, what);
      t.equal((await restore(id, 1)).status, 403, what);
      t.match(
        await events(id, 'credential.manage'),
        [{ decision: 'deny' }],
        'and it stands in the audit log',
      );
      const { json } = await restore(id, 1, 'alice');
      t.match(
        json,
        {
          version: 3,
          publicFields: { baseUrl: 'https://api.openai.com' },
          policy: { delivery: ['lease'] },
        },
        what,
      );
      t.strictSame(await openSecrets(vault, id), { apiKey: 'first' });
    }
  });

  t.test('one with a key that was rotated away, and its list of keys', async (t) => {
    const id = await make();
    await patch(id, { fields: { apiKey: 'second' } });
    const history = async (version: number): Promise<string[]> =>
      (
        await sql<{
          keys: string[];
        }>`select key_history as keys from credential_version where credential_id = ${id} and version = ${version}`.execute(
          db,
        )
      ).rows[0]!.keys;
    const {
      json: { id: rotation },
    } = await call('alice', 'POST', '/v1/teams/payments/key-rotations');
    await until(
      async () =>
        (await call('alice', 'GET', `/v1/teams/payments/key-rotations/${rotation}`)).json.state ===
        'completed',
    );
    t.equal((await restore(id, 1)).status, 200);
    t.strictSame(await openSecrets(vault, id), { apiKey: 'first' });
    t.strictSame(await history(3), await history(1), 'follows the value');
    t.equal((await history(3)).length, 2);
  });

  t.test(
    'one that does not open is named and marked, and the credential stays as it is',
    async (t) => {
      const id = await make();
      await patch(id, { fields: { apiKey: 'second' } });
      await intrude(
        db,
        `update credential_version set token = (select token from credential_version where credential_id = '${id}' and version = 2) where credential_id = '${id}' and version = 1`,
      );
      t.equal((await restore(id, 1)).json.code, 'undecryptable');
      t.match((await call('ed', 'GET', `/v1/credentials/${id}/versions`)).json.items, [
        { version: 2, isUndecryptable: false, isCurrent: true },
        { version: 1, isUndecryptable: true },
      ]);
      t.match((await call('ed', 'GET', `/v1/credentials/${id}`)).json, {
        health: 'ok',
        version: 2,
      });
    },
  );

  t.test('an earlier version is destroyed, by an admin, and never the current one', async (t) => {
    const id = await make();
    await patch(id, { fields: { apiKey: 'second' } });
    t.equal((await destroy(id, 1, 'ed')).status, 403);
    t.equal((await destroy(id, 2)).json.code, 'stateConflict');
    t.equal((await destroy(id, 1)).status, 204);
    t.equal((await destroy(id, 1)).status, 404);
    t.strictSame(await versionsOf(id), [2]);
    t.equal((await restore(id, 1)).status, 404);
    t.match(await events(id, 'credential.destroyVersion'), [{ version: 1, decision: 'allow' }]);
    t.match(
      (await call('ed', 'GET', `/v1/credentials/${id}`)).json,
      { revision: 2, version: 2 },
      'which changes nothing of the credential',
    );
  });

  t.test(
    'nothing is destroyed by a row that was tampered with since it was looked at',
    async (t) => {
      const id = await make();
      await patch(id, { fields: { apiKey: 'second' } });
      const history = new CredentialHistory({
        db,
        keyring: vault.keyring,
        now: Date.now,
        canShow: () => true,
        audit: new AuditLog({
          db,
          keyring: vault.keyring,
          now: Date.now,
          onError: (error) => {
            throw error;
          },
          onAlarm: () => undefined,
        }),
      });
      const {
        rows: [person],
      } = await sql<{ id: SubjectId }>`select id from subject where sub = 'alice'`.execute(db);
      const caller = {
        sub: 'alice',
        subject: person!.id,
        isOperator: false,
        requestId: 'r',
        address: null,
      };
      const resolved = await findCredentialWithRights(
        db,
        id as CredentialId,
        caller.subject,
        new Date(),
      );
      await intrude(db, `update credential set current_version = 1 where id = '${id}'`);
      await t.rejects(history.destroyVersion(caller, resolved!, 2), { code: 'notFound' });
      t.equal((await openVersions(vault, id)).length, 2);
    },
  );

  t.test('as many are kept as the team says, the current one always', async (t) => {
    t.equal((await call('alice', 'GET', '/v1/teams/payments')).json.versionsKept, 10);
    const id = await make();
    for (let i = 2; i <= 12; i += 1) await patch(id, { fields: { apiKey: `value ${i}` } });
    t.strictSame(await versionsOf(id), [12, 11, 10, 9, 8, 7, 6, 5, 4, 3]);
    for (const versionsKept of [0, 1_001, 1.5, '3', null])
      t.equal(
        (await call('alice', 'PATCH', '/v1/teams/payments', { versionsKept }, any)).status,
        400,
        String(versionsKept),
      );
    t.equal(
      (await call('alice', 'PATCH', '/v1/teams/payments', { versionsKept: 1 }, any)).json
        .versionsKept,
      1,
    );
    t.equal((await versionsOf(id)).length, 10, 'until the next one is made');
    t.equal((await restore(id, 3)).status, 200);
    t.strictSame(
      await versionsOf(id),
      [13],
      'what is brought back is read before what is beyond goes',
    );
    t.strictSame(await openSecrets(vault, id), { apiKey: 'value 3' });
    await call('alice', 'PATCH', '/v1/teams/payments', { versionsKept: 10 }, any);
  });

  t.test('a deleted credential comes back as it was', async (t) => {
    for (const state of ['enabled', 'disabled']) {
      const id = await make({ labels: { env: 'prod' } });
      if (state === 'disabled') await call('ed', 'POST', `/v1/credentials/${id}/disable`);
      const { through: _, ...before } = (await call('ed', 'GET', `/v1/credentials/${id}`)).json;
      t.equal(
        (await call('ed', 'POST', `/v1/credentials/${id}/restore`)).json.code,
        'stateConflict',
        'a living one',
      );
      await call('ed', 'DELETE', `/v1/credentials/${id}`, undefined, any);
      t.equal((await call('vera', 'POST', `/v1/credentials/${id}/restore`)).status, 403);
      t.equal((await call('stranger', 'POST', `/v1/credentials/${id}/restore`)).status, 404);
      const answer = await call('ed', 'POST', `/v1/credentials/${id}/restore`, undefined, {
        'idempotency-key': `restore-${id}`,
      });
      t.match(
        [answer.status, answer.json.problems],
        [200, state === 'disabled' ? ['disabled'] : []],
      );
      t.strictSame(
        { ...answer.json, revision: 0, updatedAt: 0 },
        { ...before, revision: 0, updatedAt: 0 },
        state,
      );
      t.equal(
        (
          await call('ed', 'POST', `/v1/credentials/${id}/restore`, undefined, {
            'idempotency-key': `restore-${id}`,
          })
        ).status,
        200,
        'once more by the same key',
      );
      t.strictSame(await openSecrets(vault, id), { apiKey: 'first' });
      t.match(await events(id, 'credential.restore'), [{ decision: 'allow' }]);
    }
  });

  t.test('whose name was taken meanwhile does not', async (t) => {
    const id = await make({ name: 'wanted' });
    await call('ed', 'DELETE', `/v1/credentials/${id}`, undefined, any);
    const other = await make({ name: 'wanted' });
    t.equal((await call('ed', 'POST', `/v1/credentials/${id}/restore`)).json.code, 'nameTaken');
    await call('ed', 'DELETE', `/v1/credentials/${other}`, undefined, any);
    t.equal((await call('ed', 'POST', `/v1/credentials/${id}/restore`)).status, 200);
  });

  t.test('to what a deleted one comes back cannot be tampered with in the database', async (t) => {
    const id = await make();
    await call('ed', 'POST', `/v1/credentials/${id}/disable`);
    await call('ed', 'DELETE', `/v1/credentials/${id}`, undefined, any);
    await intrude(db, `update credential set state_before = 'enabled' where id = '${id}'`);
    t.equal((await call('ed', 'POST', `/v1/credentials/${id}/restore`)).status, 404);
    const purged = await make();
    await call('ed', 'DELETE', `/v1/credentials/${purged}`, undefined, any);
    await intrude(db, `delete from credential where id = '${purged}'`);
    t.equal(
      (await call('ed', 'POST', `/v1/credentials/${purged}/restore`)).status,
      404,
      'and what is purged is gone',
    );
  });
});
