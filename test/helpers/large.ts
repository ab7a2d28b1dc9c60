// Credentials as large as they may be, and what a vault does with them.
import { randomBytes } from 'node:crypto';
import { demand } from './leases.ts';
import type { TestVault } from './vault.ts';

const fieldBytes = 64 * 1024;
/** As much secret as one request brings. */
export const largeBytes = 7 * fieldBytes;

/** Credentials with so many bytes of secrets each. */
export function storeMany(
  vault: TestVault,
  team: string,
  count: number,
  bytes = largeBytes,
  { name = 'large', by = 'alice' }: { name?: string; by?: string } = {},
): Promise<{ id: string }[]> {
  const fields = Object.fromEntries(
    Array.from({ length: Math.ceil(bytes / fieldBytes) }, (_, index) => [
      `f${index}`,
      'y'.repeat(Math.min(fieldBytes, bytes - index * fieldBytes)),
    ]),
  );
  return inFours(count, (index) =>
    demand(
      vault.call(by, 'POST', `/v1/teams/${team}/credentials`, {
        name: `${name} ${index}`,
        type: 'custom',
        fields,
      }),
      201,
    ),
  );
}

/** Public fields of some 390 KB, in characters of three bytes. */
export const wideFields = (): Record<string, string> =>
  Object.fromEntries(Array.from({ length: 63 }, (_, index) => [`p${index}`, '漢'.repeat(2_048)]));

/** Credentials with such public fields. */
export function storeWide(
  vault: TestVault,
  team: string,
  count: number,
  more: object = {},
): Promise<{ id: string }[]> {
  const fields = wideFields();
  return inFours(count, (index) =>
    demand(
      vault.call('alice', 'POST', `/v1/teams/${team}/credentials`, {
        name: `wide ${index}`,
        type: 'custom',
        publicFieldNames: Object.keys(fields),
        fields: { ...fields, secret: randomBytes(20).toString('hex') },
        ...more,
      }),
      201,
    ),
  );
}

async function inFours(
  count: number,
  make: (index: number) => Promise<{ id: string }>,
): Promise<{ id: string }[]> {
  const made: { id: string }[] = [];
  for (let index = 0; index < count; index += 4)
    made.push(
      ...(await Promise.all(
        Array.from({ length: Math.min(4, count - index) }, (_, more) => make(index + more)),
      )),
    );
  return made.map(({ id }) => ({ id }));
}

export interface KeyringWork {
  /** In which turn of the event loop each token was opened. */
  readonly openings: readonly number[];
  /** How many rows of credentials were verified. */
  readonly rows: number;
  reset(): void;
}

/** What the keyring of a vault is asked to do from now on. */
export function watchKeyring({ keyring }: TestVault): KeyringWork {
  let turn = 0;
  let openings: number[] = [];
  let rows = 0;
  for (const name of ['open', 'reseal', 'rehome'] as const) {
    const action = keyring[name].bind(keyring) as (...given: unknown[]) => never;
    keyring[name] = (...given: unknown[]) => {
      openings.push(turn);
      return action(...given);
    };
  }
  const verifyRowMac = keyring.verifyRowMac.bind(keyring);
  keyring.verifyRowMac = (...given) => {
    if (given[0] === 'credential') rows += 1;
    return verifyRowMac(...given);
  };
  const count = (): void => {
    turn += 1;
    setImmediate(count).unref();
  };
  count();
  return {
    get openings() {
      return openings;
    },
    get rows() {
      return rows;
    },
    reset: () => {
      openings = [];
      rows = 0;
    },
  };
}
