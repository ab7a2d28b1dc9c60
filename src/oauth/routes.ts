// The HTTP face of OAuth 2.0. A code and a state come in and go no further; no token comes out.
import { refined } from '../shared/refine.ts';
import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import { addOperation } from '../http/operation.ts';
import { credentialPath, id, subject, time, timeOrNull } from '../http/schemas.ts';
import type { OAuthService } from './service.ts';
import { reasons } from './failures.ts';
import type { CredentialRow } from '../credentials/index.ts';

const authorization = z
  .strictObject({
    authorizationUrl: z
      .string()
      .max(16_384)
      .regex(/^https?:\/\/[^\s\\]+$/)
      .meta({
        format: 'uri',
        description: "Send the person's browser here.",
        examples: ['https://id.example/authorize?response_type=code&client_id=vault&state=AZqn'],
      }),
    expiresAt: time.meta({ description: 'Until when the answer may come.' }),
  })
  .meta({ id: 'OAuthAuthorization' });

const text = (max: number) =>
  z
    .string()
    .min(1)
    .max(max)
    .regex(/^[\x20-\x7e]+$/, 'printable ASCII');
const callback = refined(
  z.strictObject({
    state: z
      .string()
      .length(64)
      .regex(/^[A-Za-z0-9_-]{64}$/, '64 characters of base64url')
      .meta({
        writeOnly: true,
        examples: ['AZqnwltefDqdUgpPbhssPQ5XcXyRxQdUQKBzDdgYVvN6bWlzZWQgYW5kIGdvbmUh'],
      }),
    code: text(4_096)
      .optional()
      .meta({ writeOnly: true, examples: ['SplxlOBeZQQYbYS6WxSbIA'] }),
    // Whatever its letters: what ends an authorization must not be refused for how it is spelled.
    error: z
      .string()
      .max(4_096)
      .regex(/^[\s\S]*$/, 'anything')
      .optional()
      .meta({
        description: 'What the provider said in place of a code, as it is; it is not kept.',
        examples: ['access_denied'],
      }),
    iss: text(2_048)
      .optional()
      .meta({
        description: 'If the provider sent it (RFC 9207).',
        examples: ['https://id.example'],
      }),
  }),
  {
    rule: 'codeOrError',
    check: ({ code, error }) => (code === undefined) !== (error === undefined),
    says: { oneOf: [{ required: ['code'] }, { required: ['error'] }] },
  },
).meta({
  id: 'OAuthCallback',
  description:
    "What the provider's redirect had in its query: `state` and either `code` or `error`.",
  examples: [
    {
      state: 'AZqnwltefDqdUgpPbhssPQ5XcXyRxQdUQKBzDdgYVvN6bWlzZWQgYW5kIGdvbmUh',
      code: 'SplxlOBeZQQYbYS6WxSbIA',
    },
  ],
});

const connection = z
  .strictObject({
    credential: id,
    state: z.enum(['notConnected', 'connected', 'refreshFailed']),
    reason: z
      .enum(reasons)
      .nullable()
      .meta({
        description: 'Why no refresh is tried any more; connecting again ends it.',
        examples: [null],
      }),
    isRefreshable: z
      .boolean()
      .meta({ description: 'Whether another access token can be had without a person.' }),
    validUntil: time
      .nullable()
      .meta({ description: 'When the stored token ends, unless it is refreshed.' }),
    isLifetimeAssumed: z.boolean().meta({
      description:
        'The provider has said no lifetime: `validUntil` is what the credential assumes ' +
        '(`assumedLifetimeSeconds`).',
    }),
    obtainedAt: timeOrNull.meta({ description: 'When the access token was got.' }),
    connectedAt: timeOrNull,
    connectedBy: subject.nullable(),
    unavailableSince: timeOrNull.meta({
      description:
        'Since when the last refreshes failed for want of a usable answer; they are tried ' +
        'again by themselves. null where the last one succeeded.',
      examples: [null],
    }),
    rejectedSince: timeOrNull.meta({
      description:
        'Since when no refresh is forced any more: three fresh access tokens in a row were ' +
        'refused by the upstream.',
      examples: [null],
    }),
    instanceUrl: z
      .string()
      .max(300)
      .regex(/^https:\/\/[a-z0-9.-]{1,253}$/, 'an https origin')
      .nullable()
      .meta({
        description:
          'Where the account lives, as its provider says; shown only, no request goes there by ' +
          'itself.',
        examples: [null],
      }),
  })
  .meta({
    id: 'OAuthConnection',
    description: 'How a credential stands with its provider. No token stands in it.',
  });

/** Adds the operations on authorizations. */
export function registerOAuth(app: FastifyInstance, { service }: { service: OAuthService }): void {
  addOperation(app, {
    method: 'POST',
    url: '/v1/credentials/:id/oauth/authorizations',
    access: { team: 'credential.write', by: 'credential' },
    operationId: 'startAuthorization',
    tag: 'oauth',
    summary: 'Start to connect an account: where to send the person',
    description:
      'The provider returns to the page that `CREDVAULT_OAUTH_REDIRECT_URI` names, which sends ' +
      'what it got to `finishAuthorization` within ten minutes, with the token of the same ' +
      'person. To connect again is the same once more.',
    params: credentialPath,
    success: { status: 201, schema: authorization, description: 'The authorization.' },
    problems: ['stateConflict', 'limitReached', 'oauthNotConfigured'],
    handler: ({ caller, scope }) =>
      service.startAuthorization(caller, scope.resource as CredentialRow),
  });
  addOperation(app, {
    method: 'POST',
    url: '/v1/oauth/callbacks',
    access: { each: 'credential.write' },
    operationId: 'finishAuthorization',
    tag: 'oauth',
    summary: 'Finish with what the provider answered',
    description:
      'By the person who began, who still has to have the right. A state is good once. With ' +
      '`code`, the vault asks the provider for the tokens and keeps them; with `error`, the ' +
      'authorization is over.',
    body: callback,
    success: { status: 200, schema: connection, description: 'How the credential stands now.' },
    problems: [
      'oauthStateInvalid',
      'notFound',
      'stateConflict',
      'limitReached',
      'oauthRefused',
      'oauthUnavailable',
      'undecryptable',
      'keyBusy',
      'keyUnavailable',
    ],
    handler: ({ caller, body }) => service.finishAuthorization(caller, body),
  });
  addOperation(app, {
    method: 'GET',
    url: '/v1/credentials/:id/oauth',
    access: { team: 'credential.read', by: 'credential' },
    operationId: 'getOauthConnection',
    tag: 'oauth',
    summary: 'Read how a credential stands with its provider',
    description: 'A credential whose type holds no tokens is `notConnected`.',
    params: credentialPath,
    success: { status: 200, schema: connection, description: 'The connection.' },
    handler: ({ scope }) => service.getConnection(scope.resource as CredentialRow),
  });
}
