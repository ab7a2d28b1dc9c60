// The commands. The only reader of process.*: environment, arguments, signals, exit code.
import { readFileSync } from 'node:fs';
import { type CommandContext, commands, UsageError } from './commands.ts';
import { type LogOutput, openLogOutput } from './log-output.ts';
import { describeFailure, type DescribedFailure } from './shared/failure.ts';
import { ShownError } from './shared/shown-error.ts';

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
// too. After it the state of the process is unknown: the process stops, as in order as it can.
const netMs = 30_000;
const outputs: LogOutput[] = [];
const command = Object.hasOwn(commands, name) ? commands[name] : undefined;
let isBroken = false;
process.on('uncaughtException', (error: unknown) => {
  // SECURITY: name and place only: the text can quote a value.
  const failure = describeFailure(error);
  if (outputs.length === 0 && command?.isService !== true)
    tell(`credential-vault: ${inLines(failure)}\n`);
  else
    logger().fatal({ event: 'uncaught', ...failure }, 'nobody has caught this; the process stops');
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
  makeLogger,
  stop: stopping.signal,
  now: Date.now,
};

try {
  if (command === undefined)
    throw new UsageError(
      `there is no command of this name; the commands are: ${Object.keys(commands).join(', ')}`,
    );
  const code = await command.run(context);
  process.exitCode = isBroken ? 1 : code;
} catch (error) {
  // SECURITY: of anything else only the name and the place are shown: a text could quote a value.
  const failure = error instanceof ShownError ? undefined : describeFailure(error);
  const said = error instanceof ShownError ? error.message : 'failed';
  if (command?.isService === true)
    logger().fatal({ event: 'serviceFailed', command: name, ...failure }, said);
  else
    tell(
      `credential-vault ${command === undefined ? '' : name}: ` +
        `${failure === undefined ? said : `${said}: ${inLines(failure)}`}\n`,
    );
  process.exitCode = error instanceof UsageError ? 2 : 1;
}
for (const output of outputs) output.end();

function makeLogger(level: string): LogOutput['logger'] {
  const output = openLogOutput(level, process.pid);
  outputs.push(output);
  return output.logger;
}

/** The log, or one for the last words of what did not come as far as that. */
function logger(): LogOutput['logger'] {
  return outputs[0]?.logger ?? makeLogger('fatal');
}

/** At once. A log that cannot be written would be waited for without end. */
function leave(code: number): never {
  for (const output of outputs) output.end();
  process.exit(code);
}

function inLines({ name, code, at }: DescribedFailure): string {
  return [`${name}${code === undefined ? '' : ` ${code}`}`, ...at].join('\n    ');
}

function tell(text: string): void {
  process.stderr.write(text);
}
