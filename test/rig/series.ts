// npm run test:rig:series -- --seeds 1..10 --minutes 10: runs one after the other, each a process of
// its own, and prints the rows of docs/reliability.md in the end. Goes on after a run that broke
// something; exit status 1 if any did.
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import type { Summary } from './report.ts';

const { values: options } = parseArgs({
  options: {
    seeds: { type: 'string', default: '1..10' },
    minutes: { type: 'string', default: '10' },
  },
});
const [first = Number.NaN, last = first] = options.seeds.split('..').map(Number);
if (!Number.isSafeInteger(first) || !Number.isSafeInteger(last) || last < first) {
  console.error('npm run test:rig:series -- [--seeds 1..10] [--minutes N]');
  process.exit(2);
}

const rows: string[] = [];
let hasFailed = false;
for (let seed = first; seed <= last; seed += 1) {
  const { status, summary } = await run(seed);
  hasFailed ||= status !== 0;
  rows.push(summary === undefined ? `| ${seed} | it did not end (${status}) |` : rowOf(summary));
}
console.log(`\n${rows.join('\n')}`);
process.exitCode = hasFailed ? 1 : 0;

/** One run; what it prints is shown as it comes. */
function run(seed: number): Promise<{ status: number; summary: Summary | undefined }> {
  const args = [join(import.meta.dirname, 'run.ts'), '--seed', String(seed)];
  const child = spawn(process.execPath, [...args, '--minutes', options.minutes], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  for (const signal of ['SIGINT', 'SIGTERM'] as const)
    process.once(signal, () => child.kill(signal));
  let output = '';
  child.stdout.on('data', (chunk: Buffer) => {
    output += chunk.toString();
    process.stdout.write(chunk);
  });
  return new Promise((resolve, reject) => {
    child.once('error', reject).once('close', (code) => {
      const line = output.trimEnd().split('\n').at(-1) ?? '';
      const summary = line.startsWith('{') ? (JSON.parse(line) as Summary) : undefined;
      resolve({ status: code ?? 1, summary });
    });
  });
}

function rowOf({
  seed,
  minutes,
  requests,
  changes,
  reported,
  acts,
  exits,
  violations,
}: Summary): string {
  const sum = (counts: Readonly<Record<string, number>>): number =>
    Object.values(counts).reduce((total, count) => total + count, 0);
  const broken = Object.entries(violations).map(([rule, count]) => `${rule} ${count}`);
  const cells = [
    ...[seed, minutes, requests, changes.done, reported, changes.unknown, sum(acts), exits],
    broken.length === 0 ? '0' : broken.join(', '),
  ];
  return `| ${cells.join(' | ')} |`;
}
