// A clock of its own for one process, by libfaketime: only what the clock on the wall says. The
// monotonic clock, by which time-outs run, is left alone.
import { existsSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** Debian's libfaketime; undefined where it is not installed. */
export function faketimeLibrary(): string | undefined {
  return readdirSync('/usr/lib')
    .map((folder) => join('/usr/lib', folder, 'faketime/libfaketime.so.1'))
    .find((path) => existsSync(path));
}

/** The wall clock of one process: ahead of the true time, or behind it. */
export class SkewedClock {
  readonly #file: string;
  readonly #library: string;
  #skewMs = 0;

  constructor(file: string, library: string) {
    this.#file = file;
    this.#library = library;
    this.set(0);
  }

  get skewMs(): number {
    return this.#skewMs;
  }

  /** The process sees it within a second, without a restart. */
  set(skewMs: number): void {
    this.#skewMs = skewMs;
    writeFileSync(this.#file, `${skewMs < 0 ? '-' : '+'}${Math.abs(skewMs) / 1000}\n`);
  }

  /** What the process must be started with. */
  get environment(): Readonly<Record<string, string>> {
    return {
      LD_PRELOAD: this.#library,
      FAKETIME_TIMESTAMP_FILE: this.#file,
      FAKETIME_CACHE_DURATION: '1',
      FAKETIME_DONT_FAKE_MONOTONIC: '1',
      NO_FAKE_STAT: '1',
    };
  }
}
