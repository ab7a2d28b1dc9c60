// A line of variables that is taken says the same to other readers of such files.
import { parseEnv } from 'node:util';
import { parse } from 'dotenv';
import fc from 'fast-check';
import t from 'tap';
import { folded } from '../helpers/folded.ts';
import { variablesOf } from '../../src/cli/import/dotenv.ts';

const part = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.constantFrom(
      '"',
      "'",
      '`',
      '\\',
      '#',
      ' ',
      '\t',
      '$',
      '${',
      '}',
      '=',
      '\\n',
      '\\"',
      "\\'",
      ' #',
      '\r',
      '\n',
    ),
  },
  { weight: 2, arbitrary: fc.string({ unit: 'grapheme', maxLength: 4 }) },
  {
    weight: 2,
    arbitrary: fc.constantFrom(
      'a',
      'B=',
      'export ',
      '-----BEGIN',
      '{"a":1}',
      'Zm9v==',
      '\u00a0',
      '\ufeff',
    ),
  },
);
const value = fc.oneof(
  fc.array(part, { maxLength: 8 }).map((parts) => parts.join('')),
  fc.array(part, { maxLength: 8 }).map((parts) => `"${parts.join('')}"`),
  fc.array(part, { maxLength: 8 }).map((parts) => `'${parts.join('')}'`),
);
const file = fc
  .array(value, { minLength: 1, maxLength: 3 })
  .map((values) => values.map((each, at) => `V${at}=${each}\n`).join(''));

t.test('what is taken, npm\u2019s dotenv and Node take as well', async (t) => {
  let taken = 0;
  fc.assert(
    fc.property(file, (text) => {
      const all = [...variablesOf([text])];
      // Where a line fails, other readers go on elsewhere: such files prove nothing.
      if (all.some(({ fault }) => fault !== undefined)) return;
      const ours = Object.fromEntries(all.map(({ name, value: read }) => [name, read]));
      taken += all.length;
      for (const [reader, theirs] of [
        ['dotenv', parse(text)],
        ['Node', parseEnv(text)],
      ] as const)
        for (const [name, read] of Object.entries(ours))
          if (theirs[name] !== read)
            throw new Error(
              `${reader}: ${JSON.stringify(text)}: ${JSON.stringify(theirs[name])}, not ${JSON.stringify(read)}`,
            );
    }),
    { numRuns: 20_000 },
  );
  t.ok(taken > 1_000, `${taken} lines were compared`);
});

t.test('an exported variable without a value is one that Node calls by another name', (t) => {
  const [read] = variablesOf(['export B=\n']);
  t.same(parseEnv('export B=\n'), { 'export B': '' });
  t.match(read?.fault, /write ""/);
  t.match([...variablesOf(['export B=""\n', 'C=\n'])], [{ value: '' }, { value: '', name: 'C' }]);
  t.end();
});

t.test('what a long search found', (t) => {
  const faults = (text: string): (string | undefined)[] =>
    [...variablesOf([text])].map(({ fault }) => fault);
  t.match(faults('V0=\n #="\nV1=""\n'), [undefined, /comment behind blanks/, undefined]);
  t.match(faults('V0=\u1680\n'), [/cannot be seen/], 'a blank that npm\u2019s dotenv cuts off');
  t.end();
});

t.test(
  'a file in pieces is the same file',
  folded(async (t) => {
    fc.assert(
      fc.property(file, fc.array(fc.nat(20), { minLength: 1, maxLength: 10 }), (text, cuts) => {
        const pieces: string[] = [];
        let at = 0;
        for (const cut of cuts) {
          pieces.push(text.slice(at, at + cut));
          at += cut;
        }
        pieces.push(text.slice(at));
        t.strictSame([...variablesOf(pieces)], [...variablesOf([text])]);
      }),
      { numRuns: 300 },
    );
  }),
);
