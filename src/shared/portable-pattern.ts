// Patterns for readers that know less than JavaScript with the flag `u`: Python's `re`, Ajv without
// `u`, Go's `regexp`. Classes by name become ranges, worked out from the pattern that validates.

type Range = readonly [from: number, to: number];

const named = /\\[pP]\{|\\[dDsSwW]/;
/** Takes all there is, for everybody. */
const anything = '[\\s\\S]';
const lastOfPlane0 = 0xffff;
const surrogates: Range = [0xd800, 0xdfff];
// What stands outside of the first plane is listed one by one; this many can still be read.
const listedMax = 200;

/** Every character there is, in order; surrogates are none. */
let characters: string | undefined;
function everyCharacter(): string {
  if (characters !== undefined) return characters;
  const parts: string[] = [];
  for (let block = 0; block < 0x110000; block += 0x400) {
    if (block >= surrogates[0] && block <= surrogates[1]) continue;
    parts.push(String.fromCodePoint(...Array.from({ length: 0x400 }, (_, each) => block + each)));
  }
  return (characters = parts.join(''));
}

const known = new Map<string, readonly Range[]>();
/** The characters that a class takes, `[` and `]` included. */
function rangesOf(written: string): readonly Range[] {
  const seen = known.get(written);
  if (seen !== undefined) return seen;
  const ranges: Range[] = [];
  for (const [run] of everyCharacter().matchAll(new RegExp(`${written}+`, 'gu'))) {
    const from = run.codePointAt(0)!;
    const to = run.codePointAt(run.length - (isPaired(run) ? 2 : 1))!;
    if (from < surrogates[0] && to > surrogates[1]) ranges.push([from, 0xd7ff], [0xe000, to]);
    else ranges.push([from, to]);
  }
  known.set(written, ranges);
  return ranges;
}
const isPaired = (text: string): boolean => {
  const last = text.charCodeAt(text.length - 1);
  return last >= 0xdc00 && last <= surrogates[1];
};

/**
 * The source of a pattern (flag `u`) in a form that means the same to JavaScript with and without
 * `u` and to Python's `re`: for every text of whole characters. Lone surrogates are left out of it,
 * because no text in UTF-8 has one. Throws for a class that cannot be written like this.
 */
export function portablePattern(source: string): string {
  return source.replace(/\\[pP]\{[^}]*\}|\[(?:\\.|[^\]\\])*\]|\\[\s\S]/gu, (part): string => {
    if (part === anything) return part;
    if (part.startsWith('[')) return named.test(part) ? portableClass(part) : part;
    return named.test(part) ? portableClass(`[${part}]`) : part;
  });
}

function portableClass(written: string): string {
  const isNegated = written.startsWith('[^');
  const listed = rangesOf(isNegated ? `[${written.slice(2)}` : written);
  const inside = listed.flatMap(([from, to]): Range[] =>
    from > lastOfPlane0 ? [] : [[from, Math.min(to, lastOfPlane0)]],
  );
  const outside = listed.flatMap(([from, to]): Range[] =>
    to <= lastOfPlane0 ? [] : [[Math.max(from, lastOfPlane0 + 1), to]],
  );
  const range = `[${isNegated ? '^' : ''}${inside.map(rangeText).join('')}]`;
  if (outside.length === 0) return range;
  const singles = outside.flatMap(([from, to]) => {
    if (to - from > listedMax) throw new Error(`${written} takes too much to be listed`);
    return Array.from({ length: to - from + 1 }, (_, each) => String.fromCodePoint(from + each));
  });
  if (singles.length > listedMax) throw new Error(`${written} takes too much to be listed`);
  // A character of two code units is no member of a class for whoever counts units; in a row of
  // alternatives it means the same to all.
  const list = singles.join('|');
  return isNegated ? `(?:(?!${list})${range})` : `(?:${range}|${list})`;
}

const rangeText = ([from, to]: Range): string =>
  from === to ? unit(from) : `${unit(from)}-${unit(to)}`;
const unit = (code: number): string =>
  code > 0x20 && code < 0x7f && /[A-Za-z0-9]/.test(String.fromCodePoint(code))
    ? String.fromCodePoint(code)
    : code <= 0xff
      ? `\\x${code.toString(16).padStart(2, '0')}`
      : `\\u${code.toString(16).padStart(4, '0')}`;
