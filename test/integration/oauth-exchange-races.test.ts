// The credential changes while the provider is asked for tokens: what the provider then gives
// belongs to a client that the credential no longer is, and is stored nowhere.
import { sql } from 'kysely';
import t from 'tap';
import { startAuthorizationServer } from '../helpers/authorization-server.ts';
import { demand } from '../helpers/leases.ts';
import { begin, callbackOf, connect, oauthStage, storeOAuth } from '../helpers/oauth.ts';

const any = { 'if-match': '*' };

t.test('tokens for what a credential was during the exchange are not stored', async (t) => {
  const server = await startAuthorizationServer(t);
  const stage = await oauthStage(t, server);
  const { vault } = stage;
  await vault.team('elsewhere');
  const held = async (id: string): Promise<number> =>
    (
      await sql<{
        n: number;
      }>`select count(*) as n from oauth_token where credential_id = ${id} and token is not null`.execute(
        vault.db,
      )
    ).rows[0]!.n;
  const connected = async (id: string): Promise<number> =>
    (
      await sql<{
        n: number;
      }>`select count(*) as n from audit_event where action = 'oauth.connect' and decision = 'allow' and target_id = ${id}`.execute(
        vault.db,
      )
    ).rows[0]!.n;

  for (const [what, change, status, code] of [
    [
      'another client',
      (id: string) =>
        vault.call(
          'alice',
          'PATCH',
          `/v1/credentials/${id}`,
          { fields: server.fields({ clientId: 'public' }) },
          any,
        ),
      409,
      'stateConflict',
    ],
    [
      'another secret of the same client',
      (id: string) =>
        vault.call(
          'alice',
          'PATCH',
          `/v1/credentials/${id}`,
          { fields: server.fields({ clientSecret: 'another' }) },
          any,
        ),
      409,
      'stateConflict',
    ],
    [
      'deleted',
      (id: string) => vault.call('alice', 'DELETE', `/v1/credentials/${id}`, undefined, any),
      404,
      'notFound',
    ],
  ] as const) {
    const { id } = await storeOAuth(stage, what.replaceAll(' ', '-'));
    const callback = callbackOf(await server.visit((await begin(stage, id)).authorizationUrl));
    const given = server.given.accessTokens.length;
    server.behaviour.onToken = async () => {
      server.behaviour.onToken = undefined;
      const answer = await change(id);
      t.ok(answer.status < 300, `${what}: ${answer.text}`);
    };
    const answer = await vault.call('alice', 'POST', '/v1/oauth/callbacks', callback);
    t.match(answer, { status, json: { code } }, what);
    t.equal(server.given.accessTokens.length, given + 1, `${what}: the provider gave tokens`);
    t.equal(await held(id), 0, `${what}: they are nowhere`);
    t.equal(await connected(id), 0, `${what}: and no event says so`);
  }

  const { id } = await storeOAuth(stage, 'described');
  server.behaviour.onToken = async () => {
    server.behaviour.onToken = undefined;
    await demand(
      vault.call('alice', 'PATCH', `/v1/credentials/${id}`, { description: 'x' }, any),
      200,
    );
  };
  await connect(stage, id);
  t.equal(await held(id), 1, 'what changes no version is in nobody’s way');
});
