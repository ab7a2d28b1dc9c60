// JSON as strangers send it: what is accepted, what is refused, and where the refusal points.
import t from 'tap';
import { folded } from '../helpers/folded.ts';
import fc from 'fast-check';
import { JsonRefused, parseJson } from '../../src/shared/strict-json.ts';

const refusal = (text: string | Buffer): string => {
  try {
    parseJson(Buffer.from(text));
    return 'accepted';
  } catch (error) {
    if (!(error instanceof JsonRefused)) throw error;
    return `${error.rule} at "${error.pointer}"`;
  }
};

t.test(
  'whatever JSON.stringify writes is read as it was',
  folded(async (test) => {
    fc.assert(
      fc.property(fc.json({ maxDepth: 8 }), (text) => {
        fc.pre(!text.includes('__proto__'));
        test.same(parseJson(Buffer.from(text)), JSON.parse(text));
      }),
      { numRuns: 300 },
    );
  }),
);

t.test('texts that look like structure are texts', async (test) => {
  for (const value of [
    'a":"b',
    '{"a":1}',
    '\\',
    '\\"',
    '":',
    '\\\\"',
    '{[:]}'.repeat(100),
    'é😀\u2028',
  ]) {
    for (const text of [
      JSON.stringify({ [value]: value }),
      JSON.stringify([value, { a: value }], null, 2),
    ])
      test.same(parseJson(Buffer.from(text)), JSON.parse(text));
  }
  test.same(
    parseJson(Buffer.from(' {"\\u0061" : "\\ud83d\\ude00"} ')),
    { a: '😀' },
    'a pair of surrogates is one character',
  );
});

t.test('a member that comes twice is refused, however it is spelled', async (test) => {
  for (const text of [
    '{"a":1,"a":1}',
    '{"a":1,"\\u0061":2}',
    '{"a":1,"b":{"c":1,"c":2}}',
    '[{"a":{},"a":{}}]',
    '{"":1,"":2}',
    '{"1":1,"1":2}',
    `{"${'x'.repeat(1000)}":1,"${'x'.repeat(1000)}":2}`,
  ]) {
    test.equal(refusal(text), 'duplicateMember at ""', text.slice(0, 40));
  }
  test.equal(
    refusal('{"a":{"a":{"a":1}},"A":1}'),
    'accepted',
    'the same name in another object is another member',
  );
});

t.test('bytes that are no UTF-8 are refused and not replaced', async (test) => {
  for (const bytes of [
    [0xff],
    [0xc0, 0x80],
    [0xed, 0xa0, 0x80],
    [0xf8, 0x88, 0x80, 0x80, 0x80],
    [0xe2, 0x82],
    [0xf4, 0x90, 0x80, 0x80],
  ]) {
    test.equal(
      refusal(Buffer.concat([Buffer.from('{"a":"'), Buffer.from(bytes), Buffer.from('"}')])),
      'utf8 at ""',
      bytes.join(),
    );
  }
  test.equal(
    refusal('{"a":"\ufffd"}'),
    'accepted',
    'the replacement character itself is a character',
  );
});

t.test('what is no JSON is refused', async (test) => {
  for (const text of [
    '',
    ' ',
    '{',
    '{"a"}',
    '{"a":1,}',
    '[1,]',
    '{a:1}',
    "{'a':1}",
    '{"a":1}x',
    '{"a":1}{"a":1}',
    '\ufeff{}',
    '01',
    '+1',
    'NaN',
    'Infinity',
    '"a\nb"',
    '"\\x41"',
    '/**/{}',
    '"',
    '"\\',
    '}',
    ':',
  ]) {
    test.equal(refusal(text), 'json at ""', JSON.stringify(text));
  }
});

t.test('a depth that nothing of ours has is refused before anything is built', async (test) => {
  const nested = (depth: number): string => `${'['.repeat(depth)}${']'.repeat(depth)}`;
  test.equal(refusal(nested(32)), 'accepted');
  test.equal(refusal(nested(33)), 'depth at ""');
  test.equal(refusal(nested(100_000)), 'depth at ""');
  test.equal(refusal('{"a":'.repeat(100_000)), 'depth at ""');
  test.equal(refusal(`[${'[],{},'.repeat(1_000)}1]`), 'accepted', 'width is no depth');
});

t.test('a text that is not well formed is refused at its place', async (test) => {
  test.equal(refusal('{"fields":{"apiKey":"a\\ud800b"}}'), 'loneSurrogate at "/fields/apiKey"');
  test.equal(refusal('{"fields":["x",{"y":"\\udc00\\ud800"}]}'), 'loneSurrogate at "/fields/1/y"');
  test.equal(refusal('{"fields":{"\\ud800":1}}'), 'loneSurrogate at "/fields"', 'a name too');
  test.equal(
    refusal('{"fields":{"not a plain name":"\\ud800"}}'),
    'loneSurrogate at "/fields"',
    'a pointer repeats plain names only',
  );
});

t.test('no member sets a prototype', async (test) => {
  for (const text of [
    '{"__proto__":{"isOperator":true}}',
    '{"a":{"\\u005f_proto__":1}}',
    '[{"__proto__":null}]',
  ])
    test.match(refusal(text), /^memberName/, text);
  test.same(
    Object.keys(parseJson(Buffer.from('{"constructor":{"prototype":{}},"toString":1}')) as object),
    ['constructor', 'toString'],
    'other names are data',
  );
});

t.test(
  'a number is kept as it was written, or refused at its place',
  folded(async (test) => {
    const exact = (text: string): string => {
      try {
        parseJson(Buffer.from(text), { areNumbersExact: true });
        return 'accepted';
      } catch (error) {
        if (!(error instanceof JsonRefused)) throw error;
        return `${error.rule} at "${error.pointer}"`;
      }
    };
    for (const number of [
      '0',
      '-0',
      '0.0',
      '0e999999999999999999999',
      '-1',
      '1.0',
      '1.50',
      '100',
      '1e2',
      '1E+2',
      '0.01e4',
      '0.1',
      '0.30000000000000004',
      '9007199254740991',
      '9007199254740992',
      '-9007199254740993.0e0'.replace('3.0', '2.0'),
      '1e22',
      '10000000000000000000000',
      '123456789012345680000',
      '1.7976931348623157e308',
      '5e-324',
      `1${'0'.repeat(300)}`,
      `0.${'0'.repeat(300)}1`,
      `1.5${'0'.repeat(100_000)}`,
    ])
      test.equal(exact(number), 'accepted', number.slice(0, 40));
    for (const number of [
      '9007199254740991.4',
      '9007199254740993',
      '-9007199254740993',
      '12345678901234567890',
      '0.1000000000000000055',
      '1.00000000000000000001',
      '1e309',
      '-1e309',
      '1e-400',
      '4e-324',
      '1e99999999999999999999',
      `1${'0'.repeat(400)}`,
      `1${'0'.repeat(100_000)}1`,
    ]) {
      test.equal(exact(number), 'inexactNumber at ""', number.slice(0, 40));
      test.equal(exact(`{"a":[1,{"b":${number}}]}`), 'inexactNumber at "/a/1/b"');
      test.equal(refusal(`[${number}]`), 'accepted', 'where it is not asked for');
    }
    test.equal(exact('{"a":"9007199254740993","9007199254740993":1}'), 'accepted', 'in a text');
    test.equal(exact('{"not plain":{"x":1e999}}'), 'inexactNumber at "/x"');
    for (const text of [
      '1-2',
      '-',
      '1.',
      '.5',
      '1e',
      '--1',
      '1..2',
      '0x10',
      '[1 2]',
      '9'.repeat(30) + 'x',
    ])
      test.equal(exact(text), 'json at ""', text);
    fc.assert(
      fc.property(fc.double({ noNaN: true, noDefaultInfinity: true }), (number) => {
        test.equal(exact(JSON.stringify(number)), 'accepted');
        test.equal(exact(number.toExponential()), 'accepted');
      }),
    );
    fc.assert(
      fc.property(fc.bigInt({ min: 2n ** 53n, max: 10n ** 40n }), (number) => {
        // What JavaScript writes of a large number are its first digits, and zeros.
        const kept = Number(number).toLocaleString('en', { useGrouping: false });
        test.equal(exact(String(number)) === 'accepted', kept === String(number), String(number));
      }),
    );
  }),
);
