// Receivers of notifications: real TLS servers on loopback that check what comes with the verifier
// that receivers use.
import { randomBytes } from 'node:crypto';
import type { IncomingHttpHeaders, ServerResponse } from 'node:http';
import { sql } from 'kysely';
import { Webhook } from 'standardwebhooks';
import type { Db } from '../../src/db/client.ts';
import { tlsUpstream, type Upstream } from './egress.ts';
import { demand } from './leases.ts';
import { until } from './processes.ts';
import type { TestVault } from './vault.ts';

interface Teardown {
  teardown(action: () => unknown): unknown;
}

export interface Received {
  readonly id: string;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
  readonly message: any;
  readonly path: string | undefined;
}
export interface Receiver extends Upstream {
  readonly secret: string;
  /**
   * Every request that came, in their order; `message` is undefined where the signature is not
   * good.
   */
  readonly received: Received[];
  /** How it answers; 204 unless a test says otherwise. */
  answer: (response: ServerResponse, received: Received) => void;
}

export const newSecret = (bytes = 32): string => `whsec_${randomBytes(bytes).toString('base64')}`;

/** A receiver under the name. */
export async function startReceiver(
  t: Teardown,
  host = 'hooks.test',
  { names, secret = newSecret() }: { names?: string[]; secret?: string } = {},
): Promise<Receiver> {
  const received: Received[] = [];
  const parts = {
    answer: (response: ServerResponse): void => {
      response.writeHead(204).end();
    },
  } as Pick<Receiver, 'answer'>;
  const upstream = await tlsUpstream(
    t,
    host,
    (request, response) => {
      const chunks: Buffer[] = [];
      request
        .on('data', (chunk: Buffer) => chunks.push(chunk))
        .on('end', () => {
          const body = Buffer.concat(chunks).toString('utf8');
          const one = {
            id: String(request.headers['webhook-id']),
            headers: request.headers,
            body,
            message: verified(secret, body, request.headers),
            path: request.url,
          };
          received.push(one);
          parts.answer(response, one);
        });
    },
    names === undefined ? {} : { names },
  );
  return Object.assign(parts, { ...upstream, secret, received });
}

function verified(secret: string, body: string, headers: IncomingHttpHeaders): unknown {
  try {
    return new Webhook(secret).verify(body, headers as Record<string, string>);
  } catch {
    return undefined;
  }
}

/** Stores a credential of type webhook for a receiver; its id. */
export async function storeWebhook(
  vault: TestVault,
  receiver: Pick<Receiver, 'url' | 'secret'>,
  {
    team = 'payments',
    name = `receiver ${randomBytes(4).toString('hex')}`,
    ...more
  }: { team?: string; name?: string; fields?: object; policy?: object } = {},
): Promise<string> {
  const { fields, ...rest } = more;
  const { id } = (await demand(
    vault.call('alice', 'POST', `/v1/teams/${team}/credentials`, {
      name,
      type: 'webhook',
      fields: { url: `${receiver.url}/vault`, secret: receiver.secret, ...fields },
      ...rest,
    }),
    201,
  )) as { id: string };
  return id;
}

/** The same, told of these events. */
export async function subscribe(
  vault: TestVault,
  receiver: Pick<Receiver, 'url' | 'secret'>,
  events: readonly string[],
  { team = 'payments', ...more }: Parameters<typeof storeWebhook>[2] = {},
): Promise<string> {
  const id = await storeWebhook(vault, receiver, { team, ...more });
  await demand(vault.call('alice', 'PUT', `/v1/teams/${team}/webhooks/${id}`, { events }), 200);
  return id;
}

export const deliveriesOf = async (
  vault: TestVault,
  id: string,
  team = 'payments',
): Promise<any[]> =>
  (
    (await demand(
      vault.call('alice', 'GET', `/v1/teams/${team}/webhooks/${id}/deliveries?limit=200`),
      200,
    )) as { items: any[] }
  ).items;

/** Waits until a webhook's newest messages are so; the messages. */
export const untilDeliveries = (
  vault: TestVault,
  id: string,
  isSo: (items: any[]) => boolean,
  team = 'payments',
): Promise<any[]> =>
  until(async () => {
    const items = await deliveriesOf(vault, id, team);
    return isSo(items) ? items : undefined;
  });

/** Lets what waits be due at once, as if its time had come. */
export async function hurry(db: Db, webhook: string): Promise<void> {
  await sql`update notification set next_attempt_at = now() - interval '1 minute' where webhook_id = ${webhook} and state = 'pending'`.execute(
    db,
  );
  await sql`update webhook set paused_until = null where credential_id = ${webhook}`.execute(db);
}
