// Names as the vault takes them. One rule for all sources; docs/credentials.md says it.
import { visibleName } from '../../shared/visible-names.ts';
import { dotSegmentForm } from '../../shared/patterns.ts';

const nameLengthMax = 100;

/** A name that the vault takes, as near to the text as can be. */
export function legalName(text: string): string {
  if (dotSegmentForm.test(text)) return text.trim().replaceAll('.', '_');
  const seen = visibleName(text.toWellFormed().replaceAll('\ufffd', ' '));
  return visibleName(cut(seen, nameLengthMax)) || 'unnamed';
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
