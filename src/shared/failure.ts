// What may be said of an error that is not of our own making: its name, its code, and where it was
// thrown. Never its text, which can quote a value.

export interface DescribedFailure {
  readonly name: string;
  readonly code: string | undefined;
  readonly at: readonly string[];
}

const framesMax = 8;
/** A frame as V8 writes it: who was called, and the place in a file. */
const frame = /^ {4}at (?:[\w$.<>[\] #:]+ \()?(?:file:\/\/|node:|\/)[^\s()]*:\d+:\d+\)?$/;

/** Throws nothing, whatever was thrown. */
export function describeFailure(thrown: unknown): DescribedFailure {
  if (!(thrown instanceof Error)) return { name: typeof thrown, code: undefined, at: [] };
  try {
    const { code } = thrown as Error & { code?: unknown };
    return {
      name: plain(thrown.name),
      code: code === undefined ? code : plain(code),
      at: at(thrown),
    };
  } catch {
    return { name: 'unnamed', code: undefined, at: [] };
  }
}

/**
 * SECURITY: the stack begins with the message, and a line of a message can look like a frame; so
 * what stands behind the message counts, and only what is nothing but a place.
 */
function at({ stack, message }: Error): readonly string[] {
  const text = String(stack ?? '');
  const start = text.indexOf(message);
  return text
    .slice(start < 0 ? 0 : start + message.length)
    .split('\n')
    .filter((line) => frame.test(line))
    .slice(0, framesMax)
    .map((line) => line.trim());
}

const plain = (text: unknown): string =>
  typeof text === 'string' && /^[\w.-]{1,60}$/.test(text) ? text : 'unnamed';
