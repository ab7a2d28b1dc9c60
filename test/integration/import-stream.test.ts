// A file is read as a stream: one that is larger than the memory of the process is read all the same.
import { closeSync, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import t from 'tap';
import { folderOf } from '../helpers/files.ts';

const mebibyte = 1024 * 1024;
const heapMebibytes = 64;

t.test('200 MiB of credentials or of variables are read in a heap of 64 MiB', async (t) => {
  const folder = folderOf(t, {});
  const value = 'v'.repeat(60_000);
  const entries = Math.ceil((200 * mebibyte) / value.length);
  const forms: Readonly<Record<string, (at: number) => string>> = {
    n8n: (at) =>
      `${at === 0 ? '[' : ','}{"id":"${at}","name":"n","type":"x","data":{"token":"${value}"}}${at === entries - 1 ? ']' : ''}`,
    env: (at) => `V${at}='${value}'\n`,
  };
  for (const [from, form] of Object.entries(forms)) {
    const path = join(folder, from);
    const file = openSync(path, 'wx');
    for (let at = 0; at < entries; at += 1) writeSync(file, form(at));
    closeSync(file);
    const script = `
      import { openInput } from ${JSON.stringify(join(import.meta.dirname, '../../src/cli/import/input.ts'))};
      import { readSource } from ${JSON.stringify(join(import.meta.dirname, '../../src/cli/import/sources.ts'))};
      let read = 0;
      for (const { data } of readSource('${from}', await openInput(${JSON.stringify(path)}, '--file')))
        if (Object.values(data)[0].length === ${value.length}) read += 1;
      console.log(read);`;
    const { stdout } = await promisify(execFile)(process.execPath, [
      `--max-old-space-size=${heapMebibytes}`,
      '--input-type=module',
      '--eval',
      script,
    ]);
    t.equal(stdout.trim(), String(entries), from);
  }
});
