// The patterns of the document against those that validate, over every character there is, in three
// readers: JavaScript with and without `u`, and Python's `re`.
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { folded } from '../helpers/folded.ts';
import { parse } from 'yaml';
import { portablePattern } from '../../src/shared/portable-pattern.ts';

const root = join(import.meta.dirname, '../..');
// Every pattern of src/ that names a class, but for those of stand-ins, which are printed nowhere.
const sources = new Set(
  readdirSync(join(root, 'src'), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts') && /schemas|routes|define|types/.test(name))
    .filter((name) => !name.endsWith('stand-ins.ts'))
    .flatMap((name) => [
      ...readFileSync(join(root, 'src', name), 'utf8').matchAll(
        /\/(\^(?:\\.|\[(?:\\.|[^\]\\])*\]|[^/\\\n])+)\/(?=[u),; ])/g,
      ),
    ])
    .map(([, source]) => source!)
    .filter((source) => /\\[pPdDsSwW]/.test(source)),
);

/** A text in which the character decides: alone, and between letters. */
const texts = (character: string): string[] => [character, `a${character}a`, `key:${character}`];
function* characters(): Generator<string> {
  for (let code = 0; code < 0x110000; code += 1)
    if (code < 0xd800 || code > 0xdfff) yield String.fromCodePoint(code);
}

t.test('the search for patterns finds those that name classes', (t) => {
  t.ok(sources.size >= 8, String(sources.size));
  t.ok([...sources].some((source) => source.includes('Cf')));
  t.end();
});

for (const source of sources)
  t.test(`the same to JavaScript without u: ${source}`, (t) => {
    const validates = new RegExp(source, 'u');
    const printed = portablePattern(source);
    t.notMatch(printed, /\\[pPdDwW]|\\u\{/);
    const readers = [new RegExp(printed), new RegExp(printed, 'u')];
    const differs: string[] = [];
    for (const character of characters())
      for (const text of texts(character)) {
        const wanted = validates.test(text);
        if (readers.some((each) => each.test(text) !== wanted))
          differs.push(text.codePointAt(0)!.toString(16));
      }
    t.same(differs.slice(0, 10), []);
    t.end();
  });

t.test('a pattern that differs is found', (t) => {
  // What was printed before there were ranges: without `u` it is another pattern.
  const source = '^[^\\p{Cc}]*$';
  t.not(new RegExp(source).test('p'), new RegExp(source, 'u').test('p'));
  t.throws(() => portablePattern('[^\\p{L}]'), /too much/);
  t.end();
});

const python = ['/usr/bin/python3', 'python3'].find(
  (each) => spawnSync(each, ['--version']).status === 0,
);
t.test(
  'the same to Python',
  { skip: python === undefined && process.env['CI'] === undefined && 'no Python' },
  (t) => {
    const pairs = [...sources].map((source) => {
      const validates = new RegExp(source, 'u');
      // Runs of characters that are taken between two letters.
      const taken: [number, number][] = [];
      for (const character of characters()) {
        if (!validates.test(`a${character}a`)) continue;
        const code = character.codePointAt(0)!;
        const last = taken.at(-1);
        if (last !== undefined && last[1] === code - 1) last[1] = code;
        else taken.push([code, code]);
      }
      return { pattern: portablePattern(source), taken };
    });
    const { status, stdout, stderr } = spawnSync(
      python!,
      [
        '-c',
        `
import json, re, sys
for pair in json.load(sys.stdin):
    pattern = re.compile(pair["pattern"])
    taken = []
    for code in range(0x110000):
        if 0xD800 <= code <= 0xDFFF or not pattern.search("a" + chr(code) + "a"):
            continue
        if taken and taken[-1][1] == code - 1:
            taken[-1][1] = code
        else:
            taken.append([code, code])
    print(json.dumps(taken == pair["taken"]))
`,
      ],
      { input: JSON.stringify(pairs), encoding: 'utf8', maxBuffer: 1 << 24 },
    );
    t.equal(status, 0, stderr);
    t.same(
      stdout.trim().split('\n'),
      [...sources].map(() => 'true'),
    );
    t.end();
  },
);

t.test(
  'no pattern of the document names a class, and all compile without u',
  folded((t) => {
    const patterns: string[] = [];
    parse(readFileSync(join(root, 'openapi.yaml'), 'utf8'), (key, value: unknown) => {
      if (key === 'pattern' && typeof value === 'string') patterns.push(value);
      return value;
    });
    t.ok(patterns.length > 60);
    for (const pattern of patterns) {
      t.notMatch(pattern, /\\[pPdDwW]|\\u\{/);
      t.ok(new RegExp(pattern));
      t.ok(new RegExp(pattern, 'u'));
    }
  }),
);
