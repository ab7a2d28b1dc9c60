// Who is behind an address, as far as an address can say it: a customer has one of IPv4, and of
// IPv6 a network of 64 bits with more addresses than can be counted.

const mappedBits = '0:0:0:0:0:ffff:';

/**
 * What counts as one origin: an IPv4 address, also where IPv6 carries it, or the /64 of an IPv6
 * address. Text that is no address stands for itself.
 */
export function networkOf(address: string): string {
  const groups = groupsOf(address);
  if (groups === undefined) return address;
  const text = groups.map((group) => group.toString(16)).join(':');
  if (text.startsWith(mappedBits)) {
    const [high = 0, low = 0] = groups.slice(6);
    return [high >> 8, high & 255, low >> 8, low & 255].join('.');
  }
  return `${text.split(':').slice(0, 4).join(':')}::/64`;
}

/** The eight groups of an IPv6 address; undefined for everything else. */
function groupsOf(address: string): number[] | undefined {
  if (!address.includes(':')) return undefined;
  const [text = ''] = address.split('%', 1); // the zone is this machine's own affair
  const halves = hexOnly(text).split('::');
  if (halves.length > 2) return undefined;
  const [head = [], tail = []] = halves.map((half) => (half === '' ? [] : half.split(':')));
  const missing = 8 - head.length - tail.length;
  if (halves.length === 1 ? missing !== 0 : missing < 1) return undefined;
  const groups = [...head, ...Array<string>(missing).fill('0'), ...tail];
  return groups.every((group) => /^[0-9a-f]{1,4}$/i.test(group))
    ? groups.map((group) => Number.parseInt(group, 16))
    : undefined;
}

/** An address whose last 32 bits are written as IPv4 has them as two groups. */
const hexOnly = (text: string): string =>
  text.replace(/(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/, (_, ...bytes: string[]) => {
    const [a = 0, b = 0, c = 0, d = 0] = bytes.map(Number);
    return `${((a << 8) | b).toString(16)}:${((c << 8) | d).toString(16)}`;
  });
