// The commands. The only reader of process.*: environment, arguments, signals, exit code.
import { readFileSync } from 'node:fs';
import { commands, type CommandContext, UsageError } from './commands.ts';
import { ConfigInvalid } from './config/config.ts';
import { type LogOutput, openLogOutput } from './log-output.ts';
import { describeFailure, type Failure } from './shared/failure.ts';

const [name = 'help', ...args] = process.argv.slice(2);
const stopping = new AbortController();
// A terminal's Ctrl-C comes twice at once: from the terminal, and from npm, which got it too and
// passes it on.
const echoMs = 1_000;
let askedAtMs = Number.NEGATIVE_INFINITY;
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.on(signal, () => {
    // asked twice
    if (stopping.signal.aborted && performance.now() - askedAtMs > echoMs) leave(1);
    if (!stopping.signal.aborted) askedAtMs = performance.now();
    stopping.abort();
  });
}

// The last net, under everything that nobody has caught; a rejection that nobody handles comes here
// too. After it nobody knows what state things are in: the process stops, as in order as it can.
const netMs = 30_000;
const outputs: LogOutput[] = [];
let isBroken = false;
process.on('uncaughtException', (error: unknown) => {
  // SECURITY: name and place only: the text can quote a value.
  const failure = describeFailure(error);
  for (const { logger } of outputs)
    logger.fatal({ event: 'uncaught', ...failure }, 'nobody has caught this; the process stops');
  if (outputs.length === 0) tell(`credential-vault: ${inLines(failure)}\n`);
  if (isBroken) return;
  isBroken = true;
  process.exitCode = 1;
  setTimeout(leave, netMs, 1).unref();
  stopping.abort();
});
// Whoever read what is printed has gone: what is left to say reaches nobody.
process.stdout.on('error', () => {
  stopping.abort();
});
process.stderr.on('error', () => undefined);

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
  makeLogger: (level) => {
    const output = openLogOutput(level, process.pid);
    outputs.push(output);
    return output.logger;
  },
  stop: stopping.signal,
  now: Date.now,
};

try {
  const command = Object.hasOwn(commands, name) ? commands[name] : undefined;
  if (command === undefined)
    throw new UsageError(
      `there is no command of this name; the commands are: ${Object.keys(commands).join(', ')}`,
    );
  const code = await command.run(context);
  process.exitCode = isBroken ? 1 : code;
} catch (error) {
  // What is said here is of our own making; anything else shows its name and place, never a text
  // that could quote a value.
  const known = error instanceof UsageError || error instanceof ConfigInvalid || isOurs(error);
  tell(
    `credential-vault ${Object.hasOwn(commands, name) ? name : ''}: ${known ? (error as Error).message : `failed: ${inLines(describeFailure(error))}`}\n`,
  );
  process.exitCode = error instanceof UsageError ? 2 : 1;
}
for (const output of outputs) output.end();

/** At once. A log that cannot be written would be waited for without end. */
function leave(code: number): never {
  for (const output of outputs) output.end();
  process.exit(code);
}

function isOurs(error: unknown): boolean {
  return (
    error instanceof Error &&
    [
      'SchemaUnfit',
      'SubjectsWouldMove',
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

function inLines({ name, code, at }: Failure): string {
  return [`${name}${code === undefined ? '' : ` ${code}`}`, ...at].join('\n    ');
}

function tell(text: string): void {
  process.stderr.write(text);
}
