// Redaction: the forms that are found, by name, and what passes at once.
import t from 'tap';
import { folded } from '../helpers/folded.ts';
import { mark, Redactor } from '../../src/broker/redaction/redactor.ts';
import { Redactors } from '../../src/broker/redaction/redactors.ts';
import { BrokerRefusal } from '../../src/broker/refusal.ts';
import { type CredentialId, newId } from '../../src/shared/ids.ts';
import { shortEscapes } from '../../src/broker/redaction/backslashes.ts';

const secret = 'sk-Live/0123+456=é"\\&7';
const redacted = (text: string | Buffer, ...sensitive: string[]): string => {
  const stream = new Redactor(sensitive.length > 0 ? sensitive : [secret]).stream();
  return Buffer.concat([stream.push(Buffer.from(text)), stream.end()]).toString();
};
const bytes = Buffer.from(secret);
const percent = (each: (byte: number, i: number) => string): string =>
  [...bytes].map(each).join('');
const hexOf = (byte: number): string => byte.toString(16).padStart(2, '0');
const isPlain = (byte: number): boolean => /[A-Za-z0-9]/.test(String.fromCharCode(byte));
const unicode = (text: string, upper = false): string =>
  [...text]
    .map((c) => {
      const code = c.charCodeAt(0).toString(16).padStart(4, '0');
      return `\\u${upper ? code.toUpperCase() : code}`;
    })
    .join('');

t.test(
  'every form of the secret is found wherever it stands',
  folded(async (t) => {
    const forms: Record<string, string> = {
      raw: secret,
      'in lower case': secret.toLowerCase(),
      'in upper case': secret.toUpperCase(),
      hex: bytes.toString('hex'),
      HEX: bytes.toString('hex').toUpperCase(),
      percent: encodeURIComponent(secret),
      'percent, lower': encodeURIComponent(secret).replace(/%../g, (x) => x.toLowerCase()),
      'percent, every byte': percent((byte) => `%${hexOf(byte)}`),
      'percent, every byte, upper': percent((byte) => `%${hexOf(byte).toUpperCase()}`),
      'percent, in any mixture': percent((byte, i) =>
        i % 3 === 0 || !isPlain(byte)
          ? `%${i % 2 === 0 ? hexOf(byte) : hexOf(byte).toUpperCase()}`
          : String.fromCharCode(byte),
      ),
      'percent, twice': encodeURIComponent(encodeURIComponent(secret)),
      JSON: JSON.stringify(secret).slice(1, -1),
      'JSON, slashes escaped': JSON.stringify(secret).slice(1, -1).replaceAll('/', '\\/'),
      'JSON, ASCII only': JSON.stringify(secret).slice(1, -1).replace('é', '\\u00e9'),
      'JSON, all as \\u': unicode(secret),
      'JSON, all as \\U': unicode(secret, true),
      'JSON in JSON': JSON.stringify(JSON.stringify(secret)).slice(3, -3),
      'JSON with \\u00XX for some': secret
        .replace('\\', '\\\\')
        .replace('"', '\\u0022')
        .replace('/', '\\u002F')
        .replace('&', '\\u0026'),
      HTML: secret.replaceAll('&', '&amp;').replaceAll('"', '&quot;'),
      'JSON, all as \\u, twice': unicode(secret).replaceAll('\\', '\\\\'),
      'JSON, slashes escaped, twice': bytes.toString('base64').replaceAll('/', '\\\\/'),
      'base64, percent-encoded': encodeURIComponent(bytes.toString('base64')),
      'base64, slashes escaped': bytes.toString('base64').replaceAll('/', '\\/'),
    };
    for (const [name, form] of Object.entries(forms)) {
      for (const [before, after] of [
        ['', ''],
        ['{"x":"', '"}'],
        ['sk-', '%'],
        ['%!', '\\'],
        ['\\n', 'z'],
        ['\\', ' '],
        ['0', '1'],
      ] as const) {
        // Of a run of backslashes only the last belongs to the find.
        t.equal(
          redacted(`${before}${form}${after}`).replace(/\\+(?=\[)/, ''),
          `${before.replace(/\\$/, '')}${mark}${after}`,
          `${name} between ${before} and ${after}`,
        );
      }
    }
  }),
);

t.test(
  'base64 at every offset leaves no character of which the secret alone decides',
  folded(async (t) => {
    for (const alphabet of ['base64', 'base64url'] as const) {
      for (let before = 0; before < 7; before += 1) {
        for (let after = 0; after < 4; after += 1) {
          const encoded = Buffer.concat([
            Buffer.from('user:pass'.slice(0, before)),
            bytes,
            Buffer.from('!!!!'.slice(0, after)),
          ]).toString(alphabet);
          const out = redacted(`<${encoded}>`);
          t.ok(out.includes(mark), `${alphabet} ${before} ${after}`);
          t.ok(
            out.length - mark.length <=
              2 + Math.ceil((before * 4) / 3) + 1 + Math.ceil((after * 4) / 3) + 3,
            `${alphabet} ${before} ${after}: ${out.replace(mark, '#')}`,
          );
        }
      }
    }
  }),
);

t.test('both alphabets of base64', async (t) => {
  for (const form of ['Pj4+Pz8/Pj4+Pz8/', 'Pj4-Pz8_Pj4-Pz8_'])
    t.equal(redacted(`<${form}>`, '>>>???>>>???'), `<${mark}>`, form);
});

t.test('a pair of surrogates, and what only looks like one', async (t) => {
  const emoji = 'key-🔑-0123456';
  t.equal(redacted('<key-\\ud83d\\udd11-0123456>', emoji), `<${mark}>`);
  t.equal(redacted('<key-\\uD83D\\uDD11-0123456>', emoji), `<${mark}>`);
  for (const text of [
    'key-\\ud83d-0123456',
    '\\ud83d\\u0041',
    '\\ud83d\\n',
    '\\ud83d',
    '\\ud83d\\',
    '\\u',
    '\\u00',
    '\\x4',
    '%',
    '%4',
    '%zz',
    '\\q',
    '\\\\',
    '\\ud83d\\ud83d\\udd11',
  ])
    t.equal(redacted(text, emoji), text, text);
  t.equal(redacted('\\ud83dkey-\\ud83d\\udd11-0123456', emoji), `\\ud83d${mark}`);
});

t.test('several secrets, one in another, one after another, one across another', async (t) => {
  t.equal(redacted('a12345678b', '12345678', 'a12345678b'), mark);
  t.equal(redacted('12345678', '12345678', 'a12345678b'), mark);
  t.equal(redacted('1234567812345678', '12345678'), `${mark}${mark}`);
  t.equal(redacted('abcdefghijkl', 'abcdefgh', 'efghijkl'), mark, 'two that overlap are one');
  t.equal(redacted('aaaaaaaaaaaaab', 'aaaaaaaa'), `${mark}b`);
  t.equal(redacted('abababababx', 'abababab'), `${mark}x`);
});

t.test(
  'values of fewer than 8 bytes are not looked for, and nothing to look for is no fault',
  async (t) => {
    t.equal(redacted('1234567 and all', '1234567'), '1234567 and all');
    t.equal(redacted('anything', ''), 'anything');
  },
);

t.test('an event passes at once; only what may become a secret waits', async (t) => {
  const redactor = new Redactor([secret]);
  const stream = redactor.stream();
  const push = (text: string): string => stream.push(Buffer.from(text)).toString();
  t.equal(
    push('data: {"choices":[{"delta":{"content":"Hello\\n"}}]}\n\n'),
    'data: {"choices":[{"delta":{"content":"Hello\\n"}}]}\n\n',
  );
  t.equal(push('data: sk'), 'data: ');
  t.equal(push('y is blue\n\n'), 'sky is blue\n\n');
  t.equal(push(`data: ${secret.slice(0, 9)}`), 'data: ');
  t.equal(push(secret.slice(9)), mark, 'a secret that is complete does not wait');
  t.equal(push('\\'), '');
  t.equal(push('n'), '\\n');
  t.equal(stream.end().toString(), '');
});

t.test('a line that a secret might go on in the next one waits; an event does not', async (t) => {
  const stream = new Redactor([secret]).stream();
  const push = (text: string): string => stream.push(Buffer.from(text)).toString();
  t.equal(push('data: ask\n\n'), 'data: ask\n\n', 'an event is over');
  t.equal(push('data: ask\r\n\r\n'), 'data: ask\r\n\r\n');
  t.equal(push('{"text":"ask"}\n'), '{"text":"ask"}\n');
  t.equal(push('ask\n'), 'a', 'a line that ends like a beginning');
  t.equal(push('him'), 'sk\nhim');
  t.equal(stream.end().toString(), '');
});

t.test('a mark is written as the text around it', async (t) => {
  for (const [encoding, start] of [
    ['utf16le', '\ufeff'],
    ['utf16le', ''],
  ] as const) {
    const stream = new Redactor([secret]).stream({ widths: ['utf16le', 'utf16be'] });
    const body = Buffer.from(`${start}a ${secret} b`, encoding);
    const out = Buffer.concat([stream.push(body), stream.end()]);
    t.equal(out.toString(encoding), `${start}a ${mark} b`);
  }
});

t.test('what is looked for is compiled once for values that do not change', async (t) => {
  const clock = { ms: 0 };
  const redactors = new Redactors(() => clock.ms, { entries: 2, bytes: 1e6 });
  const [one, two, three] = [1, 2, 3].map(() => newId<CredentialId>()) as [
    CredentialId,
    CredentialId,
    CredentialId,
  ];
  const first = redactors.soughtFor(one, [secret]);
  t.equal(redactors.soughtFor(one, [secret]), first, 'shared');
  const text = `a ${secret} b`;
  t.equal(new Redactor([], [first]).text('a sk-Live/0123+456 b'), 'a sk-Live/0123+456 b');
  t.notMatch(new Redactor([], [first]).text(Buffer.from(text).toString('latin1')), 'Live');

  t.test('other values are never looked for with what was made for these', async (t) => {
    const renewed = redactors.soughtFor(one, ['another-secret-0001']);
    t.not(renewed, first);
    t.equal(new Redactor([], [renewed]).text('x another-secret-0001'), `x ${mark}`);
    t.equal(redactors.size, 1, 'and what was made before is not kept');
    t.not(redactors.soughtFor(one, [secret]), first);
  });
  t.test('so many are kept, and so large', async (t) => {
    redactors.soughtFor(two, ['secret-of-the-second']);
    const held = redactors.soughtFor(one, [secret]);
    redactors.soughtFor(three, ['secret-of-the-third-']);
    t.equal(redactors.size, 2);
    t.equal(redactors.soughtFor(one, [secret]), held, 'the one used last stays');
    redactors.soughtFor(two, ['x'.repeat(8_000)]);
    t.ok(redactors.size < 2, 'bytes count too');
  });
  t.test('for a minute, used or not', async (t) => {
    const held = redactors.soughtFor(one, [secret]);
    clock.ms += 59_999;
    t.equal(redactors.soughtFor(one, [secret]), held);
    redactors.sweep();
    t.ok(redactors.size > 0);
    clock.ms += 1;
    redactors.sweep();
    t.equal(redactors.size, 0, 'use does not make it last longer, and nobody has to ask');
  });
});

t.test(
  'a piece that begins or ends within a secret does not pass',
  folded(async (t) => {
    const key = 'sk-live-0123456789abcdefghijklmnopqrstuv';
    const long = 'L'.repeat(10) + [...Array(2000).keys()].map((i) => (i * 7919) % 10).join('');
    const passes = (
      body: Buffer,
      at: readonly number[] = [],
      all: readonly string[] = [key],
    ): boolean => {
      const stream = new Redactor(all).stream({ isPiece: true });
      try {
        const borders = [0, ...at.filter((cut) => cut < body.length), body.length];
        const out = Buffer.concat([
          ...borders.slice(1).map((to, i) => stream.push(body.subarray(borders[i]!, to))),
          stream.end(),
        ]);
        return out.equals(body) || t.fail('a piece is never changed');
      } catch (error) {
        if (error instanceof BrokerRefusal && error.reason === 'piece') return false;
        throw error;
      }
    };
    const forms: Readonly<Record<string, (text: string) => Buffer>> = {
      plain: (text) => Buffer.from(text),
      base64: (text) => Buffer.from(Buffer.from(`${'.'.repeat(600)}${text}`).toString('base64')),
      hex: (text) => Buffer.from(Buffer.from(text).toString('hex')),
      HTML: (text) => Buffer.from([...text].map((c) => `&#${c.charCodeAt(0)};`).join('')),
      JSON: (text) =>
        Buffer.from([...text].map((c) => `\\u00${c.charCodeAt(0).toString(16)}`).join('')),
      UTF16: (text) => Buffer.from(text, 'utf16le'),
      'UTF-16BE': (text) => Buffer.from(text, 'utf16le').swap16(),
    };
    const around = '~'.repeat(700);
    for (const [name, form] of Object.entries(forms)) {
      const whole = form(`${around}${key}${around}`);
      const from = form(around).length - (name === 'base64' ? 2 : 0);
      const until = whole.length - form(around).length + (name === 'base64' ? 804 : 0);
      t.notOk(passes(whole), `${name}: all of it`);
      // Where an escape is cut, too.
      const unit = Math.ceil((until - from) / key.length);
      for (let start = from + 1; start <= until - 9 * unit; start += 1) {
        t.notOk(passes(whole.subarray(start)), `${name}: from ${start - from} on`);
        t.notOk(passes(whole.subarray(start), [1, 2, 30, 400]), `${name}: in chunks`);
      }
      for (let end = from + 9 * unit; end < until; end += 1)
        t.notOk(passes(whole.subarray(0, end)), `${name}: up to ${end - from}`);
      t.ok(passes(whole.subarray(until + 4 * unit)), `${name}: behind it`);
      t.ok(passes(whole.subarray(0, from)), `${name}: before it`);
    }
    for (let at = 1; at + 700 < long.length; at += 97)
      t.notOk(
        passes(Buffer.from(long.slice(at, at + 600)), [], [long]),
        'from the middle of a long one',
      );
    for (const short of ['hunter22', 'correct-horse-7'])
      for (let cut = 1; cut < short.length; cut += 1) {
        t.equal(
          passes(Buffer.from(short.slice(cut) + around), [], [short]),
          short.length - cut < 4,
        );
        t.equal(passes(Buffer.from(around + short.slice(0, cut)), [], [short]), cut < 4);
      }
    t.ok(passes(Buffer.from('ab')) && passes(Buffer.alloc(0)));
  }),
);

t.test(
  'the end: a short beginning of a secret is text, a long one is a secret that was cut off',
  async (t) => {
    t.equal(redacted('the end: sk-Live'), 'the end: sk-Live');
    t.equal(redacted('the end: sk-Live/0123'), `the end: ${mark}`);
    t.equal(redacted(`the end: ${encodeURIComponent(secret).slice(0, 20)}`), `the end: ${mark}`);
  },
);

t.test(
  'a stream that repeats the beginning of a secret costs no more than another, in time and in memory',
  async (t) => {
    const looping = 'ab'.repeat(4000);
    const stream = new Redactor([looping]).stream();
    const chunk = Buffer.from('ab'.repeat(32 * 1024));
    let length = 0;
    for (let i = 0; i < 64; i += 1) length += stream.push(chunk).length;
    length += stream.end().length;
    t.equal(length, mark.length, 'all of it is one secret over itself, and was let go on the way');
  },
);

t.test("a header's value is latin-1", async (t) => {
  const redactor = new Redactor(['sk-live-0123456789']);
  t.equal(redactor.text('caf\u00e9 sk-live-0123456789'), `caf\u00e9 ${mark}`);
});

t.test(
  'behind a backslash nothing is passed over that a secret begins with, as it stands or as it is meant',
  async (t) => {
    for (const [byte, meant] of shortEscapes) {
      const tail = 'ecret-of-the-team-0001';
      for (const first of [String.fromCharCode(byte), String.fromCharCode(meant)]) {
        const body = Buffer.from(`before \\${String.fromCharCode(byte)}${tail} after`);
        const stream = new Redactor([`${first}${tail}`]).stream();
        const out = Buffer.concat([stream.push(body), stream.end()]).toString();
        t.notMatch(out, tail, `${byte} for ${meant}`);
        t.match(out, mark);
      }
    }
  },
);
