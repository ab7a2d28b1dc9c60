// The door to grants and transfers.
export { canShowGrant, registerGrants } from './routes.ts';
export { SharingService } from './service.ts';
export { registerTransfers } from './transfer-routes.ts';
export {
  type TransferMacFields,
  transferRowMac,
  verifyTransferRowMac,
} from './transfer-row-mac.ts';
export { TransfersService } from './transfers.ts';
