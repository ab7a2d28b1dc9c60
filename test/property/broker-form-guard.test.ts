// Forms on their way out: what steers past the policy never goes on, wherever a body is cut; all
// else arrives to the byte.
import fc from 'fast-check';
import t from 'tap';
import { guardFor } from '../../src/broker/form-guard.ts';
import { BrokerRefusal } from '../../src/broker/refusal.ts';
import type { Policy } from '../../src/credentials/policy.ts';

const policy: Policy = {
  delivery: ['broker'],
  allowedHosts: [],
  methods: ['GET', 'POST', 'PUT'],
  pathPrefixes: ['/reports'],
};
const where = {
  target: { origin: { protocol: 'https:', host: 'api.example', port: 443 }, basePath: '' },
  path: '/reports/new',
} as const;
const encoded = 'application/x-www-form-urlencoded';
const multipart = 'multipart/form-data; boundary=X';

/** What went on of a body that was cut there, and why it ended, if it did. */
function run(
  headers: readonly string[],
  body: Buffer,
  at: readonly number[],
  of: Policy = policy,
): { passed: Buffer; refused: string | undefined } {
  const passed: Buffer[] = [];
  try {
    const guard = guardFor(of, where, headers);
    if (guard === undefined) return { passed: body, refused: undefined };
    const borders = [0, ...at.map((cut) => cut % (body.length + 1)).sort((a, b) => a - b)];
    borders.push(body.length);
    for (const [i, to] of borders.slice(1).entries())
      passed.push(guard.push(body.subarray(borders[i]!, to)));
    passed.push(guard.end());
    return { passed: Buffer.concat(passed), refused: undefined };
  } catch (error) {
    if (!(error instanceof BrokerRefusal)) throw error;
    return { passed: Buffer.concat(passed), refused: error.reason };
  }
}
const part = (header: string, value: string): string => `--X\r\n${header}\r\n\r\n${value}\r\n`;
const named = (name: string, value: string): string =>
  part(`Content-Disposition: form-data; name=${name}`, value);
const file = part(
  'Content-Disposition: form-data; name="file"; filename="a.html"\r\nContent-Type: text/html',
  '<input name="_method" value="delete">\r\nContent-Type: x; name="_method"',
);
const everyByte = (body: Buffer): number[] => [...body.keys()];
const cutsOf = (body: Buffer): number[][] => [[], everyByte(body), [1], [7, 8, 9, 20, 33]];

t.test('a form that names another method or path goes no further', async (t) => {
  const rows: readonly (readonly [type: string | undefined, body: string, reason: string])[] = [
    [encoded, 'a=1&_method=DELETE', 'method'],
    [encoded, '_method=DELETE', 'method'],
    [encoded, 'a=1;_method=delete', 'method'],
    [encoded, '%5fmethod=%44elete&b', 'method'],
    [encoded, '+++_method=DELETE', 'method'],
    [encoded, `${' '.repeat(3000)}_method=DELETE`, 'method'],
    [encoded, '.method=DELETE', 'method'],
    [encoded, '_METHOD[]=DELETE', 'method'],
    [encoded, `${'x'.repeat(5000)}=1&_method=DELETE`, 'method'],
    [encoded, '_method=PUT&_method=DELETE', 'method'],
    [encoded, 'method=delete', 'method'],
    [encoded, 'rest_route=/wp/v2/users', 'pathPrefix'],
    [encoded, `_method=${'x'.repeat(9000)}`, 'method'],
    [`${encoded}; charset=utf-8`, '_method=DELETE', 'method'],
    [undefined, '_method=DELETE', 'method'],
    [`text/plain, ${encoded}`, '_method=DELETE', 'method'],
    [multipart, file + named('"_method"', 'DELETE'), 'method'],
    [multipart, file + named('_method', 'delete'), 'method'],
    [multipart, file + named("'_method'", 'DELETE'), 'method'],
    [multipart, file + named('"\\_method"', 'DELETE'), 'method'],
    [multipart, file + named("x; name*=utf-8''%5fmethod", 'DELETE'), 'method'],
    [multipart, named('"_method"; filename="a.txt"', 'DELETE'), 'method'],
    [multipart, part('CONTENT-disposition:form-data;NAME = "_method"', 'DELETE'), 'method'],
    [multipart, part('Content-Disposition: form-data;\r\n\tname="_method"', 'DELETE'), 'method'],
    [multipart, named('"_method"\r\nContent-Type: text/plain', 'DELETE'), 'method'],
    [multipart, named('"_method"', 'DELETE').replaceAll('\r\n', '\n'), 'method'],
    [multipart, named('"rest_route"', '/wp/v2/users'), 'pathPrefix'],
    ['multipart/related; boundary=X', named('"_method"', 'DELETE'), 'method'],
  ];
  for (const [type, text, reason] of rows) {
    const body = Buffer.from(text);
    for (const at of cutsOf(body)) {
      const { passed, refused } = run(type === undefined ? [] : ['Content_Type', type], body, at);
      t.equal(refused, reason, `${type} ${text.slice(0, 60)}`);
      t.notMatch(passed.toString().replaceAll(file, ''), /delete|users/i, 'and nothing of it');
    }
  }
});

t.test('a form that cannot be read goes nowhere', async (t) => {
  for (const more of [
    ['Content-Encoding', 'gzip'],
    ['content_encoding', 'br'],
  ])
    t.equal(run(['Content-Type', encoded, ...more], Buffer.from('a=b'), []).refused, 'method');
  for (const charset of ['utf-16', 'ibm037', '"utf-7"', 'ebcdic'])
    t.equal(
      run(['Content-Type', `${encoded}; charset=${charset}`], Buffer.from('a=b'), []).refused,
      'method',
      charset,
    );
});

t.test('all else arrives to the byte, as it came', async (t) => {
  const rows: readonly (readonly [type: string, body: string])[] = [
    [encoded, ''],
    [encoded, 'a=b&c=d&&=&;'],
    [encoded, '_method=PUT&a=1'],
    [encoded, '_method=&a=1'],
    [encoded, 'payment_method=card&method=card&a=_method=DELETE'],
    [encoded, `{"json":"${'x'.repeat(20_000)}"}`],
    [encoded, `${'x'.repeat(20_000)}=${'&'.repeat(100)}`],
    [encoded, 'rest_route=/../reports'.slice(0, 10)],
    [multipart, file],
    [multipart, file + named('"_method"', 'PUT')],
    [multipart, named('"payment_method"', 'DELETE') + named('"a"; filename="_method"', 'DELETE')],
    [multipart, `${'content-disposition'.repeat(1000)}\r\n`],
    ['application/json', '{"_method":"DELETE"}'],
    ['text/plain', '_method=DELETE'],
  ];
  for (const [type, text] of rows) {
    const body = Buffer.from(text);
    for (const at of cutsOf(body)) {
      const { passed, refused } = run(['Content-Type', type], body, at);
      t.equal(refused, undefined, text.slice(0, 60));
      t.ok(passed.equals(body), text.slice(0, 60));
    }
  }
  const none: Policy = { delivery: ['broker'], allowedHosts: [] };
  t.equal(
    run(['Content-Type', encoded], Buffer.from('_method=DELETE'), [], none).refused,
    undefined,
    'where every method and path may',
  );
});

t.test('however a body is cut, it fares the same', async () => {
  const piece = fc.constantFrom(
    '_method',
    '=',
    '&',
    ';',
    'DELETE',
    'PUT',
    '%5f',
    'method',
    '+',
    '[',
    ']',
    '\r\n',
    '\n',
    '\r',
    'Content-Disposition: form-data; ',
    'name="_method"',
    'name=',
    '"',
    '--X',
    ' ',
    'a',
    '{',
  );
  const text = fc.array(piece, { maxLength: 30 }).map((pieces) => pieces.join(''));
  fc.assert(
    fc.property(
      fc.constantFrom(encoded, multipart),
      text,
      fc.array(fc.nat(), { maxLength: 20 }),
      (type, content, at) => {
        const body = Buffer.from(content);
        const headers = ['Content-Type', type];
        const whole = run(headers, body, []);
        for (const cut of [run(headers, body, at), run(headers, body, everyByte(body))]) {
          if (cut.refused !== whole.refused) return false;
          if (whole.refused === undefined && !cut.passed.equals(body)) return false;
        }
        return true;
      },
    ),
    { numRuns: 3_000 },
  );
});
