// One sample of every type: all its fields. A type that is added says here what it takes, and every
// test that walks the types tries it.

/** The secret and the public fields that are sent, and what the type fills in by itself. */
export interface TypeSample {
  readonly secret: Readonly<Record<string, string>>;
  readonly public: Readonly<Record<string, string | number | boolean>>;
  readonly filled?: Readonly<Record<string, string | number | boolean>>;
}

const pem = (body: string): string =>
  `-----BEGIN CERTIFICATE-----\n${body}\n-----END CERTIFICATE-----\n`;

/** What is written out of Google's entry. */
const ofGoogle = {
  provider: 'google',
  providerRevision: 1,
  authorizationUrl: 'https://accounts.google.com/o/oauth2/v2/auth',
  tokenUrl: 'https://oauth2.googleapis.com/token',
  providerParameters: 'access_type=offline&prompt=consent',
  clientAuthentication: 'body',
} as const;

/** What is written out of Salesforce's entry. */
const ofSalesforce = {
  provider: 'salesforce',
  providerRevision: 1,
  domain: 'login.salesforce.com',
  authorizationUrl: 'https://login.salesforce.com/services/oauth2/authorize',
  tokenUrl: 'https://login.salesforce.com/services/oauth2/token',
  providerParameters: 'prompt=consent',
  clientAuthentication: 'body',
} as const;

export const typeSamples: Readonly<Record<string, TypeSample>> = {
  openai: { secret: { apiKey: 'sk-1' }, public: {}, filled: { baseUrl: 'https://api.openai.com' } },
  google: { secret: { apiKey: 'AIza' }, public: {} },
  anthropic: {
    secret: { apiKey: 'sk-ant' },
    public: {},
    filled: { baseUrl: 'https://api.anthropic.com' },
  },
  cohere: { secret: { apiKey: 'co-1' }, public: {} },
  customLlm: { secret: { apiKey: 'k' }, public: { baseUrl: 'http://127.0.0.1:11434/v1' } },
  bearer: { secret: { token: 'abc' }, public: {} },
  header: { secret: { value: 'v' }, public: { name: 'X-Api-Key' } },
  httpBasic: { secret: { password: 'p', apiKey: 'k' }, public: {} },
  httpQuery: { secret: { value: 'v' }, public: { name: 'api_key' } },
  telegram: { secret: { botToken: '1:a', secretToken: 's' }, public: {} },
  aws: {
    secret: { secretAccessKey: 's', sessionToken: 't' },
    public: { accessKeyId: 'AKIA1', region: 'eu-west-1' },
  },
  s3: {
    secret: { secretAccessKey: 's', sessionToken: 't' },
    public: {
      accessKeyId: 'AKIA1',
      region: 'eu-west-1',
      endpoint: 'https://s3.example',
      forcePathStyle: true,
    },
  },
  smtp: {
    secret: { password: 'p' },
    public: { host: 'mail.example.com', username: 'me@example.com', tls: 'startTls' },
    filled: { port: 587 },
  },
  imap: {
    secret: { password: 'p' },
    public: { host: '2001:db8::1', username: 'me' },
    filled: { port: 993, mailbox: 'INBOX', useSsl: true },
  },
  redis: {
    secret: { password: 'p' },
    public: { host: 'redis', username: 'u', tls: true },
    filled: { port: 6379, db: 0 },
  },
  slack: { secret: { webhookUrl: 'https://hooks.slack.com/services/T/B/x' }, public: {} },
  httpDigest: { secret: { password: 'p' }, public: { username: 'u' } },
  rabbitmq: {
    secret: { password: 'p' },
    public: { host: 'rabbit', username: 'u', tls: true },
    filled: { port: 5672, vhost: '/' },
  },
  postgres: {
    secret: { password: 'p', connectionString: 'postgres://u:p@h/d' },
    public: { host: 'pg', database: 'd', username: 'u' },
    filled: { port: 5432, tls: true },
  },
  mysql: {
    secret: { password: 'p', connectionString: 'mysql://u:p@h/d', clientKey: 'pk' },
    public: {
      host: 'my',
      database: 'd',
      username: 'u',
      ca: pem('a'),
      clientCertificate: pem('b'),
    },
    filled: { port: 3306, tls: true },
  },
  mongodb: {
    secret: { password: 'p', connectionString: 'mongodb://u:p@h/d' },
    public: { host: 'mongo', database: 'd', username: 'u' },
    filled: { port: 27_017, tls: true },
  },
  clickhouse: {
    secret: { password: 'p' },
    public: { host: 'ch' },
    filled: { port: 8443, username: 'default', database: 'default', secure: true },
  },
  qdrant: {
    secret: { apiKey: 'k', embeddingApiKey: 'sk' },
    public: { host: 'qdrant' },
    filled: { port: 6333 },
  },
  slackTrigger: { secret: { signingSecret: 's' }, public: {} },
  discord: { secret: { webhookUrl: 'https://discord.com/api/webhooks/1/x' }, public: {} },
  discordTrigger: { secret: {}, public: { publicKey: 'd0fe' } },
  github: {
    secret: { apiKey: 'ghp_1' },
    public: {},
    filled: { baseUrl: 'https://api.github.com' },
  },
  jira: {
    secret: { apiToken: 't' },
    public: { email: 'me@example.com', baseUrl: 'https://example.atlassian.net' },
  },
  linear: { secret: { apiKey: 'lin_1' }, public: {} },
  notion: { secret: { apiToken: 'ntn_1' }, public: {} },
  grist: { secret: { apiKey: 'g' }, public: { serverUrl: 'https://grist.example' } },
  supabase: {
    secret: { key: 'k' },
    public: { url: 'https://x.supabase.co' },
    filled: { schema: 'public' },
  },
  sentry: { secret: { apiToken: 't' }, public: {}, filled: { baseUrl: 'https://sentry.io' } },
  elevenlabs: { secret: { apiKey: 'xi' }, public: {} },
  flaresolverr: { secret: {}, public: { url: 'https://solver.example/v1' } },
  googleServiceAccount: {
    secret: { privateKey: 'pk' },
    public: { clientEmail: 'a@b.iam.gserviceaccount.com', projectId: 'p', scopes: 'a b' },
  },
  jwtSigning: {
    secret: { secret: 's', privateKey: 'pk' },
    public: { keyId: 'k1', algorithm: 'RS256' },
  },
  tlsClient: {
    secret: { privateKey: 'pk', passphrase: 'p' },
    public: { certificate: pem('a'), ca: pem('b') },
  },
  sshKey: {
    secret: { privateKey: 'pk', passphrase: 'p' },
    public: { host: 'ssh.example', username: 'u' },
    filled: { port: 22 },
  },
  oauth2: {
    secret: { clientSecret: 's', accessToken: 'a', refreshToken: 'r' },
    public: {
      authorizationUrl: 'https://id.example/authorize',
      tokenUrl: 'https://id.example/token',
      refreshUrl: 'https://id.example/refresh',
      clientId: 'vault',
      scope: 'read',
      parameters: 'audience=x',
      tokenParameters: 'a=b',
      exchangeParameters: 'c=d',
      refreshParameters: 'e=f',
      scopeParameter: 'user_scope',
      grantType: 'account_credentials',
      redirectUriOnRefresh: true,
      basicEncoding: 'form',
      requestFormat: 'json',
      pkce: 'S256',
      tokenPath: 'authed_user.access_token',
      issuerCheck: 'always',
      assumedLifetimeSeconds: 7200,
      issuer: 'https://id.example',
      expiresAt: '2027-01-31T00:00:00Z',
    },
    filled: { grant: 'authorizationCode', clientAuthentication: 'header' },
  },
  googleSheets: {
    secret: { clientSecret: 's', accessToken: 'a', refreshToken: 'r' },
    public: { clientId: 'c', scope: 'read', tokenExpiry: '2027-01-31T00:00:00Z' },
    filled: ofGoogle,
  },
  googleDrive: {
    secret: { clientSecret: 's', accessToken: 'a', refreshToken: 'r' },
    public: { clientId: 'c', scope: 'read', tokenExpiry: '2027-01-31T00:00:00Z' },
    filled: ofGoogle,
  },
  bigquery: {
    secret: { clientSecret: 's', accessToken: 'a', refreshToken: 'r' },
    public: { clientId: 'c', scope: 'read', tokenExpiry: '2027-01-31T00:00:00Z' },
    filled: ofGoogle,
  },
  azureOpenai: {
    secret: { apiKey: 'k' },
    public: { endpoint: 'https://x.openai.azure.com', apiVersion: '2024-10-21', deployment: 'd' },
  },
  stripe: { secret: { apiKey: 'sk_1' }, public: {} },
  gitlab: { secret: { token: 'glpat' }, public: {}, filled: { baseUrl: 'https://gitlab.com' } },
  hubspot: { secret: { accessToken: 'pat' }, public: {} },
  twilio: {
    secret: { authToken: 't', apiKeySecret: 's' },
    public: { accountSid: 'AC1', apiKeySid: 'SK1' },
  },
  sendgrid: { secret: { apiKey: 'SG' }, public: {} },
  airtable: { secret: { token: 'pat' }, public: {} },
  slackBot: { secret: { botToken: 'xoxb', signingSecret: 's' }, public: {} },
  mssql: {
    secret: { password: 'p' },
    public: { host: 'ms', database: 'd', username: 'u' },
    filled: { port: 1433, tls: true },
  },
  snowflake: {
    secret: { password: 'p', privateKey: 'pk', passphrase: 'pp' },
    public: {
      account: 'acme-main',
      username: 'u',
      warehouse: 'w',
      role: 'r',
      database: 'd',
      schema: 's',
    },
  },
  kafka: {
    secret: { password: 'p' },
    public: {
      brokers: 'k1.example:9092',
      clientId: 'c',
      saslMechanism: 'plain',
      username: 'u',
      ca: pem('a'),
    },
    filled: { tls: true },
  },
  salesforce: {
    secret: { clientSecret: 's', accessToken: 'a', refreshToken: 'r' },
    public: {
      clientId: 'c',
      scope: 'api refresh_token',
      expiresAt: '2027-01-31T00:00:00Z',
      instanceUrl: 'https://acme.my.salesforce.com',
    },
    filled: ofSalesforce,
  },
  calTrigger: { secret: { webhookSecret: 's' }, public: {} },
  opencode: { secret: { apiKey: 'oc' }, public: {} },
  jungleGrid: { secret: { apiKey: 'jg' }, public: {} },
  pgvector: { secret: { embeddingApiKey: 'sk' }, public: {} },
  decision: { secret: { apiKey: 'k' }, public: { baseUrl: 'https://jev.example/v1' } },
  modelRouter: {
    secret: {},
    public: {
      decisionCredential: 'id-1',
      decisionModel: 'm',
      routingInstructions: 'i',
      options: '[{"id":"a","is_default":true}]',
    },
  },
  webhook: {
    secret: {
      secret: `whsec_${Buffer.alloc(32, 1).toString('base64')}`,
      previousSecret: `whsec_${Buffer.alloc(24, 2).toString('base64')}`,
    },
    public: { url: 'https://hooks.example/vault' },
  },
  custom: {
    secret: { anything: 'a', other: 'b' },
    public: { region: 'eu', replicas: 3, isFast: false },
  },
};

/** The public fields whose change moves no secret: every other one is a destination. */
export const freeFields: ReadonlySet<string> = new Set([
  'smtp.username',
  ...['apiVersion', 'deployment'].map((name) => `azureOpenai.${name}`),
  ...['accountSid', 'apiKeySid'].map((name) => `twilio.${name}`),
  ...['database', 'username'].map((name) => `mssql.${name}`),
  ...['username', 'warehouse', 'role', 'database', 'schema'].map((name) => `snowflake.${name}`),
  ...['clientId', 'username'].map((name) => `kafka.${name}`),
  ...['clientId', 'scope', 'expiresAt'].map((name) => `salesforce.${name}`),
  ...['decisionCredential', 'decisionModel', 'routingInstructions', 'options'].map(
    (name) => `modelRouter.${name}`,
  ),
  'mysql.clientCertificate',
  'redis.username',
  's3.forcePathStyle',
  'imap.username',
  'imap.mailbox',
  'redis.db',
  'httpDigest.username',
  'rabbitmq.username',
  'rabbitmq.vhost',
  'clickhouse.username',
  'clickhouse.database',
  ...['postgres', 'mysql', 'mongodb'].flatMap((type) => [`${type}.database`, `${type}.username`]),
  'discordTrigger.publicKey',
  'aws.accessKeyId',
  'aws.region',
  's3.accessKeyId',
  's3.region',
  'jira.email',
  'supabase.schema',
  'googleServiceAccount.clientEmail',
  'googleServiceAccount.projectId',
  'googleServiceAccount.scopes',
  'jwtSigning.keyId',
  'jwtSigning.algorithm',
  'tlsClient.certificate',
  'tlsClient.ca',
  'sshKey.username',
  ...[
    'grant',
    'clientId',
    'scope',
    'clientAuthentication',
    'assumedLifetimeSeconds',
    'expiresAt',
  ].map((name) => `oauth2.${name}`),
  ...['googleSheets', 'googleDrive', 'bigquery'].flatMap((type) =>
    ['clientId', 'scope', 'tokenExpiry'].map((name) => `${type}.${name}`),
  ),
]);

/**
 * The text as a value of the secret field: as it is, or dressed up where the type asks for a form.
 */
export function secretOf(type: string, field: string, text: string): string {
  const isFree = type !== 'webhook' || !/ecret$/.test(field);
  return isFree
    ? text
    : `whsec_${Buffer.from(text.padEnd(24, '.').slice(0, 64)).toString('base64')}`;
}

/** Another value of the same kind, for a field of this value. */
export function anotherValue(value: string | number | boolean): string | number | boolean {
  if (typeof value === 'boolean') return !value;
  if (typeof value === 'number') return value + 1;
  const words: Readonly<Record<string, string>> = {
    RS256: 'ES256',
    authorizationCode: 'clientCredentials',
    header: 'body',
    S256: 'off',
    form: 'none',
    json: 'form',
    always: 'ifSent',
    startTls: 'none',
    'login.salesforce.com': 'test.salesforce.com',
    plain: 'scram-sha-256',
    'k1.example:9092': 'k2.example:9092',
    'https://acme.my.salesforce.com': 'https://other.my.salesforce.com',
    '[{"id":"a","is_default":true}]': '[]',
    '2027-01-31T00:00:00Z': '2028-01-31T00:00:00+01:00',
  };
  if (words[value] !== undefined) return words[value];
  if (value.startsWith('-----')) return value.replace(/\n/, '\r\n');
  return value.startsWith('http') ? 'https://elsewhere.example' : `${value}1`;
}
