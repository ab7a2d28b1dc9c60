// The SQL of docs/operations.md, as an operator would run it.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

const page = readFileSync(join(import.meta.dirname, '../../docs/operations.md'), 'utf8');
const blocks = [...page.matchAll(/^ *```sql\n([\s\S]*?)^ *```$/gm)].map((match) => match[1]!);

/** The statements of the one block that holds this text. */
export function statementsWith(text: string): string[] {
  const found = blocks.filter((block) => block.includes(text));
  if (found.length !== 1) throw new Error(`one block has ${text}`);
  return found[0]!
    .split(';')
    .map((statement) => statement.trim())
    .filter((statement) => statement !== '');
}
