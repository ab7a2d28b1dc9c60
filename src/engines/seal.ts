// What the seal of an engine's key is over: whose it is and all of it. Without it a writer to the
// database could lease to himself.
import type { Keyring } from '../crypto/index.ts';
import type { EngineId } from '../shared/ids.ts';
import type { JsonObject } from '../shared/json.ts';

/** `revision` is the revision of the engine with which the key came. */
export interface SealedEngineKey {
  readonly engine: EngineId;
  readonly kid: string;
  readonly jwk: JsonObject;
  readonly revision: number;
}

/** The seal of a key's row. */
export const sealEngineKey = (keyring: Keyring, row: SealedEngineKey): Buffer =>
  keyring.sealRow('engine_key', asJson(row));

/** Whether the vault wrote this row. */
export const engineKeySealHolds = (keyring: Keyring, row: SealedEngineKey, seal: Buffer): boolean =>
  keyring.verifyRow('engine_key', asJson(row), seal);

// Named one by one: rows carry more columns than the seal covers.
const asJson = ({ engine, kid, jwk, revision }: SealedEngineKey): JsonObject => ({
  engine,
  kid,
  jwk,
  revision,
});
