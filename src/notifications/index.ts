// The door to webhooks and what they are told.
export { Deliverer } from './deliverer.ts';
export { Lookout } from './lookout.ts';
export { Outbox } from './outbox.ts';
export { registerWebhooks } from './routes.ts';
export { canShowWebhook, delivery, shownWebhook } from './schemas.ts';
export { WebhooksService } from './service.ts';
export {
  notificationSealHolds,
  type SealedNotification,
  type SealedWebhook,
  sealNotification,
  sealWebhook,
  webhookSealHolds,
} from './types.ts';
