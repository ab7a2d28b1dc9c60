// One value that is stored as a secret and then sought everywhere, in every form in which it could
// have slipped out.
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { sql } from 'kysely';
import type { Db } from '../../src/db/client.ts';

/** Where to look: the name of a place and the text that is there. */
export interface Haystack {
  readonly place: string;
  readonly text: string;
}

const pieceLength = 17;

/** The forms of a secret, by name. A piece of it counts as it. */
export function formsOf(secret: string): ReadonlyMap<string, string> {
  const bytes = Buffer.from(secret);
  const digest = createHash('sha256').update(secret).digest();
  const each = (of: (byte: number) => string): string => Array.from(bytes, of).join('');
  const forms = new Map<string, string>([
    ['plain', secret],
    ['its beginning', secret.slice(0, pieceLength)],
    ['its end', secret.slice(-pieceLength)],
    ['reversed', Array.from(secret).reverse().join('')],
    ['hex', bytes.toString('hex')],
    ['percent-encoded', each((byte) => `%${byte.toString(16).padStart(2, '0')}`)],
    ['JSON escapes', each((byte) => `\\u${byte.toString(16).padStart(4, '0')}`)],
    ['bytes', Array.from(bytes).join(',')],
    ['UTF-16 in hex', Buffer.from(secret, 'utf16le').toString('hex')],
    ['SHA-256 in hex', digest.toString('hex')],
    ['SHA-256 in base64', digest.toString('base64').replace(/=+$/, '')],
    ['SHA-256 in base64url', digest.toString('base64url')],
  ]);
  for (const offset of [0, 1, 2]) {
    // What stands before shifts the letters; the first and the last group depend on the neighbours.
    const shifted = Buffer.concat([
      Buffer.alloc(offset, 'x'),
      bytes.subarray(0, bytes.length - ((bytes.length + offset) % 3)),
    ]);
    const from = offset === 0 ? 0 : 4;
    forms.set(`base64 from ${offset}`, shifted.toString('base64').slice(from));
    forms.set(`base64url from ${offset}`, shifted.toString('base64url').slice(from));
  }
  return forms;
}

/** Every place where one of the forms stands, as `form in place`. Letter case does not count. */
export function seek(forms: ReadonlyMap<string, string>, haystacks: Iterable<Haystack>): string[] {
  const lowered = [...forms].map(([name, form]) => [name, form.toLowerCase()] as const);
  return [...haystacks].flatMap(({ place, text }) => {
    const lower = text.toLowerCase();
    return lowered.flatMap(([name, form]) => (lower.includes(form) ? [`${name} in ${place}`] : []));
  });
}

/** Every row of every table, and what every connection last asked. */
export async function everyColumn(db: Db): Promise<Haystack[]> {
  const { rows: tables } = await sql<{ name: string }>`
    select relname as name from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'p') and not relispartition order by relname`.execute(
    db,
  );
  const found: Haystack[] = [];
  for (const { name } of tables) {
    const { rows } = await sql<{
      text: string;
    }>`select row_to_json(t)::text as text from ${sql.table(name)} t`.execute(db);
    found.push({ place: `table ${name}`, text: rows.map(({ text }) => text).join('\n') });
  }
  const { rows: asked } = await sql<{
    query: string;
  }>`select query from pg_stat_activity where datname = current_database()`.execute(db);
  return [
    ...found,
    {
      place: 'the statements of the connections',
      text: asked.map(({ query }) => query).join('\n'),
    },
  ];
}

/** The command line of every process that can be seen. */
export function commandLines(): Haystack {
  const lines = readdirSync('/proc')
    .filter((name) => /^[0-9]+$/.test(name))
    .map((id) => {
      try {
        return readFileSync(`/proc/${id}/cmdline`, 'utf8').replaceAll('\0', ' ');
      } catch {
        return ''; // it has ended
      }
    });
  return { place: 'the command lines', text: lines.join('\n') };
}
