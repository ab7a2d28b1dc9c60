// SECURITY: no text in the place of a placeholder moves an endpoint off the host that its entry
// means.
import fc from 'fast-check';
import t from 'tap';
import { readNewFields } from '../../src/credentials/fields.ts';
import { oauthProviders } from '../../src/credentials/providers/catalogue.ts';
import type { OAuthProvider, PlaceholderName } from '../../src/credentials/providers/define.ts';
import { fillEndpoint, placeholderFault } from '../../src/credentials/providers/fill.ts';
import { findType } from '../../src/credentials/types/registry.ts';
import { AppError } from '../../src/shared/errors.ts';
import { endpointOf, exampleValues } from '../helpers/provider-server.ts';

const oauth2 = findType('oauth2')!;
const entries = oauthProviders.filter(({ placeholders }) => placeholders !== undefined);
const names = ['authorizationUrl', 'tokenUrl', 'refreshUrl'] as const;

/** What people try, and what nobody has thought of. */
const hostile = fc.oneof(
  fc.constantFrom(
    'evil.com/',
    'evil.com#',
    'evil.com?',
    'x@evil.com',
    'x:y@evil.com',
    'evil.com%2f',
    'evil.com%2F%2e%2e',
    'evil.com\\',
    '\\\\evil.com',
    '//evil.com',
    'a.b',
    'evil。com/',
    'evil.com/',
    'a\nb',
    'a\r\nHost: evil.com',
    'a\tb',
    ' a',
    'a ',
    '..',
    '.',
    '%2e%2e',
    '',
    '-',
    '-a',
    'a-',
    'A',
    'ａ',
    'аcme',
    'xn--80ak6aa92e',
    '127.0.0.1',
    '0x7f000001',
    '[::1]',
    'a:8443',
    'evil.com:443',
    'com',
    '{shop}',
    '$&',
    "$'",
    '__proto__',
    'constructor',
    'toString',
    'https://evil.com',
    'http://evil.com/base',
    'evil.com',
    'evil.com.salesforce.com.evil.com',
    'evilsalesforce.com',
    'a'.repeat(63),
    'a'.repeat(64),
  ),
  fc.string(),
  fc.string({ unit: 'grapheme' }),
  fc
    .tuple(fc.stringMatching(/^[a-z0-9.-]{0,12}$/), fc.string({ maxLength: 3 }))
    .map((of) => of.join('')),
);

/** The endpoints as a credential would store them; undefined where it is refused. */
function stored(
  entry: OAuthProvider,
  values: Record<string, string>,
): (URL | undefined)[] | undefined {
  try {
    const { publicFields } = readNewFields(
      oauth2,
      {
        provider: entry.name,
        grant: entry.grants[0]!,
        clientId: 'c',
        clientSecret: 's',
        ...values,
      },
      [],
    );
    return names.map((name) =>
      publicFields[name] === undefined ? undefined : new URL(String(publicFields[name])),
    );
  } catch (error) {
    if (error instanceof AppError && error.code === 'invalidRequest') return undefined;
    throw error;
  }
}

/** The labels that are the same whatever is put in. */
const registrable = (host: string): string => host.split('.').slice(-2).join('.');

t.test('no string moves the registrable domain', async (t) => {
  t.ok(entries.length >= 8, 'there are entries with placeholders');
  for (const entry of entries) {
    const examples = exampleValues(entry);
    const meant = names.map((name) => endpointOf(entry, name, 'https://unused.test'));
    t.strictSame(
      stored(entry, examples)?.map((url) => url?.href),
      meant.map((url) => url?.href),
      `${entry.name}: as it is meant`,
    );
    for (const name of Object.keys(examples) as PlaceholderName[]) {
      const placeholder = entry.placeholders![name]!;
      // A whole host, or base URL, is a destination like any other: it is what it says, no more.
      const isWhole =
        placeholder.kind === 'url' ||
        (placeholder.kind === 'host' && placeholder.suffix === undefined);
      fc.assert(
        fc.property(hostile, (value) => {
          const urls = stored(entry, { ...examples, [name]: value });
          if (urls === undefined) return;
          for (const [at, url] of urls.entries()) {
            const should = meant[at];
            if (url === undefined || should === undefined) {
              if (url !== should) throw new Error('an endpoint too many');
              continue;
            }
            const clean = url.username === '' && url.password === '' && url.hash === '';
            if (!clean) throw new Error(`not clean: ${url.href}`);
            if (isWhole) {
              if (!url.href.includes(value)) throw new Error(`another host: ${url.href}`);
            } else {
              if (
                placeholder.kind !== 'word' &&
                registrable(url.hostname) !== registrable(should.hostname)
              )
                throw new Error(`moved: ${url.href}`);
              if (url.port !== '' || url.protocol !== 'https:') throw new Error(url.href);
              if (
                url.hostname.split('.').length < should.hostname.split('.').length &&
                placeholder.kind !== 'host'
              )
                throw new Error(`fewer labels: ${url.href}`);
            }
            if (
              placeholder.kind === 'segment' &&
              url.pathname.split('/').length !== should.pathname.split('/').length
            )
              throw new Error(`another path: ${url.href}`);
          }
        }),
        { numRuns: 600 },
      );
    }
    t.pass(entry.name);
  }
});

t.test(
  'the last look stands by itself: a value that has no form moves no host either',
  async (t) => {
    // As if the form of a value had not been asked.
    for (const entry of entries) {
      const examples = exampleValues(entry);
      for (const name of Object.keys(examples) as PlaceholderName[]) {
        const placeholder = entry.placeholders![name]!;
        if (placeholder.kind !== 'label' && placeholder.kind !== 'segment') continue;
        fc.assert(
          fc.property(hostile, (value) => {
            for (const template of [entry.authorizationUrl, entry.tokenUrl]) {
              if (template === undefined) continue;
              const filled = fillEndpoint(template, entry, { ...examples, [name]: value });
              if (filled === undefined) continue;
              const [host, should] = [
                new URL(filled).hostname,
                new URL(template.replaceAll(/\{\w+\}/g, 'x')).hostname,
              ];
              if (registrable(host) !== registrable(should)) throw new Error(`moved: ${filled}`);
            }
          }),
          { numRuns: 600 },
        );
      }
    }
    t.pass('whatever it was');
  },
);

t.test('forms of values', async (t) => {
  const of = { title: 'x', example: 'x' };
  for (const [placeholder, good, bad] of [
    [
      { ...of, kind: 'label' },
      ['a', 'acme', 'a-b', '1', 'x'.repeat(63)],
      ['', 'A', 'a.b', '-a', 'a-', 'a_b', 'x'.repeat(64), 'a/', 'é'],
    ],
    [
      { ...of, kind: 'segment' },
      ['common', 'contoso.onmicrosoft.com', '8eaef023-2b34-4da1-9baa-8bc8c9d6a490', 'A~b'],
      ['', '.', '..', 'a/b', 'a%2fb', 'a?b', 'a#b', 'a b', 'a@b', 'é'],
    ],
    [
      { ...of, kind: 'host' },
      ['acme.okta.com', 'login.example.co.uk', 'a.b'.padEnd(4, 'b')],
      [
        'acme',
        'ACME.okta.com',
        'acme.okta.com:1',
        'acme.okta.com/',
        '1.2.3.4',
        'a..b',
        '.a.bc',
        'a.bc.',
        'x@a.bc',
      ],
    ],
    [
      { ...of, kind: 'host', suffix: '.salesforce.com' },
      ['login.salesforce.com', 'acme.my.salesforce.com'],
      ['salesforce.com', 'evilsalesforce.com', 'login.salesforce.com.evil.com'],
    ],
    [
      { ...of, kind: 'word', words: { eu: 'eu' } },
      ['eu'],
      ['', 'EU', 'constructor', '__proto__', 'toString'],
    ],
    [
      { ...of, kind: 'url' },
      ['https://git.example.com', 'https://git.example.com:8443/base', 'http://git.internal'],
      [
        'https://git.example.com/',
        'https://git.example.com?x',
        'https://git.example.com#x',
        'https://a:b@git.example.com',
        'https://git.example.com/../x',
        'https://git.example.com\\x',
        'ftp://git.example.com',
        'git.example.com',
        'https://GIT.example.com',
      ],
    ],
  ] as const) {
    for (const value of good)
      t.equal(placeholderFault(placeholder, value), undefined, `${placeholder.kind} ${value}`);
    for (const value of bad)
      t.type(placeholderFault(placeholder, value), 'string', `${placeholder.kind} ${value}`);
  }
});
