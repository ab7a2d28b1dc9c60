// The commands. The only reader of process.*: environment, arguments, signals, exit code.
import { readFileSync } from 'node:fs';
import { pino } from 'pino';
import { commands, type CommandContext, UsageError } from './commands.ts';
import { ConfigInvalid } from './config.ts';

const [name = 'help', ...args] = process.argv.slice(2);
const stopping = new AbortController();
// A terminal's Ctrl-C comes twice at once: from the terminal, and from npm, which got it too and
// passes it on.
const echoMs = 1_000;
let askedAtMs = Number.NEGATIVE_INFINITY;
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.on(signal, () => {
    // asked twice
    if (stopping.signal.aborted && performance.now() - askedAtMs > echoMs) process.exit(1);
    if (!stopping.signal.aborted) askedAtMs = performance.now();
    stopping.abort();
  });
}

const context: CommandContext = {
  args,
  environment: process.env,
  processId: process.pid,
  readFile: (path) => readFileSync(path, 'utf8'),
  write: (text) => {
    process.stdout.write(text);
  },
  note: (text) => {
    process.stderr.write(text);
  },
  isTerminal: process.stdout.isTTY === true,
  // A system call for each line costs more than the line: they go out together, at the latest after
  // a tenth of a second, and at the exit.
  makeLogger: (level) =>
    pino(
      { level, base: { pid: process.pid }, timestamp: pino.stdTimeFunctions.isoTime },
      pino.destination({ dest: 1, sync: false, minLength: 4096, periodicFlush: 100 }),
    ),
  stop: stopping.signal,
  now: Date.now,
};

try {
  const command = Object.hasOwn(commands, name) ? commands[name] : undefined;
  if (command === undefined)
    throw new UsageError(
      `there is no command of this name; the commands are: ${Object.keys(commands).join(', ')}`,
    );
  process.exitCode = await command.run(context);
} catch (error) {
  // What is said here is of our own making; anything else shows its name and place, never a text
  // that could quote a value.
  const known = error instanceof UsageError || error instanceof ConfigInvalid || isOurs(error);
  process.stderr.write(
    `credential-vault ${Object.hasOwn(commands, name) ? name : ''}: ${known ? (error as Error).message : describe(error)}\n`,
  );
  process.exitCode = error instanceof UsageError ? 2 : 1;
}

function isOurs(error: unknown): boolean {
  return (
    error instanceof Error &&
    [
      'SchemaUnfit',
      'VaultRefused',
      'RootKeyMissing',
      'CanaryWrong',
      'KeyringRefused',
      'SystemKeysMissing',
      'RootKeyInvalid',
      'DataFolderBusy',
      'LocalKeysInvalid',
      'NoLocalVault',
      'NoPrimary',
      'SchemaUnknown',
      'MigrationFailed',
      'LocalPostgresFailed',
    ].includes(error.name)
  );
}

function describe(error: unknown): string {
  if (!(error instanceof Error)) return 'failed';
  const { code } = error as NodeJS.ErrnoException;
  const at = (error.stack ?? '')
    .split('\n')
    .filter((line) => line.startsWith('    at '))
    .slice(0, 8)
    .join('\n');
  return `failed: ${error.name}${code === undefined ? '' : ` ${code}`}\n${at}`;
}
