// Character references as HTML and XML write them: `&#65;`, `&#x41;`, `&amp;`, and names of HTML
// for what a secret is made of, ASCII and Latin-1.
import { type EscapeRead, isHex, utf8Of } from './code-units.ts';

/** Names of HTML for signs of ASCII, by code point; each needs its semicolon. */
const ofAscii =
  'Tab:9 NewLine:10 excl:33 num:35 dollar:36 percnt:37 apos:39 lpar:40 rpar:41 ast:42 midast:42 ' +
  'plus:43 comma:44 period:46 sol:47 colon:58 semi:59 equals:61 quest:63 commat:64 lbrack:91 ' +
  'lsqb:91 bsol:92 rbrack:93 rsqb:93 Hat:94 lowbar:95 UnderBar:95 DiacriticalGrave:96 grave:96 ' +
  'lbrace:123 lcub:123 verbar:124 vert:124 VerticalLine:124 rbrace:125 rcub:125';
/** Names that browsers take without the semicolon too. */
const ofMarkup = 'amp:38 AMP:38 lt:60 LT:60 gt:62 GT:62 quot:34 QUOT:34 COPY:169 REG:174';
/** From U+00A0 to U+00FF. */
const ofLatin1 =
  'nbsp iexcl cent pound curren yen brvbar sect uml copy ordf laquo not shy reg macr deg plusmn ' +
  'sup2 sup3 acute micro para middot cedil sup1 ordm raquo frac14 frac12 frac34 iquest Agrave ' +
  'Aacute Acirc Atilde Auml Aring AElig Ccedil Egrave Eacute Ecirc Euml Igrave Iacute Icirc Iuml ' +
  'ETH Ntilde Ograve Oacute Ocirc Otilde Ouml times Oslash Ugrave Uacute Ucirc Uuml Yacute THORN ' +
  'szlig agrave aacute acirc atilde auml aring aelig ccedil egrave eacute ecirc euml igrave ' +
  'iacute icirc iuml eth ntilde ograve oacute ocirc otilde ouml divide oslash ugrave uacute ' +
  'ucirc ' +
  'uuml yacute thorn yuml';

const pairs = (text: string): [string, number][] =>
  text.split(' ').map((pair) => {
    const [name = '', point] = pair.split(':');
    return [name, Number(point)];
  });
/** What may stand without its semicolon. */
const loose = [
  ...pairs(ofMarkup),
  ...ofLatin1.split(' ').map((name, i): [string, number] => [name, 0xa0 + i]),
];
const loosePoints: ReadonlySet<number> = new Set(loose.map(([, point]) => point));
/** Names of references with their code points. */
export const entityNames: ReadonlyMap<string, number> = new Map([...pairs(ofAscii), ...loose]);
/** Names as a tree, by byte. */
interface Branch {
  readonly next: (Branch | undefined)[];
  /** Where a name ends. */
  point: number;
  isLoose: boolean;
}
const noPoint = -1;
const branch = (): Branch => ({ next: [], point: noPoint, isLoose: false });
const tree = branch();
for (const [name, point] of entityNames) {
  let at = tree;
  for (const byte of Buffer.from(name)) at = at.next[byte] ??= branch();
  at.point = point;
  at.isLoose = loosePoints.has(point);
}

const [hash, ampersand, semicolon] = [0x23, 0x26, 0x3b];
const digitsMax = 10;

/** One reference behind its ampersand. */
export const readEntity = (pending: Int16Array, length: number): EscapeRead =>
  read(pending, length, false);
/** The same; a reference to an ampersand is the ampersand of what stands behind it. */
export const readEntities = (pending: Int16Array, length: number): EscapeRead =>
  read(pending, length, true);

function read(pending: Int16Array, length: number, isNested: boolean): EscapeRead {
  if (length === 1) return 'more';
  if (pending[1] === hash) return readNumber(pending, length, isNested);
  let here = tree;
  let at = 1;
  let looseAt = 0;
  let loosePoint = noPoint;
  for (; at < length; at += 1) {
    const next = here.next[pending[at]!];
    if (next === undefined) break;
    here = next;
    if (!here.isLoose) continue;
    looseAt = at + 1;
    loosePoint = here.point;
  }
  if (at === length) return 'more';
  if (pending[at] === semicolon && here.point !== noPoint)
    return ended(here.point, at + 1, isNested);
  return looseAt === 0 ? 'none' : { bytes: utf8Of(loosePoint), used: looseAt };
}

function readNumber(pending: Int16Array, length: number, isNested: boolean): EscapeRead {
  if (length === 2) return 'more';
  const isHexadecimal = pending[2] === 0x78 || pending[2] === 0x58;
  const from = isHexadecimal ? 3 : 2;
  const base = isHexadecimal ? 16 : 10;
  let at = from;
  let point = 0;
  for (; at < length && isDigit(pending[at]!, isHexadecimal); at += 1) {
    const byte = pending[at]!;
    point = point * base + (byte <= 0x39 ? byte - 0x30 : (byte | 0x20) - 0x57);
  }
  if (at - from > digitsMax) return 'none';
  if (at === length) return 'more';
  if (at === from) return 'none';
  if (pending[at] === semicolon) return ended(point, at + 1, isNested);
  return { bytes: utf8Of(point), used: at };
}

const ended = (point: number, used: number, isNested: boolean): EscapeRead => ({
  bytes: utf8Of(point),
  used,
  isLead: isNested && point === ampersand,
});

const isDigit = (byte: number, isHexadecimal: boolean): boolean =>
  isHexadecimal ? isHex(byte) : byte >= 0x30 && byte <= 0x39;
