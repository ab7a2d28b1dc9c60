// Two admins change one member at the same moment, with the ETag that both have read: both pass the
// look at the ETag, and the one who comes second to the row learns that it is stale.
import { sql } from 'kysely';
import t from 'tap';
import { until } from '../helpers/processes.ts';
import { countWaiting } from '../helpers/tokens.ts';
import { type Answer, startVault } from '../helpers/vault.ts';

const member = '/v1/teams/payments/members/nora';
const isNora = ({ subject }: { subject: string }): boolean => subject === 'nora';

t.test('a change of a member that another change overtook is stale', async (t) => {
  const vault = await startVault(t);
  const { call, db } = vault;
  await vault.team('payments', ['alice', 'bob']);
  const held = (): Promise<Answer> => call('alice', 'GET', '/v1/teams/payments/members');
  const said = ({ status, json }: Answer): string => `${status} ${json?.code ?? ''}`.trim();
  const put = (as: string, role: string, etag: string): Promise<Answer> =>
    call(as, 'PUT', member, { role }, { 'if-match': etag });
  const remove = (as: string, etag: string): Promise<Answer> =>
    call(as, 'DELETE', member, undefined, { 'if-match': etag });
  const events = async (): Promise<number> =>
    (
      await sql<{
        n: number;
      }>`select count(*) as n from audit_event where action in ('member.change', 'member.remove')`.execute(
        db,
      )
    ).rows[0]!.n;

  /** Sends both while somebody else holds the row, and lets go when both wait for it. */
  async function atOnce(
    first: (etag: string) => Promise<Answer>,
    second: (etag: string) => Promise<Answer>,
  ): Promise<string[]> {
    await vault.member('payments', 'nora', 'viewer');
    const etag = `"${(await held()).json.items.find(isNora).revision}"`;
    const answers = await db.transaction().execute(async (trx) => {
      await sql`select 1 from membership join subject on subject.id = subject_id where sub = 'nora' for update of membership`.execute(
        trx,
      );
      const sent = [first(etag)];
      await until(async () => (await countWaiting(trx)) === 1);
      sent.push(second(etag));
      await until(async () => (await countWaiting(trx)) === 2);
      return sent;
    });
    return (await Promise.all(answers)).map(said);
  }

  for (const [what, first, second, expected] of [
    ['two roles', (e) => put('alice', 'editor', e), (e) => put('bob', 'auditor', e), 200],
    ['a role, and out', (e) => put('alice', 'editor', e), (e) => remove('bob', e), 200],
    ['out, and a role', (e) => remove('alice', e), (e) => put('bob', 'editor', e), 204],
  ] as const satisfies readonly (readonly [
    string,
    (etag: string) => Promise<Answer>,
    (etag: string) => Promise<Answer>,
    number,
  ])[]) {
    const before = await events();
    t.same(await atOnce(first, second), [`${expected}`, '412 preconditionFailed'], what);
    t.equal(await events(), before + 1, `${what}: one event`);
    const left = (await held()).json.items.find(isNora);
    t.equal(left?.role, expected === 204 ? undefined : 'editor', `${what}: as the first said`);
    if (left !== undefined) await remove('alice', `"${left.revision}"`);
  }
});
