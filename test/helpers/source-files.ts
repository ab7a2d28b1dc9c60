// Source as text: which files there are, and what each one names. No parser: forms that no
// formatter writes are found as well, and a doubt is a finding.
import { readdirSync, readFileSync } from 'node:fs';
import { join, posix, relative, sep } from 'node:path';

export const root = join(import.meta.dirname, '../..');

/** Path (from the root, with slashes) to text, of every TypeScript file below the folder. */
export function sourceFiles(folder: string): ReadonlyMap<string, string> {
  const files = readdirSync(join(root, folder), { recursive: true, withFileTypes: true }).filter(
    (entry) => entry.isFile() && /\.[cm]?tsx?$|\.[cm]?js$/.test(entry.name),
  );
  return new Map(
    files
      .map((entry) => {
        const path = join(entry.parentPath, entry.name);
        return [relative(root, path).split(sep).join('/'), readFileSync(path, 'utf8')] as const;
      })
      .sort(([a], [b]) => (a < b ? -1 : 1)),
  );
}

const gap = String.raw`(?:\s|/\*[\s\S]*?\*/|//[^\n]*)*`;
const quoted = String.raw`(?:'([^'\n]*)'|"([^"\n]*)")`;
const forms = [
  // import … from, export … from; names in braces may be strings
  new RegExp(
    String.raw`\b(?:import|export)\b(?:[^;'"()]|'[^'\n]*'|"[^"\n]*")*?\bfrom${gap}${quoted}`,
    'g',
  ),
  new RegExp(String.raw`\bimport${gap}${quoted}`, 'g'),
  new RegExp(String.raw`\b(?:import|require)${gap}\(${gap}${quoted}${gap}[,)]`, 'g'),
];
const calls = new RegExp(String.raw`(?<![\w.])(?:import|require)${gap}\(`, 'g');

/**
 * What the text imports in any form; a computed import counts as `computed`. A file is named by its
 * path, a package by its name.
 */
export function importsOf(path: string, text: string): ReadonlySet<string> {
  const found = new Set<string>();
  for (const form of forms)
    for (const match of text.matchAll(form)) found.add(match[1] ?? match[2] ?? '');
  if ([...text.matchAll(calls)].length > [...text.matchAll(forms[2]!)].length)
    found.add('computed');
  return new Set(
    [...found].map((name) =>
      name.startsWith('.') ? posix.normalize(posix.join(posix.dirname(path), name)) : name,
    ),
  );
}

/** The text without its comments, as far as needed to look for names; strings stay. */
export function withoutComments(text: string): string {
  return text.replace(
    /('(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*"|`(?:\\.|[^`\\])*`)|\/\*[\s\S]*?\*\/|(?<!:)\/\/[^\n]*/g,
    (_, string: string | undefined) => string ?? ' ',
  );
}
