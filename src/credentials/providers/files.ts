// Where files lie.
import { defineProvider, type OAuthProvider, pageByAuthjs, pageByNango } from './define.ts';

export const files: readonly OAuthProvider[] = [
  defineProvider({
    name: 'dropbox',
    title: 'Dropbox',
    authorizationUrl: 'https://www.dropbox.com/oauth2/authorize',
    tokenUrl: 'https://api.dropboxapi.com/oauth2/token',
    quirks: { clientAuthentication: 'body' },
    parameters: 'token_access_type=offline',
    answers: { refreshToken: 'unsaid' },
    read: [
      pageByNango('https://developers.dropbox.com/oauth-guide'),
      pageByAuthjs('https://developers.dropbox.com/oauth-guide', 'dropbox'),
    ],
  }),
  defineProvider({
    name: 'box',
    title: 'Box',
    authorizationUrl: 'https://account.box.com/api/oauth2/authorize',
    tokenUrl: 'https://api.box.com/oauth2/token',
    quirks: { clientAuthentication: 'body' },
    answers: { refreshToken: 'unsaid' },
    read: [pageByNango('https://developer.box.com/guides/authentication/oauth2/')],
  }),
  defineProvider({
    name: 'nextcloud',
    title: 'Nextcloud',
    authorizationUrl: '{baseUrl}/apps/oauth2/authorize',
    tokenUrl: '{baseUrl}/apps/oauth2/api/v1/token',
    placeholders: {
      baseUrl: { kind: 'url', title: 'Server', example: 'https://cloud.example.com' },
    },
    quirks: { clientAuthentication: 'header' },
    answers: { refreshToken: 'unsaid' },
    read: [
      pageByAuthjs(
        'https://docs.nextcloud.com/server/latest/admin_manual/configuration_server/oauth2.html',
        'nextcloud',
      ),
    ],
  }),
];
