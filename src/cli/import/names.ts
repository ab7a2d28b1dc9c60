// Names as the vault takes them. One rule for all sources; docs/credentials.md says it.
const nameLengthMax = 100;

// Nothing that cannot be seen: controls, unassigned and ignorable code points, letters that are blank.
const unseen = /[\p{C}\p{Z}\p{Default_Ignorable_Code_Point}\u2800\u{1d159}]+/gu;

/** A legal name that is as near to the text as can be. */
export function legalName(text: string): string {
  const seen = text
    .toWellFormed()
    .replace(/\ufffd/g, ' ')
    .replace(unseen, ' ')
    .normalize('NFC')
    .replace(/^[\p{M} ]+| +$/gu, '');
  const name = cut(seen, nameLengthMax);
  if (/^\.{1,2}$/.test(name)) return name.replaceAll('.', '_');
  return name === '' ? 'unnamed' : name;
}

/** The name with something behind it, still legal. */
export const withSuffix = (name: string, suffix: string): string =>
  `${cut(name, nameLengthMax - suffix.length)}${suffix}`;

/** The first characters, none of them halved, as many as `length` UTF-16 units hold. */
function cut(text: string, length: number): string {
  if (text.length <= length) return text;
  return text
    .slice(0, length)
    .replace(/[\ud800-\udbff]$/, '')
    .replace(/ +$/, '');
}

/** A text of a file in one line that moves no cursor and turns no direction. */
export const shown = (text: string): string =>
  text
    .replace(
      /[\p{C}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}]/gu,
      (each) => `\\u{${each.codePointAt(0)!.toString(16)}}`,
    )
    .slice(0, 200);
