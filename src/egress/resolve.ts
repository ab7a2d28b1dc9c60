// From names to addresses. Names that people choose are asked of DNS as they are, without search
// domains and without the process's few threads; names that the operator chose are looked up as the
// operating system does, hosts file included.
import { lookup, Resolver } from 'node:dns/promises';
import { raced } from './raced.ts';

/** Every address of a name; throws or answers an empty list when there is none. */
export type Resolve = (
  name: string,
  options: { readonly isOperators: boolean },
) => Promise<readonly string[]>;

const tryMs = 1_500;
const tries = 2;

/** The resolver of the machine. */
export function systemResolve(): Resolve {
  const resolver = new Resolver({ timeout: tryMs, tries });
  return async (name, { isOperators }) => {
    if (isOperators) return (await lookup(name, { all: true })).map(({ address }) => address);
    const [v4, v6] = await Promise.allSettled([resolver.resolve4(name), resolver.resolve6(name)]);
    // One family that is not answered leaves the other: what is dialled is among what is checked.
    return [v4, v6].flatMap((answer) => (answer.status === 'fulfilled' ? answer.value : []));
  };
}

const namesMax = 5_000;
/** Names that are being asked for at the same time; of more it is as if there were none. */
const askingMax = 1_000;

/**
 * Remembers what a name resolved to for a short while, and asks once where many ask at the same
 * time. Failures are not remembered.
 */
export class NameCache {
  readonly #resolve: Resolve;
  readonly #limitMs: number;
  readonly #keepMs: number;
  readonly #found = new Map<
    string,
    { readonly at: number; readonly addresses: Promise<readonly string[]> }
  >();
  /** Questions without an answer, however long ago whoever put them stopped waiting. */
  readonly #asking = new Map<string, Promise<readonly string[]>>();

  readonly #closed = new AbortController();

  constructor(resolve: Resolve, { limitMs, keepMs }: { limitMs: number; keepMs: number }) {
    this.#resolve = resolve;
    this.#limitMs = limitMs;
    this.#keepMs = keepMs;
  }

  /**
   * The addresses, the same list for as long as they are remembered; an empty one when the name has
   * none, or none within the limit.
   */
  async find(name: string, options: { readonly isOperators: boolean }): Promise<readonly string[]> {
    const key = `${options.isOperators} ${name}`;
    const known = this.#found.get(key);
    if (known !== undefined && performance.now() - known.at < this.#keepMs) return known.addresses;
    if (this.#found.size >= namesMax) this.#found.clear();
    const addresses = within(this.#limitMs, this.#closed.signal, this.#ask(key, name, options))
      .then((found) => [...found])
      .catch((): readonly string[] => []); // the reason why a name has no address does not matter here
    const entry = { at: performance.now(), addresses };
    this.#found.set(key, entry);
    if ((await addresses).length === 0 && this.#found.get(key) === entry) this.#found.delete(key);
    return addresses;
  }

  /** Waits for no name any more: from now on none has an address that is not remembered. */
  close(): void {
    this.#closed.abort();
  }

  /** A name server that doesn't answer is asked once, not once for each who would like to know. */
  #ask(
    key: string,
    name: string,
    options: { readonly isOperators: boolean },
  ): Promise<readonly string[]> {
    const asking = this.#asking.get(key);
    if (asking !== undefined) return asking;
    if (this.#asking.size >= askingMax) return Promise.resolve([]);
    const asked = this.#resolve(name, options).finally(() => this.#asking.delete(key));
    this.#asking.set(key, asked);
    return asked;
  }
}

async function within<T>(limitMs: number, closed: AbortSignal, promise: Promise<T>): Promise<T> {
  const late = new AbortController();
  const timer = setTimeout(() => {
    late.abort();
  }, limitMs);
  try {
    return await raced(
      AbortSignal.any([closed, late.signal]),
      promise,
      () => new Error('the name server took too long'),
    );
  } finally {
    clearTimeout(timer);
  }
}
