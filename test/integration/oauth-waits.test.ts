// A provider that does not answer: how many of its refreshes are under way, for one lease, for one
// team, and that other teams are not held up.
import t from 'tap';
import { startAuthorizationServer } from '../helpers/authorization-server.ts';
import { askLease, demand, rulesOf } from '../helpers/leases.ts';
import { oauthStage, storeOAuth } from '../helpers/oauth.ts';
import { until } from '../helpers/processes.ts';
import { waitOf } from '../helpers/waits.ts';

t.test('refreshes of one team', async (t) => {
  const server = await startAuthorizationServer(t);
  const stage = await oauthStage(t, server);
  const { vault } = stage;
  await vault.team('partners', ['bob']);
  await vault.member('partners', 'n8n', 'engine', 'bob');
  const past = new Date(Date.now() - 3_600_000).toISOString();
  const held = { accessToken: 'an-old-one', refreshToken: 'not-known-there', expiresAt: past };
  const credentials: { id: string }[] = [];
  for (let index = 0; index < 40; index += 1)
    credentials.push({ id: (await storeOAuth(stage, `sheets ${index}`, held)).id });
  const partners = await demand(
    vault.call('bob', 'POST', '/v1/teams/partners/credentials', {
      name: 'sheets',
      type: 'oauth2',
      fields: server.fields(held),
    }),
    201,
  );
  let arrived = 0;
  let isHanging = true;
  const answer = Promise.withResolvers<void>();
  server.behaviour.onToken = async () => {
    arrived += 1;
    if (isHanging) await answer.promise;
  };

  const first = askLease(vault, 'n8n', credentials.slice(0, 20));
  await until(() => arrived === 10);
  t.match(await waitOf(vault, 'tokenRefreshes'), { inUse: 0 }, 'ten of one lease, and no more');
  const others = [10, 20, 30].map((from) =>
    askLease(vault, 'n8n', credentials.slice(from, from + 10)),
  );
  await until(async () => arrived === 32 && (await waitOf(vault, 'tokenRefreshes')).inUse === 8);
  t.pass('32 of one team, the others wait for their turn');

  isHanging = false;
  const rules = rulesOf(await askLease(vault, 'n8n', [{ id: partners.id }], { onBehalfOf: 'bob' }));
  t.strictSame(rules, ['/credentials/0 refreshFailed'], 'another team is answered');
  t.equal(arrived, 33);
  answer.resolve();
  for (const refused of await Promise.all([first, ...others])) {
    t.equal(refused.status, 422);
    t.ok(rulesOf(refused).every((rule) => rule.endsWith('refreshFailed')));
  }
  t.match(await waitOf(vault, 'tokenRefreshes'), { inUse: 0, refused: 0 });
});
