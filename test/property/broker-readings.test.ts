// Every encoding through which redaction looks, at every place where a body can be cut: no byte of
// the secret comes out that the encoding alone decides, and what was not encoded of it stays.
import fc from 'fast-check';
import t from 'tap';
import { mark, Redactor } from '../../src/broker/redaction/redactor.ts';
import { charsetOf, inWidth, type Width } from '../../src/broker/redaction/wide.ts';

/** A secret as the broker takes it: a header's, a query's, a password. */
const secret = fc.oneof(
  fc.stringMatching(/^[!-~]{8,60}$/),
  fc.string({
    unit: fc.constantFrom('a', 'f', '0', '7', '&', '=', '\\', '%', ';', '#'),
    minLength: 8,
    maxLength: 20,
  }),
  fc.string({ unit: fc.constantFrom('é', 'ÿ', 'k', '1', '€', '🔑'), minLength: 8, maxLength: 20 }),
);
const hex = (value: number, digits: number): string => value.toString(16).padStart(digits, '0');
const points = (text: string): number[] => [...text].map((character) => character.codePointAt(0)!);
const named: Readonly<Record<string, string>> = {
  '&': 'amp',
  '<': 'lt',
  '>': 'gt',
  '"': 'quot',
  "'": 'apos',
  '=': 'equals',
  '/': 'sol',
  '+': 'plus',
  _: 'lowbar',
  '%': 'percnt',
  '\\': 'bsol',
  é: 'eacute',
  ÿ: 'yuml',
  '#': 'num',
};

/** Each with what makes it of a text; `choice` takes one of several ways at each character. */
type Encode = (text: string, choice: (i: number, of: number) => number) => string;
const perCharacter =
  (...ways: ((character: string, point: number) => string)[]): Encode =>
  (text, choice) =>
    [...text]
      .map((character, i) => ways[choice(i, ways.length)]!(character, character.codePointAt(0)!))
      .join('');
const units = (text: string, make: (unit: string) => string): string =>
  text
    .split('')
    .map((unit) => make(hex(unit.charCodeAt(0), 4)))
    .join('');
const bytes = (text: string, make: (byte: number) => string): string =>
  [...Buffer.from(text)].map(make).join('');
const encodings: Readonly<Record<string, Encode>> = {
  'HTML, any reference': perCharacter(
    (_, point) => `&#${point};`,
    (_, point) => `&#x${hex(point, 1)};`,
    (_, point) => `&#X${hex(point, 6).toUpperCase()};`,
    (_, point) => `&#${String(point).padStart(9, '0')};`,
    (character, point) =>
      named[character] === undefined ? `&#${point};` : `&${named[character]};`,
  ),
  'HTML, escaped again': perCharacter(
    (_, point) => `&amp;#${point};`,
    (_, point) => `&amp;amp;#x${hex(point, 2)};`,
    (_, point) => `&#38;#${point};`,
  ),
  'escapes of C': (text) => bytes(text, (byte) => `\\${byte.toString(8).padStart(3, '0')}`),
  'escapes of C, twice': (text) =>
    bytes(text, (byte) => `\\\\${byte.toString(8).padStart(3, '0')}`),
  'bytes in hex, as Python writes': (text) => bytes(text, (byte) => `\\x${hex(byte, 2)}`),
  'code points in hex': perCharacter(
    (_, point) => `\\u{${hex(point, 1)}}`,
    (_, point) => `\\x{${hex(point, 4)}}`,
    (_, point) => `\\U${hex(point, 8)}`,
  ),
  'code units': (text) => units(text, (unit) => `\\u${unit}`),
  "escape() of JavaScript's": (text) => units(text, (unit) => `%u${unit}`),
  CSS: perCharacter(
    (_, point) => `\\${hex(point, 6)}`,
    (_, point) => `\\${hex(point, 1)} `,
  ),
  LDAP: (text) => bytes(text, (byte) => `\\${hex(byte, 2)}`),
  'before every sign a backslash': (text) =>
    text.replaceAll(/[^A-Za-z0-9\u0080-\u{10ffff}]/gu, '\\$&'),
  'quoted-printable': (text, choice) => {
    const last = Buffer.byteLength(text) - 1;
    return [...Buffer.from(text)]
      .map(
        (byte, i) =>
          `=${hex(byte, 2).toUpperCase()}${i === last ? '' : ['', '', '=\r\n', '=\n', '= \t\r\n'][choice(i, 5)]}`,
      )
      .join('');
  },
};
const choices = fc.array(fc.nat(59), { minLength: 1, maxLength: 7 });
const chooser =
  (list: readonly number[]) =>
  (i: number, of: number): number =>
    list[i % list.length]! % of;
const cuts = fc.array(fc.nat(), { maxLength: 30 });

function run(
  all: readonly string[],
  body: Buffer,
  at: readonly number[],
  widths: readonly Width[] = [],
): Buffer {
  const stream = new Redactor(all).stream({ widths });
  const borders = [
    0,
    ...at.map((cut) => cut % (body.length + 1)).sort((a, b) => a - b),
    body.length,
  ];
  return Buffer.concat([
    ...borders.slice(1).map((to, i) => stream.push(body.subarray(borders[i]!, to))),
    stream.end(),
  ]);
}

for (const [name, encode] of Object.entries(encodings)) {
  t.test(`${name}: what was the secret is a mark, wherever the body is cut`, async () => {
    fc.assert(
      fc.property(secret, choices, cuts, (value, list, at) => {
        const form = encode(value, chooser(list));
        const body = Buffer.from(`<before> ${form} <after>`);
        for (const cut of [[], at, [...body.keys()]]) {
          const out = run([value], body, cut).toString();
          // Of what was escaped more than once, all but the last may stand before the mark.
          if (!/^<before> (?:\\|&(?:amp;|#38;)*)?\[redacted\] ?<after>$/.test(out))
            throw new Error(`${JSON.stringify(form)} became ${JSON.stringify(out)}`);
        }
      }),
      { numRuns: 300 },
    );
  });
}

t.test('base64 in lines: what the secret alone decides does not come out', async () => {
  const breaks = fc.constantFrom(
    '\r\n',
    '\n',
    '\r',
    '\r\n ',
    '\n\t',
    '\n        ',
    '\\r\\n',
    '&#10;',
  );
  fc.assert(
    fc.property(
      fc.stringMatching(/^[!-~]{8,60}$/),
      fc.string({ maxLength: 80 }),
      fc.integer({ min: 4, max: 76 }),
      breaks,
      cuts,
      (value, around, width, lineEnd, at) => {
        const whole = Buffer.from(`${around}${value}${around}`).toString('base64');
        const lines = whole.match(new RegExp(`.{1,${width}}`, 'g')) ?? [];
        const body = Buffer.from(`{"a":"${lines.join(lineEnd)}"}`);
        for (const cut of [[], at, [...body.keys()]]) {
          const out = run([value], body, cut).toString();
          if (!out.includes(mark)) throw new Error(`nothing was found in ${body.toString()}`);
          const left = out
            .replaceAll(lineEnd, '')
            .replaceAll(/[\r\n\t ]/g, '')
            .split(mark);
          for (const skip of [0, 1, 2, 3])
            for (const piece of left)
              if (Buffer.from(piece.slice(skip), 'base64').toString('latin1').includes(value))
                throw new Error(`out came ${out}`);
        }
      },
    ),
    { numRuns: 1_000 },
  );
});

const widths: readonly Width[] = ['utf16le', 'utf16be', 'utf32le', 'utf32be'];
function wide(text: string, width: Width): Buffer {
  const size = width.startsWith('utf16') ? 2 : 4;
  const list = size === 2 ? text.split('').map((unit) => unit.charCodeAt(0)) : points(text);
  const out = Buffer.alloc(size * list.length);
  for (const [i, unit] of list.entries()) {
    if (width === 'utf16le') out.writeUInt16LE(unit, 2 * i);
    if (width === 'utf16be') out.writeUInt16BE(unit, 2 * i);
    if (width === 'utf32le') out.writeUInt32LE(unit, 4 * i);
    if (width === 'utf32be') out.writeUInt32BE(unit, 4 * i);
  }
  return out;
}
for (const width of widths) {
  t.test(`${width}, by its mark or its charset, in every encoding that is read`, async () => {
    const forms: Encode[] = [
      (text) => text,
      (text) => Buffer.from(text).toString('base64'),
      (text) => JSON.stringify(text).slice(1, -1),
      (text) => encodeURIComponent(text),
      ...Object.values(encodings),
    ];
    fc.assert(
      fc.property(
        secret,
        fc.constantFrom(...forms),
        choices,
        fc.boolean(),
        cuts,
        (value, encode, list, isMarked, at) => {
          const form = encode(value, chooser(list));
          const text = `${isMarked ? '\ufeff' : ''}<before> ${form} <after>`;
          const body = wide(text, width);
          const said = isMarked ? [] : charsetOf(`text/plain; charset=${width.slice(0, 5)}`).widths;
          for (const cut of [[], at, [...body.keys()]]) {
            const out = run([value], body, cut, said);
            if (!out.includes(inWidth(mark, width)) || out.includes(wide(form, width)))
              throw new Error(
                `${JSON.stringify(form)} in ${width} became ${out.toString('latin1')}`,
              );
          }
        },
      ),
      { numRuns: 500 },
    );
  });
}

t.test('what holds no secret in any reading comes out to the byte', async () => {
  const key = 'ZQXJ-wvkp-BNMG-lrtd';
  const odd = fc.constantFrom(
    '&',
    '#',
    'x',
    ';',
    'amp',
    '&amp;',
    '&#90;',
    '=',
    '=5',
    '=5A',
    '\r',
    '\n',
    '\r\n',
    ' ',
    '\t',
    '\\',
    '\\5a',
    '\\132',
    '\\u{5a}',
    '\\U0000005a',
    '%u005a',
    '%',
    'Z',
    'ZQ',
    'ZQXJ',
    '-',
    'WlFY',
    'Sg',
    'lFYS',
  );
  fc.assert(
    fc.property(fc.array(odd, { maxLength: 40 }), cuts, (pieces, at) => {
      const body = Buffer.from(`${pieces.join('')}!`); // no beginning at the end
      return run([key], body, at).equals(body) && run([key], body, [...body.keys()]).equals(body);
    }),
    { numRuns: 3_000 },
  );
  fc.assert(
    fc.property(
      fc.uint8Array({ maxLength: 200 }),
      fc.constantFrom('fffe', 'feff', '0000feff', 'fffe0000', ''),
      cuts,
      (bytesOf, start, at) => {
        const body = Buffer.concat([Buffer.from(start, 'hex'), bytesOf]);
        return run([key], body, at, widths).equals(body);
      },
    ),
  );
});

t.test(
  'what waits is bounded: lines, blanks, signs and marks without end are let go',
  async (t) => {
    for (const endless of [
      '\n',
      ' ',
      '\n ',
      '\\',
      '&amp;',
      'amp;',
      '=\r\n',
      '%',
      '&#0',
      '\ufeff',
      '\0',
      '=  ',
    ])
      for (const before of ['', 'ZQXJ', 'ZQXJ\n', '&', '\\', '=', 'ZQXJ&', 'ZQXJ\\']) {
        const stream = new Redactor(['ZQXJ-zqxj-ZQXJ-zqxj']).stream({ widths });
        let [inside, outside] = [0, 0];
        const push = (text: string): void => {
          const piece = Buffer.from(text);
          inside += piece.length;
          outside += stream.push(piece).length;
        };
        push(before);
        for (let i = 0; i < 200; i += 1) push(endless.repeat(10));
        t.ok(
          inside - outside < 300,
          `${JSON.stringify(before + endless)}: ${inside - outside} wait`,
        );
      }
  },
);
