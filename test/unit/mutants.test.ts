// The tool that takes guards out: what it finds, which tests it runs first, what it says.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { runs } from '../mutants/coverage.ts';
import { findGuards, type Guard } from '../mutants/guards.ts';
import { inOrder, reportOf } from '../mutants/judging.ts';
import { isFailure } from '../mutants/workspace.ts';

const root = join(import.meta.dirname, '../..');

/** Each guard as `line kind: what is replaced → by what`. */
const shown = (text: string): string[] =>
  findGuards('src/x.ts', text).map(
    ({ line, kind, start, end, replacement }) =>
      `${line} ${kind}: ${text.slice(start, end)} → ${replacement}`,
  );

t.test('guards are found, each with the text that takes it out', async (t) => {
  for (const [text, ...guards] of [
    [
      'function f(a: number): void {\n  if (a > 1 || a < 0) throw new Error();\n}',
      '2 part of a refusal: a > 1 → false',
      '2 refusal: a > 1 || a < 0 → false',
      '2 part of a refusal: a < 0 → false',
    ],
    [
      'const f = (a: readonly string[]): boolean => { if (!a[0]!) { log(); return false; } return a.length > 1; };',
      '1 refusal: !a[0] → false',
    ],
    [
      'if (a === undefined || b !== null) throw new E();',
      '1 refusal: a === undefined || b !== null → false',
      '1 part of a refusal: b !== null → false',
    ],
    ['for (const x of y) { if (x.gone) continue; use(x); }', '1 refusal: x.gone → false'],
    [
      'function f(a: object | null) { if (a === null) throw new E(); }',
      '1 refusal: a === null → false',
    ],
    [
      'function f(role: Role) { if (role === "admin") return true; return ask(); }',
      '1 refusal: role === "admin" → true',
    ],
    [
      'function f() { switch (x) { case 1: return 2; } throw new E(); }',
      '1 throw: throw new E(); → ;',
    ],
    [
      'async function f() { await this.keepAnAdmin(trx); }',
      '1 check: await this.keepAnAdmin(trx); → ;',
    ],
    ['function f() { checkRevision(a, b); }', '1 check: checkRevision(a, b); → ;'],
    [
      'const f = (a: A, b: A): boolean => a.team === b.team && a.id === b.id;',
      '1 part of a permission: a.team === b.team → true',
      '1 part of a permission: a.id === b.id → true',
    ],
    [
      'const isOld = a.age > 3 && !b;',
      '1 part of a permission: a.age > 3 → true',
      '1 part of a permission: !b → true',
    ],
    ['const x = { ok: timingSafeEqual(a, b) };', '1 comparison: timingSafeEqual(a, b) → true'],
    ['if (!timingSafeEqual(a, b)) throw e;', '1 refusal: !timingSafeEqual(a, b) → false'],
    [
      "db.deleteFrom('x').where('team_id', '=', team).where('name', '=', n).execute();",
      "1 scope: .where('team_id', '=', team) → ",
    ],
    [
      "sql`update x set revision = ${r}, state = 'on' where x.team_id = ${team} and id = ${id} and revision = ${before}`;",
      '1 scope: x.team_id = ${team} → (x.team_id = ${team} or true)',
      '1 scope: revision = ${before} → (revision = ${before} or true)',
    ],
    [
      "statement((parameter) => sql`select 1 from x where x.team_id = ${parameter('team')}`);",
      "1 scope: x.team_id = ${parameter('team')} → (x.team_id = ${parameter('team')} or true)",
    ],
  ] as const)
    t.same(shown(text), guards, text);
});

t.test('what refuses nothing is left alone', async (t) => {
  for (const text of [
    'function f(a?: A) { if (a === undefined) return undefined; return a.b; }',
    'function f() { if (cached.has(x)) return cached; return make(); }',
    'if (a > b) c += 1;',
    'try { f(); } catch (error) { note(); throw error; }',
    'const n = a && b;',
    'sql`insert into x (team_id, revision) values (${team}, ${revision})`;',
    'sql`select 1 from a join b on b.id = a.b_id and b.team_id = a.team_id`;',
    '`a sentence where revision is what it is`;',
    'type T = A extends B ? C : D;',
  ])
    t.same(shown(text), [], text);
});

t.test('every file of the source can be read so, and holds its text where it is', async (t) => {
  const files = readdirSync(join(root, 'src'), { recursive: true, encoding: 'utf8' }).filter(
    (name) => name.endsWith('.ts'),
  );
  let count = 0;
  for (const file of files)
    count += findGuards(file, readFileSync(join(root, 'src', file), 'utf8')).length;
  t.ok(files.length > 100 && count > 500, `${count} guards in ${files.length} files`);
});

t.test(
  'a second line is declared beside its guard or above it, and for nothing else',
  async (t) => {
    const text = [
      'function f(a: A) {',
      '  // The reason.',
      '  // SECOND LINE: the database has a constraint',
      '  // that says the same.',
      '  if (a.x) throw new E();',
      '  if (a.y) throw new E(); // SECOND LINE: the caller asks first',
      '  if (a.z) throw new E();',
      '}',
    ].join('\n');
    t.same(
      findGuards('src/x.ts', text).map(({ line, secondLine }) => [line, secondLine]),
      [
        [5, 'the database has a constraint'],
        [6, 'the caller asks first'],
        [7, undefined],
      ],
    );
  },
);

t.test('of a statement in SQL the words name the column that they are about', async (t) => {
  const text = [
    'async function f() {',
    '  // SECOND LINE: team_id, which the caller has looked at',
    '  const { rows } =',
    '    await sql`select 1 from x',
    '      where team_id = ${team} and revision = ${before}`.execute(trx);',
    "  await db.deleteFrom('x')",
    "    .where('team_id', '=', team) // SECOND LINE: ids are the team's",
    "    .where('revision', '=', before)",
    '    .execute();',
    '}',
  ].join('\n');
  t.same(
    findGuards('src/x.ts', text).map(({ line, secondLine }) => [line, secondLine]),
    [
      [5, 'team_id, which the caller has looked at'],
      [5, undefined],
      [7, "ids are the team's"],
      [8, undefined],
    ],
  );
});

t.test('a report fails for a survivor, and for a second line that tests hold', async (t) => {
  const guard = (line: number, secondLine?: string): Guard => ({
    path: 'src/x/y.ts',
    line,
    kind: 'refusal',
    start: 0,
    end: 4,
    replacement: 'false',
    at: 0,
    secondLine,
  });
  const [plain, declared] = [guard(1), guard(2, 'another')];
  const verdict = (of: Guard, outcome: 'killed' | 'timed out' | 'survived') => ({
    guard: of,
    outcome,
    by: outcome === 'survived' ? undefined : 'test/z.test.ts',
    failure: undefined,
    tests: 3,
  });
  const report = (...verdicts: ReturnType<typeof verdict>[]) =>
    reportOf(verdicts, [plain, declared], () => 'a.b && c');
  t.match(report(verdict(plain, 'killed'), verdict(declared, 'survived')), {
    isGood: true,
    text: /^src\/x\t1\t0\t0\t1\t0$/m,
  });
  t.match(report(verdict(plain, 'timed out')), { isGood: true, text: /^src\/x\t0\t1\t0\t0\t1$/m });
  t.match(report(verdict(plain, 'survived')), {
    isGood: false,
    text: /^survived {2}src\/x\/y\.ts:1 {2}refusal: a\.b {2}→ {2}false {2}\(3 test files stay green\)$/m,
  });
  t.match(report(verdict(declared, 'killed')), {
    isGood: false,
    text: /^no second line {2}src\/x\/y\.ts:2 {2}test\/z\.test\.ts is red/m,
  });
});

t.test('the tests that reach a guard are run, the likeliest first', async (t) => {
  const recording = {
    digest: '',
    outcome: 'green' as const,
    ms: 1000,
    sources: { 'src/x.ts': { digest: 'd', pieces: [[10, 20] as const] } },
  };
  t.ok(runs(recording, 'src/x.ts', 'd', 10));
  t.notOk(runs(recording, 'src/x.ts', 'd', 20), 'the block beside it');
  t.ok(runs(recording, 'src/x.ts', 'changed', 20), 'of a file that changed, anything');
  t.notOk(runs(recording, 'src/y.ts', 'd', 10));
  const map = { 'a-slow.test.ts': { ...recording, ms: 9000 }, 'b-quick.test.ts': recording };
  const named = { ...map, 'sharing-z.test.ts': { ...recording, ms: 2000 } };
  const order = (path: string, of: typeof map, killers = new Map<string, number>()) =>
    inOrder(Object.keys(of), { path, kind: 'refusal' }, 'isSmall', of, killers);
  t.same(order('src/sharing/x.ts', named), [
    'sharing-z.test.ts',
    'b-quick.test.ts',
    'a-slow.test.ts',
  ]);
  t.same(order('src/q/x.ts', map, new Map([['a-slow.test.ts', 2]])), [
    'a-slow.test.ts',
    'b-quick.test.ts',
  ]);
  const fit = { ...map, 'tampered-rows.test.ts': { ...recording, ms: 9000 } };
  const of = { path: 'src/j/j.ts', kind: 'comparison' as const };
  t.equal(
    inOrder(Object.keys(fit), of, 'rowMacVerifies(row)', fit, new Map())[0],
    'tampered-rows.test.ts',
  );
  t.same(
    ['not ok 1 - x', '    not ok 2 - y', 'not ok 3 - z # TODO', 'ok 4 - not ok', 'Bail out! q'].map(
      isFailure,
    ),
    [true, true, false, false, true],
  );
});
