// What software and sites are made with.
import { defineProvider, type OAuthProvider, page, pageByAuthjs, pageByNango } from './define.ts';

export const development: readonly OAuthProvider[] = [
  defineProvider({
    name: 'github',
    title: 'GitHub',
    authorizationUrl: 'https://github.com/login/oauth/authorize',
    tokenUrl: 'https://github.com/login/oauth/access_token',
    quirks: { clientAuthentication: 'body' },
    answers: {
      refreshToken: 'none',
      isWithoutLifetime: true,
      isForm: true,
      members: { scope: 'repo,gist', token_type: 'bearer' },
    },
    read: [
      page('https://docs.github.com/en/apps/oauth-apps/building-oauth-apps/authorizing-oauth-apps'),
    ],
  }),
  defineProvider({
    name: 'gitlab',
    title: 'GitLab',
    authorizationUrl: '{baseUrl}/oauth/authorize',
    tokenUrl: '{baseUrl}/oauth/token',
    placeholders: {
      baseUrl: {
        kind: 'url',
        title: 'Server',
        example: 'https://gitlab.example.com',
        default: 'https://gitlab.com',
      },
    },
    quirks: { clientAuthentication: 'body' },
    answers: { refreshToken: 'unsaid' },
    read: [pageByAuthjs('https://docs.gitlab.com/ee/api/oauth2.html', 'gitlab')],
  }),
  defineProvider({
    name: 'bitbucket',
    title: 'Bitbucket',
    authorizationUrl: 'https://bitbucket.org/site/oauth2/authorize',
    tokenUrl: 'https://bitbucket.org/site/oauth2/access_token',
    quirks: { clientAuthentication: 'header' },
    answers: { refreshToken: 'unsaid' },
    read: [
      pageByAuthjs(
        'https://support.atlassian.com/bitbucket-cloud/docs/use-oauth-on-bitbucket-cloud/',
        'bitbucket',
      ),
    ],
  }),
  defineProvider({
    name: 'atlassian',
    title: 'Atlassian',
    authorizationUrl: 'https://auth.atlassian.com/authorize',
    tokenUrl: 'https://auth.atlassian.com/oauth/token',
    quirks: { clientAuthentication: 'body' },
    parameters: 'audience=api.atlassian.com&prompt=consent',
    offlineScope: 'offline_access',
    answers: { refreshToken: 'unsaid' },
    note: 'Jira and Confluence in the cloud, each by its scopes.',
    read: [
      pageByNango('https://developer.atlassian.com/cloud/jira/platform/oauth-2-3lo-apps/'),
      pageByAuthjs(
        'https://developer.atlassian.com/cloud/jira/software/oauth-2-3lo-apps/',
        'atlassian',
      ),
    ],
  }),
  defineProvider({
    name: 'linear',
    title: 'Linear',
    authorizationUrl: 'https://linear.app/oauth/authorize',
    tokenUrl: 'https://api.linear.app/oauth/token',
    quirks: { clientAuthentication: 'body', pkce: 'off' },
    parameters: 'prompt=consent',
    scopeSeparator: ',',
    answers: { refreshToken: 'unsaid' },
    read: [pageByNango('https://linear.app/developers/oauth-2-0-authentication')],
  }),
  defineProvider({
    name: 'netlify',
    title: 'Netlify',
    authorizationUrl: 'https://app.netlify.com/authorize',
    tokenUrl: 'https://api.netlify.com/oauth/token',
    quirks: { clientAuthentication: 'header' },
    answers: { refreshToken: 'unsaid' },
    read: [
      pageByAuthjs(
        'https://www.netlify.com/blog/2016/10/10/integrating-with-netlify-oauth2/',
        'netlify',
      ),
    ],
  }),
  defineProvider({
    name: 'figma',
    title: 'Figma',
    authorizationUrl: 'https://www.figma.com/oauth',
    tokenUrl: 'https://api.figma.com/v1/oauth/token',
    refreshUrl: 'https://api.figma.com/v1/oauth/refresh',
    quirks: { clientAuthentication: 'header', pkce: 'off' },
    scopeSeparator: ',',
    answers: { refreshToken: 'unsaid' },
    read: [
      pageByAuthjs('https://www.figma.com/developers/api#oauth2', 'figma'),
      pageByNango('https://www.figma.com/developers/api#oauth2'),
    ],
  }),
  defineProvider({
    name: 'webflow',
    title: 'Webflow',
    authorizationUrl: 'https://webflow.com/oauth/authorize',
    tokenUrl: 'https://api.webflow.com/oauth/access_token',
    quirks: { clientAuthentication: 'body' },
    answers: { refreshToken: 'none' },
    read: [
      page('https://developers.webflow.com/data/reference/oauth-app'),
      pageByNango('https://developers.webflow.com/data/reference/oauth-app'),
    ],
  }),
];
