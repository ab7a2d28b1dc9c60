// Logs in to an IMAP server and out again.
import type { Lines } from './lines.ts';
import { TestFailed } from './report.ts';
import { type ConnectionTarget, openLines, reach, turnToTls } from './target.ts';

/** Throws TestFailed, EgressFailed. */
export async function testImap(target: ConnectionTarget): Promise<void> {
  const { fields } = target;
  const reached = await reach(target);
  const isTls = fields['useSsl'] !== false;
  const lines = await openLines(target, reached, { isTls });
  try {
    if (!/^\* (OK|PREAUTH)\b/i.test(await lines.line()))
      throw new TestFailed('login', 'unexpected');
    // SECURITY: the password waits for TLS, except where the operator has named the target.
    if (!isTls && !reached.isAllowedPlain) {
      if ((await ask(lines, 'a1', 'STARTTLS')) !== 'OK') throw new TestFailed('tls', 'failed');
      await turnToTls(target, reached, lines);
    }
    const answer = await logIn(
      lines,
      String(fields['username'] ?? ''),
      String(fields['password'] ?? ''),
    );
    if (answer !== 'OK') throw new TestFailed('login', answer === 'NO' ? 'refused' : 'unexpected');
    lines.send('a3 LOGOUT\r\n');
  } finally {
    lines.close();
  }
}

/** LOGIN where both fit between quotes, else the way that takes every byte. */
async function logIn(lines: Lines, username: string, password: string): Promise<string> {
  if ([username, password].every((text) => /^[ -~]*$/.test(text)))
    return ask(lines, 'a2', `LOGIN ${quoted(username)} ${quoted(password)}`);
  lines.send('a2 AUTHENTICATE PLAIN\r\n');
  const [first, rest] = await answerTo(lines, 'a2');
  if (first !== '+') return rest;
  lines.send(`${Buffer.from(`\0${username}\0${password}`).toString('base64')}\r\n`);
  return (await answerTo(lines, 'a2'))[1];
}

const quoted = (text: string): string => `"${text.replaceAll(/["\\]/g, '\\$&')}"`;

async function ask(lines: Lines, tag: string, command: string): Promise<string> {
  lines.send(`${tag} ${command}\r\n`);
  return (await answerTo(lines, tag))[1];
}

/** The first line that is for the tag, or asks to go on: its two first words. */
async function answerTo(lines: Lines, tag: string): Promise<[first: string, second: string]> {
  for (;;) {
    // until the bound of what is read at all
    const [first = '', second = ''] = (await lines.line()).split(' ');
    if (first === tag || first === '+') return [first, second.toUpperCase()];
    if (first !== '*') throw new TestFailed('login', 'unexpected');
  }
}
