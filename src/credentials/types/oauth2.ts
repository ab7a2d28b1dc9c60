import {
  defineType,
  moment,
  type OAuthSettings,
  oneOf,
  optionalSecret,
  type PublicValue,
  publicText,
  queryString,
  url,
} from './define.ts';

/**
 * What the vault says itself in its requests. SECURITY: a stored parameter must not stand in for a
 * state, a verifier or a client.
 */
const reserved = new Set([
  'client_id',
  'client_secret',
  'client_assertion',
  'client_assertion_type',
  'redirect_uri',
  'response_type',
  'response_mode',
  'state',
  'code',
  'code_challenge',
  'code_challenge_method',
  'code_verifier',
  'scope',
  'grant_type',
  'refresh_token',
  'request',
  'request_uri',
  'nonce',
]);

export const oauth2 = defineType({
  name: 'oauth2',
  title: 'OAuth 2.0',
  description: 'Tokens of any provider: a person authorizes, or the client asks for itself.',
  fields: {
    grant: oneOf({
      title: 'Grant',
      values: ['authorizationCode', 'clientCredentials'],
      default: 'authorizationCode',
    }),
    authorizationUrl: url({
      title: 'Authorization URL',
      description: 'Needed where a person authorizes.',
      optional: true,
    }),
    tokenUrl: url({ title: 'Token URL' }),
    clientId: publicText({ title: 'Client ID' }),
    clientSecret: optionalSecret({ title: 'Client secret' }),
    scope: publicText({ title: 'Scope', optional: true }),
    clientAuthentication: oneOf({
      title: 'Client authentication',
      values: ['header', 'body'],
      default: 'header',
    }),
    parameters: queryString({
      title: 'Extra parameters',
      description: 'A query string, such as audience=x&prompt=consent.',
      optional: true,
      reserved,
    }),
    issuer: url({
      title: 'Issuer',
      description: 'What the provider calls itself; its answers then have to say it (RFC 9207).',
      optional: true,
    }),
    accessToken: optionalSecret({ title: 'Access token', description: 'What to start with.' }),
    refreshToken: optionalSecret({ title: 'Refresh token', description: 'What to start with.' }),
    expiresAt: moment({ title: 'Expiry of the access token', optional: true }),
  },
  faults: (fields, isSet) => {
    if (fields['grant'] === 'clientCredentials')
      return isSet('clientSecret') ? [] : [{ pointer: '/fields/clientSecret', rule: 'required' }];
    return isSet('authorizationUrl')
      ? []
      : [{ pointer: '/fields/authorizationUrl', rule: 'required' }];
  },
  oauth: { settings: settingsOf, expiryField: 'expiresAt' },
  broker: { injection: { kind: 'oauth' }, upstream: { kind: 'policy' } },
  aliases: {
    n8n: [
      {
        type: 'oAuth2Api',
        fields: {
          grantType: 'grant',
          clientId: 'clientId',
          clientSecret: 'clientSecret',
          accessTokenUrl: 'tokenUrl',
          authUrl: 'authorizationUrl',
          scope: 'scope',
          authQueryParameters: 'parameters',
          authentication: 'clientAuthentication',
          'oauthTokenData.access_token': 'accessToken',
          'oauthTokenData.refresh_token': 'refreshToken',
        },
      },
    ],
  },
});

function settingsOf(fields: Readonly<Record<string, PublicValue>>): OAuthSettings {
  const text = (name: string): string | undefined =>
    fields[name] === undefined ? undefined : String(fields[name]);
  const optional = <K extends string>(name: K): { readonly [name in K]?: string } => {
    const value = text(name);
    return (value === undefined ? {} : { [name]: value }) as { readonly [name in K]?: string };
  };
  return {
    grant: text('grant') === 'clientCredentials' ? 'clientCredentials' : 'authorizationCode',
    ...optional('authorizationUrl'),
    tokenUrl: text('tokenUrl') ?? '',
    clientId: text('clientId') ?? '',
    ...optional('scope'),
    ...optional('parameters'),
    ...optional('issuer'),
    clientAuthentication: text('clientAuthentication') === 'body' ? 'body' : 'header',
  };
}
