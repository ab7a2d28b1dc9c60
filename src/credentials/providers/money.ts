// What is sold, paid and booked.
import { defineProvider, type OAuthProvider, pageByAuthjs, pageByNango } from './define.ts';

export const money: readonly OAuthProvider[] = [
  defineProvider({
    name: 'stripe',
    title: 'Stripe Connect',
    authorizationUrl: 'https://connect.stripe.com/oauth/authorize',
    tokenUrl: 'https://connect.stripe.com/oauth/token',
    quirks: { clientAuthentication: 'body' },
    answers: { refreshToken: 'unsaid' },
    read: [pageByNango('https://docs.stripe.com/connect/oauth-reference')],
  }),
  defineProvider({
    name: 'square',
    title: 'Square',
    authorizationUrl: 'https://connect.squareup.com/oauth2/authorize',
    tokenUrl: 'https://connect.squareup.com/oauth2/token',
    quirks: { clientAuthentication: 'body', pkce: 'off' },
    parameters: 'session=false',
    answers: { refreshToken: 'unsaid' },
    read: [pageByNango('https://developer.squareup.com/reference/square/o-auth-api')],
  }),
  defineProvider({
    name: 'shopify',
    title: 'Shopify',
    authorizationUrl: 'https://{shop}.myshopify.com/admin/oauth/authorize',
    tokenUrl: 'https://{shop}.myshopify.com/admin/oauth/access_token',
    placeholders: { shop: { kind: 'label', title: 'Shop', example: 'acme' } },
    quirks: { clientAuthentication: 'body', exchangeParameters: 'expiring=1' },
    scopeSeparator: ',',
    answers: { refreshToken: 'unsaid', members: { token_type: undefined } },
    read: [
      pageByNango(
        'https://shopify.dev/docs/apps/build/authentication-authorization/access-tokens/authorization-code-grant',
      ),
    ],
  }),
  defineProvider({
    name: 'quickBooks',
    title: 'QuickBooks',
    authorizationUrl: 'https://appcenter.intuit.com/connect/oauth2',
    tokenUrl: 'https://oauth.platform.intuit.com/oauth2/v1/tokens/bearer',
    quirks: { clientAuthentication: 'body' },
    answers: { refreshToken: 'unsaid' },
    read: [
      pageByNango(
        'https://developer.intuit.com/app/developer/qbo/docs/develop/authentication-and-authorization/oauth-2.0',
      ),
    ],
  }),
  defineProvider({
    name: 'xero',
    title: 'Xero',
    authorizationUrl: 'https://login.xero.com/identity/connect/authorize',
    tokenUrl: 'https://identity.xero.com/connect/token',
    quirks: { clientAuthentication: 'body' },
    offlineScope: 'offline_access',
    answers: { refreshToken: 'unsaid' },
    read: [pageByNango('https://developer.xero.com/documentation/guides/oauth2/auth-flow')],
  }),
  defineProvider({
    name: 'freshBooks',
    title: 'FreshBooks',
    authorizationUrl: 'https://auth.freshbooks.com/oauth/authorize',
    tokenUrl: 'https://api.freshbooks.com/auth/oauth/token',
    quirks: { clientAuthentication: 'body' },
    answers: { refreshToken: 'unsaid' },
    read: [
      pageByNango(
        'https://www.freshbooks.com/api/authenticating-with-oauth-2-0-on-the-new-freshbooks-api',
      ),
    ],
  }),
  defineProvider({
    name: 'brex',
    title: 'Brex',
    authorizationUrl: 'https://accounts-api.brex.com/oauth2/default/v1/authorize',
    tokenUrl: 'https://accounts-api.brex.com/oauth2/default/v1/token',
    quirks: { clientAuthentication: 'body' },
    scope: 'openid',
    offlineScope: 'offline_access',
    answers: { refreshToken: 'unsaid' },
    read: [pageByNango('https://developer.brex.com/docs/partner_authentication/')],
  }),
  defineProvider({
    name: 'etsy',
    title: 'Etsy',
    authorizationUrl: 'https://www.etsy.com/oauth/connect',
    tokenUrl: 'https://api.etsy.com/v3/public/oauth/token',
    quirks: { clientAuthentication: 'body' },
    answers: { refreshToken: 'unsaid' },
    read: [pageByNango('https://developers.etsy.com/documentation/essentials/authentication')],
  }),
  defineProvider({
    name: 'coinbase',
    title: 'Coinbase',
    authorizationUrl: 'https://login.coinbase.com/oauth2/auth',
    tokenUrl: 'https://login.coinbase.com/oauth2/token',
    quirks: { clientAuthentication: 'header' },
    answers: { refreshToken: 'unsaid' },
    read: [pageByAuthjs('https://developers.coinbase.com/api/v2', 'coinbase')],
  }),
  defineProvider({
    name: 'netSuite',
    title: 'NetSuite',
    authorizationUrl: 'https://{subdomain}.app.netsuite.com/app/login/oauth2/authorize.nl',
    tokenUrl: 'https://{subdomain}.suitetalk.api.netsuite.com/services/rest/auth/oauth2/v1/token',
    placeholders: { subdomain: { kind: 'label', title: 'Account ID', example: '1234567' } },
    quirks: { clientAuthentication: 'header' },
    answers: { refreshToken: 'unsaid' },
    read: [
      pageByAuthjs(
        'https://docs.oracle.com/en/cloud/saas/netsuite/ns-online-help/chapter_157769826287.html#OAuth-2.0',
        'netsuite',
      ),
    ],
  }),
];
