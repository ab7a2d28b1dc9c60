// Whose request it is: the peer, or what a trusted proxy says. Whatever is no address is not taken.
import type { Socket } from 'node:net';
import { isIP } from 'node:net';
import t from 'tap';
import { folded } from '../helpers/folded.ts';
import fc from 'fast-check';
import { addressFinder } from '../../src/http/address.ts';

/** What is found for a peer and its X-Forwarded-For. */
const found = (
  trusted: readonly string[],
  remoteAddress: string | undefined,
  forwarded?: string,
): string | null =>
  addressFinder(trusted)({
    socket: { remoteAddress } as Socket,
    headers: forwarded === undefined ? {} : { 'x-forwarded-for': forwarded },
  });
const proxy = '10.0.0.7';
const said = (forwarded: string): string | null => found([proxy, '10.1.0.0/16'], proxy, forwarded);

t.test('the peer, in one spelling', async (test) => {
  for (const [peer, address] of [
    ['203.0.113.9', '203.0.113.9'],
    ['::ffff:203.0.113.9', '203.0.113.9'],
    ['2001:db8::9', '2001:db8::9'],
    ['fe80::1%eth0', 'fe80::1'],
    [undefined, null],
    ['', null],
  ] as const) {
    test.equal(found([], peer), address, String(peer));
    test.equal(found([], peer, '198.51.100.1'), address, `${peer}: without a trusted proxy`);
    test.equal(found([proxy], peer, '198.51.100.1'), address, `${peer}: from nobody trusted`);
  }
});

t.test('an address that a trusted proxy says, in one spelling', async (test) => {
  for (const [forwarded, address] of [
    ['203.0.113.9', '203.0.113.9'],
    ['  203.0.113.9\t', '203.0.113.9'],
    ['203.0.113.9:4711', '203.0.113.9'],
    ['2001:DB8:0::9', '2001:db8::9'],
    ['[2001:db8::9]', '2001:db8::9'],
    ['[2001:db8::9]:4711', '2001:db8::9'],
    ['::ffff:203.0.113.9', '203.0.113.9'],
    ['[::FFFF:cb00:7109]:1', '203.0.113.9'],
    ['198.51.100.1, 203.0.113.9', '203.0.113.9'],
    ['evil, 203.0.113.9', '203.0.113.9'],
    ['203.0.113.9, 10.1.2.3', '203.0.113.9'],
    ['198.51.100.1, 203.0.113.9, 10.1.2.3, 10.0.0.7', '203.0.113.9'],
    ['10.1.2.3', '10.1.2.3'],
  ] as const)
    test.equal(said(forwarded), address, forwarded);
});

t.test(
  'what is no address is not taken, nor anything to the left of it',
  folded(async (test) => {
    for (const forwarded of [
      '',
      ' ',
      ',',
      'unknown',
      '_hidden',
      '"203.0.113.9"',
      'for=203.0.113.9',
      'a.example',
      '203.0.113',
      '203.0.113.9.1',
      '203.0.113.256',
      '0x7f.1',
      '010.0.0.1',
      '3405803785',
      '203.0.113.9/32',
      '203.0.113.9:',
      '203.0.113.9:x',
      '203.0.113.9:65536',
      '203.0.113.9:1:2',
      '[203.0.113.9]:1',
      '2001:db8::9:',
      '[2001:db8::9',
      '2001:db8::9]',
      '[2001:db8::9]x',
      '[2001:db8::9]:65536',
      'fe80::1%eth0',
      '[fe80::1%25eth0]:1',
      '::1%<script>',
      '203.0.113.9 198.51.100.1',
      '203.0.113.9\u0000',
      '\u0661.1.1.1',
      'unix:',
      '%3A%3A1',
      'x'.repeat(16_000),
    ]) {
      test.equal(said(forwarded), proxy, JSON.stringify(forwarded.slice(0, 40)));
      test.equal(
        said(`198.51.100.1, ${forwarded}`),
        proxy,
        `behind another one: ${JSON.stringify(forwarded.slice(0, 40))}`,
      );
      test.equal(
        said(`198.51.100.1, ${forwarded}, 10.1.2.3`),
        '10.1.2.3',
        `before a trusted one: ${JSON.stringify(forwarded.slice(0, 40))}`,
      );
    }
  }),
);

t.test('blocks are of one family, and IPv4 inside IPv6 is IPv4', async (test) => {
  const forwarded = '203.0.113.9';
  for (const [trusted, peer, isTrusted] of [
    [['::ffff:10.0.0.0/104'], '10.9.9.9', true],
    [['::ffff:10.0.0.7'], '10.0.0.7', true],
    [['10.0.0.0/8'], '::ffff:10.9.9.9', true],
    [['10.0.0.7/8'], '10.9.9.9', true],
    [['::/8'], '198.51.100.7', false],
    [['::/8'], '::ffff:198.51.100.7', false],
    [['fd00::/8'], 'fd12::1', true],
    [['fd00::/8'], 'fe12::1', false],
    [['FD00::0:1'], 'fd00::1', true],
    [['10.0.0.7'], '10.0.0.8', false],
  ] as const)
    test.equal(
      found(trusted, peer, forwarded) === forwarded,
      isTrusted,
      `${trusted.join()} and ${peer}`,
    );
});

t.test(
  'whatever is sent, what comes out is an address',
  folded(async (test) => {
    const part = fc.oneof(
      fc.ipV4(),
      fc.ipV6(),
      fc.string(),
      fc.constantFrom('', ',', ' ', '[', ']', ':', '%', '.', '::', 'unknown', '1', proxy),
    );
    fc.assert(
      fc.property(
        fc.array(part, { maxLength: 12 }),
        fc.constantFrom('', ',', ', '),
        (parts, glue) => {
          const address = said(parts.join(glue)) ?? '';
          test.not(isIP(address), 0, JSON.stringify(address));
          test.notMatch(address, /[%\s[\]A-Z]/);
        },
      ),
      { numRuns: 2_000 },
    );
  }),
);
