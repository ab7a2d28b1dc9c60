// Providers of identities: one server a customer, and what speaks OpenID Connect.
import { defineProvider, type OAuthProvider } from './define.ts';

export const openIdConnect: readonly OAuthProvider[] = [
  defineProvider({
    name: 'oidc',
    title: 'OpenID Connect',
    hasDiscovery: true,
    grants: ['authorizationCode', 'clientCredentials'],
    quirks: { clientAuthentication: 'header' },
    answers: { refreshToken: 'rotates' },
    note: 'Needs the field issuer. The endpoints are read once, when the credential is stored, from its document, and have to be of the same origin.',
    read: [{ url: 'https://openid.net/specs/openid-connect-discovery-1_0.html', on: '2026-11-30' }],
  }),
];
