// The door to webhooks and what they are told.
export { Deliverer } from './deliverer.ts';
export { DueScanner } from './due-scanner.ts';
export { Outbox } from './outbox.ts';
export { registerWebhooks } from './routes.ts';
export { canShowWebhook, delivery, shownWebhook } from './schemas.ts';
export { WebhooksService } from './service.ts';
export {
  verifyNotificationRowMac,
  type NotificationMacFields,
  type WebhookMacFields,
  notificationRowMac,
  webhookRowMac,
  verifyWebhookRowMac,
} from './types.ts';
