// Providers of identities: one server a customer, and what speaks OpenID Connect.
import { defineProvider, type OAuthProvider, page, pageByAuthjs, pageByNango } from './define.ts';

const discovery = {
  hasDiscovery: true,
  grants: ['authorizationCode', 'clientCredentials'],
  quirks: { clientAuthentication: 'header' },
  answers: { refreshToken: 'unsaid' },
} as const;

export const identity: readonly OAuthProvider[] = [
  defineProvider({
    ...discovery,
    name: 'oidc',
    title: 'OpenID Connect',
    note:
      'Needs the field issuer. The endpoints are read once, when the credential is stored, from ' +
      'its document, and have to be of the same origin.',
    read: [page('https://openid.net/specs/openid-connect-discovery-1_0.html')],
  }),
  defineProvider({
    ...discovery,
    name: 'keycloak',
    title: 'Keycloak',
    note:
      'Needs the field issuer, such as https://id.example.com/realms/staff. The endpoints are ' +
      'read from its document, as for oidc.',
    read: [
      pageByAuthjs('https://www.keycloak.org/docs/latest/server_admin/#_oidc_clients', 'keycloak'),
    ],
  }),
  defineProvider({
    name: 'okta',
    title: 'Okta',
    authorizationUrl: 'https://{domain}/oauth2/v1/authorize',
    tokenUrl: 'https://{domain}/oauth2/v1/token',
    placeholders: { domain: { kind: 'host', title: 'Domain', example: 'acme.okta.com' } },
    quirks: { clientAuthentication: 'body' },
    answers: { refreshToken: 'unsaid' },
    note: 'The authorization server of the organization; another one by oidc with its issuer.',
    read: [pageByNango('https://developer.okta.com/docs/reference/api/oidc')],
  }),
  defineProvider({
    name: 'auth0',
    title: 'Auth0',
    authorizationUrl: 'https://{domain}/authorize',
    tokenUrl: 'https://{domain}/oauth/token',
    placeholders: { domain: { kind: 'host', title: 'Domain', example: 'acme.eu.auth0.com' } },
    quirks: { clientAuthentication: 'body' },
    answers: { refreshToken: 'unsaid' },
    note: 'An API is named by the parameter audience.',
    read: [pageByNango('https://auth0.com/docs/authenticate')],
  }),
  defineProvider({
    name: 'kakao',
    title: 'Kakao',
    authorizationUrl: 'https://kauth.kakao.com/oauth/authorize',
    tokenUrl: 'https://kauth.kakao.com/oauth/token',
    quirks: { clientAuthentication: 'body' },
    answers: { refreshToken: 'unsaid' },
    read: [pageByAuthjs('https://developers.kakao.com/docs/latest/en/kakaologin/common', 'kakao')],
  }),
  defineProvider({
    name: 'yandex',
    title: 'Yandex',
    authorizationUrl: 'https://oauth.yandex.ru/authorize',
    tokenUrl: 'https://oauth.yandex.ru/token',
    quirks: { clientAuthentication: 'header' },
    answers: { refreshToken: 'unsaid' },
    read: [pageByAuthjs('https://yandex.com/dev/id/doc/en/', 'yandex')],
  }),
  defineProvider({
    name: 'amazon',
    title: 'Login with Amazon',
    authorizationUrl: 'https://www.amazon.com/ap/oa',
    tokenUrl: 'https://api.amazon.com/auth/o2/token',
    quirks: { clientAuthentication: 'body' },
    answers: { refreshToken: 'unsaid' },
    read: [
      pageByNango(
        'https://developer.amazon.com/docs/login-with-amazon/authorization-code-grant.html',
      ),
    ],
  }),
  defineProvider({
    name: 'snowflake',
    title: 'Snowflake',
    authorizationUrl: 'https://{domain}/oauth/authorize',
    tokenUrl: 'https://{domain}/oauth/token-request',
    placeholders: {
      domain: {
        kind: 'host',
        suffix: '.snowflakecomputing.com',
        title: 'Host of the account',
        example: 'acme-main.snowflakecomputing.com',
      },
    },
    quirks: { clientAuthentication: 'header' },
    offlineScope: 'refresh_token',
    answers: { refreshToken: 'unsaid' },
    read: [pageByNango('https://docs.snowflake.com/en/user-guide/oauth-custom')],
  }),
];
