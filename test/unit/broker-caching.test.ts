// What caches on the way are told of an answer.
import t from 'tap';
import { answerHeaders } from '../../src/broker/headers.ts';
import { Redactor } from '../../src/broker/redaction/redactor.ts';

const back = (headers: Record<string, string | string[]>): Record<string, string | string[]> =>
  answerHeaders(
    headers,
    new Redactor([], []),
    {
      target: { origin: { protocol: 'https:', host: 'a.example', port: 443 }, basePath: '' },
      brokerPath: '/x/y',
      brokerUrl: 'https://broker.example/x/y',
      ticketNames: ['private-token'],
    },
    true,
  );
const of = (control?: string | string[], vary?: string) =>
  back({
    ...(control === undefined ? {} : { 'cache-control': control }),
    ...(vary === undefined ? {} : { vary }),
  });

t.test("an answer is the caller's own, whatever the upstream says", async (t) => {
  for (const [given, told] of [
    [undefined, 'private'],
    ['public, max-age=60', 'private, max-age=60'],
    ['s-maxage=600, max-age=60', 'private, max-age=60'],
    ['PUBLIC,S-MAXAGE="5"', 'private'],
    ['no-store', 'private, no-store'],
    ['private="set-cookie, x", max-age=5', 'private, max-age=5'],
    ['no-cache="x, public", max-age=5', 'private, no-cache="x, public", max-age=5'],
    [['public', 'max-age=1'], 'private, max-age=1'],
    ['max-age=1, "public', 'private, no-store'],
  ] as const)
    t.equal(of(given as string)['cache-control'], told, String(given));
});

t.test('and is only for the ticket that it was asked with', async (t) => {
  t.equal(of(undefined)['vary'], 'private-token');
  t.equal(of(undefined, 'Accept, Origin')['vary'], 'Accept, Origin, private-token');
  t.equal(of(undefined, 'Private-Token, *')['vary'], '*');
});

t.test('nothing speaks to one cache past that', async (t) => {
  const headers = back({
    'cache-control': 'public',
    'cdn-cache-control': 'public, max-age=60',
    'cloudflare-cdn-cache-control': 'max-age=60',
    'surrogate-control': 'max-age=60',
    'edge-control': 'max-age=60',
    vary: 'x',
    'x-own': 'stays',
  });
  t.strictSame(Object.keys(headers).sort(), [
    'cache-control',
    'content-security-policy',
    'vary',
    'x-content-type-options',
    'x-own',
  ]);
});
