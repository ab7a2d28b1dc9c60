// What CONTRIBUTING.md says of the page: no line over 120 columns, no circle among files.
import t from 'tap';
import { duplicatedNames, figuresOf } from '../helpers/figures.ts';
import { sourceFiles } from '../helpers/source-files.ts';

const source = sourceFiles('src');

t.test('no line of src is over 120 columns', async (t) => {
  t.same(figuresOf(source).linesOver120, []);
  t.same(
    figuresOf(new Map([['src/a.ts', `const a = 1;\n// ${'x'.repeat(120)}\n`]])).linesOver120,
    ['src/a.ts:2'],
    'a long line is found',
  );
});

t.test('no file of src imports itself by way of others', async (t) => {
  t.same(figuresOf(source).circles, []);
  const planted = new Map([
    ['src/a.ts', `import type { B } from './b.ts';`],
    ['src/b.ts', `export * from './c.ts';`],
    ['src/c.ts', `export const c = () => import('./a.ts');`],
    ['src/d.ts', `import './c.ts';`],
  ]);
  t.same(
    figuresOf(planted).circles.map((circle) => [...circle].sort()),
    [['src/a.ts', 'src/b.ts', 'src/c.ts']],
    'a circle of imports of every form is found',
  );
});

t.test('sizes and names are counted', async (t) => {
  const files = new Map([
    ['src/a.ts', 'export const one = 1;\n'],
    ['src/b.ts', 'export type one = 1;\n\n'],
    ['src/c.ts', 'export class Two {}\n\n\nexport const three = 3;\n'],
  ]);
  t.match(figuresOf(files), {
    files: 3,
    medianLines: 1,
    largest: { path: 'src/c.ts', lines: 4 },
    duplicatedNames: ['one'],
  });
  t.ok(duplicatedNames(source).length < 29, 'no more than there were');
});
