// Where the log goes: lines of JSON on the standard output, many at a time.
import { type Logger, pino } from 'pino';

export interface LogOutput {
  readonly logger: Logger;
  /** The program ends: lines that cannot be written are not waited for. */
  end(): void;
}

/** Of lines that cannot be written; what comes beyond is lost. */
const pendingBytesMax = 16 * 1024 * 1024;

/**
 * A system call for each line costs more than the line: they go out together, at the latest after a
 * tenth of a second, and at the exit. A full disk costs lines of the log, and not the vault.
 */
export function openLogOutput(level: string, processId: number): LogOutput {
  const destination = pino.destination({
    dest: 1,
    sync: false,
    minLength: 4096,
    periodicFlush: 100,
    maxLength: pendingBytesMax,
  });
  let isFailing = false;
  let isEnding = false;
  const giveUp = (): void => {
    if (isFailing && isEnding) destination.destroy();
  };
  destination
    .on('write', () => {
      isFailing = false;
    })
    .on('error', () => {
      isFailing = true;
      giveUp();
    });
  return {
    logger: pino(
      { level, base: { pid: processId }, timestamp: pino.stdTimeFunctions.isoTime },
      destination,
    ),
    end: () => {
      isEnding = true;
      giveUp();
    },
  };
}
