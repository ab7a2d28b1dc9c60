// Sessions in documents, as a reader types them: every command of the fenced blocks, in order. The
// answer stands in a block of text below, for the last command, or in the lines of comment below a
// command; `…` stands for anything.
import type { Test } from 'tap';

export interface Step {
  readonly command: string;
  readonly expected: readonly string[];
}

const marker = '@@ command ';

/**
 * The commands of the blocks of shell in a text, each with its answer. A here-document, an open
 * quote and what follows a backslash are part of their command.
 */
export function stepsIn(markdown: string): Step[] {
  const steps: Written[] = [];
  for (const [, kind, block = ''] of markdown.matchAll(/^```(sh|text)\n([\s\S]*?)^```$/gm))
    if (kind === 'sh') steps.push(...stepsOf(block));
    else steps.at(-1)?.expected.push(...block.trimEnd().split('\n'));
  return steps;
}

interface Written {
  command: string;
  readonly expected: string[];
}

function stepsOf(block: string): Written[] {
  const steps: Written[] = [];
  let end: string | undefined;
  let isQuoteOpen = false;
  for (const line of block.trimEnd().split('\n')) {
    const quotes = line.replaceAll(/"(?:[^"\\]|\\.)*"/g, '').split("'").length - 1;
    if (steps.at(-1)?.command.endsWith('\\') && end === undefined && !isQuoteOpen)
      steps.at(-1)!.command += `\n${line}`;
    else if (end !== undefined || isQuoteOpen) {
      steps.at(-1)!.command += `\n${line}`;
      if (line === end) end = undefined;
      else if (isQuoteOpen) isQuoteOpen = line.split("'").length % 2 === 1;
    } else if (line.startsWith('# ')) steps.at(-1)!.expected.push(line.slice(2));
    else {
      steps.push({ command: line, expected: [] });
      end = /<<'(\w+)'/.exec(line)?.[1];
      isQuoteOpen = end === undefined && quotes % 2 === 1;
    }
  }
  return steps;
}

/** A script of bash that does all of it and marks where each answer begins. */
export const scriptOf = (steps: readonly Step[]): string =>
  steps
    .map(({ command }, index) => `echo '${marker}${index}'\n${command}\necho "${marker}ended $?"\n`)
    .join('');

/**
 * Compares what the script printed with what was said; `codes` names commands that end otherwise
 * than with 0.
 */
export function checkAnswers(
  t: Test,
  steps: readonly Step[],
  stdout: string,
  codes: Readonly<Record<number, string>> = {},
): void {
  const answers = stdout.split(new RegExp(`^${marker}\\d+\\n`, 'm')).slice(1);
  t.equal(answers.length, steps.length);
  for (const [index, { command, expected }] of steps.entries()) {
    const [answer = '', code] = (answers[index] ?? '').split(`${marker}ended `);
    t.equal(code?.trim(), codes[index] ?? '0', command);
    const lines = answer.split('\n').filter((line) => line !== '');
    // The lines that are told, in their order; the last one that is told is the last one that
    // comes.
    let at = 0;
    for (const said of expected) {
      const found = lines.findIndex((line, position) => position >= at && isAsSaid(line, said));
      t.ok(
        found >= 0,
        `${command}\n  is answered with\n    ${said}\n  and was\n    ${lines.join('\n    ')}`,
      );
      at = found + 1;
    }
    if (expected.length > 0) t.equal(at, lines.length, `nothing else is answered: ${command}`);
  }
}

/** Whether the line is what was said, with anything in place of each `…`. */
function isAsSaid(line: string, said: string): boolean {
  const pattern = said
    .split('…')
    .map((part) => part.replaceAll(/[.*+?^${}()|[\]\\]/g, String.raw`\$&`))
    .join('.*');
  return new RegExp(`^${pattern}$`).test(line);
}
