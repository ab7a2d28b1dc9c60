// The public fields by which tokens are got from a provider, and what they come to as settings.
// What is not set is absent from the settings: stored tokens are bound to what is.
import type { InputFault } from '../../shared/errors.ts';
import type { InputRule } from '../../shared/rules.ts';
import type { FieldSpec, OAuthSettings } from './define.ts';
import {
  endpointUrl,
  flag,
  number,
  oneOf,
  plainText,
  publicText,
  queryString,
  url,
} from './fields.ts';
import { providerNames } from '../providers/catalogue.ts';
import { type PlaceholderName, placeholderNames } from '../providers/define.ts';
import { mergedParameters } from '../providers/write-out.ts';
import type { PublicValue } from '../public-values.ts';

/**
 * What the vault says itself in its requests, and what is a secret. SECURITY: a stored parameter,
 * or one in the query of an endpoint, must not stand in for a state, a verifier or a client, and no
 * secret belongs into a public field.
 */
export const reservedParameters: ReadonlySet<string> = new Set([
  'client_id',
  'client_secret',
  'client_assertion',
  'client_assertion_type',
  'redirect_uri',
  'response_type',
  'response_mode',
  'state',
  'code',
  'code_challenge',
  'code_challenge_method',
  'code_verifier',
  'scope',
  'grant_type',
  'refresh_token',
  'request',
  'request_uri',
  'nonce',
  'access_token',
  'id_token',
  'assertion',
  'password',
  'subject_token',
  'actor_token',
  'device_code',
]);

/** Names with dots between: where the access token stands in an answer. */
const tokenPath = /^[A-Za-z_][A-Za-z0-9_-]{0,63}(?:\.[A-Za-z_][A-Za-z0-9_-]{0,63}){0,3}$/;
/**
 * SECURITY: members that hold other secrets, however they are spelled, and names that lead into
 * what every object has, are no part of a path.
 */
const isOtherMember = (name: string): boolean =>
  /^(?:refreshtoken|idtoken|clientsecret|proto|constructor|prototype)$/i.test(
    name.replaceAll(/[_-]/g, ''),
  );

/** How a client asks, beside the endpoints: all of them destinations. */
export const requestFields = {
  parameters: queryString({
    title: 'Extra parameters',
    description:
      'A query string, such as audience=x&prompt=consent: for the authorization, or for the ' +
      'request of a client for itself.',
    optional: true,
    destination: true,
    reserved: reservedParameters,
  }),
  tokenParameters: queryString({
    title: 'Parameters of token requests',
    description: 'A query string, sent with the exchange of a code and with refreshes.',
    optional: true,
    destination: true,
    reserved: reservedParameters,
  }),
  exchangeParameters: queryString({
    title: 'Parameters of the exchange',
    description: 'A query string, sent when a code, or the client itself, gets its first token.',
    optional: true,
    destination: true,
    reserved: reservedParameters,
  }),
  refreshParameters: queryString({
    title: 'Parameters of refreshes',
    description: 'A query string, sent with refreshes only.',
    optional: true,
    destination: true,
    reserved: reservedParameters,
  }),
  scopeParameter: plainText({
    title: 'Name of the scope parameter',
    description: 'Where a provider asks for the scope under another name than scope.',
    optional: true,
    destination: true,
    form: /^[A-Za-z][A-Za-z0-9_.-]{0,63}$/,
    words: 'a letter, then letters, digits, _ . -',
    reserved: {
      has: (name) => reservedParameters.has(name.toLowerCase()),
      says: `None that the vault sets: ${[...reservedParameters].sort().join(', ')}.`,
    },
  }),
  grantType: plainText({
    title: 'Grant type',
    description:
      "A provider's own, such as account_credentials, in place of authorization_code or " +
      'client_credentials.',
    optional: true,
    destination: true,
    form: /^[A-Za-z][A-Za-z0-9_.:-]{0,199}$/,
    words: 'a letter, then letters, digits, _ . : -',
    reserved: {
      has: (type) => ['refresh_token', 'password', 'implicit'].includes(type.toLowerCase()),
      says: 'Not refresh_token, password or implicit.',
    },
  }),
  redirectUriOnRefresh: flag({
    title: 'Redirect URI on refresh',
    description: 'Whether refreshes carry the redirect URI.',
    destination: true,
  }),
  basicEncoding: oneOf({
    title: 'Encoding in the header',
    description:
      'How client ID and secret stand in the header: encoded as in a form, as OAuth 2.0 has ' +
      'it, or as they are.',
    values: ['form', 'none'],
    optional: true,
    destination: true,
  }),
  requestFormat: oneOf({
    title: 'Format of token requests',
    values: ['form', 'json'],
    optional: true,
    destination: true,
  }),
  pkce: oneOf({
    title: 'PKCE',
    description: 'Can be switched off where there is a client secret.',
    values: ['S256', 'off'],
    optional: true,
    destination: true,
  }),
  tokenPath: plainText({
    title: 'Place of the access token',
    description: 'Where it stands in an answer, such as authed_user.access_token.',
    optional: true,
    destination: true,
    form: tokenPath,
    words: 'names with dots between',
    reserved: {
      has: (path) => path.split('.').some(isOtherMember),
      says: 'No name of another secret.',
    },
  }),
  issuerCheck: oneOf({
    title: 'Check of the issuer',
    description:
      'Whether an answer has to name the issuer, or is believed without one. One that names ' +
      'another is not.',
    values: ['always', 'ifSent'],
    optional: true,
    destination: true,
  }),
  assumedLifetimeSeconds: number({
    title: 'Assumed lifetime in seconds',
    description: 'Of an access token whose provider says none; an hour when left out.',
    min: 60,
    max: 315_360_000,
    optional: true,
  }),
} as const satisfies Readonly<Record<string, FieldSpec>>;

const written = (field: FieldSpec): FieldSpec => ({ ...field, isWritten: true });
const ofProvider = (field: FieldSpec): FieldSpec => ({ ...field, needs: 'provider' });

/** The entry of the catalogue, and what of it is written out beside the endpoints. */
export const providerFields = {
  provider: oneOf({
    title: 'Provider',
    description: 'In place of URLs; see GET /v1/oauth-providers.',
    values: providerNames,
    optional: true,
    destination: true,
  }),
  providerRevision: ofProvider(
    number({
      title: 'Revision of the provider',
      description: 'As it was written out. To send the present one adopts it.',
      min: 0,
      max: 1_000_000,
      optional: true,
      destination: true,
    }),
  ),
  providerParameters: written(
    ofProvider(
      queryString({
        title: "The provider's own parameters",
        optional: true,
        destination: true,
        reserved: reservedParameters,
      }),
    ),
  ),
} as const satisfies Readonly<Record<string, FieldSpec>>;

/** What stands for a part of a provider's endpoints. */
export const placeholderFields = {
  ...Object.fromEntries(
    placeholderNames
      .filter((name) => name !== 'baseUrl')
      .map((name) => [
        name,
        ofProvider(
          plainText({
            title: `The provider's ${name}`,
            optional: true,
            destination: true,
            form: /^[A-Za-z0-9._~-]{1,253}$/,
            words: 'letters, digits, . _ ~ -',
          }),
        ),
      ]),
  ),
  baseUrl: ofProvider(url({ title: "The provider's base URL", optional: true })),
} as Readonly<Record<PlaceholderName, FieldSpec>>;

/** For a type whose provider is always the same: all of it is written out. */
export const fixedProviderFields = {
  provider: written(providerFields.provider),
  providerRevision: providerFields.providerRevision,
  authorizationUrl: written(
    endpointUrl({ title: 'Authorization URL', reserved: reservedParameters, optional: true }),
  ),
  tokenUrl: written(
    endpointUrl({ title: 'Token URL', reserved: reservedParameters, optional: true }),
  ),
  providerParameters: providerFields.providerParameters,
  clientAuthentication: written(
    oneOf({
      title: 'Client authentication',
      values: ['header', 'body'],
      optional: true,
      destination: true,
    }),
  ),
} as const satisfies Readonly<Record<string, FieldSpec>>;

/** The endpoints of a provider, and what it calls itself. */
export const endpointFields = {
  authorizationUrl: endpointUrl({
    title: 'Authorization URL',
    description: 'Needed where a person authorizes.',
    reserved: reservedParameters,
    optional: true,
  }),
  tokenUrl: endpointUrl({ title: 'Token URL', reserved: reservedParameters, optional: true }),
  refreshUrl: endpointUrl({
    title: 'Refresh URL',
    description: 'Where refreshes go to another place than the token URL.',
    reserved: reservedParameters,
    optional: true,
  }),
} as const satisfies Readonly<Record<string, FieldSpec>>;

export const clientId = publicText({ title: 'Client ID' });
export const scope = publicText({ title: 'Scope', optional: true });

type Fields = Readonly<Record<string, PublicValue>>;

/** What the public fields come to; `legacy` is what a stored version without them was made with. */
export function settingsFrom(fields: Fields, legacy: Partial<OAuthSettings> = {}): OAuthSettings {
  const text = (name: string): string | undefined =>
    fields[name] === undefined ? undefined : String(fields[name]);
  const some = <K extends string>(...names: K[]): { readonly [name in K]?: string } =>
    Object.fromEntries(
      names.flatMap((name) => (text(name) === undefined ? [] : [[name, text(name)]])),
    ) as { readonly [name in K]?: string };
  const seconds = fields['assumedLifetimeSeconds'];
  const ofEntry = text('grant') === 'clientCredentials' ? undefined : text('providerParameters');
  return {
    ...legacy,
    grant: text('grant') === 'clientCredentials' ? 'clientCredentials' : 'authorizationCode',
    ...some('authorizationUrl'),
    tokenUrl: text('tokenUrl') ?? legacy.tokenUrl ?? '',
    ...some('refreshUrl'),
    clientId: text('clientId') ?? '',
    ...some('scope', 'parameters'),
    ...(ofEntry === undefined ? {} : { parameters: mergedParameters(ofEntry, text('parameters')) }),
    ...some('issuer'),
    ...some('tokenParameters', 'exchangeParameters', 'refreshParameters'),
    ...some('scopeParameter', 'grantType', 'tokenPath'),
    ...(fields['redirectUriOnRefresh'] === true ? { redirectUriOnRefresh: true } : {}),
    ...(text('basicEncoding') === 'none' ? { basicEncoding: 'none' } : {}),
    ...(text('requestFormat') === 'json' ? { requestFormat: 'json' } : {}),
    ...(text('pkce') === 'off' ? { pkce: 'off' } : {}),
    ...(text('issuerCheck') === 'ifSent' ? { issuerCheck: 'ifSent' } : {}),
    ...(typeof seconds === 'number' ? { assumedLifetimeSeconds: seconds } : {}),
    clientAuthentication:
      (text('clientAuthentication') ?? legacy.clientAuthentication) === 'body' ? 'body' : 'header',
  };
}

/** Rules of more than one field. */
export function faultsOfRequests(fields: Fields, isSet: (name: string) => boolean): InputFault[] {
  const fault = (name: string, rule: InputRule): InputFault => ({
    pointer: `/fields/${name}`,
    rule,
  });
  const isByItself = fields['grant'] === 'clientCredentials';
  return [
    ...(isByItself && !isSet('clientSecret') ? [fault('clientSecret', 'required')] : []),
    ...(!isByItself && !isSet('authorizationUrl') ? [fault('authorizationUrl', 'required')] : []),
    // SECURITY: a code that somebody else caught is worth nothing without the verifier, or without
    // the secret; one of both there has to be.
    ...(fields['pkce'] === 'off' && !isSet('clientSecret')
      ? [fault('pkce', 'needsClientSecret')]
      : []),
    // What is not encoded ends at the first colon.
    ...(fields['basicEncoding'] === 'none' && String(fields['clientId']).includes(':')
      ? [fault('clientId', 'noColon')]
      : []),
    ...(isSet('issuerCheck') && !isSet('issuer') ? [fault('issuerCheck', 'needsIssuer')] : []),
  ];
}
