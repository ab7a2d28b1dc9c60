// Microsoft: one authorization server, whatever the API.
import { defineProvider, type OAuthProvider, page } from './define.ts';

export const microsoft: readonly OAuthProvider[] = [
  defineProvider({
    name: 'microsoft',
    title: 'Microsoft',
    authorizationUrl: 'https://login.microsoftonline.com/{tenant}/oauth2/v2.0/authorize',
    tokenUrl: 'https://login.microsoftonline.com/{tenant}/oauth2/v2.0/token',
    placeholders: {
      tenant: {
        kind: 'segment',
        title: 'Tenant: common, organizations, consumers, or an identifier',
        example: 'contoso.onmicrosoft.com',
        default: 'common',
      },
    },
    quirks: { clientAuthentication: 'body' },
    offlineScope: 'offline_access',
    answers: { refreshToken: 'unsaid' },
    note: 'Outlook, Teams, OneDrive, SharePoint, Excel, Dynamics and all others, each by its scopes.',
    read: [
      page('https://learn.microsoft.com/en-us/entra/identity-platform/v2-oauth2-auth-code-flow'),
    ],
  }),
];
