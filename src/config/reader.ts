// Reading of an environment, name by name: a value, or the file that holds it. Pure but for the way
// to read files that the caller hands in.
import { ValueInvalid } from './values.ts';

export type Environment = Readonly<Record<string, string | undefined>>;

/**
 * The names there are; those that may also be given as NAME_FILE; and what every other name may not
 * start with.
 */
export interface KnownNames {
  readonly names: readonly string[];
  readonly files: ReadonlySet<string>;
  readonly prefix: string;
}

/**
 * The environment as the modes read it; faults are collected, so that all of them are said at once.
 */
export class Reader {
  readonly faults: string[] = [];
  readonly #environment: Environment;
  readonly #readFile: (path: string) => string;
  readonly #known: KnownNames;
  constructor(environment: Environment, readFile: (path: string) => string, known: KnownNames) {
    this.#environment = environment;
    this.#readFile = readFile;
    this.#known = known;
  }

  /** For what a file names in its turn. */
  readonly readFile = (path: string): string => this.#readFile(path);

  fault(name: string, rule: string): void {
    this.faults.push(`${name} ${rule}`);
  }

  isSet(name: string): boolean {
    return (
      this.#environment[name] !== undefined ||
      (this.#known.files.has(name) && this.#environment[`${name}_FILE`] !== undefined)
    );
  }

  forbid(name: string, rule: string): void {
    if (this.isSet(name)) this.fault(name, rule);
  }

  refuseUnknown(): void {
    const known = new Set([
      ...this.#known.names,
      ...[...this.#known.files].map((name) => `${name}_FILE`),
    ]);
    for (const name of Object.keys(this.#environment).sort()) {
      if (
        name.startsWith(this.#known.prefix) &&
        this.#environment[name] !== undefined &&
        !known.has(name)
      )
        this.fault(name, 'is not a name that the vault knows');
    }
  }

  required<T>(
    name: string,
    rule: (text: string) => T,
    options?: { isFile: boolean },
  ): T | undefined {
    if (!this.isSet(name)) this.fault(name, 'is required');
    return this.value(name, rule, options);
  }

  /** Undefined when not set, and after a fault. */
  value<T>(
    name: string,
    rule: (text: string) => T,
    { isFile = false }: { isFile?: boolean } = {},
  ): T | undefined {
    const direct = this.#environment[name];
    const path = isFile ? this.#environment[`${name}_FILE`] : undefined;
    if (direct !== undefined && path !== undefined)
      return void this.fault(name, `and ${name}_FILE must not both be set`);
    const text = path === undefined ? direct : this.#fromFile(name, path);
    if (text === undefined) return undefined;
    if (text === '') return void this.fault(name, 'must not be empty');
    try {
      return rule(text);
    } catch (error) {
      if (!(error instanceof ValueInvalid)) throw error;
      return void this.fault(name, error.message);
    }
  }

  /** The text of the file that the name says; undefined after a fault. */
  file(name: string): string | undefined {
    const path = this.#environment[name];
    if (path === undefined || path === '') return void this.fault(name, 'must not be empty');
    try {
      return this.#readFile(path);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      return void this.fault(
        name,
        `names a file that cannot be read${code === undefined ? '' : ` (${code})`}`,
      );
    }
  }

  #fromFile(name: string, path: string): string | undefined {
    try {
      return this.#readFile(path).replace(/\r?\n$/, '');
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      return void this.fault(
        `${name}_FILE`,
        `names a file that cannot be read${code === undefined ? '' : ` (${code})`}`,
      );
    }
  }
}

/**
 * Belt to the rule that secrets are not logged: what prints or serializes the whole object shows
 * its names only.
 */
export function hide<T extends object>(secrets: T): T {
  const shown = (): string => `[secrets: ${Object.keys(secrets).join(', ')}]`;
  return Object.defineProperties(secrets, {
    toJSON: { value: shown },
    [Symbol.for('nodejs.util.inspect.custom')]: { value: shown },
  });
}
