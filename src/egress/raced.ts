// A wait that has an end, whatever becomes of what is waited for.

/**
 * What the promise comes to, or `reason()` as soon as the signal says so. What comes later goes to
 * `late`; a later failure is nobody's.
 */
export async function raced<T>(
  signal: AbortSignal,
  promise: Promise<T>,
  reason: () => unknown,
  late: (value: T) => void = () => undefined,
): Promise<T> {
  const { promise: stopped, reject } = Promise.withResolvers<never>();
  let isLost = false;
  const stop = (): void => {
    isLost = true;
    reject(reason());
  };
  promise.then(
    (value) => {
      if (isLost) late(value);
    },
    () => undefined,
  );
  if (signal.aborted) stop();
  else signal.addEventListener('abort', stop, { once: true });
  try {
    return await Promise.race([stopped, promise]);
  } finally {
    signal.removeEventListener('abort', stop);
  }
}
