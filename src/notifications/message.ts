// A message as it goes over the wire: the standard-webhooks format, version v1 of its signature.
import { createHmac } from 'node:crypto';
import type { SecretFields } from '../crypto/index.ts';
import type { NotificationId } from '../shared/ids.ts';
import type { JsonObject } from '../shared/json.ts';

export interface Message {
  readonly id: NotificationId;
  readonly type: string;
  readonly at: Date;
  readonly data: JsonObject;
}

/** The body; the same bytes at every attempt. */
export const bodyOf = ({ type, at, data }: Message): string =>
  JSON.stringify({ type, timestamp: at.toISOString(), data });

/**
 * The headers of one attempt: the message's own id, the time of the attempt, and a signature by
 * each secret that there is.
 */
export function signedHeaders(
  secrets: SecretFields,
  { id, body, nowMs }: { id: string; body: string; nowMs: number },
): Record<string, string> {
  const timestamp = String(Math.floor(nowMs / 1_000));
  // SECURITY: exposed here, to become the keys of the MACs and nothing else.
  const { secret, previousSecret } = secrets.expose();
  const signatures = [secret, previousSecret].flatMap((text) =>
    text === undefined ? [] : [`v1,${signature(text, `${id}.${timestamp}.${body}`)}`],
  );
  if (signatures.length === 0) throw new TypeError('a webhook has a signing secret');
  return {
    'content-type': 'application/json',
    'user-agent': 'credential-vault',
    'webhook-id': id,
    'webhook-timestamp': timestamp,
    'webhook-signature': signatures.join(' '),
  };
}

function signature(secret: string, content: string): string {
  const key = Buffer.from(secret.slice(secret.indexOf('_') + 1), 'base64');
  const text = createHmac('sha256', key).update(content).digest('base64');
  key.fill(0);
  return text;
}
