// The keys of `local`: made on the first run, read ever after. A key file is written whole or not
// at all, and never over another one.
import { randomBytes } from 'node:crypto';
import {
  closeSync,
  constants,
  fsyncSync,
  linkSync,
  mkdirSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { generateRootKey } from '../crypto/index.ts';
import { isRoot } from './account.ts';
import { hasCluster } from './postgres.ts';
import { ShownError } from '../shared/shown-error.ts';

/** The keys in the form in which `serve` takes them from its configuration. */
export interface LocalKeys {
  readonly rootKeys: string;
  readonly jwtSecret: string;
}

/** The keys in the data folder cannot be used; the message says what to do. */
export class LocalKeysInvalid extends ShownError {
  override name = 'LocalKeysInvalid';
}

const rootKeysFile = 'root-keys';
const jwtSecretFile = 'jwt-secret';

/** Where the embedded server keeps the database of a data folder. */
export const postgresFolder = (dataFolder: string): string => join(dataFolder, 'postgres');

/**
 * Reads the keys of the data folder, making folder and keys where there are none. Safe when two
 * start at once. Throws LocalKeysInvalid.
 */
export function localKeys(dataFolder: string): LocalKeys {
  // Root's server runs as nobody, which must pass through the folder to reach its own; listing and
  // writing stay closed, and the keys are 0600.
  mkdirSync(dataFolder, { recursive: true, mode: isRoot() ? 0o711 : 0o700 });
  if ((statSync(dataFolder).mode & 0o022) !== 0)
    throw new LocalKeysInvalid(
      `others may write to ${dataFolder}, and so replace the keys in it: run chmod go-w on it`,
    );
  const rootKeys = readKey(dataFolder, rootKeysFile) ?? firstRootKey(dataFolder);
  const jwtSecret =
    readKey(dataFolder, jwtSecretFile) ??
    makeKey(dataFolder, jwtSecretFile, randomBytes(32).toString('base64url'));
  return Object.freeze({ rootKeys, jwtSecret });
}

function firstRootKey(dataFolder: string): string {
  // SECURITY: a new key beside an old database would leave every stored secret unreadable, and hide
  // that the old key is missing.
  if (hasCluster(postgresFolder(dataFolder))) {
    throw new LocalKeysInvalid(
      `${join(dataFolder, rootKeysFile)} is gone, and the database beside it cannot be read ` +
        `without it: put the file back, or move ${dataFolder} away to start afresh`,
    );
  }
  return makeKey(dataFolder, rootKeysFile, generateRootKey());
}

function readKey(dataFolder: string, name: string): string | undefined {
  const path = join(dataFolder, name);
  const mode = statSync(path, { throwIfNoEntry: false })?.mode;
  if (mode === undefined) return undefined;
  if ((mode & 0o077) !== 0)
    throw new LocalKeysInvalid(
      `others may open ${path}: run chmod 600 on it, and consider the key known`,
    );
  const text = readFileSync(path, 'utf8').trim();
  if (text === '')
    throw new LocalKeysInvalid(
      `${path} is empty: put the file back, or move ${dataFolder} away to start afresh`,
    );
  return text;
}

// Written aside, flushed, then linked into place: a link, unlike a rename, never replaces what is
// there.
function makeKey(dataFolder: string, name: string, key: string): string {
  const path = join(dataFolder, name);
  const aside = `${path}.${randomBytes(6).toString('hex')}`;
  try {
    const file = openSync(aside, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, 0o600);
    try {
      writeSync(file, `${key}\n`);
      fsyncSync(file);
    } finally {
      closeSync(file);
    }
    linkSync(aside, path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error; // another start was quicker: its key counts
  } finally {
    rmSync(aside, { force: true });
  }
  flushFolder(dataFolder);
  return readKey(dataFolder, name)!;
}

function flushFolder(folder: string): void {
  const handle = openSync(folder, constants.O_RDONLY);
  try {
    fsyncSync(handle);
  } finally {
    closeSync(handle);
  }
}
