// The environment, read once: `config` may be logged, `secrets` may not. Pure: the caller hands in
// the environment and a way to read files. Every fault is named in one message, by names and rules;
// a bad value never becomes a default.
import { type Environment, hide, Reader } from './reader.ts';
import { DatabaseUrlInvalid, parseDatabaseUrl } from '../db/url.ts';
import { type AllowRule, AllowRuleInvalid, parseAllowRules } from '../egress/allow.ts';
import {
  authoritiesPem,
  certificatePem,
  hmacSecret,
  hostSuffix,
  integer,
  isLoopback,
  isOneDomain,
  isPair,
  jwksUrl,
  jwtTypes,
  oneLine,
  listenHost,
  oneOfWords,
  privateKeyPem,
  proxies,
  publicKeyPem,
  publicUrl,
  redirectUri,
  rootKeys,
  subjects,
  ValueInvalid,
} from './values.ts';
import {
  configuredIssuer,
  type ConfiguredIssuer,
  issuersOf,
  IssuersInvalid,
  readIssuers,
} from './issuers.ts';
import { fixedKey, Issuers } from '../access/index.ts';
import { growthCeilings, type GrowthLimits, growthLimits } from '../shared/growth.ts';
import { ShownError } from '../shared/shown-error.ts';

export type Mode = 'local' | 'serve' | 'broker' | 'migrate' | 'verify';

interface CommonConfig {
  readonly host: string;
  /** 0 takes a free one. */
  readonly port: number;
  readonly logLevel: LogLevel;
  readonly operators: readonly string[];
  /** The format of new teams' keys. */
  readonly tokenFormat: 'fernet' | 'fernet-256';
  readonly poolMax: number;
  readonly namedStatements: boolean;
  /** Requests a minute; 0 is no limit. */
  readonly rateLimits: { readonly address: number; readonly subject: number };
  readonly growthLimits: GrowthLimits;
  /** The issuer of leases; undefined only with port 0, where it depends on the port taken. */
  readonly publicUrl: string | undefined;
  /** The page of the platform to which providers of OAuth send people back. */
  readonly brokerCallsMax: number;
  readonly oauthRedirectUri: string | undefined;
  /** Private targets that may be dialled, and authorities that count beside the usual ones. */
  /** Undefined where the broker is off. */
  readonly broker: BrokerConfig | undefined;
  readonly egress: { readonly allow: readonly AllowRule[]; readonly ca: string | undefined };
}
/** Where the broker listens, and where callers reach it. */
export interface BrokerConfig {
  /** Undefined where another process is the broker. */
  readonly listen:
    | { readonly host: string /** 0 takes a free one. */; readonly port: number }
    | undefined;
  /** Undefined only with port 0. */
  readonly publicUrl: string | undefined;
  /** Each credential has `{id}.{suffix}` as a host of its own; absent where none has. */
  readonly hostSuffix?: string;
}
export type LogLevel = 'fatal' | 'error' | 'warn' | 'info' | 'debug' | 'trace';

export interface LocalConfig extends CommonConfig {
  readonly mode: 'local';
  readonly dataFolder: string;
  readonly postgresBinFolder: string | undefined;
}

export interface ServeConfig extends CommonConfig {
  readonly mode: 'serve';
  /** Whose tokens count; a shared secret itself is among the secrets. */
  readonly issuers: readonly ConfiguredIssuer[];
  readonly tlsCertificate: string | undefined;
  readonly isTlsTerminated: boolean;
  readonly trustedProxies: readonly string[];
}
export interface MigrateConfig {
  readonly mode: 'migrate';
  readonly logLevel: LogLevel;
}
export interface VerifyConfig {
  readonly mode: 'verify';
}

export interface ServeSecrets {
  readonly databaseUrl: string;
  readonly rootKeys: string;
  /** Exactly where the keys of the one issuer are a `secret`. */
  readonly jwtSecret: string | undefined;
  readonly tlsKey: string | undefined;
}

export interface Settings {
  readonly local: {
    readonly config: LocalConfig;
    readonly secrets: Readonly<Record<never, never>>;
  };
  readonly serve: { readonly config: ServeConfig; readonly secrets: ServeSecrets };
  readonly broker: Settings['serve'];
  readonly migrate: {
    readonly config: MigrateConfig;
    readonly secrets: { readonly databaseUrl: string };
  };
  readonly verify: {
    readonly config: VerifyConfig;
    readonly secrets: { readonly databaseUrl: string; readonly rootKeys: string };
  };
}

/** Everything that is wrong with the configuration at once. Names and rules, never values. */
export class ConfigInvalid extends ShownError {
  readonly faults: readonly string[];
  constructor(faults: readonly string[]) {
    super(
      `the configuration has ${faults.length === 1 ? 'a fault' : `${faults.length} faults`}:\n` +
        `${faults.map((fault) => `- ${fault}`).join('\n')}`,
    );
    this.name = 'ConfigInvalid';
    this.faults = faults;
  }
}

/** Reads what `mode` needs. Throws ConfigInvalid with all faults. */
export function readConfig<M extends Mode>(
  environment: Environment,
  mode: M,
  readFile: (path: string) => string,
): Settings[M] {
  const reader = new Reader(environment, readFile, { names, files: fileNames, prefix });
  reader.refuseUnknown();
  const read = {
    local: readLocal,
    serve: readServe,
    broker: readBrokerAlone,
    migrate: readMigrate,
    verify: readVerify,
  }[mode];
  const settings = read(reader);
  if (reader.faults.length > 0) throw new ConfigInvalid(reader.faults);
  Object.freeze(settings.config);
  Object.freeze(hide(settings.secrets));
  return Object.freeze(settings) as Settings[M];
}

// ── the modes ────────────────────────────────────────────────────────────────────────────────────

// Reading goes on after a fault; `missing` stands for what could not be read, and readConfig throws
// before anybody sees it.
const missing = '';

function readCommon(reader: Reader, scheme: 'http' | 'https'): CommonConfig {
  const host = reader.value('HOST', listenHost) ?? '127.0.0.1';
  const port = reader.value('PORT', integer(0, 65_535)) ?? 7_300;
  return {
    host,
    port,
    logLevel: readLogLevel(reader),
    operators: reader.value('CREDVAULT_OPERATORS', subjects) ?? Object.freeze([]),
    tokenFormat:
      reader.value('CREDVAULT_TOKEN_FORMAT', oneOfWords('fernet', 'fernet-256')) ?? 'fernet',
    poolMax: reader.value('CREDVAULT_POOL_SIZE', integer(2, 500)) ?? 16,
    namedStatements:
      (reader.value('CREDVAULT_NAMED_STATEMENTS', oneOfWords('on', 'off')) ?? 'on') === 'on',
    rateLimits: Object.freeze({
      address: reader.value('CREDVAULT_RATE_LIMIT_ADDRESS', integer(0, 1_000_000_000)) ?? 12_000,
      subject: reader.value('CREDVAULT_RATE_LIMIT_SUBJECT', integer(0, 1_000_000_000)) ?? 6_000,
    }),
    growthLimits: readGrowthLimits(reader),
    publicUrl:
      reader.value('CREDVAULT_PUBLIC_URL', publicUrl) ??
      (port === 0 ? undefined : urlOf(scheme, host, port)),
    broker: readBroker(reader, scheme),
    brokerCallsMax: reader.value('CREDVAULT_BROKER_CALLS', integer(2, 100_000)) ?? 1_000,
    oauthRedirectUri: reader.value('CREDVAULT_OAUTH_REDIRECT_URI', redirectUri),
    egress: Object.freeze({
      allow: reader.value('CREDVAULT_EGRESS_ALLOW', allowRules) ?? Object.freeze([]),
      ca: reader.value('CREDVAULT_EGRESS_CA', authoritiesPem, { isFile: true }),
    }),
  };
}

function readGrowthLimits(reader: Reader): GrowthLimits {
  const limit = (name: string, of: keyof GrowthLimits): number =>
    reader.value(name, integer(1, growthCeilings[of])) ?? growthLimits[of];
  return Object.freeze({
    credentials: limit('CREDVAULT_CREDENTIALS_MAX', 'credentials'),
    ciphertextBytes: limit('CREDVAULT_CIPHERTEXT_BYTES_MAX', 'ciphertextBytes'),
    members: limit('CREDVAULT_MEMBERS_MAX', 'members'),
    authorizations: limit('CREDVAULT_AUTHORIZATIONS_MAX', 'authorizations'),
    grants: limit('CREDVAULT_GRANTS_MAX', 'grants'),
    keys: limit('CREDVAULT_KEYS_MAX', 'keys'),
  });
}

function readBroker(reader: Reader, scheme: 'http' | 'https'): BrokerConfig | undefined {
  const host = reader.value('CREDVAULT_BROKER_HOST', listenHost) ?? '127.0.0.1';
  const port = reader.value('CREDVAULT_BROKER_PORT', integer(0, 65_535));
  const url = reader.value('CREDVAULT_BROKER_PUBLIC_URL', publicUrl);
  const suffix = reader.value('CREDVAULT_BROKER_HOST_SUFFIX', hostSuffix);
  const hosts = suffix === undefined ? {} : { hostSuffix: suffix };
  // SECURITY: what is not one of these hosts is refused, so which one is the broker's has to be
  // said.
  if (reader.isSet('CREDVAULT_BROKER_HOST_SUFFIX') && url === undefined)
    reader.fault('CREDVAULT_BROKER_HOST_SUFFIX', 'needs CREDVAULT_BROKER_PUBLIC_URL');
  if (port === undefined) {
    if (reader.isSet('CREDVAULT_BROKER_HOST'))
      reader.fault('CREDVAULT_BROKER_HOST', 'needs CREDVAULT_BROKER_PORT');
    return url === undefined
      ? undefined
      : Object.freeze({ listen: undefined, publicUrl: url, ...hosts });
  }
  return Object.freeze({
    listen: Object.freeze({ host, port }),
    publicUrl: url ?? (port === 0 ? undefined : urlOf(scheme, host, port)),
    ...hosts,
  });
}

/**
 * SECURITY: what an upstream answers on a host below the suffix would be of one site with what is
 * served at a host above, at or below it: cookies and origins of the vault, of the identity
 * provider, of the platform.
 */
function checkHostSuffix(
  reader: Reader,
  { broker, publicUrl: url, oauthRedirectUri }: CommonConfig,
  issuers: readonly ConfiguredIssuer[],
): void {
  const suffix = broker?.hostSuffix;
  if (suffix === undefined) return;
  const others = [
    ['CREDVAULT_PUBLIC_URL', url],
    ['CREDVAULT_OAUTH_REDIRECT_URI', oauthRedirectUri],
    ...issuers.flatMap(({ issuer, keys }) => [
      ['an issuer', issuer] as const,
      ['the keys of an issuer', keys.kind === 'jwksUrl' ? keys.url : undefined] as const,
    ]),
  ] as const;
  for (const [name, text] of others) {
    const host = URL.parse(text ?? '')?.hostname;
    if (host !== undefined && isOneDomain(host, suffix))
      reader.fault(
        'CREDVAULT_BROKER_HOST_SUFFIX',
        `must be a domain of its own: it is, contains or lies under the host of ${name}`,
      );
  }
}

const urlOf = (scheme: string, host: string, port: number): string =>
  `${scheme}://${host.includes(':') ? `[${host}]` : host}:${port}`;

function readLogLevel(reader: Reader): LogLevel {
  return (
    reader.value('LOG_LEVEL', oneOfWords('fatal', 'error', 'warn', 'info', 'debug', 'trace')) ??
    'info'
  );
}

function readLocal(reader: Reader): Settings['local'] {
  // The two ways to run are never mixed: keys made here must not meet a database that others use,
  // nor the other way round.
  for (const name of serveOnly)
    reader.forbid(
      name,
      'must not be set for `local`, which makes its own keys and database: use `serve`',
    );
  const config: LocalConfig = {
    mode: 'local',
    ...readCommon(reader, 'http'),
    dataFolder: reader.value('CREDVAULT_DATA_DIR', oneLine(4_096)) ?? './data',
    postgresBinFolder: reader.value('PG_BIN', oneLine(4_096)),
  };
  checkHostSuffix(reader, config, []);
  if (config.host !== '127.0.0.1') reader.fault('HOST', 'must be 127.0.0.1 for `local`');
  if (config.broker?.listen !== undefined && config.broker.listen.host !== '127.0.0.1')
    reader.fault('CREDVAULT_BROKER_HOST', 'must be 127.0.0.1 for `local`');
  return { config, secrets: {} };
}

function readServe(reader: Reader): Settings['serve'] {
  reader.forbid('CREDVAULT_DATA_DIR', 'must not be set for `serve`, which keeps nothing on disk');
  const tlsCertificate = reader.value('CREDVAULT_TLS_CERT', certificatePem, { isFile: true });
  const tlsKey = reader.value('CREDVAULT_TLS_KEY', privateKeyPem, { isFile: true });
  const isTlsTerminated = reader.value('CREDVAULT_TLS_TERMINATED', oneOfWords('0', '1')) === '1';
  const jwtSecret = reader.value('CREDVAULT_JWT_SECRET', hmacSecret, { isFile: true });
  const issuers = readIssuersOf(reader);
  const config: ServeConfig = {
    mode: 'serve',
    ...readCommon(reader, tlsCertificate === undefined ? 'http' : 'https'),
    issuers,
    tlsCertificate,
    isTlsTerminated,
    trustedProxies: reader.value('CREDVAULT_TRUST_PROXY', proxies) ?? Object.freeze([]),
  };
  checkOperators(reader, config);
  checkHostSuffix(reader, config, issuers);
  if (reader.isSet('CREDVAULT_TLS_CERT') !== reader.isSet('CREDVAULT_TLS_KEY'))
    reader.fault('CREDVAULT_TLS_CERT and CREDVAULT_TLS_KEY', 'go together');
  if (tlsCertificate !== undefined && tlsKey !== undefined && !isPair(tlsCertificate, tlsKey))
    reader.fault('CREDVAULT_TLS_KEY', 'must be the key of CREDVAULT_TLS_CERT');
  // SECURITY: tokens and secrets cross this connection.
  for (const [name, host] of [
    ['HOST', config.host],
    ['CREDVAULT_BROKER_HOST', config.broker?.listen?.host ?? '127.0.0.1'],
  ] as const) {
    if (isLoopback(host) || reader.isSet('CREDVAULT_TLS_CERT') || isTlsTerminated) continue;
    reader.fault(
      name,
      'may be outside loopback only with CREDVAULT_TLS_CERT and CREDVAULT_TLS_KEY, or with ' +
        'CREDVAULT_TLS_TERMINATED=1 behind something that ends TLS',
    );
  }
  return {
    config,
    secrets: {
      databaseUrl: reader.required('DATABASE_URL', databaseUrl, { isFile: true }) ?? missing,
      rootKeys: reader.required('CREDVAULT_ROOT_KEYS', rootKeys, { isFile: true }) ?? missing,
      jwtSecret,
      tlsKey,
    },
  };
}

// The broker by itself is configured as the replicas are, so that one environment does for both.
function readBrokerAlone(reader: Reader): Settings['broker'] {
  if (!reader.isSet('CREDVAULT_BROKER_PORT')) reader.fault('CREDVAULT_BROKER_PORT', 'is required');
  return readServe(reader);
}

function readIssuersOf(reader: Reader): readonly ConfiguredIssuer[] {
  if (!reader.isSet(issuersFile)) return Object.freeze([readOneIssuer(reader)]);
  // SECURITY: an issuer beside the file's would have no prefix of its own.
  for (const name of ofOneIssuer)
    reader.forbid(name, `must not be set beside ${issuersFile}, which describes every issuer`);
  const text = reader.file(issuersFile);
  if (text === undefined) return Object.freeze([]);
  try {
    return readIssuers(text, reader.readFile);
  } catch (error) {
    if (!(error instanceof IssuersInvalid)) throw error;
    for (const fault of error.faults) reader.fault(`${issuersFile}:`, fault);
    return Object.freeze([]);
  }
}

function readOneIssuer(reader: Reader): ConfiguredIssuer {
  return configuredIssuer({
    issuer: reader.required('CREDVAULT_JWT_ISSUER', oneLine(1_000)) ?? missing,
    audience: reader.required('CREDVAULT_JWT_AUDIENCE', oneLine(1_000)) ?? missing,
    keys: readJwtKeys(reader),
    types: reader.value('CREDVAULT_JWT_TYPES', jwtTypes),
  });
}

function readJwtKeys(reader: Reader): ConfiguredIssuer['keys'] {
  const names = [
    'CREDVAULT_JWT_JWKS_URL',
    'CREDVAULT_JWT_PUBLIC_KEY',
    'CREDVAULT_JWT_SECRET',
  ] as const;
  // SECURITY: two sources would let a token choose which one verifies it.
  if (names.filter((name) => reader.isSet(name)).length !== 1)
    reader.fault(`exactly one of ${names.join(', ')}`, 'must be set');
  const url = reader.value('CREDVAULT_JWT_JWKS_URL', jwksUrl);
  const pem = reader.value('CREDVAULT_JWT_PUBLIC_KEY', publicKeyPem, { isFile: true });
  if (url !== undefined) return { kind: 'jwksUrl', url };
  return pem === undefined ? { kind: 'secret' } : { kind: 'fixed', keys: [fixedKey(pem)] };
}

/** SECURITY: an operator of no issuer is a slip that somebody may be able to become. */
function checkOperators(reader: Reader, { operators, issuers }: ServeConfig): void {
  if (reader.faults.length > 0) return;
  const known = new Issuers(issuersOf(issuers, missing));
  for (const [index, operator] of operators.entries()) {
    if (known.mayOperate(operator)) continue;
    reader.fault(
      'CREDVAULT_OPERATORS',
      known.isKnown(operator)
        ? `names at position ${index + 1} a subject of an issuer that is kept to teams`
        : `names at position ${index + 1} a subject that no issuer has, prefix included`,
    );
  }
}

// `migrate` runs in the environment of `serve` or in a poorer one: of the rest it looks at the
// names only.
function readMigrate(reader: Reader): Settings['migrate'] {
  const own = reader.value('CREDVAULT_MIGRATE_DATABASE_URL', databaseUrl, { isFile: true });
  const url =
    own ??
    (reader.isSet('CREDVAULT_MIGRATE_DATABASE_URL')
      ? missing
      : reader.required('DATABASE_URL', databaseUrl, { isFile: true }));
  return {
    config: { mode: 'migrate', logLevel: readLogLevel(reader) },
    secrets: { databaseUrl: url ?? missing },
  };
}

// The same for `verify`, which may look at a restored copy on a machine where no vault runs.
function readVerify(reader: Reader): Settings['verify'] {
  return {
    config: { mode: 'verify' },
    secrets: {
      databaseUrl: reader.required('DATABASE_URL', databaseUrl, { isFile: true }) ?? missing,
      rootKeys: reader.required('CREDVAULT_ROOT_KEYS', rootKeys, { isFile: true }) ?? missing,
    },
  };
}

function databaseUrl(text: string): string {
  try {
    parseDatabaseUrl(text);
    return text;
  } catch (error) {
    if (error instanceof DatabaseUrlInvalid) throw new ValueInvalid(error.rule);
    throw error;
  }
}

function allowRules(text: string): readonly AllowRule[] {
  try {
    return parseAllowRules(text);
  } catch (error) {
    if (error instanceof AllowRuleInvalid) throw new ValueInvalid(error.rule);
    throw error;
  }
}

// ── the names ────────────────────────────────────────────────────────────────────────────────────

const prefix = 'CREDVAULT_';
const issuersFile = 'CREDVAULT_ISSUERS_FILE';
/** The short form for one issuer. */
const ofOneIssuer = [
  'CREDVAULT_JWT_ISSUER',
  'CREDVAULT_JWT_AUDIENCE',
  'CREDVAULT_JWT_JWKS_URL',
  'CREDVAULT_JWT_PUBLIC_KEY',
  'CREDVAULT_JWT_SECRET',
  'CREDVAULT_JWT_TYPES',
] as const;
const serveOnly = [
  'DATABASE_URL',
  'CREDVAULT_MIGRATE_DATABASE_URL',
  'CREDVAULT_ROOT_KEYS',
  issuersFile,
  ...ofOneIssuer,
  'CREDVAULT_TLS_CERT',
  'CREDVAULT_TLS_KEY',
  'CREDVAULT_TLS_TERMINATED',
  'CREDVAULT_TRUST_PROXY',
] as const;
const everywhere = [
  'CREDVAULT_OPERATORS',
  'CREDVAULT_TOKEN_FORMAT',
  'CREDVAULT_DATA_DIR',
  'CREDVAULT_NAMED_STATEMENTS',
  'CREDVAULT_POOL_SIZE',
  'CREDVAULT_RATE_LIMIT_ADDRESS',
  'CREDVAULT_RATE_LIMIT_SUBJECT',
  'CREDVAULT_CREDENTIALS_MAX',
  'CREDVAULT_CIPHERTEXT_BYTES_MAX',
  'CREDVAULT_MEMBERS_MAX',
  'CREDVAULT_AUTHORIZATIONS_MAX',
  'CREDVAULT_GRANTS_MAX',
  'CREDVAULT_KEYS_MAX',
  'CREDVAULT_PUBLIC_URL',
  'CREDVAULT_BROKER_PORT',
  'CREDVAULT_BROKER_HOST',
  'CREDVAULT_BROKER_PUBLIC_URL',
  'CREDVAULT_BROKER_HOST_SUFFIX',
  'CREDVAULT_BROKER_CALLS',
  'CREDVAULT_OAUTH_REDIRECT_URI',
  'CREDVAULT_EGRESS_ALLOW',
  'CREDVAULT_EGRESS_CA',
] as const;
/** The names that may also be given as NAME_FILE: every secret, and what is a file by nature. */
export const fileNames: ReadonlySet<string> = new Set([
  'DATABASE_URL',
  'CREDVAULT_MIGRATE_DATABASE_URL',
  'CREDVAULT_ROOT_KEYS',
  'CREDVAULT_JWT_SECRET',
  'CREDVAULT_TLS_KEY',
  'CREDVAULT_TLS_CERT',
  'CREDVAULT_JWT_PUBLIC_KEY',
  'CREDVAULT_EGRESS_CA',
]);
/** Every name that the vault reads; each documented in docs/configuration.md. */
export const names: readonly string[] = [
  'HOST',
  'PORT',
  'LOG_LEVEL',
  'PG_BIN',
  ...serveOnly,
  ...everywhere,
];
