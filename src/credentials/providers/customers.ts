// Customers, and what is written to them.
import { defineProvider, type OAuthProvider, page, pageByAuthjs, pageByNango } from './define.ts';

export const customers: readonly OAuthProvider[] = [
  defineProvider({
    name: 'hubspot',
    title: 'HubSpot',
    authorizationUrl: 'https://app.hubspot.com/oauth/authorize',
    tokenUrl: 'https://api.hubapi.com/oauth/v1/token',
    quirks: { clientAuthentication: 'body' },
    answers: { refreshToken: 'unsaid' },
    read: [
      pageByNango('https://developers.hubspot.com/docs/api/working-with-oauth'),
      pageByAuthjs('https://developers.hubspot.com/docs/api/oauth-quickstart-guide', 'hubspot'),
    ],
  }),
  defineProvider({
    name: 'salesforce',
    title: 'Salesforce',
    authorizationUrl: 'https://{domain}/services/oauth2/authorize',
    tokenUrl: 'https://{domain}/services/oauth2/token',
    placeholders: {
      domain: {
        kind: 'host',
        suffix: '.salesforce.com',
        title: 'Host of the log-in',
        example: 'acme.my.salesforce.com',
        default: 'login.salesforce.com',
      },
    },
    quirks: { clientAuthentication: 'body' },
    parameters: 'prompt=consent',
    offlineScope: 'offline_access',
    instance: { member: 'instance_url', suffixes: ['.salesforce.com'] },
    answers: {
      refreshToken: 'keeps',
      isWithoutLifetime: true,
      members: { instance_url: 'https://acme.my.salesforce.com' },
    },
    note:
      'The API is at the host that GET …/oauth shows as instanceUrl: name it in allowedHosts ' +
      '(*.my.salesforce.com takes any).',
    read: [
      pageByNango(
        'https://help.salesforce.com/s/articleView?id=sf.remoteaccess_authorization_code_credentials_flow.htm&type=5',
      ),
    ],
  }),
  defineProvider({
    name: 'zendesk',
    title: 'Zendesk',
    authorizationUrl: 'https://{subdomain}.zendesk.com/oauth/authorizations/new',
    tokenUrl: 'https://{subdomain}.zendesk.com/oauth/tokens',
    placeholders: { subdomain: { kind: 'label', title: 'Subdomain', example: 'acme' } },
    quirks: { clientAuthentication: 'body', tokenParameters: 'expires_in=1800' },
    answers: { refreshToken: 'unsaid' },
    read: [
      page('https://developer.zendesk.com/documentation/api-basics/authentication/refresh-token'),
      pageByNango(
        'https://developer.zendesk.com/documentation/authentication/' +
          'using-oauth-to-authenticate-zendesk-api-requests-in-a-web-app/',
      ),
    ],
  }),
  defineProvider({
    name: 'intercom',
    title: 'Intercom',
    authorizationUrl: 'https://app.{region}intercom.com/oauth',
    tokenUrl: 'https://api.{region}intercom.io/auth/eagle/token',
    placeholders: {
      region: {
        kind: 'word',
        title: 'Region',
        words: { us: '', eu: 'eu.', au: 'au.' },
        example: 'eu',
        default: 'us',
      },
    },
    quirks: { clientAuthentication: 'body' },
    answers: { refreshToken: 'unsaid' },
    read: [
      pageByNango(
        'https://developers.intercom.com/docs/build-an-integration/learn-more/authentication/setting-up-oauth',
      ),
    ],
  }),
  defineProvider({
    name: 'pipedrive',
    title: 'Pipedrive',
    authorizationUrl: 'https://oauth.pipedrive.com/oauth/authorize',
    tokenUrl: 'https://oauth.pipedrive.com/oauth/token',
    quirks: { clientAuthentication: 'header', pkce: 'off' },
    answers: { refreshToken: 'unsaid' },
    read: [
      pageByNango('https://pipedrive.readme.io/docs/marketplace-oauth-api'),
      pageByAuthjs('https://pipedrive.readme.io/docs/marketplace-oauth-authorization', 'pipedrive'),
    ],
  }),
  defineProvider({
    name: 'attio',
    title: 'Attio',
    authorizationUrl: 'https://app.attio.com/authorize',
    tokenUrl: 'https://app.attio.com/oauth/token',
    quirks: { clientAuthentication: 'body' },
    answers: { refreshToken: 'unsaid' },
    read: [pageByNango('https://docs.attio.com/rest-api/how-to/authentication#oauth-2-0')],
  }),
  defineProvider({
    name: 'zoho',
    title: 'Zoho',
    authorizationUrl: 'https://accounts.zoho.{region}/oauth/v2/auth',
    tokenUrl: 'https://accounts.zoho.{region}/oauth/v2/token',
    placeholders: {
      region: {
        kind: 'word',
        title: 'Data centre',
        words: {
          com: 'com',
          eu: 'eu',
          in: 'in',
          'com.au': 'com.au',
          'com.cn': 'com.cn',
          jp: 'jp',
        },
        example: 'eu',
        default: 'com',
      },
    },
    quirks: { clientAuthentication: 'body' },
    parameters: 'prompt=consent&access_type=offline',
    scopeSeparator: ',',
    instance: {
      member: 'api_domain',
      suffixes: [
        '.zohoapis.com',
        '.zohoapis.eu',
        '.zohoapis.in',
        '.zohoapis.com.au',
        '.zohoapis.com.cn',
        '.zohoapis.jp',
      ],
    },
    answers: {
      refreshToken: 'unsaid',
      members: { api_domain: 'https://www.zohoapis.com' },
    },
    read: [
      pageByNango('https://www.zoho.com/accounts/protocol/oauth.html'),
      pageByNango('https://www.zoho.com/accounts/protocol/oauth/multi-dc.html'),
      pageByAuthjs(
        'https://www.zoho.com/accounts/protocol/oauth/web-server-applications.html',
        'zoho',
      ),
    ],
  }),
  defineProvider({
    name: 'mailchimp',
    title: 'Mailchimp',
    authorizationUrl: 'https://login.mailchimp.com/oauth2/authorize',
    tokenUrl: 'https://login.mailchimp.com/oauth2/token',
    quirks: { clientAuthentication: 'body' },
    answers: { refreshToken: 'none', members: { expires_in: 0, scope: null } },
    read: [
      pageByAuthjs(
        'https://mailchimp.com/developer/marketing/guides/access-user-data-oauth-2/',
        'mailchimp',
      ),
    ],
  }),
  defineProvider({
    name: 'constantContact',
    title: 'Constant Contact',
    authorizationUrl: 'https://authz.constantcontact.com/oauth2/default/v1/authorize',
    tokenUrl: 'https://authz.constantcontact.com/oauth2/default/v1/token',
    quirks: { clientAuthentication: 'body', pkce: 'off' },
    offlineScope: 'offline_access',
    answers: { refreshToken: 'unsaid' },
    read: [pageByNango('https://developer.constantcontact.com/api_guide/index.html')],
  }),
  defineProvider({
    name: 'jobber',
    title: 'Jobber',
    authorizationUrl: 'https://api.getjobber.com/api/oauth/authorize',
    tokenUrl: 'https://api.getjobber.com/api/oauth/token',
    quirks: { clientAuthentication: 'body', pkce: 'off' },
    answers: { refreshToken: 'unsaid' },
    read: [
      pageByNango('https://developer.getjobber.com/docs/building_your_app/app_authorization/'),
    ],
  }),
];
