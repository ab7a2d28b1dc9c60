// Google: one authorization server, whatever the API.
import { defineProvider, type OAuthProvider, pageByNango } from './define.ts';

export const googleProviders: readonly OAuthProvider[] = [
  defineProvider({
    name: 'google',
    title: 'Google',
    authorizationUrl: 'https://accounts.google.com/o/oauth2/v2/auth',
    tokenUrl: 'https://oauth2.googleapis.com/token',
    quirks: { clientAuthentication: 'body' },
    // Without these a refresh token comes the first time only.
    parameters: 'access_type=offline&prompt=consent',
    answers: { refreshToken: 'unsaid' },
    note: 'Gmail, Calendar, Drive, Sheets, YouTube and all others, each by its scopes.',
    read: [pageByNango('https://developers.google.com/identity/protocols/oauth2')],
  }),
];
