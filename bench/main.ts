// The frame of every run: a folder of its own, what is printed, and the stop of everything that was
// started, however the run ends.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** What a run is given. What is put into `stops` is called at its end, the last first. */
export interface Frame {
  readonly folder: string;
  readonly stops: (() => unknown)[];
  readonly say: (text: string) => void;
}

/**
 * Runs; with `keep` in that folder, which stays, otherwise in one that goes. Ends with 1 when the
 * run throws or is interrupted.
 */
export async function runFramed(
  run: (frame: Frame) => Promise<void>,
  { keep }: { keep?: string | undefined } = {},
): Promise<void> {
  const folder = keep ?? mkdtempSync(join(tmpdir(), 'vault-bench-'));
  const stops: (() => unknown)[] =
    keep === undefined
      ? [
          () => {
            rmSync(folder, { recursive: true, force: true });
          },
        ]
      : [];
  const stopAll = async (): Promise<void> => {
    for (const stop of stops.splice(0).reverse()) await stop();
  };
  for (const signal of ['SIGINT', 'SIGTERM'] as const)
    process.once(signal, () => {
      void stopAll().then(() => process.exit(1));
    });
  try {
    await run({
      folder,
      stops,
      say: (text) => {
        process.stdout.write(`${text}\n`);
      },
    });
  } catch (error) {
    process.stderr.write(`bench: ${error instanceof Error ? error.message : String(error)}\n`);
    process.exitCode = 1;
  } finally {
    await stopAll();
  }
}

/** Whole seconds since a moment of `performance.now()`. */
export function seconds(since: number): string {
  return ((performance.now() - since) / 1000).toFixed(0);
}
