// The laws of redaction, for any secrets, any text and any way to cut it into chunks.
import fc from 'fast-check';
import t from 'tap';
import { mark, Redactor } from '../../src/broker/redaction/redactor.ts';

/**
 * Few letters, so that patterns overlap themselves and each other, and escapes are begun and broken
 * off.
 */
const narrow = fc.string({
  unit: fc.constantFrom('a', 'b', '%', '\\', 'u', '0', '6', '1', '2'),
  minLength: 8,
  maxLength: 14,
});
const wide = fc
  .oneof(
    fc.string({ unit: 'binary', minLength: 8, maxLength: 40 }),
    fc.stringMatching(/^[!-~]{8,60}$/),
  )
  .filter((text) => text.isWellFormed());
const secrets = fc.array(fc.oneof(narrow, wide), { minLength: 1, maxLength: 3 });
/**
 * Half an escape at the end: it would swallow the beginning of a form that follows, and hide it.
 */
const halfEscape = /(?:%[0-9a-f]?|\\+(?:u[0-9a-f]{0,3}|x[0-9a-f]?)?)+$/i;
const noise = fc
  .oneof(
    fc.string({
      unit: fc.constantFrom('a', 'b', '%', '\\', 'u', '0', '6', '1', '2'),
      maxLength: 12,
    }),
    fc.string({ maxLength: 12 }),
  )
  .map((text) => text.replace(halfEscape, ''));

const percent = (text: string, mask: readonly boolean[]): string =>
  [...Buffer.from(text)]
    .map((byte, i) =>
      mask[i % mask.length] === true || byte > 0x7e || byte === 0x25
        ? `%${byte.toString(16).padStart(2, '0')}`
        : String.fromCharCode(byte),
    )
    .join('');
const json = (text: string, mask: readonly boolean[]): string =>
  text
    .split('')
    .map((unit, i) => {
      const code = unit.charCodeAt(0).toString(16).padStart(4, '0');
      return mask[i % mask.length] === true || unit < ' ' || /["\\\ud800-\udfff]/.test(unit)
        ? `\\u${i % 2 === 0 ? code : code.toUpperCase()}`
        : unit;
    })
    .join('');
/** A secret in one of its forms. */
const formOf = (text: string, kind: number, mask: readonly boolean[]): string =>
  [
    () => text,
    () => Buffer.from(text).toString('base64'),
    () => Buffer.from(text).toString('base64url'),
    () => Buffer.from(text).toString('hex'),
    () => Buffer.from(text).toString('hex').toUpperCase(),
    () => percent(text, mask),
    () => json(text, mask),
    () => JSON.stringify(text).slice(1, -1).replaceAll('/', '\\/'),
    () => encodeURIComponent(text),
    () => json(text, mask).replaceAll('\\', text.includes('\\') ? '\\' : '\\\\'),
  ][kind % 10]!();
const apart = (form: string): string => (halfEscape.test(form) ? `${form}\n` : form);
const mask = fc.array(fc.boolean(), { minLength: 1, maxLength: 5 });
/** Noise with forms of the secrets in it. */
const scene = secrets
  .chain((all) =>
    fc.tuple(
      fc.constant(all),
      fc.array(fc.tuple(noise, fc.nat(9), fc.nat(all.length - 1), mask), { maxLength: 5 }),
      noise,
    ),
  )
  .map(([all, parts, tail]) => ({
    all,
    body: Buffer.from(
      parts
        .map(([before, kind, which, m]) => before + apart(formOf(all[which]!, kind, m)))
        .join('') + tail,
    ),
    forms: parts.map(([, kind, which, m]) => formOf(all[which]!, kind, m)),
  }));
const cuts = fc.array(fc.nat(), { maxLength: 30 });

function run(all: readonly string[], body: Buffer, at: readonly number[]): Buffer {
  const stream = new Redactor(all).stream();
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
const everyByte = (body: Buffer): number[] => [...body.keys()];

t.test('however a body is cut, the same comes out', async () => {
  fc.assert(
    fc.property(scene, cuts, ({ all, body }, at) => {
      const whole = run(all, body, []);
      return whole.equals(run(all, body, at)) && whole.equals(run(all, body, everyByte(body)));
    }),
    { numRuns: 2_000 },
  );
});

t.test('no form of a secret that was in it comes out', async () => {
  fc.assert(
    fc.property(scene, cuts, ({ all, body, forms }, at) => {
      const out = run(all, body, at).toString('latin1').replaceAll(mark, '\n\0\n');
      for (const form of [...all, ...forms])
        if (out.includes(Buffer.from(form).toString('latin1')))
          throw new Error(`out came ${JSON.stringify(form)}`);
    }),
    { numRuns: 2_000 },
  );
});

t.test('what comes out is the body with marks in place of parts of it, in order', async () => {
  fc.assert(
    fc.property(scene, cuts, ({ all, body }, at) => {
      fc.pre(!body.includes(mark));
      const pieces = run(all, body, at).toString('latin1').split(mark);
      let from = 0;
      for (const piece of pieces) {
        const found = body.toString('latin1').indexOf(piece, from);
        if (found < 0) throw new Error('something came out that was not in it');
        from = found + piece.length;
      }
    }),
  );
});

t.test('a body without any of it comes out to the byte', async () => {
  const key = 'ZQXJ-zqxj-ZQXJ-zqxj';
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), cuts, (bytes, at) =>
      run([key], Buffer.from(bytes), at).equals(Buffer.from(bytes)),
    ),
  );
  fc.assert(
    fc.property(
      fc.string({
        unit: fc.constantFrom('%', '\\', 'u', 'x', '4', '1', 'd', '8', 'c', 'n', '"'),
        maxLength: 60,
      }),
      cuts,
      (text, at) => run([key], Buffer.from(text), at).toString() === text,
    ),
  );
});

t.test(
  'held is only what may still become a secret: never more than the longest form of one',
  async () => {
    fc.assert(
      fc.property(scene, ({ all, body }) => {
        const longest = Math.max(...all.map((text) => 12 * Buffer.byteLength(text)));
        const stream = new Redactor(all).stream();
        let [before, after] = [0, 0];
        for (const byte of body) {
          before += 1;
          after += stream.push(Buffer.of(byte)).toString('latin1').replaceAll(mark, '').length;
        }
        const found = body.length - after;
        return found >= 0 && before - after <= longest + body.length && Number.isFinite(longest);
      }),
    );
  },
);
