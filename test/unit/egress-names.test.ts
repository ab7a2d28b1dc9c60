import t from 'tap';
import { isAllowedBy, parseAllowRules, rulesFor } from '../../src/egress/allow.ts';
import { parseAddress } from '../../src/egress/addresses.ts';
import { hostName, parseTarget } from '../../src/egress/names.ts';

t.test('a host is a DNS name in one spelling', async (t) => {
  const spellings: Record<string, string> = {
    'api.example.com': 'api.example.com',
    'API.Example.COM': 'api.example.com',
    'bücher.example': 'xn--bcher-kva.example',
    'BÜCHER.example': 'xn--bcher-kva.example',
    'ｅxample。com': 'example.com',
    localhost: 'localhost',
    grist: 'grist',
    my_service: 'my_service',
    '1.example': '1.example',
    '0x7f.example': '0x7f.example',
    'a-b.c-d.e': 'a-b.c-d.e',
    'xn--bcher-kva.example': 'xn--bcher-kva.example',
  };
  for (const [text, name] of Object.entries(spellings)) t.equal(hostName(text), name, text);
});

t.test('an address is no host, in no spelling that a URL parser would take for one', async (t) => {
  for (const text of [
    '127.0.0.1',
    '127.1',
    '0x7f000001',
    '0x7f.1',
    '0177.0.0.1',
    '2130706433',
    '①②⑦.0.0.1',
    '１２７.0.0.1',
    '127。0。0。1',
    '127.0.0.1.',
    '::1',
    '[::1]',
    '[::ffff:7f00:1]',
    '1.2.3.4.5',
    'foo.1',
    'foo.0x',
    '0',
    '169.254.169.254',
  ])
    t.equal(hostName(text), undefined, text);
});

t.test('what one reader could take for another host is no host', async (t) => {
  for (const text of [
    '',
    '.',
    'example.com.',
    '.example.com',
    'a..b',
    'a b',
    'a\tb',
    'a\nb',
    'a\0b',
    'exa%6dple.com',
    'example.com%00',
    'u@example.com',
    'example.com:443',
    'example.com/x',
    'example.com\\x',
    'example.com?x',
    'example.com#x',
    '-a.com',
    'a-.com',
    'a.-b',
    '*.example.com',
    'exa$mple',
    'a,b',
    `${'a'.repeat(64)}.com`,
    `${'a.'.repeat(130)}com`,
    'x'.repeat(300),
    'a\uff0fb.com',
    'a\u3002',
    '\ud800.com',
    'a<b',
    'a|b',
    'a^b',
  ])
    t.equal(hostName(text), undefined, JSON.stringify(text));
});

t.test('a URL gives protocol, host, port and path, or nothing', async (t) => {
  t.same(parseTarget('https://API.example.com/v1/models?a=b%20c'), {
    origin: { protocol: 'https:', host: 'api.example.com', port: 443 },
    path: '/v1/models?a=b%20c',
  });
  t.same(parseTarget('http://grist.internal:8484'), {
    origin: { protocol: 'http:', host: 'grist.internal', port: 8484 },
    path: '/',
  });
  for (const text of [
    '',
    'example.com',
    '//example.com',
    'ftp://example.com',
    'https:/example.com',
    'https:\\\\example.com',
    'https://u@example.com',
    'https://u:p@example.com',
    'https://good.example\\@evil.example',
    'https://good.example#@evil.example',
    'https://127.0.0.1/',
    'https://[::1]/',
    'https://0x7f000001/',
    'https://①②⑦.0.0.1/',
    'https://example.com./',
    'https://exa%6dple.com/',
    'https://example.com:0/',
    'https://example.com:99999/',
    'https://exam\tple.com/',
    ' https://example.com/',
    'https://example.com/a b',
    'https://example.com/a\\b',
    'https://example.com/#x',
    'javascript:alert(1)',
    'file:///etc/passwd',
  ])
    t.equal(parseTarget(text), undefined, JSON.stringify(text));
});

t.test('a rule is for its host, its port, its team and its addresses', async (t) => {
  const rules = parseAllowRules(
    'Grist.internal:8484=10.1.2.0/24, models.internal:443=10.9.0.1@payments,models.internal:443=fd00:1::/32@payments',
  );
  const hosts = (host: string, port: number, team: string): number =>
    rulesFor(rules, { host, port, team }).length;
  t.equal(hosts('grist.internal', 8484, 'payments'), 1);
  t.equal(hosts('grist.internal', 8484, 'other'), 1, 'of every team');
  t.equal(hosts('grist.internal', 443, 'payments'), 0, 'another port');
  t.equal(hosts('x.grist.internal', 8484, 'payments'), 0, 'another name');
  t.equal(hosts('models.internal', 443, 'payments'), 2);
  t.equal(hosts('models.internal', 443, 'other'), 0, 'another team');
  const allowed = (text: string): boolean =>
    isAllowedBy(
      rulesFor(rules, { host: 'models.internal', port: 443, team: 'payments' }),
      parseAddress(text)!,
    );
  t.ok(allowed('10.9.0.1') && allowed('fd00:1::7'));
  t.notOk(
    allowed('10.9.0.2') ||
      allowed('10.1.2.3') ||
      allowed('fd00:2::7') ||
      allowed('::ffff:10.9.0.1'),
  );
});

t.test(
  'a rule that cannot be meant is refused by its position, without repeating it',
  async (t) => {
    const bad = [
      '',
      'zzz',
      'zzz.internal:80',
      'zzz.internal=10.0.0.1',
      ':80=10.0.0.1',
      'zzz.internal:0=10.0.0.1',
      'zzz.internal:65536=10.0.0.1',
      'zzz.internal:80=10.0.0.1/8',
      'zzz.internal:80=10.0.0.0/7',
      'zzz.internal:80=0.0.0.0/0',
      'zzz.internal:80=::/0',
      'zzz.internal:80=10.0.0.1@',
      'zzz.internal:80=10.0.0.1@Team',
      'zzz.internal:80=10.0.0.1@a@b',
      '127.0.0.1:80=127.0.0.1',
      '*.zzz.internal:80=10.0.0.1',
      'zzz.internal.:80=10.0.0.1',
      'zzz.internal:80=zzz.internal',
      'zzz.internal:80=169.254.169.254',
      'zzz.internal:80=169.254.0.0/16',
      'zzz.internal:80=fe80::/64',
      'zzz.internal:80=168.63.129.16',
      'zzz.internal:80=224.0.0.1',
      'zzz.internal:80=0.0.0.0',
    ];
    for (const text of bad)
      t.throws(
        () => parseAllowRules(`ok.internal:80=10.0.0.1,${text}`),
        {
          name: 'AllowRuleInvalid',
          message: /^the list of allowed targets has a rule at position 2 that (?!.*zzz)/,
        },
        text,
      );
  },
);
