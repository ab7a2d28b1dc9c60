// Whatever a name is in another system, the vault takes what it becomes here.
import fc from 'fast-check';
import t from 'tap';
import { legalName, withSuffix } from '../../src/cli/import/names.ts';
import { nameLengthMax } from '../../src/shared/limits.ts';
import { ruleOfName } from '../../src/shared/visible-names.ts';

const odd = fc.constantFrom(
  '\u0301',
  ' ',
  '\u00a0',
  '\u2800',
  '\u{13441}',
  '\ufffc',
  '.',
  '\ud800',
);
const names = fc
  .array(fc.oneof(odd, fc.string({ unit: 'binary', maxLength: 4 }), fc.constantFrom('a', 'é')), {
    maxLength: 120,
  })
  .map((parts) => parts.join(''));

t.test('a name of anywhere becomes one that breaks no rule', (t) => {
  fc.assert(
    fc.property(names, (text) => {
      for (const name of [legalName(text), withSuffix(legalName(text), ' 2')])
        if (name === '' || name.length > nameLengthMax || ruleOfName(name) !== undefined)
          throw new Error(`${JSON.stringify(name)} breaks ${ruleOfName(name) ?? 'its length'}`);
    }),
    { numRuns: 5_000 },
  );
  t.end();
});

t.test('a good name stays as it is', (t) => {
  for (const name of ['openai-prod', 'Größe 2', '日本語', '_']) t.equal(legalName(name), name);
  t.equal(legalName('..'), '__');
  t.equal(legalName('\u200b'), 'unnamed');
  t.end();
});
