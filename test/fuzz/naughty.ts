// Values that have broken programs before, and ways to break a value that was good.
import fc from 'fast-check';

/** Texts with something to stumble over. */
export const naughtyTexts: readonly string[] = [
  '',
  ' ',
  '\u0000',
  'a\u0000b',
  '\ud800',
  '\udc00\ud800',
  '\uffff',
  '\u202etxt.exe',
  '\u2066hidden\u2069',
  '\ufeffbom',
  'e\u0301',
  '\u00e9',
  'İ',
  'ß',
  'ﬀ',
  '🔑'.repeat(50),
  'null',
  'undefined',
  'NaN',
  'true',
  '-0',
  '1e999',
  '0x10',
  '__proto__',
  'constructor',
  'toString',
  'hasOwnProperty',
  '../../../etc/passwd',
  '..%2f..%2f',
  '%00',
  '%',
  '%zz',
  '?',
  '#',
  '/',
  '\\',
  '//',
  ';',
  '*',
  "' or 1=1 --",
  '$(id)',
  '{{7*7}}',
  '${7*7}',
  '<script>alert(1)</script>',
  'http://169.254.169.254/latest/meta-data/',
  'file:///etc/passwd',
  '\r\nx-injected: 1',
  '\t',
  '***',
  '•••',
  '00000000-0000-0000-0000-000000000000',
  '019aa7c2-5b1e-7c3a-9d52-0a4f6e1b2c3d',
  '019AA7C2-5B1E-7C3A-9D52-0A4F6E1B2C3D',
  '9999-12-31T23:59:59.999Z',
  '0000-01-01T00:00:00Z',
  '2026-02-30T00:00:00Z',
  '2026-01-01T00:00:00+25:00',
  'a'.repeat(300),
  'a'.repeat(70_000),
];

export const naughtyNumbers: readonly number[] = [
  0,
  -0,
  -1,
  1.5,
  2 ** 31,
  2 ** 32,
  2 ** 53,
  2 ** 53 + 2,
  -(2 ** 63),
  1e21,
  1e308,
  5e-324,
];

const deep = (depth: number): unknown => {
  let value: unknown = 1;
  for (let at = 0; at < depth; at += 1) value = at % 2 === 0 ? [value] : { a: value };
  return value;
};

/** Anything that JSON can say. */
export const naughtyValue: fc.Arbitrary<unknown> = fc.oneof(
  fc.constantFrom<unknown>(...naughtyTexts),
  fc.constantFrom<unknown>(...naughtyNumbers),
  fc.constantFrom<unknown>(null, true, false, [], {}, [[]], [null], deep(20), deep(100)),
  fc.jsonValue({ maxDepth: 3 }),
  fc.string({ unit: 'binary', maxLength: 40 }),
);

type Path = readonly (string | number)[];

function pathsOf(value: unknown, path: Path = []): Path[] {
  if (typeof value !== 'object' || value === null) return [path];
  return [path, ...Object.entries(value).flatMap(([name, each]) => pathsOf(each, [...path, name]))];
}

/** Puts something else at the path; undefined takes it away. */
function replaced(value: unknown, [step, ...rest]: Path, by: unknown): unknown {
  if (step === undefined) return by;
  const copy: Record<string, unknown> | unknown[] = Array.isArray(value)
    ? [...value]
    : { ...(value as Record<string, unknown>) };
  const inner = replaced((value as Record<string, unknown>)[step], rest, by);
  if (inner === undefined && !Array.isArray(copy)) delete copy[step];
  else (copy as Record<string, unknown>)[step] = inner;
  return copy;
}

/** The same value, wrong in one place. */
export const broken = (good: fc.Arbitrary<unknown>): fc.Arbitrary<unknown> =>
  fc
    .tuple(good, fc.nat(), naughtyValue, fc.constantFrom('replace', 'remove', 'add'))
    .map(([value, at, by, how]) => {
      const paths = pathsOf(value);
      const path = paths[at % paths.length]!;
      if (how === 'add') return replaced(value, [...path.slice(0, -1), 'unknownMember'], by);
      return replaced(value, path, how === 'remove' && path.length > 0 ? undefined : by);
    });
