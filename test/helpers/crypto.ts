// What the tests of cryptography start from: a keyring of fresh keys, a place, and the one way in
// which things are refused.
import {
  DecryptionFailed,
  generateRootKey,
  Keyring,
  parseRootKeys,
} from '../../src/crypto/index.ts';
import type { Binding, TokenFormat, WrappedDataKey } from '../../src/crypto/index.ts';
import { newId } from '../../src/shared/ids.ts';
import type { CredentialId, DataKeyId, TeamId } from '../../src/shared/ids.ts';

export const formats: readonly TokenFormat[] = ['fernet', 'fernet-256'];

export function freshKeyring(): Keyring {
  return new Keyring({ roots: parseRootKeys(generateRootKey()), now: Date.now });
}

export function freshBinding(): Binding {
  return {
    team: newId<TeamId>(),
    credential: newId<CredentialId>(),
    version: 3,
    type: 'openai',
    publicFields: { baseUrl: 'https://api.openai.com' },
    policy: { delivery: ['lease'], allowedHosts: [] },
  };
}

export function freshDataKey(
  keyring: Keyring,
  team: TeamId,
  format: TokenFormat = 'fernet',
  version = 1,
): WrappedDataKey {
  return keyring.newDataKey({ id: newId<DataKeyId>(), team, version, format });
}

/**
 * Whether it fails with DecryptionFailed and nothing more: the same text each time, no cause,
 * nothing beside.
 */
export function isRefused(act: () => unknown): boolean {
  try {
    act();
    return false;
  } catch (error) {
    return (
      error instanceof DecryptionFailed &&
      error.message === 'decryption failed' &&
      Object.getOwnPropertyNames(error).every((name) => ['stack', 'message', 'name'].includes(name))
    );
  }
}

/** A copy of the bytes with one bit flipped. */
export function withFlippedBit(bytes: Buffer, bit: number): Buffer {
  const tampered = Buffer.from(bytes);
  tampered.writeUInt8(tampered.readUInt8(bit >> 3) ^ (1 << (bit & 7)), bit >> 3);
  return tampered;
}
