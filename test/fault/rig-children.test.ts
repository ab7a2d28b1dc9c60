// No process of the rig outlives it: not when it is killed without a warning, and not when what it
// started is frozen.
import { readFileSync } from 'node:fs';
import { platform } from 'node:os';
import t from 'tap';
import { runModule, until } from '../helpers/processes.ts';
import { startGuarded } from '../rig/children.ts';

const skip = platform() !== 'linux' && 'the rig runs on Linux';

/** Whether the process is there and has not ended. */
function lives(pid: number): boolean {
  try {
    return !/^\d+ \(.*\) Z/.test(readFileSync(`/proc/${pid}/stat`, 'utf8'));
  } catch {
    return false;
  }
}

const children = new URL('../rig/children.ts', import.meta.url).pathname;
const program = `
  import { startGuarded } from ${JSON.stringify(children)};
  const child = await startGuarded({
    name: 'a parent', command: '/bin/sh', args: ['-c', 'sleep 600 & echo child $!; wait'],
    onLine: (line) => console.log(line),
  });
  console.log('parent ' + child.pid);
  process.on('SIGUSR2', () => { child.signalTree('SIGSTOP'); console.log('frozen'); });
  setInterval(() => undefined, 60_000);`;

for (const isFrozen of [false, true])
  t.test(
    `killed with -9, the rig takes ${isFrozen ? 'frozen ' : ''}processes along`,
    { skip },
    async (t) => {
      const rig = runModule(t, program);
      const numberOf = async (name: string): Promise<number> =>
        Number((await rig.printed(new RegExp(`${name} (\\d+)`)))[1]);
      const pids = [await numberOf('parent'), await numberOf('child')];
      t.same(pids.map(lives), [true, true]);
      if (isFrozen) {
        rig.child.kill('SIGUSR2');
        await rig.printed(/frozen/);
      }
      rig.child.kill('SIGKILL');
      await rig.ended;
      await until(() => !pids.some(lives));
      t.same(pids.map(lives), [false, false]);
    },
  );

t.test('how a process ended is told as it was', { skip }, async (t) => {
  const lines: string[] = [];
  const start = (script: string) =>
    startGuarded({
      name: 'a script',
      command: '/bin/sh',
      args: ['-c', script],
      onLine: (line) => lines.push(line),
    });
  t.equal(await (await start('echo out; echo err >&2; exit 7')).ended, 7);
  t.same(lines.toSorted(), ['err', 'out']);
  const killed = await start('exec sleep 600');
  t.equal(killed.isAlive, true);
  killed.signal('SIGKILL');
  t.equal(await killed.ended, 'SIGKILL');
  t.equal(killed.isAlive, false);
  t.equal(lives(killed.pid), false);
  killed.signal('SIGKILL'); // and again: it is gone, and nobody else is meant
});
