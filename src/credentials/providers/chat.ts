// Where people talk.
import { defineProvider, type OAuthProvider, page, pageByAuthjs, pageByNango } from './define.ts';

const slack = {
  authorizationUrl: 'https://slack.com/oauth/v2/authorize',
  tokenUrl: 'https://slack.com/api/oauth.v2.access',
  scopeSeparator: ',',
  note: 'Without token rotation an access token does not end, and there is no refresh token.',
} as const;

export const chat: readonly OAuthProvider[] = [
  defineProvider({
    ...slack,
    name: 'slack',
    title: 'Slack, as a bot',
    quirks: { clientAuthentication: 'header', pkce: 'off' },
    answers: { refreshToken: 'rotates', members: { ok: true, token_type: 'bot' } },
    read: [
      page('https://docs.slack.dev/reference/methods/oauth.v2.access'),
      page('https://docs.slack.dev/authentication/using-token-rotation'),
      pageByNango('https://api.slack.com/authentication/oauth-v2'),
    ],
  }),
  defineProvider({
    ...slack,
    name: 'slackUser',
    title: 'Slack, as a person',
    quirks: {
      clientAuthentication: 'header',
      pkce: 'off',
      scopeParameter: 'user_scope',
      tokenPath: 'authed_user.access_token',
    },
    answers: { refreshToken: 'rotates', under: 'authed_user', members: { ok: true } },
    read: [
      page('https://docs.slack.dev/reference/methods/oauth.v2.access'),
      pageByNango('https://api.slack.com/authentication/oauth-v2'),
    ],
  }),
  defineProvider({
    name: 'discord',
    title: 'Discord',
    authorizationUrl: 'https://discord.com/oauth2/authorize',
    tokenUrl: 'https://discord.com/api/oauth2/token',
    quirks: { clientAuthentication: 'header' },
    answers: { refreshToken: 'unsaid' },
    read: [page('https://discord.com/developers/docs/topics/oauth2')],
  }),
  defineProvider({
    name: 'webex',
    title: 'Webex',
    authorizationUrl: 'https://webexapis.com/v1/authorize',
    tokenUrl: 'https://webexapis.com/v1/access_token',
    quirks: { clientAuthentication: 'body' },
    answers: { refreshToken: 'unsaid' },
    read: [pageByAuthjs('https://developer.webex.com/docs/integrations', 'webex')],
  }),
  defineProvider({
    name: 'zoom',
    title: 'Zoom',
    authorizationUrl: 'https://zoom.us/oauth/authorize',
    tokenUrl: 'https://zoom.us/oauth/token',
    quirks: { clientAuthentication: 'header' },
    answers: { refreshToken: 'unsaid' },
    read: [pageByAuthjs('https://developers.zoom.us/docs/integrations/oauth/', 'zoom')],
  }),
  defineProvider({
    name: 'zoomServerToServer',
    title: 'Zoom, server to server',
    grants: ['clientCredentials'],
    tokenUrl: 'https://zoom.us/oauth/token?account_id={tenant}',
    placeholders: {
      tenant: { kind: 'segment', title: 'Account ID', example: 'AbCdEfGhIjKlMnOpQrStUw' },
    },
    quirks: { clientAuthentication: 'header', grantType: 'account_credentials' },
    answers: { refreshToken: 'none' },
    read: [page('https://developers.zoom.us/docs/rooms/s2s-oauth/')],
  }),
];
