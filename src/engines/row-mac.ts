// What the row MAC of an engine's key covers: whose it is and all of it. Without it an attacker who
// writes to the database could lease to themselves.
import type { Keyring } from '../crypto/index.ts';
import type { EngineId } from '../shared/ids.ts';
import type { JsonObject } from '../shared/json.ts';

/** `revision` is the revision of the engine with which the key came. */
export interface EngineKeyMacFields {
  readonly engine: EngineId;
  readonly kid: string;
  readonly jwk: JsonObject;
  readonly revision: number;
}

/** The row MAC of a key. */
export const engineKeyRowMac = (keyring: Keyring, row: EngineKeyMacFields): Buffer =>
  keyring.rowMac('engine_key', asJson(row));

/** Whether the vault wrote this row. */
export const verifyEngineKeyRowMac = (
  keyring: Keyring,
  row: EngineKeyMacFields,
  seal: Buffer,
): boolean => keyring.verifyRowMac('engine_key', asJson(row), seal);

// Named one by one: rows carry more columns than the row MAC covers.
const asJson = ({ engine, kid, jwk, revision }: EngineKeyMacFields): JsonObject => ({
  engine,
  kid,
  jwk,
  revision,
});
