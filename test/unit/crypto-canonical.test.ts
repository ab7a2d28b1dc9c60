// Canonical JSON: the examples of RFC 8785, and what is refused because it has no exact JSON.
import t from 'tap';
import { canonicalJson, Secret } from '../../src/crypto/index.ts';
import type { JsonValue } from '../../src/shared/json.ts';

t.test('the example of RFC 8785, section 3.2.2, gives its text', async (t) => {
  const value = JSON.parse(String.raw`{
    "numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
    "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/",
    "literals": [null, true, false]
  }`) as JsonValue;
  t.equal(
    canonicalJson(value),
    String.raw`{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],"string":"€$\u000f\nA'B\"\\\\\"/"}`,
  );
});

t.test('the example of section 3.2.3: names are ordered by UTF-16 code units', async (t) => {
  const value = JSON.parse(String.raw`{
    "\u20ac": "Euro Sign", "\r": "Carriage Return", "\ufb33": "Hebrew Letter Dalet With Dagesh", "1": "One",
    "\ud83d\ude00": "Emoji: Grinning Face", "\u0080": "Control", "\u00f6": "Latin Small Letter O With Diaeresis"
  }`) as JsonValue;
  t.strictSame(Object.values(JSON.parse(canonicalJson(value))).length, 7);
  const order = [
    'Carriage Return',
    'One',
    'Control',
    'Latin Small Letter O With Diaeresis',
    'Euro Sign',
    'Emoji: Grinning Face',
    'Hebrew Letter Dalet With Dagesh',
  ];
  const text = canonicalJson(value);
  t.strictSame(
    order.map((word) => text.indexOf(word)).toSorted((a, b) => a - b),
    order.map((word) => text.indexOf(word)),
  );
  t.notOk(order.some((word) => !text.includes(word)));
});

t.test('the numbers of appendix B give their texts', async (t) => {
  const samples: [string, string][] = [
    ['0000000000000000', '0'],
    ['8000000000000000', '0'],
    ['0000000000000001', '5e-324'],
    ['8000000000000001', '-5e-324'],
    ['7fefffffffffffff', '1.7976931348623157e+308'],
    ['ffefffffffffffff', '-1.7976931348623157e+308'],
    ['4340000000000000', '9007199254740992'],
    ['c340000000000000', '-9007199254740992'],
    ['4430000000000000', '295147905179352830000'],
    ['44b52d02c7e14af5', '9.999999999999997e+22'],
    ['44b52d02c7e14af6', '1e+23'],
    ['44b52d02c7e14af7', '1.0000000000000001e+23'],
    ['444b1ae4d6e2ef4e', '999999999999999700000'],
    ['444b1ae4d6e2ef4f', '999999999999999900000'],
    ['444b1ae4d6e2ef50', '1e+21'],
    ['3eb0c6f7a0b5ed8c', '9.999999999999997e-7'],
    ['3eb0c6f7a0b5ed8d', '0.000001'],
    ['41b3de4355555553', '333333333.3333332'],
    ['41b3de4355555557', '333333333.33333343'],
    ['becbf647612f3696', '-0.0000033333333333333333'],
    ['43143ff3c1cb0959', '1424953923781206.2'],
  ];
  for (const [ieee, text] of samples)
    t.equal(canonicalJson(Buffer.from(ieee, 'hex').readDoubleBE()), text);
});

t.test('what JSON cannot say exactly is refused, and not quoted', async (t) => {
  const refused: unknown[] = [
    undefined,
    NaN,
    Infinity,
    -Infinity,
    1n,
    Symbol('x'),
    () => 1,
    '\ud800',
    'a\udc00b',
    { '\ud800': 1 },
    { a: undefined },
    [undefined],
    new Array(1),
    new Date(0),
    new Map(),
    Buffer.from('x'),
    new Secret('canary'),
    { deep: [{ deeper: new Secret('canary') }] },
    Object.create({ inherited: 1 }),
  ];
  for (const value of refused)
    t.throws(() => canonicalJson(value as JsonValue), {
      name: 'TypeError',
      message: /^canonical JSON: [a-z -]+$/i,
    });
});

t.test(
  'the order in which members were set makes no difference, and __proto__ is a name like others',
  async (t) => {
    t.equal(
      canonicalJson({ b: 1, a: [{ d: 1, c: 2 }] }),
      canonicalJson({ a: [{ c: 2, d: 1 }], b: 1 }),
    );
    t.equal(
      canonicalJson(JSON.parse('{"b":1,"__proto__":{"a":2}}') as JsonValue),
      '{"__proto__":{"a":2},"b":1}',
    );
    t.equal(
      canonicalJson(Object.assign(Object.create(null), { z: '', y: [] }) as JsonValue),
      '{"y":[],"z":""}',
    );
  },
);
