// The broker's floor: a bare reverse proxy in the same stack. It checks the same tickets by the
// same hash and commits one insert in the same statement, decrypts one token, puts the key in, and
// passes body and answer on as they come. No rights, no policy, no row MACs, no limits, no
// redaction, no outcome.
import { hash, randomBytes, randomUUIDv7 } from 'node:crypto';
import fastify from 'fastify';
import pg from 'pg';
import { Pool } from 'undici';
import { decrypt, encrypt, importKey } from '../src/crypto/fernet.ts';
import { connectionConfig } from '../src/db/client.ts';
import { parseDatabaseUrl } from '../src/db/url.ts';

const {
  DATABASE_URL: url = '',
  UPSTREAM_URL: upstreamUrl = '',
  UPSTREAM_CA: ca = '',
  PORT: port = '',
} = process.env;

const database = parseDatabaseUrl(url);
const pool = new pg.Pool({
  ...connectionConfig(database, 'floor'),
  ...database.hosts[0]!,
  max: 16,
});
const upstream = new Pool(upstreamUrl, { connections: 256, connect: { ca } });
const key = importKey('fernet', randomBytes(32));

await pool.query(`drop schema if exists broker_floor cascade;
  create schema broker_floor;
  create table broker_floor.token (credential_id uuid primary key, token text not null);
  create table broker_floor.audit_event (id uuid not null, at timestamptz not null, credential_id uuid not null, details jsonb not null, mac bytea not null, primary key (at, id))`);
const { rows: credentials } = await pool.query<{ id: string }>(
  'select distinct credential_id as id from broker_ticket',
);
for (const { id } of credentials) {
  const plaintext = Buffer.from(
    JSON.stringify({ fields: { apiKey: `sk-${randomBytes(24).toString('hex')}` } }).padEnd(512),
  );
  await pool.query('insert into broker_floor.token values ($1, $2)', [
    id,
    encrypt(key, plaintext, BigInt(Math.floor(Date.now() / 1000))),
  ]);
}

const use = `with found as (
    select held.credential_id, held.token from broker_ticket ticket join broker_floor.token held on held.credential_id = ticket.credential_id
    where ticket.id = $1 and ticket.ticket_hash = $2 and ticket.expires_at > now()),
  recorded as (insert into broker_floor.audit_event select $3::uuid, now(), credential_id, $4::jsonb, $5::bytea from found)
  select token from found`;
const mac = randomBytes(32);

const app = fastify({ logger: false, forceCloseConnections: true });
app.removeAllContentTypeParsers();
app.addContentTypeParser('*', (_request, _payload, done) => {
  done(null);
});
app.all<{ Params: { id: string; '*': string } }>('/broker/:id/*', async (request, reply) => {
  const ticket = String(request.headers.authorization).slice('Bearer '.length);
  const {
    rows: [row],
  } = await pool.query<{ token: string }>({
    name: 'use',
    text: use,
    values: [
      request.params.id,
      hash('sha256', ticket, 'buffer'),
      randomUUIDv7(),
      JSON.stringify({ method: request.method, path: request.url }),
      mac,
    ],
  });
  if (row === undefined) return reply.code(401).send();
  const { fields } = JSON.parse(decrypt(key, row.token).plaintext.toString()) as {
    fields: { apiKey: string };
  };
  const { host: _host, connection: _connection, ...headers } = request.headers;
  const answer = await upstream.request({
    method: request.method as 'GET',
    path: request.raw.url!.slice(`/broker/${request.params.id}`.length),
    headers: { ...headers, authorization: `Bearer ${fields.apiKey}` },
    body: request.method === 'GET' ? null : request.raw,
  });
  const {
    connection: _hop,
    'keep-alive': _alive,
    'transfer-encoding': _coding,
    ...back
  } = answer.headers;
  return reply.code(answer.statusCode).headers(back).send(answer.body);
});
app.get('/readyz', async () => ({ status: 'ok' }));
await app.listen({ host: '127.0.0.1', port: Number(port) });
process.once('SIGTERM', () => {
  void app
    .close()
    .then(() => pool.end())
    .then(() => process.exit(0));
});
