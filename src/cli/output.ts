// A file that is there whole or not at all, and is its owner's only.
import { randomBytes } from 'node:crypto';
import { closeSync, fsyncSync, openSync, renameSync, unlinkSync, writeSync } from 'node:fs';
import { OptionsUnfit } from './target.ts';

export interface Output {
  readonly path: string;
  write(text: string): void;
  /** Puts the file into its place, over one that is there. */
  keep(): void;
  /** As if it had never been begun. */
  discard(): void;
}

const ownerOnly = 0o600;

/** Opens a file beside the one that is meant. Throws OptionsUnfit. */
export function openOutput(path: string): Output {
  const beside = `${path}.${randomBytes(6).toString('hex')}.part`;
  let file: number | undefined;
  try {
    file = openSync(beside, 'wx', ownerOnly);
  } catch (error) {
    throw new OptionsUnfit(
      `--out names a file that cannot be written (` +
        `${(error as NodeJS.ErrnoException).code ?? 'unknown'})`,
    );
  }
  const close = (): boolean => {
    if (file === undefined) return false;
    closeSync(file);
    file = undefined;
    return true;
  };
  return {
    path,
    write(text) {
      const bytes = Buffer.from(text);
      for (let written = 0; written < bytes.length; ) written += writeSync(file!, bytes, written);
    },
    keep() {
      fsyncSync(file!);
      close();
      renameSync(beside, path);
    },
    discard() {
      if (close()) unlinkSync(beside);
    },
  };
}

/** Writes a small file that must not be there yet, for its owner only. Throws OptionsUnfit. */
export function writeNew(path: string, text: string): void {
  let file: number;
  try {
    file = openSync(path, 'wx', ownerOnly);
  } catch (error) {
    throw new OptionsUnfit(
      `the file cannot be made (${(error as NodeJS.ErrnoException).code ?? 'unknown'}); it ` +
        `must not be there yet`,
    );
  }
  writeSync(file, text);
  closeSync(file);
}
