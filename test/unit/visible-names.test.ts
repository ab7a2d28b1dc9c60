// Names that look the same are the same: which ones can be given, and what becomes of the others.
import fc from 'fast-check';
import t from 'tap';
import { ruleOfName, visibleName } from '../../src/shared/visible-names.ts';

/** In ASCII: what is odd about a name must not reach the report. */
const shown = (name: string): string =>
  Array.from(name, (each) =>
    /^[!-~ ]$/.test(each) ? each : `U+${each.codePointAt(0)!.toString(16)}`,
  ).join('');
const u = (...codes: number[]): string => String.fromCodePoint(...codes);

t.test('names that can be told from every other', async (t) => {
  for (const name of [
    'openai-prod',
    'a b',
    '...',
    '.env',
    'a.',
    'Größe',
    'Ключ',
    '鍵',
    '한국어',
    'مفتاح',
    'हिन्दी',
    '🔑',
    "O'Neil & Sons (2)",
    'x\u0327\u0301'.normalize('NFC'),
  ])
    t.equal(ruleOfName(name), undefined, shown(name));
});

t.test('names that cannot, each with its rule', async (t) => {
  for (const [name, rule] of [
    ['openai-prod\u3164', 'invisible'],
    ['openai-prod\u115f', 'invisible'],
    ['openai-prod\u1160', 'invisible'],
    ['openai-prod\uffa0', 'invisible'],
    ['openai\u2800prod', 'invisible'],
    ['openai\u00adprod', 'invisible'],
    ['openai\u200bprod', 'invisible'],
    ['openai\u200dprod', 'invisible'],
    ['openai\u2060prod', 'invisible'],
    ['openai\ufeffprod', 'invisible'],
    ['openai\u034fprod', 'invisible'],
    ['openai\u17b4prod', 'invisible'],
    ['openai\u180eprod', 'invisible'],
    ['openai\ufe0fprod', 'invisible'],
    [`openai${u(0xe0061)}prod`, 'invisible'],
    [`openai${u(0xe0100)}prod`, 'invisible'],
    [`openai${u(0x1d159)}prod`, 'invisible'],
    [`openai${u(0x1d173)}prod`, 'invisible'],
    [`openai${u(0x16fe4)}prod`, 'invisible'],
    ['openai\ufffcprod', 'invisible'],
    ['openai\u202eprod', 'invisible'],
    ['openai\u0378prod', 'invisible'],
    ['openai\uffffprod', 'invisible'],
    ['openai\ue000prod', 'invisible'],
    [`openai${u(0xfffff)}prod`, 'invisible'],
    ['openai\ud800prod', 'invisible'],
    ['openai\tprod', 'invisible'],
    ['openai\u00a0prod', 'blanks'],
    ['openai\u3000prod', 'blanks'],
    ['openai\u2009prod', 'blanks'],
    ['openai\u1680prod', 'blanks'],
    ['openai\u2028prod', 'blanks'],
    ['openai  prod', 'blanks'],
    [' openai', 'blanks'],
    ['openai ', 'blanks'],
    [' ', 'blanks'],
    ['\u0301openai', 'combining'],
    ['open \u0301ai', 'combining'],
    ['\u0903openai', 'combining'],
    ['cafe\u0301', 'normalized'],
    ['\u212b', 'normalized'],
    ['\u1112\u1161\u11ab', 'normalized'],
    ['.', 'dots'],
    ['..', 'dots'],
  ] as const)
    t.equal(ruleOfName(name), rule, shown(name));
});

t.test('whatever comes becomes a name or nothing, and a name stays what it is', async (t) => {
  const odd = fc.constantFrom(
    ...[
      '\u3164',
      '\u2800',
      '\u00a0',
      ' ',
      '.',
      '\u0301',
      'e',
      'e\u0301',
      '\u200b',
      'x',
      '\t',
      '\u1160',
    ],
  );
  const text = fc.oneof(
    fc.string({ unit: 'binary', maxLength: 12 }),
    fc.array(odd, { maxLength: 8 }).map((parts) => parts.join('')),
  );
  fc.assert(
    fc.property(text, (given) => {
      const made = visibleName(given);
      if (made !== '' && ruleOfName(made) !== undefined)
        throw new Error(`${ruleOfName(made)} ${shown(given)}`);
      if (given !== '' && ruleOfName(given) === undefined) return made === given;
      return visibleName(made) === made;
    }),
    { numRuns: 20_000 },
  );
  t.equal(visibleName('openai\u3164prod'), 'openai prod');
  t.equal(visibleName('cafe\u0301'), 'café');
  t.equal(visibleName('..'), '');
  t.equal(visibleName('\u200b \t'), '');
});
