// The HTTP face of the catalogue of OAuth providers: what people need to know to connect an
// account.
import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import { addOperation } from '../http/operation.ts';
import { line } from '../http/schemas.ts';
import { oauthProviders } from './providers/catalogue.ts';
import { type OAuthProvider, placeholderNames } from './providers/define.ts';
import { typePath } from './schemas.ts';
import { lineForm } from '../shared/patterns.ts';

const word = (max: number) => z.string().max(max).regex(lineForm, 'no control characters');
const placeholder = z.strictObject({
  name: z
    .enum(placeholderNames)
    .meta({ description: 'The field of the credential that has the value.' }),
  title: line(100).meta({ examples: ['Subdomain'] }),
  kind: z.enum(['label', 'segment', 'host', 'url', 'word']).meta({
    description:
      '`label`: one DNS label. `segment`: one segment of a path. `word`: one of `values`. ' +
      '`host`, `url`: a whole host or base URL, a destination like any other.',
  }),
  values: z
    .array(word(60))
    .max(50)
    .meta({ description: 'For `word`.', examples: [[]] }),
  default: word(253)
    .nullable()
    .meta({ examples: [null] }),
  example: word(253).meta({ examples: ['acme'] }),
});
const template = word(500).nullable();
const provider = z
  .strictObject({
    name: typePath.shape.type.meta({
      description: 'What `provider` of a credential says.',
      examples: ['zendesk'],
    }),
    title: line(100).meta({ examples: ['Zendesk'] }),
    revision: z
      .int()
      .min(0)
      .max(1_000_000)
      .meta({
        format: 'int32',
        description:
          'Grows when what is written out changes; a credential keeps what was written out for it.',
        examples: [1],
      }),
    grants: z.array(z.enum(['authorizationCode', 'clientCredentials'])).max(2),
    authorizationUrl: template.meta({
      description: 'With placeholders in braces; null where it is read from the issuer.',
      examples: ['https://{subdomain}.zendesk.com/oauth/authorizations/new'],
    }),
    refreshUrl: template.meta({
      description: 'Where refreshes go to another place.',
      examples: [null],
    }),
    tokenUrl: template.meta({ examples: ['https://{subdomain}.zendesk.com/oauth/tokens'] }),
    needsIssuer: z.boolean().meta({
      description: 'Whether the endpoints are read from the document of the field `issuer`.',
    }),
    placeholders: z.array(placeholder).max(placeholderNames.length),
    clientAuthentication: z.enum(['header', 'body']),
    usesPkce: z.boolean(),
    scope: line(2_048)
      .nullable()
      .meta({ description: 'What counts when no scope is said.', examples: [null] }),
    scopeSeparator: z.enum([' ', ',']),
    refresh: z.enum(['rotates', 'keeps', 'none', 'unsaid']).meta({
      description:
        '`rotates`: each refresh token is good once. `none`: the access token is all there is. ' +
        '`unsaid`: its pages do not say.',
    }),
    note: line(500)
      .nullable()
      .meta({ examples: [null] }),
    pages: z
      .array(
        word(500).meta({
          format: 'uri',
          examples: ['https://developer.zendesk.com/documentation/live-chat/'],
        }),
      )
      .min(1)
      .max(10)
      .meta({ description: "The provider's own, in which this was read." }),
  })
  .meta({ id: 'OAuthProvider', description: 'An entry of the catalogue of OAuth providers.' });
const providers = z
  .strictObject({ items: z.array(provider).max(1_000) })
  .meta({ id: 'OAuthProviderList' });

/** Adds the operation on the catalogue. */
export function registerOAuthProviders(app: FastifyInstance): void {
  addOperation(app, {
    method: 'GET',
    url: '/v1/oauth-providers',
    access: 'authenticated',
    operationId: 'listOauthProviders',
    tag: 'oauth',
    summary: 'List the providers that a credential can name in place of URLs',
    description:
      'A credential of type `oauth2` with `provider` needs the client ID, the client secret, a ' +
      'scope, and a field for each placeholder. What the entry says is written out into its ' +
      'version when it is stored.',
    success: { status: 200, schema: providers, description: 'Every provider, by name.' },
    handler: async () => ({ items: oauthProviders.map(showProvider) }),
  });
}

const showProvider = (entry: OAuthProvider): z.output<typeof provider> => ({
  name: entry.name,
  title: entry.title,
  revision: entry.revision,
  grants: [...entry.grants],
  authorizationUrl: entry.authorizationUrl ?? null,
  tokenUrl: entry.tokenUrl ?? null,
  refreshUrl: entry.refreshUrl ?? null,
  needsIssuer: entry.hasDiscovery === true,
  placeholders: placeholderNames.flatMap((name) => {
    const found = entry.placeholders?.[name];
    if (found === undefined) return [];
    return [
      {
        name,
        title: found.title,
        kind: found.kind,
        values: found.kind === 'word' ? Object.keys(found.words) : [],
        default: found.default ?? null,
        example: found.example,
      },
    ];
  }),
  clientAuthentication: entry.quirks.clientAuthentication,
  usesPkce: entry.quirks.pkce !== 'off',
  scope: entry.scope ?? null,
  scopeSeparator: entry.scopeSeparator ?? ' ',
  refresh: entry.answers.refreshToken,
  note: entry.note ?? null,
  pages: entry.read.map(({ url }) => url),
});
