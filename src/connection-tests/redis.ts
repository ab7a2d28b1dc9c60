// Logs in to Redis and asks for a PONG.
import { TestFailed } from './report.ts';
import { type ConnectionTarget, openLines, reach } from './target.ts';

/** AUTH where there is a password, SELECT, PING. Throws TestFailed, EgressFailed. */
export async function testRedis(target: ConnectionTarget): Promise<void> {
  const { fields } = target;
  const user = fields['username'] === undefined ? [] : [String(fields['username'])];
  const commands = [
    ...(fields['password'] === undefined ? [] : [['AUTH', ...user, String(fields['password'])]]),
    ...(Number(fields['db'] ?? 0) === 0 ? [] : [['SELECT', String(fields['db'])]]),
    ['PING'],
  ];
  const reached = await reach(target);
  const says = fields['tls'];
  const isTls = says === undefined ? !reached.isAllowedPlain : says === true;
  const lines = await openLines(target, reached, { isTls });
  try {
    // SECURITY: the password goes without TLS only where the operator has named the target.
    if (!isTls && !reached.isAllowedPlain) throw new TestFailed('tls', 'failed');
    for (const command of commands) {
      lines.send(resp(command));
      const answer = await lines.line();
      if (answer.startsWith('-')) throw new TestFailed('login', 'refused');
      if (answer !== (command[0] === 'PING' ? '+PONG' : '+OK'))
        throw new TestFailed('login', 'unexpected');
    }
  } finally {
    lines.close();
  }
}

/** An array of strings with their lengths, so that nothing in a value can end it. */
const resp = (words: readonly string[]): string =>
  `*${words.length}\r\n` +
  `${words.map((word) => `$${Buffer.byteLength(word)}\r\n${word}\r\n`).join('')}`;
