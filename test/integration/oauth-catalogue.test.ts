// Through every entry of the catalogue: an account is connected and its token refreshed, against the
// authorization server of the tests at the entry's own hosts and paths, with its quirks.
import type { IncomingMessage, ServerResponse } from 'node:http';
import t from 'tap';
import { oauthProviders } from '../../src/credentials/providers/catalogue.ts';
import { parseAllowRules } from '../../src/egress/allow.ts';
import { Egress } from '../../src/egress/index.ts';
import { clientSecret, platformPage, visit } from '../helpers/authorization-server.ts';
import { tlsUpstream } from '../helpers/egress.ts';
import { askLease, demand, openAnswer, registerEngine, rulesOf } from '../helpers/leases.ts';
import { callbackOf } from '../helpers/oauth.ts';
import { endpointOf, exampleValues, providerServer } from '../helpers/provider-server.ts';
import { startVault } from '../helpers/vault.ts';

const hour = 3_600_000;
const issuerHost = 'id.provider.test';

/** The standard port of every host lies at another one here: nobody needs to be root. */
class Moved extends Egress {
  readonly #to: number;
  constructor(parts: ConstructorParameters<typeof Egress>[0], to: number) {
    super(parts);
    this.#to = to;
  }
  override check(
    origin: Parameters<Egress['check']>[0],
    team: string,
  ): ReturnType<Egress['check']> {
    return super.check({ ...origin, port: this.#to }, team);
  }
}

t.test('every entry connects and refreshes', async (t) => {
  const issuerOf = (entry: (typeof oauthProviders)[number]): string =>
    endpointOf(entry, 'authorizationUrl', `https://${issuerHost}`)?.origin ??
    `https://${issuerHost}`;
  const hosts = [
    ...new Set([
      issuerHost,
      ...oauthProviders.flatMap((entry) =>
        (['authorizationUrl', 'tokenUrl', 'refreshUrl'] as const).flatMap(
          (name) => endpointOf(entry, name, `https://${issuerHost}`)?.host ?? [],
        ),
      ),
    ]),
  ];
  let current: (request: IncomingMessage, response: ServerResponse) => void = () => undefined;
  const upstream = await tlsUpstream(
    t,
    issuerHost,
    (request, response) => {
      current(request, response);
    },
    { names: hosts },
  );
  const egress = (): Egress => {
    const made = new Moved(
      {
        allow: parseAllowRules(
          hosts.map((host) => `${host}:${upstream.port}=127.0.0.0/8`).join(','),
        ),
        own: () => [],
        ca: upstream.certificate,
        resolve: async (name) => (hosts.includes(name) ? ['127.0.0.1'] : []),
      },
      upstream.port,
    );
    t.teardown(() => made.close());
    return made;
  };
  const browser = egress();
  const vault = await startVault(t, { egress: egress(), oauthRedirectUri: platformPage });
  await vault.team('payments');
  const engine = await registerEngine(vault, 'n8n');
  await vault.member('payments', 'n8n', 'engine');
  const lease = async (id: string): Promise<unknown> => {
    const { credentials } = await openAnswer(vault, engine, await askLease(vault, 'n8n', [{ id }]));
    return (credentials[0] as any).fields.accessToken;
  };

  t.ok(oauthProviders.length >= 60, `${oauthProviders.length} entries`);
  for (const entry of oauthProviders) {
    for (const grant of entry.grants) {
      await t.test(`${entry.name}, ${grant}`, async (t) => {
        const issuer = issuerOf(entry);
        const server = providerServer(entry, issuer);
        current = server.handle;
        vault.clock.ms += 61_000; // documents of issuers are read ten times a minute
        // As somebody connects an account: client ID, secret, scopes and what the entry asks for.
        const { id, publicFields } = await demand(
          vault.call('alice', 'POST', '/v1/teams/payments/credentials', {
            name: `${entry.name} ${grant}`,
            type: 'oauth2',
            fields: {
              provider: entry.name,
              grant,
              clientId: 'vault',
              clientSecret,
              scope: 'one two',
              ...exampleValues(entry),
              ...(entry.hasDiscovery === true ? { issuer } : {}),
            },
          }),
          201,
        );
        t.equal(publicFields.providerRevision, entry.revision);
        if (grant === 'authorizationCode') {
          const { authorizationUrl } = await demand(
            vault.call('alice', 'POST', `/v1/credentials/${id}/oauth/authorizations`),
            201,
          );
          const came = await visit(browser, authorizationUrl);
          const answer = await vault.call('alice', 'POST', '/v1/oauth/callbacks', callbackOf(came));
          t.equal(answer.status, 200, `${answer.text} ${server.complaints.join()}`);
          const { instance, answers } = entry;
          t.equal(
            answer.json.instanceUrl,
            instance === undefined ? null : answers.members?.[instance.member],
          );
        }
        t.equal(await lease(id), server.given.at(-1), 'an engine gets the token');
        t.same(server.complaints, []);
        const before = server.given.length;
        vault.clock.ms += 2 * hour;
        const isRefreshable =
          grant === 'clientCredentials' || entry.answers.refreshToken !== 'none';
        const isEndless =
          entry.answers.isWithoutLifetime === true || entry.answers.members?.['expires_in'] === 0;
        if (isRefreshable) {
          t.equal(await lease(id), server.given.at(-1), 'and another one when that is over');
          t.equal(server.given.length, before + 1);
          if (grant === 'authorizationCode') {
            t.equal(server.refreshes(), 1);
            vault.clock.ms += 2 * hour;
            t.equal(await lease(id), server.given.at(-1), 'by the refresh token of the refresh');
            t.equal(server.refreshes(), 2);
          }
        } else if (isEndless) t.equal(await lease(id), server.given.at(-1), 'which does not end');
        else
          t.same(rulesOf(await askLease(vault, 'n8n', [{ id }])), ['/credentials/0 refreshFailed']);
        t.same(server.complaints, [], 'nothing was asked otherwise than the provider wants it');
      });
    }
  }
});
