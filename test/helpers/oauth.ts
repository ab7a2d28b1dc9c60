// Credentials whose tokens are stored, in a test vault.
import { type AuthorizationServer, platformPage } from './authorization-server.ts';
import { askLease, demand, openAnswer, registerEngine, type TestEngine } from './leases.ts';
import { startVault, type TestVault } from './vault.ts';

interface Teardown {
  teardown(action: () => unknown): unknown;
}

export interface OAuthStage {
  readonly vault: TestVault;
  readonly engine: TestEngine;
  readonly server: AuthorizationServer;
}

/** A vault with a team, an editor, an engine, and a way to the server. */
export async function oauthStage(
  t: Teardown,
  server: AuthorizationServer,
  options: Parameters<typeof startVault>[1] = {},
): Promise<OAuthStage> {
  const vault = await startVault(t, {
    egress: server.egress(),
    oauthRedirectUri: platformPage,
    ...options,
  });
  await vault.team('payments');
  await vault.member('payments', 'eddie', 'editor');
  const engine = await registerEngine(vault, 'n8n');
  await vault.member('payments', 'n8n', 'engine');
  return { vault, engine, server };
}

/** Stores a credential of type oauth2 for the server; its metadata. */
export const storeOAuth = (
  stage: OAuthStage,
  name: string,
  fields: object = {},
  more: object = {},
): Promise<any> =>
  demand(
    stage.vault.call('alice', 'POST', '/v1/teams/payments/credentials', {
      name,
      type: 'oauth2',
      fields: stage.server.fields(fields),
      ...more,
    }),
    201,
  );

/** Begins as somebody; where the browser is to go. */
export const begin = (
  { vault }: OAuthStage,
  id: string,
  as = 'alice',
): Promise<{ authorizationUrl: string; expiresAt: string }> =>
  demand(vault.call(as, 'POST', `/v1/credentials/${id}/oauth/authorizations`), 201);

/** What the platform's page sends of what the provider's redirect had in its query. */
export const callbackOf = ({ state, code, error, iss }: Record<string, string>): object => ({
  state,
  ...(code === undefined ? { error } : { code }),
  ...(iss === undefined ? {} : { iss }),
});

/** The whole way, as somebody. */
export async function connect(stage: OAuthStage, id: string, as = 'alice'): Promise<any> {
  const { authorizationUrl } = await begin(stage, id, as);
  return demand(
    stage.vault.call(
      as,
      'POST',
      '/v1/oauth/callbacks',
      callbackOf(await stage.server.visit(authorizationUrl)),
    ),
    200,
  );
}

/** The fields that the engine gets of a credential. */
export async function leaseFields(
  { vault, engine }: OAuthStage,
  id: string,
): Promise<Record<string, unknown>> {
  const lease = await openAnswer(vault, engine, await askLease(vault, engine.sub, [{ id }]));
  const [credential] = lease.credentials;
  if (credential === undefined || credential.notModified)
    throw new Error('the lease has no fields');
  return credential.fields;
}
