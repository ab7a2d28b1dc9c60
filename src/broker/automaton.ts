// Aho-Corasick over bytes: every place in a stream where one of many patterns ends, in time linear in the stream, however the
// patterns overlap.

/** The state before anything has matched. */
export const root = 0;

/** A set of byte patterns, compiled. Holds what it looks for: it lives as long as one answer. */
export class Automaton {
  // A tree of nodes in parallel arrays; node 0 is the root. Children hang in a list: almost all nodes have one.
  readonly #byte: Uint8Array;
  readonly #child: Int32Array;
  readonly #sibling: Int32Array;
  readonly #fail: Int32Array;
  readonly #depth: Int32Array;
  readonly #longest: Int32Array;
  readonly #open: Int32Array;
  readonly #first = new Int32Array(256);
  #size = 1;
  /** Bytes of the longest pattern. */
  readonly longestPattern: number;

  constructor(patterns: readonly Uint8Array[]) {
    const nodes = 1 + patterns.reduce((sum, { length }) => sum + length, 0);
    this.#byte = new Uint8Array(nodes);
    this.#child = new Int32Array(nodes);
    this.#sibling = new Int32Array(nodes);
    this.#fail = new Int32Array(nodes);
    this.#depth = new Int32Array(nodes);
    this.#longest = new Int32Array(nodes);
    this.#open = new Int32Array(nodes);
    this.longestPattern = patterns.reduce((max, { length }) => Math.max(max, length), 1);
    for (const pattern of patterns) this.#insert(pattern);
    this.#link();
  }

  /** The state after one more byte. */
  next(state: number, byte: number): number {
    for (let at = state; at !== root; at = this.#fail[at]!) {
      const child = this.#childOf(at, byte);
      if (child !== root) return child;
    }
    return this.#first[byte]!;
  }

  /** Bytes of the longest pattern that ends in this state; 0 for none. Shorter ones that end here lie inside it. */
  matched(state: number): number { return this.#longest[state]!; }

  /** Bytes at the end that may still grow into a pattern: the longest proper prefix of any. */
  pending(state: number): number { return this.#open[state]!; }

  /** Whether a pattern starts with the byte. */
  starts(byte: number): boolean { return this.#first[byte] !== root; }

  #childOf(node: number, byte: number): number {
    let child = node === root ? this.#first[byte]! : this.#child[node]!;
    if (node === root) return child;
    while (child !== root && this.#byte[child] !== byte) child = this.#sibling[child]!;
    return child;
  }

  #insert(pattern: Uint8Array): void {
    let node = root;
    for (const byte of pattern) {
      let child = this.#childOf(node, byte);
      if (child === root) {
        child = this.#size;
        this.#size += 1;
        this.#byte[child] = byte;
        this.#depth[child] = this.#depth[node]! + 1;
        this.#sibling[child] = this.#child[node]!;
        this.#child[node] = child;
        if (node === root) this.#first[byte] = child;
      }
      node = child;
    }
    this.#longest[node] = this.#depth[node]!;
  }

  /** Breadth first, so that what a node falls back to is complete before it. */
  #link(): void {
    const queue = new Int32Array(this.#size);
    let end = 0;
    for (let child = this.#child[root]!; child !== root; child = this.#sibling[child]!) { queue[end] = child; end += 1; }
    for (let i = 0; i < end; i += 1) {
      const node = queue[i]!;
      const fail = this.#fail[node]!;
      if (this.#longest[node] === 0) this.#longest[node] = this.#longest[fail]!;
      this.#open[node] = this.#child[node] === root ? this.#open[fail]! : this.#depth[node]!;
      for (let child = this.#child[node]!; child !== root; child = this.#sibling[child]!) {
        this.#fail[child] = this.next(fail, this.#byte[child]!);
        queue[end] = child;
        end += 1;
      }
    }
  }
}
