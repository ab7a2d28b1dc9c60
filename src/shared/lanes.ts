// Several things at once, but not all of them.

/**
 * What `action` makes of each item, in their order, with at most so many under way at a time. When
 * one fails no other is begun; those under way are waited for.
 */
export async function inLanes<T, R>(
  items: readonly T[],
  lanes: number,
  action: (item: T) => Promise<R>,
): Promise<R[]> {
  const results = new Array<R>(items.length);
  const entries = items.entries();
  let isFailed = false;
  const lane = async (): Promise<void> => {
    for (const [index, item] of entries) {
      if (isFailed) return;
      try {
        results[index] = await action(item);
      } catch (error) {
        isFailed = true;
        throw error;
      }
    }
  };
  const ended = await Promise.allSettled(Array.from({ length: lanes }, lane));
  const failed = ended.find((each) => each.status === 'rejected');
  if (failed !== undefined) throw failed.reason;
  return results;
}
