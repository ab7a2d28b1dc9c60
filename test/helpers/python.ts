// A Python with the package `cryptography`: the other side of the interop tests. CI must have one
// (Debian: python3-cryptography).
import { spawnSync } from 'node:child_process';

const found = ['/usr/bin/python3', 'python3'].find(
  (python) => spawnSync(python, ['-c', 'import cryptography.fernet']).status === 0,
);
const missing = 'no Python with the package cryptography (Debian: python3-cryptography)';

/**
 * For tap's `skip`: a missing Python is an excuse on a developer's machine, and a failure in CI.
 */
export const skipWithoutPython: string | false =
  found === undefined && process.env['CI'] !== 'true' ? missing : false;

/**
 * Runs the code with `given`, from JSON; the code calls `answer` once, with what goes back as JSON.
 */
export function runPython<T>(code: string, given: unknown): T {
  if (found === undefined) throw new Error(missing);
  const source = `import json, sys\ngiven = json.load(sys.stdin)\ndef answer(value): print(json.dumps(value))\n${code}`;
  const { status, stdout, stderr } = spawnSync(found, ['-c', source], {
    input: JSON.stringify(given),
    encoding: 'utf8',
  });
  if (status !== 0) throw new Error(`Python failed: ${stderr}`);
  return JSON.parse(stdout) as T;
}
