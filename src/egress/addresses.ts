// Which addresses may be dialled: global unicast, and nothing by which something else could be
// meant.
import { isIP } from 'node:net';

export interface Address {
  readonly family: 4 | 6;
  readonly value: bigint;
}
export interface Range {
  readonly family: 4 | 6;
  readonly first: bigint;
  readonly prefix: number;
}

const bitsOf = { 4: 32, 6: 128 } as const;

/**
 * An IPv4 address in plain decimal or an IPv6 address without zone; undefined for everything else.
 */
export function parseAddress(text: string): Address | undefined {
  const family = isIP(text);
  if (family === 4)
    return {
      family,
      value: BigInt(text.split('.').reduce((value, part) => value * 256 + Number(part), 0)),
    };
  if (family !== 6 || text.includes('%')) return undefined;
  const dotted = /^(.*:)(\d+\.\d+\.\d+\.\d+)$/.exec(text);
  const tail = dotted === null ? undefined : parseAddress(dotted[2]!);
  const plain =
    tail === undefined
      ? text
      : `${dotted![1]}${(tail.value >> 16n).toString(16)}:${(tail.value & 0xffffn).toString(16)}`;
  const [head = '', rest] = plain
    .split('::')
    .map((half) => half.split(':').filter((group) => group !== ''));
  const groups =
    rest === undefined
      ? [...head]
      : [...head, ...Array<string>(8 - head.length - rest.length).fill('0'), ...rest];
  return {
    family,
    value: groups.reduce((value, group) => (value << 16n) | BigInt(`0x${group}`), 0n),
  };
}

/**
 * `address/prefix`, or an address alone for just that one; undefined where bits are set behind the
 * prefix.
 */
export function parseRange(text: string): Range | undefined {
  const [base = '', length, ...more] = text.split('/');
  const address = parseAddress(base);
  if (
    address === undefined ||
    more.length > 0 ||
    (length !== undefined && !/^\d{1,3}$/.test(length))
  )
    return undefined;
  const bits = bitsOf[address.family];
  const prefix = length === undefined ? bits : Number(length);
  if (prefix > bits || (address.value & ((1n << BigInt(bits - prefix)) - 1n)) !== 0n)
    return undefined;
  return { family: address.family, first: address.value, prefix };
}

/** Whether the address lies in the range. */
export function isInRange({ family, value }: Address, range: Range): boolean {
  const shift = BigInt(bitsOf[range.family] - range.prefix);
  return family === range.family && value >> shift === range.first >> shift;
}

const ranges = (...texts: readonly string[]): readonly Range[] =>
  texts.map((text) => parseRange(text)!);
const isIn = (address: Address, list: readonly Range[]): boolean =>
  list.some((range) => isInRange(address, range));

/** Where clouds answer with the credentials of the machine, link-local included. */
const metadata = ranges(
  '169.254.0.0/16',
  'fe80::/10',
  '168.63.129.16', // Azure, in the middle of global addresses
  '100.100.100.200', // Alibaba
  '192.0.0.192', // Oracle
  'fd00:ec2::/32', // Amazon: metadata, pod identity, DNS, time
  'fd20:ce::254', // Google
  'fd00:c1::a9fe:a9fe', // Oracle
  'fd00:42::42', // Scaleway
);
/**
 * Nobody may allow these either: this host by no name, multicast, reserved, and IPv4 that is
 * dressed up as IPv6.
 */
const never = [
  ...metadata,
  ...ranges(
    '0.0.0.0/8',
    '224.0.0.0/4',
    '240.0.0.0/4',
    'fec0::/10',
    'ff00::/8',
    '::/128',
    '::ffff:0:0/96',
    '::ffff:0:0:0/96',
  ),
];
const compatible = parseRange('::/96')!;

/** IPv4 that is private or of special use (RFC 6890 and its registry). */
const special4 = ranges(
  '10.0.0.0/8',
  '100.64.0.0/10',
  '127.0.0.0/8',
  '172.16.0.0/12',
  '192.0.0.0/24',
  '192.0.2.0/24',
  '192.31.196.0/24',
  '192.52.193.0/24',
  '192.88.99.0/24',
  '192.168.0.0/16',
  '192.175.48.0/24',
  '198.18.0.0/15',
  '198.51.100.0/24',
  '203.0.113.0/24',
);
const global6 = ranges('2000::/3');
/**
 * What of 2000::/3 is of special use: protocol assignments with Teredo and benchmarking,
 * documentation, 6to4, the 6bone, AS112.
 */
const special6 = ranges(
  '2001::/23',
  '2001:db8::/32',
  '2002::/16',
  '3ffe::/16',
  '3fff::/20',
  '2620:4f:8000::/48',
);

type Embedding<Prefix = Range> = readonly [prefix: Prefix, read: (value: bigint) => bigint];
/** IPv4 that is reached through IPv6: the prefix, and where the IPv4 address stands. */
const embeddings: readonly Embedding[] = (
  [
    ['64:ff9b::/96', (value) => value], // NAT64
    ['64:ff9b:1::/48', (value) => value], // NAT64 of local use: by /96, /64, /56 and /48 (RFC 6052)
    ['64:ff9b:1::/48', (value) => value >> 24n],
    [
      '64:ff9b:1::/48',
      (value) => (((value >> 64n) & 0xffn) << 24n) | ((value >> 32n) & 0xff_ffffn),
    ],
    ['64:ff9b:1::/48', (value) => (((value >> 64n) & 0xffffn) << 16n) | ((value >> 40n) & 0xffffn)],
    ['2002::/16', (value) => value >> 80n], // 6to4
    ['2001::/32', (value) => value >> 64n], // Teredo: its server
    ['2001::/32', (value) => ~value], // Teredo: its client
  ] as readonly Embedding<string>[]
).map(([prefix, read]) => [parseRange(prefix)!, read]);

/** ISATAP: ::5efe:a.b.c.d, or ::200:5efe:a.b.c.d, behind any prefix. */
const isIsatap = ({ family, value }: Address): boolean =>
  family === 6 && [0x0000_5efen, 0x0200_5efen].includes((value >> 32n) & 0xffff_ffffn);

function embedded(address: Address): readonly Address[] {
  const found = embeddings
    .filter(([prefix]) => isInRange(address, prefix))
    .map(([, read]) => read(address.value));
  if (isIsatap(address)) found.push(address.value);
  return found.map((value) => ({ family: 4, value: value & 0xffff_ffffn }));
}

/** Whether the address is global unicast and nothing else: what may be dialled without a rule. */
export function isGlobalUnicast(address: Address): boolean {
  if (isIn(address, never)) return false;
  return address.family === 4
    ? !isIn(address, special4)
    : isIn(address, global6) && !isIn(address, special6) && !isIsatap(address);
}

/**
 * Whether no rule can allow the address: for itself, or for the IPv4 address that is reached
 * through it.
 */
export function isNever(address: Address): boolean {
  // ::1 has the form, and is loopback
  const isCompatible = isInRange(address, compatible) && address.value !== 1n;
  return (
    isCompatible || isIn(address, never) || embedded(address).some((inner) => isIn(inner, metadata))
  );
}

/** Whether nothing in the range can ever be dialled. */
export const isRangeNever = ({ family, first, prefix }: Range): boolean =>
  never.some((range) => range.prefix <= prefix && isInRange({ family, value: first }, range));

/** Whether it is this machine talking to itself. */
export const isLoopbackAddress = (address: Address): boolean => isIn(address, loopback);
const loopback = ranges('127.0.0.0/8', '::1/128');
