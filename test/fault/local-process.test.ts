// `local` as a process, killed in the middle of its work: the next start finds all that was
// acknowledged, under the same keys.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { until } from '../helpers/processes.ts';
import { startProgram } from '../helpers/serve.ts';

t.setTimeout(90_000);

t.test('what was acknowledged outlives kill -9', async (test) => {
  const folder = mkdtempSync(join(tmpdir(), 'vault-local-'));
  const environment = { CREDVAULT_DATA_DIR: join(folder, 'data'), PORT: '0', LOG_LEVEL: 'fatal' };
  const tokenFor = async (sub: string): Promise<string> => {
    const program = startProgram(test, ['token', sub], environment);
    test.equal(await program.ended, 0, program.errors());
    return program.output().trim();
  };
  const acknowledged: string[] = [];
  let tokens: readonly string[] = [];
  for (let round = 0; round < 3; round += 1) {
    const vault = startProgram(test, ['local'], environment);
    const url = await vault.printed(/The vault runs on (\S+)/);
    await vault.printed(/Keys and database are in/);
    test.ok(
      vault.output().includes(`Keys and database are in ${join(folder, 'data')}.`),
      'it names the folder that it uses',
    );
    if (round === 0) tokens = await Promise.all(['operator', 'alice'].map(tokenFor));
    const call = async (
      token: string | undefined,
      method: string,
      path: string,
      body?: object,
    ): Promise<{ status: number; json: any }> => {
      const answer = await fetch(`${url}${path}`, {
        method,
        headers: { authorization: `Bearer ${token ?? ''}`, 'content-type': 'application/json' },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      });
      return { status: answer.status, json: await answer.json() };
    };
    if (round === 0)
      test.equal(
        (
          await call(tokens[0], 'POST', '/v1/teams', {
            slug: 'payments',
            name: 'Payments',
            admins: ['alice'],
          })
        ).status,
        201,
      );
    for (const id of acknowledged)
      test.match(await call(tokens[1], 'GET', `/v1/credentials/${id}`), {
        status: 200,
        json: { id, health: 'ok' },
      });
    if (round === 2) {
      vault.child.kill('SIGTERM');
      test.equal(await vault.ended, 0);
      break;
    }
    const before = acknowledged.length;
    const write = async (): Promise<void> => {
      for (let n = 0; ; n += 1) {
        const answer = await call(tokens[1], 'POST', '/v1/teams/payments/credentials', {
          name: `key-${round}-${n}`,
          type: 'openai',
          fields: { apiKey: `sk-${n}` },
        }).catch(() => undefined);
        if (answer === undefined) return;
        if (answer.status === 201) acknowledged.push(answer.json.id);
      }
    };
    const writing = write();
    await until(() => acknowledged.length > before + 8);
    vault.child.kill('SIGKILL');
    test.equal(await vault.ended, 'SIGKILL');
    await writing;
  }
  rmSync(folder, { recursive: true, force: true });
});
