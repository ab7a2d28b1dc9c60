// Figures of the source that a reader feels: width of the page, circles, sizes, names that stand for
// two things.
import { importsOf } from './source-files.ts';

export interface Figures {
  readonly files: number;
  readonly linesOver120: readonly string[];
  readonly circles: readonly (readonly string[])[];
  readonly medianLines: number;
  readonly largest: { readonly path: string; readonly lines: number };
  readonly duplicatedNames: readonly string[];
}

/** Of files by path, as `sourceFiles` reads them. */
export function figuresOf(source: ReadonlyMap<string, string>): Figures {
  const sizes = [...source]
    .map(([path, text]) => ({ path, lines: text.trimEnd().split('\n').length }))
    .sort((a, b) => a.lines - b.lines);
  return {
    files: source.size,
    linesOver120: [...source].flatMap(([path, text]) =>
      text
        .split('\n')
        .flatMap((line, index) => (line.length > 120 ? [`${path}:${index + 1}`] : [])),
    ),
    circles: circlesOf(source),
    medianLines: sizes[Math.floor(sizes.length / 2)]?.lines ?? 0,
    largest: sizes.at(-1) ?? { path: '', lines: 0 },
    duplicatedNames: duplicatedNames(source),
  };
}

/** Names that two files export, sorted. */
export function duplicatedNames(source: ReadonlyMap<string, string>): string[] {
  const homes = new Map<string, Set<string>>();
  for (const [path, text] of source)
    for (const [, name = ''] of text.matchAll(
      /^export (?:async )?(?:abstract )?(?:const|let|function\*?|class|type|interface) (\w+)/gm,
    ))
      homes.set(name, (homes.get(name) ?? new Set()).add(path));
  return [...homes].flatMap(([name, paths]) => (paths.size > 1 ? [name] : [])).sort();
}

/** Files that import each other, type-only imports included: Tarjan's strong components. */
function circlesOf(source: ReadonlyMap<string, string>): string[][] {
  const next = new Map(
    [...source].map(([path, text]) => [
      path,
      [...importsOf(path, text)].filter((target) => source.has(target)),
    ]),
  );
  const found: string[][] = [];
  const indexes = new Map<string, number>();
  const lows = new Map<string, number>();
  const stack: string[] = [];
  const visit = (path: string): void => {
    const index = indexes.size;
    indexes.set(path, index);
    lows.set(path, index);
    stack.push(path);
    for (const target of next.get(path) ?? []) {
      if (!indexes.has(target)) visit(target);
      if (stack.includes(target)) lows.set(path, Math.min(lows.get(path)!, lows.get(target)!));
    }
    if (lows.get(path) !== index) return;
    const circle = stack.splice(stack.indexOf(path));
    if (circle.length > 1 || next.get(path)?.includes(path)) found.push(circle);
  };
  for (const path of source.keys()) if (!indexes.has(path)) visit(path);
  return found;
}
