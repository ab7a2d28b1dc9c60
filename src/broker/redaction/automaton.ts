// Aho-Corasick over bytes: every place in a stream where one of many patterns ends, in time linear
// in the stream, however the patterns overlap.

/** The state before anything has matched. */
export const root = 0;

// A node's columns. Children hang in a list: almost all nodes have one.
const [byteAt, childAt, siblingAt, failAt, depthAt, longestAt, openAt, columns] = [
  0, 1, 2, 3, 4, 5, 6, 7,
];

/**
 * A set of byte patterns, compiled. Holds what it looks for; never changes, so it can be shared.
 */
export class Automaton {
  /**
   * A tree of nodes, one after the other in one piece of memory. Node 0 is the root; a node is
   * named by its place.
   */
  #nodes: Int32Array;
  readonly #first = new Int32Array(256);
  #end = columns;

  constructor(patterns: readonly Uint8Array[]) {
    const bytes = patterns.reduce((sum, { length }) => sum + length, 0);
    this.#nodes = new Int32Array((1 + bytes) * columns);
    for (const pattern of patterns) this.#insert(pattern);
    this.#nodes = this.#nodes.slice(0, this.#end); // patterns share beginnings
    this.#link();
  }

  /** How much memory it takes. */
  get byteLength(): number {
    return this.#nodes.byteLength + this.#first.byteLength;
  }

  /** The state after one more byte. */
  next(state: number, byte: number): number {
    for (let at = state; at !== root; at = this.#nodes[at + failAt]!) {
      const child = this.#childOf(at, byte);
      if (child !== root) return child;
    }
    return this.#first[byte]!;
  }

  /**
   * Bytes of the longest pattern that ends in this state; 0 for none. Shorter ones that end here
   * lie inside it.
   */
  matched(state: number): number {
    return this.#nodes[state + longestAt]!;
  }

  /** Bytes at the end that may still grow into a pattern: the longest proper prefix of any. */
  pending(state: number): number {
    return this.#nodes[state + openAt]!;
  }

  /** Bytes at the end on which the state rests. */
  depth(state: number): number {
    return this.#nodes[state + depthAt]!;
  }

  /** Whether a pattern starts with the byte. */
  starts(byte: number): boolean {
    return this.#first[byte] !== root;
  }

  /** Not of the root, whose children are in a table. */
  #childOf(node: number, byte: number): number {
    let child = this.#nodes[node + childAt]!;
    while (child !== root && this.#nodes[child + byteAt] !== byte)
      child = this.#nodes[child + siblingAt]!;
    return child;
  }

  #insert(pattern: Uint8Array): void {
    const nodes = this.#nodes;
    let node = root;
    for (const byte of pattern) {
      let child = node === root ? this.#first[byte]! : this.#childOf(node, byte);
      if (child === root) {
        child = this.#end;
        this.#end += columns;
        nodes[child + byteAt] = byte;
        nodes[child + depthAt] = nodes[node + depthAt]! + 1;
        nodes[child + siblingAt] = nodes[node + childAt]!;
        nodes[node + childAt] = child;
        if (node === root) this.#first[byte] = child;
      }
      node = child;
    }
    nodes[node + longestAt] = nodes[node + depthAt]!;
  }

  /** Breadth first, so that what a node falls back to is complete before it. */
  #link(): void {
    const nodes = this.#nodes;
    const queue = new Int32Array(this.#end / columns);
    let end = 0;
    for (let child = nodes[root + childAt]!; child !== root; child = nodes[child + siblingAt]!) {
      queue[end] = child;
      end += 1;
    }
    for (let i = 0; i < end; i += 1) {
      const node = queue[i]!;
      const fail = nodes[node + failAt]!;
      if (nodes[node + longestAt] === 0) nodes[node + longestAt] = nodes[fail + longestAt]!;
      nodes[node + openAt] =
        nodes[node + childAt] === root ? nodes[fail + openAt]! : nodes[node + depthAt]!;
      for (let child = nodes[node + childAt]!; child !== root; child = nodes[child + siblingAt]!) {
        nodes[child + failAt] = this.next(fail, nodes[child + byteAt]!);
        queue[end] = child;
        end += 1;
      }
    }
  }
}
