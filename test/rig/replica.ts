// One replica of the vault: `serve` as production runs it, a process of its own with a clock of its
// own, configured by its environment and files.
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { until } from '../helpers/processes.ts';
import { type Guarded, startGuarded } from './children.ts';
import type { SkewedClock } from './clock.ts';

/** A line of the log, parsed where it is JSON. */
export type LogLine = Readonly<Record<string, unknown>> | string;

export interface ReplicaParts {
  readonly name: string;
  readonly environment: Readonly<Record<string, string>>;
  readonly clock: SkewedClock;
  readonly onLog: (line: LogLine) => void;
  /** How which start of it ended, and whether the rig had a hand in it. */
  readonly onExit: (ended: Ended) => void;
}

export interface Ended {
  readonly start: number;
  readonly how: number | NodeJS.Signals;
  readonly isExpected: boolean;
}

/** More than a replica gives what it has begun. */
const stopMsMax = 60_000;
const main = join(import.meta.dirname, '../../src/main.ts');

/** A replica that can be ended in every way and started again; its ports change with each start. */
export class Replica {
  readonly name: string;
  readonly clock: SkewedClock;
  readonly #parts: ReplicaParts;
  #process: Guarded | undefined;
  #url = '';
  #brokerUrl = '';
  #isEndExpected = false;
  #isFrozen = false;
  #starts = 0;
  #freezes = 0;
  #starting: Promise<void> | undefined;

  constructor(parts: ReplicaParts) {
    this.name = parts.name;
    this.clock = parts.clock;
    this.#parts = parts;
  }

  /** Where it listens; of the last start. */
  get url(): string {
    return this.#url;
  }

  get brokerUrl(): string {
    return this.#brokerUrl;
  }

  get isAlive(): boolean {
    return this.#process?.isAlive === true;
  }

  get isFrozen(): boolean {
    return this.#isFrozen;
  }

  get pid(): number | undefined {
    return this.#process?.pid;
  }

  /** How often it was frozen: what it was asked meanwhile had to wait. */
  get freezes(): number {
    return this.#freezes;
  }

  /** Which start this is: what was asked of an earlier one is not answered by this one. */
  get starts(): number {
    return this.#starts;
  }

  /** Starts the process once; false where it ended before it listened. */
  async tryStart(): Promise<boolean> {
    const { name, environment, clock, onLog, onExit } = this.#parts;
    this.#isEndExpected = false;
    this.#isFrozen = false;
    this.#starts += 1;
    const start = this.#starts;
    this.#url = '';
    const child = await startGuarded({
      name,
      command: process.execPath,
      args: ['--disable-sigusr1', main, 'serve'],
      env: { ...environment, ...clock.environment },
      onLine: (text) => {
        const line = parsed(text);
        if (typeof line !== 'string' && line['event'] === 'listening') {
          this.#url = String(line['url']);
          this.#brokerUrl = String(line['brokerUrl']);
        }
        onLog(line);
      },
    });
    this.#process = child;
    let isStarting = true;
    void child.ended.then((how) => {
      // One that cannot start while its database is away ends; that is no fault.
      onExit({ start, how, isExpected: this.#isEndExpected || (isStarting && how === 1) });
    });
    const isUp = await until(
      () => this.#url !== '' || (child.isAlive ? undefined : 'ended'),
      120_000,
    );
    isStarting = false;
    return isUp === true;
  }

  /**
   * Starts it, again and again while its database is away; whoever asks meanwhile waits for the same
   * start.
   */
  start(): Promise<void> {
    this.#starting ??= this.#startUntilUp(120_000).finally(() => {
      this.#starting = undefined;
    });
    return this.#starting;
  }

  async #startUntilUp(timeoutMs: number): Promise<void> {
    if (this.isAlive) return;
    const deadline = performance.now() + timeoutMs;
    while (!(await this.tryStart())) {
      if (performance.now() > deadline) throw new Error(`${this.name} does not start`);
      await delay(500);
    }
  }

  /** Ends it without a warning. */
  async kill(): Promise<void> {
    this.#isEndExpected = true;
    this.#process?.signal('SIGKILL');
    await this.#process?.ended;
  }

  /** Asks it to stop; how it ended. One that does not is killed, and that was not expected of it. */
  async stop(): Promise<number | NodeJS.Signals> {
    const child = this.#process;
    if (child === undefined) return 0;
    this.#isEndExpected = true;
    child.signal('SIGTERM');
    const timer = setTimeout(() => {
      this.#isEndExpected = false;
      child.signal('SIGKILL');
    }, stopMsMax);
    const how = await child.ended;
    clearTimeout(timer);
    return how;
  }

  freeze(): void {
    this.#freezes += 1;
    this.#isFrozen = true;
    this.#process?.signal('SIGSTOP');
  }

  thaw(): void {
    this.#process?.signal('SIGCONT');
    this.#isFrozen = false;
  }

  /** Whether its readiness probe says so. */
  async isReady(): Promise<boolean> {
    if (!this.isAlive || this.isFrozen || this.#url === '') return false;
    try {
      const { status } = await fetch(`${this.#url}/readyz`, { signal: AbortSignal.timeout(3_000) });
      return status === 200;
    } catch {
      return false;
    }
  }
}

function parsed(text: string): LogLine {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : text;
  } catch {
    return text;
  }
}
