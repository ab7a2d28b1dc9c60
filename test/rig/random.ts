// Decisions drawn from a seed. Each part of a run draws from a stream of its own, named after it,
// so that one part more or less does not change what the others decide.

/** A stream of decisions: the same for the same seed and name. */
export class Random {
  readonly #seed: number;
  #state: number;

  constructor(seed: number, name = '') {
    this.#seed = hashOf(`${seed}/${name}`);
    this.#state = this.#seed;
  }

  /** A stream of another name, independent of how much was drawn from this one. */
  fork(name: string): Random {
    return new Random(this.#seed, name);
  }

  /** From 0 to 1. */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  }

  /** A whole number from `min` to `max`, both included. */
  integer(min: number, max: number): number {
    return min + Math.floor(this.next() * (max - min + 1));
  }

  chance(probability: number): boolean {
    return this.next() < probability;
  }

  pick<T>(from: readonly T[]): T {
    const found = from[Math.floor(this.next() * from.length)];
    if (from.length === 0) throw new Error('there is nothing to pick from');
    return found as T;
  }

  /** The same things in another order. */
  shuffle<T>(from: readonly T[]): T[] {
    const left = [...from];
    const shuffled: T[] = [];
    while (left.length > 0) shuffled.push(...left.splice(this.integer(0, left.length - 1), 1));
    return shuffled;
  }

  /** Letters and digits, for names. */
  word(length: number): string {
    return Array.from({ length }, () => this.pick([...'abcdefghijkmnpqrstuvwxyz23456789'])).join(
      '',
    );
  }
}

function hashOf(text: string): number {
  let hash = 0x811c9dc5;
  for (let at = 0; at < text.length; at += 1)
    hash = Math.imul(hash ^ text.charCodeAt(at), 0x01000193) >>> 0;
  return hash;
}
