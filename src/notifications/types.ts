// What the vault tells of, and the row MACs of the two tables. A notification carries names, ids,
// counts and times, never a value.
import type { Keyring } from '../crypto/index.ts';
import type { CredentialId, NotificationId, TeamId } from '../shared/ids.ts';
import type { JsonObject } from '../shared/json.ts';
import { isTime } from '../shared/times.ts';

/** What a webhook can ask for, in the order in which lists show it. */
export const eventTypes = [
  'credential.expiring',
  'credential.expired',
  'credential.rotationDue',
  'credential.refreshFailed',
  'credential.exposed',
  'key.rotationEnded',
  'key.overdue',
  'row.sealBroken',
] as const;
export type EventType = (typeof eventTypes)[number];
/** Beside these, what is sent to a webhook because somebody asked for it. */
export type NotificationType = EventType | 'webhook.test';

/**
 * What became of the last attempt. `name` is one answer for a host that does not exist and one that
 * may not be dialled.
 */
export const outcomes = [
  'ok',
  'name',
  'connect',
  'tls',
  'timeout',
  'response',
  'refused',
  'unexpected',
  'gone',
  'credential',
  'keyUnavailable',
  'sealBroken',
  'queueFull',
  'tooLate',
] as const;
export type Outcome = (typeof outcomes)[number];
export const deliveryStates = ['pending', 'delivered', 'failed'] as const;
export type DeliveryState = (typeof deliveryStates)[number];

/** What is told of. `dueAt` is what makes it one message: the time that it is about. */
export interface Notice {
  readonly team: { readonly id: TeamId; readonly slug: string };
  readonly type: NotificationType;
  readonly subject: { readonly type: string; readonly id: string };
  readonly dueAt: Date;
  readonly data: JsonObject;
}

/**
 * What the row MAC of a webhook covers: that this team's notifications of these kinds go out with
 * this credential.
 */
export interface WebhookMacFields {
  readonly credential: CredentialId;
  readonly team: TeamId;
  readonly events: readonly string[];
  readonly revision: number;
}
/** What the row MAC of a notification covers: all of it but the state of its delivery. */
export interface NotificationMacFields {
  readonly id: NotificationId;
  readonly webhook: CredentialId;
  readonly team: TeamId;
  readonly type: string;
  readonly subjectType: string;
  readonly subjectId: string;
  readonly dueAt: Date;
  readonly at: Date;
  readonly data: JsonObject;
}

export const webhookRowMac = (keyring: Keyring, row: WebhookMacFields): Buffer =>
  keyring.rowMac('webhook', webhookJson(row));
export const verifyWebhookRowMac = (
  keyring: Keyring,
  row: WebhookMacFields,
  seal: Buffer,
): boolean => keyring.verifyRowMac('webhook', webhookJson(row), seal);
export const notificationRowMac = (keyring: Keyring, row: NotificationMacFields): Buffer =>
  keyring.rowMac('notification', notificationJson(row));
export const verifyNotificationRowMac = (
  keyring: Keyring,
  row: NotificationMacFields,
  seal: Buffer,
): boolean =>
  isTime(row.at) &&
  isTime(row.dueAt) &&
  keyring.verifyRowMac('notification', notificationJson(row), seal);

// Named one by one, in the order of the canonical form: rows carry more columns than the row MACs
// cover.
const webhookJson = ({ credential, team, events, revision }: WebhookMacFields): JsonObject => ({
  credential,
  events,
  revision,
  team,
});
const notificationJson = ({
  id,
  webhook,
  team,
  type,
  subjectType,
  subjectId,
  dueAt,
  at,
  data,
}: NotificationMacFields): JsonObject => ({
  at: at.toISOString(),
  data,
  dueAt: dueAt.toISOString(),
  id,
  subjectId,
  subjectType,
  team,
  type,
  webhook,
});

export interface DeliveryRow {
  readonly id: NotificationId;
  readonly type: string;
  readonly subjectType: string;
  readonly subjectId: string;
  readonly state: DeliveryState;
  readonly attempts: number;
  readonly outcome: Outcome | null;
  readonly at: Date;
  readonly lastAttemptAt: Date | null;
  readonly nextAttemptAt: Date | null;
  readonly endedAt: Date | null;
}

export interface WebhookRow {
  readonly credential: CredentialId;
  readonly name: string;
  readonly team: TeamId;
  readonly events: readonly string[];
  readonly revision: number;
  readonly seal: Buffer;
  readonly pending: number;
  readonly pausedUntil: Date | null;
  readonly failingSince: Date | null;
  readonly deliveredAt: Date | null;
  readonly goneAt: Date | null;
  readonly createdAt: Date;
  readonly createdBy: string;
  readonly updatedAt: Date;
  readonly updatedBy: string;
}
