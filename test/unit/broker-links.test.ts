// Headers that say where to go on: back through the broker, or nowhere.
import t from 'tap';
import { render } from '../../src/broker/injection.ts';
import { linkedValue, type Seen } from '../../src/broker/links.ts';
import { rootOf } from '../../src/broker/target.ts';
import { findType } from '../../src/credentials/index.ts';

const seen: Seen = {
  target: { origin: { protocol: 'https:', host: 'api.example', port: 443 }, basePath: '/base' },
  brokerPath: '/broker/t1',
  brokerUrl: 'https://broker.example/broker/t1',
  ticketNames: ['authorization'],
  path: '/base/repos/1/issues?page=1',
};
const at = 'https://broker.example/broker/t1';
const of = (name: string, value: string, more: Partial<Seen> = {}): string | undefined =>
  linkedValue(name, value, { ...seen, ...more });

t.test('a header that is one reference leads back or is left out', async (t) => {
  for (const name of [
    'content-location',
    'operation-location',
    'azure-asyncoperation',
    'odata-entityid',
    'uri',
  ]) {
    t.equal(of(name, 'https://api.example/base/jobs/7?x=y#f'), `${at}/jobs/7?x=y#f`, name);
    t.equal(of(name, '/base/jobs/7'), `${at}/jobs/7`, name);
    t.equal(of(name, 'jobs/7'), `${at}/repos/1/jobs/7`, `${name}: relative to the request`);
    t.equal(of(name, '?page=2'), `${at}/repos/1/issues?page=2`, name);
    for (const elsewhere of [
      'https://evil.test/base/x',
      'http://api.example/base/x',
      'https://api.example:444/base/x',
      'https://api.example.evil.test/base/x',
      'https://u@api.example/base/x',
      '//evil.test/base/x',
      '\\\\evil.test/base/x',
      '/other',
      '/base/../x',
      '/base/%2e%2e/x',
      'javascript:alert(1)',
      'https://',
    ])
      t.equal(of(name, elsewhere), undefined, `${name}: ${elsewhere}`);
  }
  t.equal(of('location', 'https://api.example/base/x'), '/broker/t1/x', 'a Location is a path');
});

t.test('names of providers of which nobody has a list', async (t) => {
  for (const name of [
    'x-ms-operation-location',
    'x-goog-upload-url',
    'x-goog-upload-control-url',
    'x-next-page-url',
    'x-next',
    'resource-location',
    'x-self-link',
    'x-pagination-next',
    'x-job-href',
    'status-uri',
    'azure-async-operation',
  ]) {
    t.equal(of(name, 'https://api.example/base/a'), `${at}/a`, name);
    t.equal(of(name, 'https://evil.test/a'), undefined, name);
    t.equal(of(name, '//evil.test/a'), undefined, name);
    t.equal(of(name, '17'), '17', `${name}: a word is no reference`);
  }
  t.equal(of('x-status', 'at https://api.example/base/a, soon'), `at ${at}/a, soon`, 'any name');
  t.equal(of('x-docs', 'https://docs.example/a'), 'https://docs.example/a', 'nobody follows it');
  t.equal(
    of('x-amz-meta-location', 'https://evil.test/'),
    'https://evil.test/',
    'metadata is kept',
  );
  t.equal(
    of('x-amz-website-redirect-location', '/x', { isObjectStore: true }),
    '/x',
    'so is what a store says of an object',
  );
});

t.test('links', async (t) => {
  const next = '<https://api.example/base/repositories/1/issues?page=2>; rel="next"';
  const there = `<${at}/repositories/1/issues?page=2>; rel="next"`;
  t.equal(of('link', next), there);
  t.equal(
    of('link', `${next}, <https://api.example/base/x>; rel="last"; title="a, \\"b\\" <c>"`),
    `${there}, <${at}/x>; rel="last"; title="a, \\"b\\" <c>"`,
  );
  t.equal(of('link', `<https://evil.test/>; rel="next", ${next}`), there, 'one of them elsewhere');
  t.equal(of('link', '<https://evil.test/>; rel=next'), undefined);
  t.equal(
    of('link', '<?page=2>;rel=next;results'),
    `<${at}/repos/1/issues?page=2>; rel=next; results`,
  );
  t.equal(of('link', '<>; rel=self'), `<${at}/repos/1/issues?page=1>; rel=self`);
  t.equal(
    of('link', '<x>; anchor="https://api.example/base/y"; rel=next'),
    `<${at}/repos/1/x>; anchor="${at}/y"; rel=next`,
  );
  t.equal(of('link', '<x>; rel=next; anchor="https://evil.test/"'), undefined);
  t.equal(
    of('link', '<x>; rel="https://api.example/base/rels/next"'),
    `<${at}/repos/1/x>; rel="https://api.example/base/rels/next"`,
    'a relation is a name',
  );
  for (const malformed of [
    'https://evil.test/',
    '<https://evil.test/',
    '<x> <https://evil.test/>',
    '<x>; rel=next junk <https://evil.test>',
  ])
    t.equal(of('link', malformed), undefined, malformed);
  t.equal(of('x-links', next), there, 'by another name');
});

t.test('texts with URLs in them', async (t) => {
  const pages = { next: 'https://api.example/base/x?page=2', docs: 'https://docs.example/' };
  t.strictSame(JSON.parse(of('x-pagination', JSON.stringify(pages))!), {
    next: `${at}/x?page=2`,
    docs: '',
  });
  t.strictSame(
    JSON.parse(of('x-pagination', JSON.stringify(pages).replaceAll('/', '\\/'))!),
    { next: `${at}/x?page=2`, docs: '' },
    'as PHP writes it',
  );
  t.equal(of('x-pagination', '{"page":1}'), '{"page":1}');
  t.equal(
    of('www-authenticate', 'Bearer realm="https://auth.evil.test/token",service="registry"'),
    'Bearer realm="",service="registry"',
    'whoever asks there for a token presents the ticket',
  );
  t.equal(of('www-authenticate', 'Basic realm="GitHub"'), 'Basic realm="GitHub"');
  t.equal(of('refresh', '5'), '5');
  t.equal(of('refresh', '0;URL="https://api.example/base/x"'), `0; url=${at}/x`);
  t.equal(of('refresh', '5 https://api.example/base/x'), `5; url=${at}/x`);
  for (const value of ['0; url=https://evil.test/', '0,https://evil.test/', 'https://evil.test/'])
    t.equal(of('refresh', value), undefined, value);
});

t.test('where the secret stands in the path, it is the root and leads nowhere', async (t) => {
  const telegram = { root: '/base/bot1:key', path: '/base/bot1:key/getFile?x=1' };
  t.equal(of('content-location', '/base/bot1:key/file/1', telegram), `${at}/file/1`);
  t.equal(of('content-location', 'https://api.example/base/bot1:key', telegram), at);
  t.equal(of('content-location', 'file/1', telegram), `${at}/file/1`);
  t.equal(of('content-location', '/base/file/1', telegram), undefined);
  const botToken = '123456:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw';
  const rendered = render(findType('telegram')!, { botToken });
  t.equal(
    rootOf(seen.target, (given) => rendered.path(given)),
    `/base/bot${botToken}`,
  );
});

t.test('a hostile header takes no time', async (t) => {
  for (const hostile of [
    `https://a/${','.repeat(15_000)}x`,
    `<${'<'.repeat(15_000)}`,
    `<a>;${' '.repeat(15_000)}`,
    `<a>${';'.repeat(15_000)}`,
    `${'<a>;x="\\"",'.repeat(1_200)}`,
    `0;${' '.repeat(15_000)}`,
    'https:\\/\\/'.repeat(1_300),
  ])
    for (const name of ['link', 'refresh', 'x-pagination', 'x-other']) {
      const startedAt = process.cpuUsage().user;
      of(name, hostile);
      t.ok(process.cpuUsage().user - startedAt < 1_000_000, `${name}: ${hostile.slice(0, 12)}`);
    }
});
