// The writing of versions: whatever is sealed lands under the team's active key or not at all, and
// a stored secret never follows a destination or a policy that its writer did not know.
import {
  DecryptionFailed,
  type Keyring,
  type Binding,
  Secret,
  type SecretFields,
  type WrappedDataKey,
} from '../crypto/index.ts';
import type { Executor, Trx } from '../db/client.ts';
import { isCheckViolation, isUniqueViolation } from '../db/errors.ts';
import { AppError, notFound } from '../shared/errors.ts';
import type { CredentialId, DataKeyId, SubjectId, TeamId } from '../shared/ids.ts';
import type { JsonObject } from '../shared/json.ts';
import { checkInjectable, injectionFaults } from './injectable.ts';
import {
  adoptsProvider,
  applyFields,
  demandAllSecrets,
  type FieldsInput,
  fitsType,
  isWider,
  type SecretValues,
} from './fields.ts';
import { adjustStoredTokens, bringsTokens, holdsTokens } from './stored-tokens.ts';
import { isWiderPolicy, type Policy, policyJson } from './policy.ts';
import type { Providers } from './providers/write-out.ts';
import * as repository from './repository.ts';
import { bytesOf, type Stay } from './room.ts';
import type { VersionWrite } from './repository.ts';
import { typeOfRow } from './declared/stored-types.ts';
import type { PublicFields } from './public-values.ts';
import type { CredentialType } from './types/define.ts';
import { findSettings } from '../access/index.ts';
import type { CredentialRow } from './rows.ts';

const attemptsMax = 5;

/** A version whose token did not open though its key did. */
export class UndecryptableVersion extends Error {
  readonly version: number;
  /**
   * Undefined where the token's key is in no state to open anything: that says nothing about the
   * token.
   */
  readonly key: DataKeyId | undefined;
  constructor(version: number, key: DataKeyId | undefined) {
    super('a stored version does not open');
    this.name = 'UndecryptableVersion';
    this.version = version;
    this.key = key;
  }
}

/** The active key went while a write was under way; the write starts again. */
export class KeyMoved extends Error {}

/** What a new version brings to its credential's row. */
export interface NewVersion {
  readonly version: number;
  readonly key: DataKeyId;
  readonly publicFields: PublicFields;
  readonly policy: Policy;
  readonly secretFieldNames: readonly string[];
  /** What changed, by name; never a value. */
  readonly changed: readonly string[];
  /** The present entry of the provider was adopted without the secrets. */
  readonly isAdoption?: boolean;
}

/** By whom and when a version is written, and into what room. */
export interface WriteStamp {
  readonly by: SubjectId;
  readonly at: Date;
  readonly stay: Stay;
}

/** A version ready for its insert, its secrets sealed. */
export function sealVersion(
  keyring: Keyring,
  key: WrappedDataKey,
  of: {
    team: TeamId;
    credential: CredentialId;
    version: number;
    type: string;
    publicFields: PublicFields;
    policy: Policy;
    secrets: SecretValues;
    keyHistory: readonly DataKeyId[];
    by: SubjectId;
    at: Date;
  },
): VersionWrite {
  const { team, credential, version, publicFields, policy, secrets, keyHistory, by, at } = of;
  const token = keyring.seal(key, bindingOf(of), new Secret(secrets));
  return {
    team,
    credential,
    version,
    key: key.id,
    token,
    secretFieldNames: Object.keys(secrets).sort(),
    publicFields,
    policy,
    keyHistory,
    by,
    at,
  };
}

/**
 * Writes the version that a change of fields or policy asks for; undefined when it asks for none.
 * Decrypts only what the change keeps. Throws invalidRequest, secretRequired, UndecryptableVersion,
 * limitReached.
 */
export async function writeNextVersion(
  keyring: Keyring,
  trx: Trx,
  row: CredentialRow,
  change: {
    fields?: FieldsInput | undefined;
    policy?: Policy | undefined;
    providers?: Providers | undefined;
  },
  { stay, ...stamp }: WriteStamp,
): Promise<NewVersion | undefined> {
  const type = await typeOfRow(keyring, trx, row.type);
  const policy = change.policy ?? row.policy;
  const { publicFields, secrets, cleared, kept } = applyFields(
    type,
    row,
    change.fields ?? {},
    undefined,
    change.providers,
  );
  const changed = [
    ...[...Object.keys(secrets), ...cleared].map((name) => `fields.${name}`),
    ...(sameFields(publicFields, row.publicFields) ? [] : ['publicFields']),
    ...(samePolicy(policy, row.policy) ? [] : ['policy']),
  ];
  if (changed.length === 0) return undefined;
  // SECURITY: otherwise whoever may write could send a stored secret to a host of their own.
  const isAdoption =
    !isWiderPolicy(row.policy, policy) &&
    adoptsProvider(type, row.publicFields, publicFields, change.fields ?? {});
  if (!isAdoption && isWider(type, row, { publicFields, policy })) demandAllSecrets(kept);
  await adjustStoredTokens(trx, type, row, {
    publicFields,
    policy,
    bringsTokens: bringsTokens(type, row, publicFields, changed),
  });
  await stay.enter();
  // Before the value that is kept is read: from here on no rotation starts, so its list of keys is
  // complete.
  const key = await repository.lockActiveKey(trx, row.team);
  if (key === undefined) throw new KeyMoved();
  const held = await keep(keyring, trx, row, kept);
  const all = { ...held.values, ...secrets };
  checkInjectable(type, policy, { ...publicFields, ...all });
  const version = sealVersion(keyring, key, {
    team: row.team,
    credential: row.id,
    version: row.version + 1,
    type: row.type,
    publicFields,
    policy,
    secrets: all,
    keyHistory: held.keyHistory,
    ...stamp,
  });
  await addVersion(keyring, trx, version, stay);
  return {
    version: version.version,
    key: key.id,
    publicFields,
    policy,
    secretFieldNames: version.secretFieldNames,
    changed,
    isAdoption,
  };
}

/**
 * Writes a version that is as an earlier one was: its public fields, its policy, its values. Where
 * fields or policy differ from the current ones it asks `demandRight`, which throws if that may not
 * be. Throws notFound, UndecryptableVersion, limitReached, stateConflict for one that breaks a rule
 * of today.
 */
export async function writeVersionAgain(
  keyring: Keyring,
  trx: Trx,
  row: CredentialRow,
  version: number,
  demandRight: () => void,
  { stay, ...stamp }: WriteStamp,
): Promise<NewVersion> {
  const past = await repository.findVersion(trx, row.team, row.id, version);
  if (past === undefined) throw notFound();
  const { publicFields, policy, secretFieldNames } = past;
  // SECURITY: no row MAC covers an earlier version. What it says of itself counts only once its
  // token has opened beside it, whatever is in that; until then nothing of it is looked at.
  const values = openStored(
    keyring,
    { ...row, version, publicFields, policy, secretFieldNames },
    past.held,
  ).expose();
  const type = await typeOfRow(keyring, trx, row.type);
  if (!isFit(type, { publicFields, policy, secrets: values }))
    throw new AppError(
      'stateConflict',
      'The version breaks a rule of its type or of its policy, and cannot be restored.',
    );
  const isElsewhere =
    !sameFields(publicFields, row.publicFields) || !samePolicy(policy, row.policy);
  // SECURITY: its secrets go where they went then, which somebody may have had a reason to leave.
  if (isElsewhere) demandRight();
  await adjustStoredTokens(trx, type, row, {
    publicFields,
    policy,
    hadTokens: holdsTokens(secretFieldNames),
  });
  await stay.enter();
  const key = await repository.lockActiveKey(trx, row.team);
  if (key === undefined) throw new KeyMoved();
  // From here on no rotation starts, so the list of keys is complete.
  const keyHistory = await repository.findKeyHistory(trx, row.team, row.id, version);
  const next = sealVersion(keyring, key, {
    team: row.team,
    credential: row.id,
    version: row.version + 1,
    type: row.type,
    publicFields,
    policy,
    secrets: values,
    keyHistory,
    ...stamp,
  });
  await addVersion(keyring, trx, next, stay);
  return {
    version: next.version,
    key: key.id,
    publicFields,
    policy,
    secretFieldNames: next.secretFieldNames,
    changed: [`version ${version}`],
  };
}

/** Whether a stored version keeps the rules of its type and of its policy. */
function isFit(
  type: CredentialType,
  of: { publicFields: PublicFields; policy: Policy; secrets: SecretValues },
): boolean {
  const { delivery } = of.policy;
  return (
    fitsType(type, of) &&
    (!delivery.includes('broker') ||
      (type.broker !== undefined &&
        injectionFaults(type, { ...of.publicFields, ...of.secrets }).length === 0))
  );
}

// A secret can be replaced in a team that is full as long as the version that goes is as large.
async function addVersion(
  keyring: Keyring,
  trx: Trx,
  version: VersionWrite,
  stay: Stay,
): Promise<void> {
  const { team, credential } = version;
  // SECURITY: how many versions stay is an admin's to say. Where that was changed past the service
  // none is destroyed.
  const kept = (await findSettings(trx, keyring, team))?.versionsKept;
  const isExact = await stay.isExact();
  const going =
    isExact && kept !== undefined ? await repository.bytesToPrune(trx, team, credential, kept) : 0;
  await stay.grow({ bytes: bytesOf(version) - going });
  try {
    await repository.insertVersion(trx, version);
  } catch (error) {
    // The vault's own are never newer than the current one.
    if (isUniqueViolation(error, 'credential_version_pkey'))
      throw new AppError(
        'stateConflict',
        'A version that is newer than the current one stands in the way: destroy it first.',
        { cause: error },
      );
    throw error;
  }
  if (kept === undefined) return;
  const gone = await repository.pruneVersions(trx, team, credential, kept);
  if (!isExact) await stay.grow({ bytes: -gone });
}

interface Kept {
  readonly values: SecretValues;
  readonly keyHistory: readonly DataKeyId[];
}

/** All secret fields of the current version. Throws UndecryptableVersion, KeyUnavailable. */
export async function openVersion(
  keyring: Keyring,
  executor: Executor,
  row: CredentialRow,
): Promise<SecretFields> {
  const held = await repository.findToken(executor, row.team, row.id, row.version);
  return openStored(keyring, row, held);
}

/**
 * The secrets of a stored token; without one, or under a key that opens nothing, there are none.
 * Throws UndecryptableVersion, KeyUnavailable.
 */
export function openStored(
  keyring: Keyring,
  row: CredentialRow,
  held: repository.StoredToken | undefined,
): SecretFields {
  if (held === undefined) throw new UndecryptableVersion(row.version, undefined);
  const { team, id: credential, version, type, publicFields } = row;
  try {
    // The policy as it stands, members that nobody knows included.
    return keyring.open(
      held.key,
      {
        team,
        credential,
        version,
        type,
        publicFields,
        policy: row.policy as unknown as JsonObject,
        secretFields: row.secretFieldNames,
      },
      held.token,
    );
  } catch (error) {
    if (error instanceof DecryptionFailed) throw new UndecryptableVersion(row.version, held.key.id);
    throw error;
  }
}

/** The stored values of the fields that a merge keeps, and the keys that they were ever under. */
async function keep(
  keyring: Keyring,
  trx: Trx,
  row: CredentialRow,
  names: readonly string[],
): Promise<Kept> {
  if (names.length === 0) return { values: {}, keyHistory: [] };
  const held = await repository.findToken(trx, row.team, row.id, row.version);
  const values = openStored(keyring, row, held).expose();
  if (held === undefined) throw new UndecryptableVersion(row.version, undefined);
  const kept = Object.fromEntries(
    names.map((name): [string, string] => {
      const value = Object.hasOwn(values, name) ? values[name] : undefined;
      if (value === undefined) throw new UndecryptableVersion(row.version, held.key.id);
      return [name, value];
    }),
  );
  return { values: kept, keyHistory: held.keyHistory };
}

/**
 * Runs a write again when the team's key was rotated under it, having told `onMoved`. Throws
 * nameTaken, keyBusy.
 */
export async function underActiveKey<T>(
  write: () => Promise<T>,
  onMoved: () => void = () => undefined,
): Promise<T> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await write();
    } catch (error) {
      if (isUniqueViolation(error, 'credential_living_name'))
        throw new AppError('nameTaken', 'A credential of the team has this name.');
      const isMoved =
        error instanceof KeyMoved || isCheckViolation(error, 'token_needs_active_key');
      if (!isMoved) throw error;
      if (attempt >= attemptsMax)
        throw new AppError('keyBusy', 'The key of the team keeps changing; try again.', {
          retryAfterSeconds: 1,
          cause: error,
        });
      onMoved();
    }
  }
}

/** Whether two flat objects say the same. */
export function sameFields(
  a: Readonly<Record<string, unknown>>,
  b: Readonly<Record<string, unknown>>,
): boolean {
  const names = Object.keys(a);
  return (
    names.length === Object.keys(b).length &&
    names.every((name) => Object.hasOwn(b, name) && a[name] === b[name])
  );
}

const samePolicy = (a: Policy, b: Policy): boolean =>
  JSON.stringify(policyJson(a)) === JSON.stringify(policyJson(b));

function bindingOf(of: {
  team: TeamId;
  credential: CredentialId;
  version: number;
  type: string;
  publicFields: PublicFields;
  policy: Policy;
}): Binding {
  const { team, credential, version, type, publicFields, policy } = of;
  return { team, credential, version, type, publicFields, policy: policyJson(policy) };
}
