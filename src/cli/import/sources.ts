// The systems whose files are read, each by its reader. A file is read to its end before anything
// of it is stored, and once more when it is stored: what is no file of the system stores nothing,
// and nothing is ever held as a whole.
import type { System } from '../../credentials/index.ts';
import { OptionsUnfit } from '../target.ts';
import { airflowConnections } from './airflow.ts';
import type { Foreign } from './foreign.ts';
import { encryptionKey, heymCredentials } from './heym-rows.ts';
import { type ImportInput, NotText, type TextFile } from './input.ts';
import { NotJson } from './json-entries.ts';
import { n8nCredentials } from './n8n.ts';
import { variableCredentials } from './variables.ts';

type Read = (input: ImportInput, key: string | undefined) => Iterable<Foreign>;

const readers: Readonly<Record<System, Read>> = {
  heym: (input, key) => heymCredentials(oneFile(input), encryptionKey(key)),
  n8n: n8nCredentials,
  airflow: (input, key) => airflowConnections(oneFile(input), key),
  env: (input) => variableCredentials(oneFile(input)),
};
export const systems = Object.keys(readers) as readonly System[];
export const isSystem = (name: string): name is System => Object.hasOwn(readers, name);

/** The one file that is meant. Throws OptionsUnfit for a folder. */
export function oneFile(input: ImportInput): TextFile {
  const [file] = input.kind === 'file' ? input.files() : [];
  if (file === undefined || 'fault' in file)
    throw new OptionsUnfit('--file names a folder, which only n8n has');
  return file;
}

/**
 * The credentials of a file or a folder; an id that comes twice in it is taken from none of its
 * entries. Throws OptionsUnfit for what is no file of the system, and for a key that is missing or
 * none.
 */
export function readSource(
  system: System,
  input: ImportInput,
  key: string | undefined,
): Iterable<Foreign> {
  const read = (): Iterable<Foreign> => readable(readers[system](input, key));
  const seen = new Set<string>();
  const twice = new Set<string>();
  for (const { id } of read()) {
    if (seen.has(id)) twice.add(id);
    seen.add(id);
  }
  return (function* () {
    for (const each of read())
      yield twice.has(each.id)
        ? { ...each, data: undefined, fault: 'twice (its id stands in the file more than once)' }
        : each;
  })();
}

/**
 * The items, with what is thrown about the file said in a word. SECURITY: without its text.
 */
export function* readable<T>(items: Iterable<T>): Generator<T> {
  try {
    yield* items;
  } catch (error) {
    if (error instanceof NotText) throw new OptionsUnfit(error.message);
    if (error instanceof NotJson)
      throw new OptionsUnfit('the file is no JSON: an array or an object, whole');
    throw error;
  }
}
