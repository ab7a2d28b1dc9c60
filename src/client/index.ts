// What a workflow engine imports: keys, leases, and the errors of both. It needs jose and Node, and
// nothing of the vault.
export { type EngineKeyCurve, type EnginePrivateKey, generateEngineKey } from './engine-key.ts';
export { type LeaseFault, LeaseInvalid, VaultProblem } from './errors.ts';
export {
  type LeasedCredential,
  type OpenedLease,
  openLease,
  type OpenLeaseOptions,
  type VaultKeys,
  vaultKeys,
} from './open-lease.ts';
export { type LeaseRequest, VaultClient, type VaultClientOptions } from './vault-client.ts';
