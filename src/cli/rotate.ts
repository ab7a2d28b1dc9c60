// `rotate`: starts a rotation of a team's key, or of the root key, and with --watch follows it to
// its end. The exit status is for scripts: 0 done, 3 done with failures, 4 cancelled, 130 no longer
// watched.
import { setTimeout as delay } from 'node:timers/promises';
import {
  callerOf,
  type OperateContext,
  OptionsUnfit,
  readOptions,
  stoppedExitCode,
  targetOptions,
  type VaultCall,
  VaultRefused,
} from './target.ts';
import { idLikeForm, slugForm } from '../shared/patterns.ts';

interface Rotation {
  id: string;
  state: string;
  total: number;
  done: number;
  failed: number;
  rowsPerSecond: number;
  estimatedEnd: string | null;
}

const exitCodes: Readonly<Record<string, number>> = {
  completed: 0,
  completedWithFailures: 3,
  cancelled: 4,
};
const pollMs = 300;
/** A vault that restarts, or a balancer that has nobody for a while. */
const awayMsMax = 60_000;
const barWidth = 30;

/** Runs the command; its exit status. Throws OptionsUnfit, VaultRefused. */
export async function rotate(context: OperateContext): Promise<number> {
  const options = readOptions(context.args, {
    ...targetOptions,
    team: { type: 'string' },
    root: { type: 'boolean' },
    watch: { type: 'boolean' },
    rotation: { type: 'string' },
    'dry-run': { type: 'boolean' },
    reason: { type: 'string' },
  });
  const { team, rotation, reason } = options;
  const [isRoot, isWatch, isDryRun] = [
    options.root === true,
    options.watch === true,
    options['dry-run'] === true,
  ];
  if ((team === undefined) === !isRoot) throw new OptionsUnfit('say --team SLUG, or --root');
  if (team !== undefined && !slugForm.test(team))
    throw new OptionsUnfit('--team takes the slug of a team');
  if (isRoot && (isWatch || isDryRun || rotation !== undefined || reason !== undefined))
    throw new OptionsUnfit(
      '--root is done at once: it takes no --watch, --rotation, --dry-run or --reason',
    );
  if (rotation !== undefined && !idLikeForm.test(rotation))
    throw new OptionsUnfit('--rotation takes the id of a rotation');
  if (rotation !== undefined && (!isWatch || isDryRun || reason !== undefined))
    throw new OptionsUnfit('--rotation ID goes with --watch, and starts nothing');
  if (isDryRun && isWatch) throw new OptionsUnfit('--dry-run starts nothing that could be watched');
  const call = callerOf(options, context);
  const screen = new Screen(context, options.json === true);
  if (isRoot) {
    const { body } = await call('POST', '/v1/root-key-rotations');
    screen.line(
      `rewrapped ${String(body['dataKeys'])} data keys and ${String(body['systemKeys'])} ` +
        `system keys under ${String(body['primary'])}`,
      body,
    );
    const failures = (body['failures'] ?? []) as readonly Readonly<Record<string, unknown>>[];
    if (options.json !== true) {
      for (const { kind, id, team, reason, rootKey } of failures)
        screen.line(
          `${kind === 'dataKey' ? `data key ${String(id)} of team ${String(team)}` : `system key ${String(id)}`}` +
            ` stays under ${String(rootKey)}: ${String(reason)}`,
          undefined,
        );
    }
    return Number(body['failed'] ?? 0) > 0
      ? screen.end(exitCodes['completedWithFailures'] ?? 1)
      : 0;
  }
  const path = `/v1/teams/${team ?? ''}/key-rotations`;
  if (isDryRun) {
    const { body } = await call('POST', `${path}?dryRun=true`);
    screen.line(
      `${String(body['rows'])} tokens, about ${String(body['estimatedSeconds'])} s` +
        `${body['isMeasured'] === true ? '' : ' at an assumed pace'}`,
      body,
    );
    return 0;
  }
  const id = rotation ?? (await start(call, path, reason, screen));
  return isWatch ? watch(call, `${path}/${id}`, context, screen) : 0;
}

async function start(
  call: VaultCall,
  path: string,
  reason: string | undefined,
  screen: Screen,
): Promise<string> {
  const rotation = (await call('POST', path, reason === undefined ? undefined : { reason }))
    .body as unknown as Rotation;
  screen.line(`rotation ${rotation.id} runs: ${rotation.total} tokens`, rotation);
  return rotation.id;
}

/**
 * Follows a rotation until it ends or the process is asked to stop; a vault that is away for a
 * moment is asked again.
 */
async function watch(
  call: VaultCall,
  path: string,
  { stop, now }: OperateContext,
  screen: Screen,
): Promise<number> {
  let seenAt = now();
  for (;;) {
    try {
      const rotation = (await call('GET', path)).body as unknown as Rotation;
      seenAt = now();
      screen.progress(barOf(rotation), rotation);
      const code = exitCodes[rotation.state];
      if (code !== undefined) return screen.end(code);
    } catch (error) {
      const isAway =
        error instanceof VaultRefused &&
        (error.status === 0 || error.status === 429 || error.status >= 500);
      if (!stop.aborted && (!isAway || now() - seenAt > awayMsMax)) throw error;
    }
    await delay(pollMs, undefined, { signal: stop }).catch(() => undefined);
    // What runs in the vault goes on: only the watching ends.
    if (stop.aborted) return screen.end(stoppedExitCode);
  }
}

/** One line of progress. */
export function barOf({
  state,
  total,
  done,
  failed,
  rowsPerSecond,
  estimatedEnd,
}: Rotation): string {
  const share = total === 0 ? 1 : Math.min(1, (done + failed) / total);
  const filled = Math.floor(share * barWidth);
  const bar =
    `[${'#'.repeat(filled)}${'.'.repeat(barWidth - filled)}] ` +
    `${String(Math.floor(share * 100)).padStart(3)} %`;
  const end =
    state === 'running' && estimatedEnd !== null
      ? ` until ${estimatedEnd.replace(/\.\d+Z$/, 'Z')}`
      : '';
  return (
    `${bar}  ${done} of ${total}${failed > 0 ? `, ${failed} do not open` : ''}  ` +
    `${Math.round(rowsPerSecond)}/s  ${state}${end}`
  );
}

/**
 * What is written: texts, or one JSON object a line. On a terminal progress stays on its line;
 * elsewhere a line comes when something changed.
 */
class Screen {
  readonly #context: OperateContext;
  readonly #isJson: boolean;
  #last = '';
  #isOpen = false;
  constructor(context: OperateContext, isJson: boolean) {
    this.#context = context;
    this.#isJson = isJson;
  }

  line(text: string, value: unknown): void {
    this.#context.write(this.#isJson ? `${JSON.stringify(value)}\n` : `${text}\n`);
  }

  progress(text: string, value: unknown): void {
    if (text === this.#last) return;
    this.#last = text;
    if (this.#isJson || !this.#context.isTerminal) {
      this.line(text, value);
      return;
    }
    this.#isOpen = true;
    this.#context.write(`\r\u001b[K${text}`);
  }

  end(code: number): number {
    if (this.#isOpen) this.#context.write('\n');
    return code;
  }
}
