// What the vault itself is reached at: never a target, whatever a rule says.
import { networkInterfaces } from 'node:os';
import { type Address, isLoopbackAddress, parseAddress } from './addresses.ts';
import { hostName } from './names.ts';
import type { NameCache } from './resolve.ts';

/**
 * A listener or the database. `byName`: the address behind the name is shared with others, so that
 * only the name is refused.
 */
export interface OwnEndpoint {
  readonly host: string;
  readonly port: number;
  readonly byName?: true;
  /** Every name below the host is one of them too. */
  readonly hasHosts?: true;
}

/** Whether host and port, or one of the addresses at that port, is one of the vault's own. */
export async function isOwn(
  target: { readonly host: string; readonly port: number; readonly addresses: readonly Address[] },
  own: readonly OwnEndpoint[],
  names: NameCache,
): Promise<boolean> {
  for (const { host, port, byName, hasHosts } of own) {
    if (port !== target.port) continue;
    const bare = host.replace(/^\[(.*)\]$/, '$1');
    if (hostName(bare) === target.host) return true;
    if (hasHosts === true && target.host.endsWith(`.${bare}`)) return true;
    if (byName !== true && (await reaches(target.addresses, bare, names))) return true;
  }
  return false;
}

async function reaches(
  addresses: readonly Address[],
  host: string,
  names: NameCache,
): Promise<boolean> {
  // A listener on every address is reached by each of this machine's, and by every loopback
  // address.
  const isEverywhere = host === '0.0.0.0' || host === '::';
  const texts = isEverywhere
    ? Object.values(networkInterfaces())
        .flatMap((list) => list ?? [])
        .map(({ address }) => address)
    : parseAddress(host) === undefined
      ? await names.find(host, { isOperators: true })
      : [host];
  const ours = texts.map(parseAddress);
  return addresses.some(
    (address) =>
      (isEverywhere && isLoopbackAddress(address)) ||
      ours.some((own) => own?.family === address.family && own.value === address.value),
  );
}
