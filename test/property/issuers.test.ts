// Which subject a token makes: over any set of prefixes that the start accepts, no two issuers make
// the same one.
import fc from 'fast-check';
import t from 'tap';
import { Issuers } from '../../src/access/issuers.ts';
import { matchesPattern } from '../../src/shared/wildcards.ts';
import { isClaimedSubject } from '../../src/shared/subjects.ts';
import { issuerWith } from '../helpers/issuers.ts';

const prefix = fc.oneof(
  fc.constant(''),
  fc
    .array(fc.constantFrom('a', 'b', ':', 'k8s'), { minLength: 1, maxLength: 4 })
    .map((parts) => `${parts.join('')}:`),
);
const claim = fc
  .array(fc.constantFrom('a', 'b', ':', 'k8s', 'x', ' ', 'k8s:'), { minLength: 1, maxLength: 6 })
  .map((parts) => parts.join(''));

t.test('no two issuers make one subject, or the start fails', async (t) => {
  let accepted = 0;
  let meetings = 0;
  fc.assert(
    fc.property(
      fc.uniqueArray(prefix, { minLength: 1, maxLength: 4 }),
      fc.array(claim, { minLength: 1, maxLength: 8 }),
      (prefixes, claims) => {
        let issuers: Issuers;
        const entries = prefixes.map((subjectPrefix, index) =>
          issuerWith({
            issuer: `https://${index}.test`,
            audiences: ['a'],
            keys: { kind: 'discovery' },
            subjectPrefix,
          }),
        );
        try {
          issuers = new Issuers(entries);
        } catch {
          return;
        }
        accepted += 1;
        const made = new Map<string, string>();
        for (const entry of entries)
          for (const each of new Set(claims)) {
            const sub = issuers.subjectOf(entry, each);
            if (sub === undefined) continue;
            const name = `${entry.issuer} ${each}`;
            if (made.has(sub)) meetings += 1;
            made.set(sub, name);
            if (issuers.ofSubject(sub) !== entry) throw new Error('of another');
          }
        if (meetings > 0) throw new Error('two issuers meet');
      },
    ),
    { numRuns: 3_000 },
  );
  t.ok(accepted > 300, `${accepted} sets were accepted`);
});

t.test('a pattern is what a regular expression with .* in its place is', async (t) => {
  const piece = fc.constantFrom('a', 'b', '*', '.', '-', '**');
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 7 }), fc.array(piece, { maxLength: 9 }), (a, b) => {
      const [pattern, text] = [a.join(''), b.join('')];
      const expression = new RegExp(
        `^${pattern.replaceAll('.', '\\.').replaceAll(/\*+/g, '[^]*')}$`,
      );
      return matchesPattern(pattern, text) === expression.test(text);
    }),
    { numRuns: 5_000 },
  );
  const long = 'a'.repeat(500);
  t.equal(matchesPattern(`${'a*'.repeat(40)}b`, long), false, 'and takes no time');
});

t.test('a subject is 1 to 255 printable ASCII characters, blanks only inside', async (t) => {
  const character = fc.integer({ min: 0, max: 0x17f }).map((code) => String.fromCharCode(code));
  fc.assert(
    fc.property(fc.array(character, { maxLength: 6 }), (characters) => {
      const text = characters.join('');
      const isOne =
        text.length > 0 &&
        [...text].every((each) => each >= ' ' && each <= '~') &&
        text.trim() === text;
      return isClaimedSubject(text) === isOne;
    }),
    { numRuns: 5_000 },
  );
  t.equal(isClaimedSubject('a'.repeat(255)), true);
  t.equal(isClaimedSubject('a'.repeat(256)), false);
  for (const other of [undefined, null, 7, {}, ['alice'], true])
    t.equal(isClaimedSubject(other), false, JSON.stringify(other));
});
