// Files that a command is given by their names.
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import type { Test } from 'tap';

export type Files = Readonly<Record<string, string | Uint8Array>>;

/** A folder with the files in it, gone after the test. */
export function folderOf(t: Test, files: Files): string {
  const folder = mkdtempSync(join(tmpdir(), 'vault-files-'));
  t.teardown(() => {
    rmSync(folder, { recursive: true, force: true });
  });
  for (const [name, content] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, name)), { recursive: true });
    writeFileSync(join(folder, name), content);
  }
  return folder;
}

/** The arguments, with what `--file` names in the folder. */
export const inFolder = (args: readonly string[], folder: string): string[] =>
  args.map((each, at) =>
    args[at - 1] === '--file' && !each.startsWith('/') ? join(folder, each) : each,
  );
