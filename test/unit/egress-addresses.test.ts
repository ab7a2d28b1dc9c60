import t from 'tap';
import { folded } from '../helpers/folded.ts';
import {
  type Address,
  isGlobalUnicast,
  isInRange,
  isNever,
  parseAddress,
  parseRange,
} from '../../src/egress/addresses.ts';

const address = (text: string): Address => {
  const parsed = parseAddress(text);
  if (parsed === undefined) throw new Error(`${text} is no address`);
  return parsed;
};

// global: may be dialled · special: only where a rule says so · never: not even then
const table: readonly (readonly [
  text: string,
  is: 'global' | 'special' | 'never',
  what: string,
])[] = [
  ['1.1.1.1', 'global', 'a public resolver'],
  ['8.8.8.8', 'global', 'another'],
  ['93.184.216.34', 'global', 'a web server'],
  ['172.15.255.255', 'global', 'just below private'],
  ['172.32.0.0', 'global', 'just above private'],
  ['100.63.255.255', 'global', 'just below CGNAT'],
  ['100.128.0.0', 'global', 'just above CGNAT'],
  ['198.17.255.255', 'global', 'just below benchmarking'],
  ['198.20.0.0', 'global', 'just above benchmarking'],
  ['223.255.255.255', 'global', 'the last one below multicast'],
  ['11.0.0.0', 'global', 'just above 10/8'],
  ['128.0.0.1', 'global', 'just above loopback'],
  ['2606:4700:4700::1111', 'global', 'a public resolver over IPv6'],
  ['2a00:1450:4001:81b::200e', 'global', 'a web server over IPv6'],
  ['2600::', 'global', 'the first of a block'],
  ['10.0.0.1', 'special', 'private'],
  ['172.16.0.1', 'special', 'private'],
  ['172.31.255.255', 'special', 'private'],
  ['192.168.1.1', 'special', 'private'],
  ['127.0.0.1', 'special', 'loopback'],
  ['127.255.255.254', 'special', 'loopback'],
  ['100.64.0.1', 'special', 'CGNAT'],
  ['100.127.255.255', 'special', 'CGNAT'],
  ['192.0.0.1', 'special', 'protocol assignments'],
  ['192.0.2.1', 'special', 'documentation'],
  ['198.51.100.1', 'special', 'documentation'],
  ['203.0.113.1', 'special', 'documentation'],
  ['198.18.0.1', 'special', 'benchmarking'],
  ['198.19.255.255', 'special', 'benchmarking'],
  ['192.88.99.1', 'special', '6to4 relays'],
  ['192.31.196.1', 'special', 'AS112'],
  ['::1', 'special', 'loopback'],
  ['fd12:3456::1', 'special', 'ULA'],
  ['fc00::1', 'special', 'ULA'],
  ['2001:db8::1', 'special', 'documentation'],
  ['3fff::1', 'special', 'documentation'],
  ['2001:2::1', 'special', 'benchmarking'],
  ['2001:10::1', 'special', 'ORCHID'],
  ['3ffe::1', 'special', 'the 6bone'],
  ['100::1', 'special', 'discard'],
  ['5f00::1', 'special', 'segment routing'],
  ['4000::1', 'special', 'not given out'],
  ['::ffff:8.8.8.8', 'never', 'mapped'],
  ['::ffff:10.0.0.1', 'never', 'mapped, private'],
  ['::8.8.8.8', 'never', 'compatible'],
  ['::ffff:0:8.8.8.8', 'never', 'translated'],
  ['64:ff9b::8.8.8.8', 'special', 'NAT64'],
  ['64:ff9b:1::8.8.8.8', 'special', 'NAT64 of local use'],
  ['2002:808:808::1', 'special', '6to4'],
  ['2001:0:808:808::1', 'special', 'Teredo'],
  ['2606:4700::5efe:10.0.0.1', 'special', 'ISATAP behind a global prefix'],
  ['2606:4700::200:5efe:10.0.0.1', 'special', 'ISATAP, universal'],
  ['0.0.0.0', 'never', 'this host'],
  ['0.1.2.3', 'never', 'this network'],
  ['169.254.1.1', 'never', 'link-local'],
  ['169.254.169.254', 'never', 'metadata of most clouds'],
  ['169.254.170.2', 'never', 'container credentials'],
  ['168.63.129.16', 'never', 'Azure, in a global block'],
  ['100.100.100.200', 'never', 'Alibaba, in CGNAT'],
  ['192.0.0.192', 'never', 'Oracle'],
  ['224.0.0.1', 'never', 'multicast'],
  ['239.255.255.255', 'never', 'multicast'],
  ['240.0.0.1', 'never', 'reserved'],
  ['255.255.255.255', 'never', 'broadcast'],
  ['::', 'never', 'no address'],
  ['fe80::1', 'never', 'link-local'],
  ['febf::1', 'never', 'link-local'],
  ['fec0::1', 'never', 'site-local'],
  ['ff02::1', 'never', 'multicast'],
  ['fd00:ec2::254', 'never', 'metadata of Amazon'],
  ['fd20:ce::254', 'never', 'metadata of Google'],
  ['fd00:c1::a9fe:a9fe', 'never', 'metadata of Oracle'],
  ['fd00:42::42', 'never', 'metadata of Scaleway'],
  ['::ffff:169.254.169.254', 'never', 'metadata, mapped'],
  ['::ffff:a9fe:a9fe', 'never', 'the same in hex'],
  ['::169.254.169.254', 'never', 'metadata, compatible'],
  ['::ffff:0:a9fe:a9fe', 'never', 'metadata, translated'],
  ['64:ff9b::a9fe:a9fe', 'never', 'metadata by NAT64'],
  ['64:ff9b:1::a9fe:a9fe', 'never', 'metadata by local NAT64'],
  ['64:ff9b:1:a9fe:a9:fe00::', 'never', 'the same, behind a /48'],
  ['64:ff9b:1:a9:fe:a9fe::', 'never', 'the same, behind a /56'],
  ['64:ff9b:1:0:a9:fea9:fe00:0', 'never', 'the same, behind a /64'],
  ['2002:a9fe:a9fe::1', 'never', 'metadata by 6to4'],
  ['2001:0:a9fe:a9fe::1', 'never', 'a Teredo server of that address'],
  ['2001:0:808:808::5601:5601', 'never', 'a Teredo client of that address'],
  ['2606:4700::5efe:a9fe:a9fe', 'never', 'metadata by ISATAP'],
  ['64:ff9b::168.63.129.16', 'never', 'Azure by NAT64'],
];

t.test(
  'an address is global unicast, of special use, or never dialled',
  folded(async (t) => {
    t.ok(table.length >= 50);
    for (const [text, is, what] of table) {
      const seen = isNever(address(text))
        ? 'never'
        : isGlobalUnicast(address(text))
          ? 'global'
          : 'special';
      t.equal(seen, is, `${text} ${what}`);
      if (is === 'never') t.notOk(isGlobalUnicast(address(text)), `${text} is not global either`);
    }
  }),
);

t.test('what is not plainly an address is none', async (t) => {
  for (const text of [
    '',
    '127.1',
    '0x7f.0.0.1',
    '0177.0.0.1',
    '2130706433',
    '1.2.3.4.5',
    '256.0.0.1',
    'fe80::1%eth0',
    '[::1]',
    '::1 ',
    '1.2.3.4/32',
    ':::',
    '1:2',
    '١.١.١.١',
    '::ffff:1.2.3',
  ])
    t.equal(parseAddress(text), undefined, text);
});

t.test('one address has one value in every spelling', async (t) => {
  const spellings = [
    ['::1', '0:0:0:0:0:0:0:1', '0000::0001'],
    ['::ffff:1.2.3.4', '::FFFF:102:304', '0:0:0:0:0:ffff:1.2.3.4'],
    ['1:2:3:4:5:6:7:8', '1:2:3:4:5:6:0.7.0.8'],
    ['1::', '1:0:0:0:0:0:0:0'],
  ];
  for (const [first, ...others] of spellings)
    for (const other of others) t.same(address(other), address(first!), other);
});

t.test('a range has no bits behind its prefix, and holds exactly its addresses', async (t) => {
  for (const text of [
    '10.0.0.1/8',
    '10.0.0.0/33',
    '10.0.0.0/',
    '10.0.0.0/8/8',
    '10.0.0.0/-1',
    'fd00::1/64',
    'fd00::/129',
    'host/8',
    '10.0.0.0/8 ',
  ])
    t.equal(parseRange(text), undefined, text);
  const inside = (range: string, text: string): boolean =>
    isInRange(address(text), parseRange(range)!);
  t.ok(inside('10.0.0.0/8', '10.255.255.255'));
  t.notOk(inside('10.0.0.0/8', '11.0.0.0'));
  t.ok(inside('10.1.2.3', '10.1.2.3'));
  t.notOk(inside('10.1.2.3', '10.1.2.4'));
  t.ok(inside('fd00::/8', 'fdff::1'));
  t.notOk(inside('fd00::/8', 'fc00::1'));
  t.notOk(inside('10.0.0.0/8', '::ffff:10.0.0.1'), 'IPv4 inside IPv6 is not in a range of IPv4');
});
