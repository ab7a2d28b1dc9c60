// Names that people tell apart by looking at them: two that look the same are the same. Which
// characters there are is what this version of Unicode knows.

import { invalid } from './errors.ts';

/** What is wrong with a name. */
export type NameRule = 'normalized' | 'invisible' | 'blanks' | 'combining' | 'dots';

// No control, format, private or unassigned code points, nothing that a screen may leave out.
const invisible = /[\p{C}\p{Default_Ignorable_Code_Point}]/u;
// Letters and signs that are drawn as nothing, beside those that count as blanks.
const drawnAsNothing = [
  0x2800, // BRAILLE PATTERN BLANK
  0xfffc, // OBJECT REPLACEMENT CHARACTER
  0x13441, // EGYPTIAN HIEROGLYPH FULL BLANK
  0x13442, // EGYPTIAN HIEROGLYPH HALF BLANK
  0x16fe4, // KHITAN SMALL SCRIPT FILLER
  0x1d159, // MUSICAL SYMBOL NULL NOTEHEAD
];
const blankLooking = new Set(drawnAsNothing.map((code) => String.fromCodePoint(code)));
const otherBlank = /[^\P{Z} ]/u;
const oddBlanks = /^ | $| {2}/;
// A mark without a letter sits on the blank before it, or on whatever stands before the name.
const strayMark = /(?:^| )\p{M}/u;

/** The rule that a name breaks; undefined for one that can be told from every other by its look. */
export function ruleOfName(name: string): NameRule | undefined {
  if (invisible.test(name) || [...name].some((each) => blankLooking.has(each))) return 'invisible';
  if (otherBlank.test(name) || oddBlanks.test(name)) return 'blanks';
  if (strayMark.test(name)) return 'combining';
  if (name.normalize('NFC') !== name) return 'normalized';
  return name === '.' || name === '..' ? 'dots' : undefined;
}

/**
 * The same name as one that breaks no rule; empty where nothing of it is left. Whatever cannot be
 * seen, and every run of blanks, becomes one blank.
 */
export function visibleName(name: string): string {
  const seen = Array.from(name.normalize('NFC'), (each) =>
    invisible.test(each) || blankLooking.has(each) || otherBlank.test(each) ? ' ' : each,
  ).join('');
  const plain = seen
    .replace(/(^| )[ \p{M}]+/gu, '$1')
    .replaceAll(/ +/g, ' ')
    .trim()
    .normalize('NFC');
  return plain === '.' || plain === '..' ? '' : plain;
}

const refusals = {
  normalized: 'name.normalized',
  invisible: 'name.invisible',
  blanks: 'name.blanks',
  combining: 'name.combining',
  dots: 'name.dots',
} as const satisfies Record<NameRule, string>;

/** For every operation that gives a name. Throws invalidRequest with the rule. */
export function demandName(name: string, pointer = '/name'): void {
  const rule = ruleOfName(name);
  if (rule !== undefined) throw invalid(pointer, refusals[rule]);
}
