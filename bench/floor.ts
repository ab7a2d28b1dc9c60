// The floor: the least that a program in this stack can do for the same answers. A bare fastify
// with the same JWT check, one statement over the same pg, the same headers and the same
// cryptography, an HMAC for each row with a MAC that the answer rests on included. No validation of
// what comes in or goes out, no log, no limits, no records of reads, no second look before a
// commit.
import {
  createHmac,
  createSecretKey,
  generateKeyPairSync,
  hash,
  randomBytes,
  randomUUIDv7,
  timingSafeEqual,
} from 'node:crypto';
import jwt from '@fastify/jwt';
import fastify, { type FastifyReply } from 'fastify';
import pg from 'pg';
import { decrypt, encrypt, importKey } from '../src/crypto/fernet.ts';
import { recipientKey, signAndEncrypt } from '../src/crypto/nested-jwt.ts';
import { connectionConfig } from '../src/db/client.ts';
import { parseDatabaseUrl } from '../src/db/url.ts';
import { moveTokens } from './bare-loop.ts';
import { prepareFloor } from './floor-database.ts';
import { audience, engine, issuer, person, teams } from './setting.ts';
import * as statements from './floor-statements.ts';

const {
  DATABASE_URL: url = '',
  FLOOR_JWT_SECRET: secret = '',
  FLOOR_RECIPIENT: recipientJson = '',
  PORT: port = '',
} = process.env;

const database = parseDatabaseUrl(url);
const pool = new pg.Pool({
  ...connectionConfig(database, 'floor'),
  ...database.hosts[0]!,
  max: 16,
});
const query = async <Row extends pg.QueryResultRow>(
  name: string,
  values: unknown[],
): Promise<Row[]> =>
  (await pool.query<Row>({ name, text: statements[name as keyof typeof statements], values })).rows;

const dataKey = importKey('fernet', randomBytes(32));
const nextDataKey = importKey('fernet', randomBytes(32));
const dataKeyId = randomUUIDv7();
const macKey = createSecretKey(randomBytes(32));
const signer = generateKeyPairSync('ed25519').privateKey;
const kid = randomBytes(32).toString('base64url');
const recipient = recipientKey(kid, JSON.parse(recipientJson));
const publicFields = { baseUrl: 'https://api.openai.com' };
const policy = { delivery: ['lease'], allowedHosts: [] };

/** The same members as in the vault's tokens, padded to the same step. */
function plaintextOf(team: string, credential: string, fields: object): Buffer {
  const text = `${JSON.stringify({ v: 1, team, credential, version: 1, key: dataKeyId, type: 'openai', place: kid, fields }).slice(0, -1)},"pad":"`;
  return Buffer.from(`${text.padEnd(Math.ceil((text.length + 2) / 256) * 256 - 2)}"}`);
}
const nowSeconds = (): bigint => BigInt(Math.floor(Date.now() / 1000));
const macOf = (row: object): Buffer =>
  createHmac('sha256', macKey).update(JSON.stringify(row)).digest();
/** What the event says of the address, and what stands beside it: hash, address, salt. */
function addressOf(ip: string): [Buffer, string, Buffer] {
  const salt = randomBytes(16);
  return [hash('sha256', Buffer.concat([salt, Buffer.from(ip)]), 'buffer'), ip, salt];
}
/**
 * The work of verifying seals; the floor has no key of the vault's, so what it compares with is of
 * no interest.
 */
const checkRowMacs = (...rows: readonly object[]): void => {
  for (const row of rows) timingSafeEqual(macOf(row), anyMac);
};
const anyMac = randomBytes(32);

const subjects = new Map(
  (await pool.query<{ sub: string; id: string }>('select sub, id from subject')).rows.map(
    ({ sub, id }) => [sub, id],
  ),
);
const slugs = new Map(
  (await pool.query<{ slug: string; id: string }>('select slug, id from team')).rows.map(
    ({ slug, id }) => [slug, id],
  ),
);
await prepareFloor(pool, dataKey, (credential) =>
  plaintextOf(slugs.get(teams.read)!, credential, {
    apiKey: `sk-${randomBytes(24).toString('hex')}`,
  }),
);

const app = fastify({ logger: false, forceCloseConnections: true });
await app.register(jwt, {
  secret,
  decode: { complete: true },
  verify: {
    algorithms: ['HS256'],
    allowedIss: [issuer],
    allowedAud: [audience],
    requiredClaims: ['iss', 'aud', 'exp', 'iat', 'sub'],
    clockTolerance: 5_000,
    cache: false,
  },
});
const subjectOf = async (request: { jwtVerify<T>(): Promise<T> }): Promise<string> =>
  subjects.get((await request.jwtVerify<{ sub: string }>()).sub)!;

interface CredentialRow {
  id: string;
  team: string;
  name: string;
  type: string;
  description: string | null;
  labels: object;
  publicFields: object;
  secretFields: string[];
  policy: object;
  version: number;
  revision: number;
  expiresAt: Date | null;
  lastUsedAt: Date | null;
  useCount: number | null;
  deletedAt: Date | null;
  createdAt: Date;
  createdBy: string;
  updatedAt: Date;
  updatedBy: string;
  role: string | null;
  memberRevision?: number;
  memberSub?: string;
  memberMac?: Buffer;
  seal?: Buffer;
}
const show = ({
  role: _role,
  memberRevision: _revision,
  memberSub: _sub,
  memberMac: _memberMac,
  seal: _seal,
  ...row
}: CredentialRow): object => ({ ...row, health: 'ok', problems: [], useCount: row.useCount ?? 0 });

const withHeaders = (reply: FastifyReply, requestId: string): FastifyReply =>
  reply.headers({
    'X-Request-Id': requestId,
    'X-Content-Type-Options': 'nosniff',
    'Referrer-Policy': 'no-referrer',
    'Cache-Control': 'no-store',
    'Content-Security-Policy': "default-src 'none'; frame-ancestors 'none'",
    ETag: '"1"',
  });
const sealedOf = ({
  id,
  team,
  name,
  type,
  version,
  expiresAt,
  revision,
  publicFields: fields,
  policy: rule,
  secretFields,
}: CredentialRow): object => ({
  id,
  team,
  name,
  type,
  version,
  expiresAt,
  revision,
  fields,
  rule,
  secretFields,
});
const memberOf = ({ team, role, memberRevision, memberSub }: CredentialRow): object => ({
  team,
  slug: team,
  subject: memberSub,
  sub: memberSub,
  role,
  memberRevision,
});

app.get<{ Params: { id: string } }>('/v1/credentials/:id', async (request, reply) => {
  const [row] = await query<CredentialRow>('read', [request.params.id, await subjectOf(request)]);
  if (row?.role == null) return reply.code(404).send();
  checkRowMacs(sealedOf(row), memberOf(row));
  void withHeaders(reply, request.id);
  return show(row);
});

app.get<{ Params: { team: string }; Querystring: { limit: number } }>(
  '/v1/teams/:team/credentials',
  async (request, reply) => {
    const rows = await query<CredentialRow>('list', [
      slugs.get(request.params.team),
      await subjectOf(request),
      Number(request.query.limit),
    ]);
    checkRowMacs(...rows.map(sealedOf), memberOf(rows[0]!));
    void withHeaders(reply, request.id);
    return { items: rows.map(show), nextCursor: rows.at(-1)?.id };
  },
);

interface NewCredential {
  name: string;
  type: string;
  description: string;
  labels: object;
  fields: { apiKey: string };
}
app.post<{ Params: { team: string }; Body: NewCredential }>(
  '/v1/teams/:team/credentials',
  async (request, reply) => {
    const subject = await subjectOf(request);
    const { name, type, description, labels, fields } = request.body;
    const team = slugs.get(request.params.team)!;
    const [id, eventId, at, address] = [
      randomUUIDv7(),
      randomUUIDv7(),
      new Date(),
      addressOf(request.ip),
    ];
    const token = encrypt(dataKey, plaintextOf(team, id, fields), nowSeconds());
    const event = {
      id: eventId,
      at,
      actor: subject,
      team,
      action: 'credential.create',
      targetType: 'credential',
      targetId: id,
      decision: 'allow',
      requestId: request.id,
      key: dataKeyId,
      version: 1,
      addressHash: address[0].toString('base64url'),
      details: { type },
    };
    const [made] = await query('create', [
      id,
      team,
      name,
      type,
      description,
      JSON.stringify(labels),
      at,
      subject,
      dataKeyId,
      token,
      Object.keys(fields),
      JSON.stringify(publicFields),
      JSON.stringify(policy),
      eventId,
      request.id,
      JSON.stringify(event.details),
      macOf(event),
      ...address,
    ]);
    if (made === undefined) return reply.code(403).send();
    const row: CredentialRow = {
      id,
      team: request.params.team,
      name,
      type,
      description,
      labels,
      publicFields,
      secretFields: Object.keys(fields),
      policy,
      version: 1,
      revision: 1,
      expiresAt: null,
      lastUsedAt: null,
      useCount: 0,
      deletedAt: null,
      createdAt: at,
      createdBy: person,
      updatedAt: at,
      updatedBy: person,
      role: 'admin',
    };
    checkRowMacs(sealedOf(row), memberOf(row));
    return withHeaders(reply, request.id)
      .header('Location', `/v1/credentials/${id}`)
      .code(201)
      .send(show(row));
  },
);

interface LeaseRow {
  id: string;
  team: string;
  name: string;
  type: string;
  version: number;
  revision: number;
  expiresAt: Date | null;
  publicFields: object;
  policy: object;
  token: string;
  jwk: object;
  kid: string;
}
app.post<{
  Body: { credentials: [{ id: string }]; purpose: string; onBehalfOf: string; ttlSeconds: number };
}>('/v1/leases', async (request, reply) => {
  const subject = await subjectOf(request);
  const {
    credentials: [{ id: credential }],
    purpose,
    onBehalfOf,
    ttlSeconds,
  } = request.body;
  const [lease, eventId, at, address] = [
    randomUUIDv7(),
    randomUUIDv7(),
    new Date(),
    addressOf(request.ip),
  ];
  const details = { lease, engine: subject, kid, purpose, onBehalfOf, ttlSeconds };
  const event = {
    id: eventId,
    at,
    actor: subject,
    action: 'credential.lease',
    targetType: 'credential',
    targetId: credential,
    decision: 'allow',
    requestId: request.id,
    key: dataKeyId,
    version: 1,
    addressHash: address[0].toString('base64url'),
    details,
  };
  const [row] = await query<LeaseRow>('lease', [
    credential,
    subject,
    subjects.get(onBehalfOf),
    eventId,
    at,
    request.id,
    JSON.stringify(details),
    macOf(event),
    ...address,
  ]);
  if (row === undefined) return reply.code(404).send();
  // Credential, engine, its key, its membership, and that of the person.
  const { jwk, kid: key, ...credentialRow } = row;
  const memberRow = {
    team: row.team,
    slug: row.team,
    subject,
    sub: engine,
    role: 'engine',
    revision: 1,
  };
  checkRowMacs(
    { ...credentialRow, token: undefined },
    { subject, sub: engine, revision: 1, state: 'enabled' },
    { key, jwk, revision: 1 },
    memberRow,
    { ...memberRow, sub: person },
  );
  const { fields } = JSON.parse(decrypt(dataKey, row.token).plaintext.toString()) as {
    fields: object;
  };
  const issuedAt = Math.floor(at.getTime() / 1000);
  const claims = {
    iss: issuer,
    aud: engine,
    jti: lease,
    iat: issuedAt,
    exp: issuedAt + ttlSeconds,
    credentials: [
      {
        id: row.id,
        team: row.team,
        name: row.name,
        type: row.type,
        version: row.version,
        fields: { ...row.publicFields, ...fields },
      },
    ],
  };
  const sealed = signAndEncrypt(
    Buffer.from(JSON.stringify(claims)),
    { kid, privateKey: signer },
    recipient,
  );
  return withHeaders(reply, request.id)
    .code(201)
    .send({
      id: lease,
      expiresAt: new Date((issuedAt + ttlSeconds) * 1000),
      sealed,
      credentials: [
        {
          id: row.id,
          team: row.team,
          name: row.name,
          type: row.type,
          version: row.version,
          revision: row.revision,
          expiresAt: row.expiresAt,
          notModified: false,
        },
      ],
    });
});

let under = 1;
app.post('/rotation', async () => {
  const [from, to] = under % 2 === 1 ? [dataKey, nextDataKey] : [nextDataKey, dataKey];
  return moveTokens(pool, { from, to, under: under++ });
});

app.get('/readyz', async () => ({ status: 'ok' }));
await app.listen({ host: '127.0.0.1', port: Number(port) });
process.once('SIGTERM', () => {
  void app.close().then(() => pool.end());
});
