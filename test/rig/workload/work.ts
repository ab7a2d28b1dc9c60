// What a lane does: for each operation how often, and how.

/** By the operation's id. */
export type Work<L> = Readonly<
  Record<
    string,
    {
      readonly weight: number;
      /** Does it once; false where there is nothing to do it on now. */
      readonly run: (lane: L) => Promise<boolean>;
    }
  >
>;
