// What the parts of this folder tell each other.

/** A refresh because an upstream refused the token: how many there were in a row, and the pause. */
export interface Forced {
  readonly count: number;
  readonly after: Date;
}
