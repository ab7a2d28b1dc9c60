// What a test vault says of everything that is bounded on it.
import type { WaitName } from '../../src/shared/waits.ts';
import type { TestVault } from './vault.ts';

/** The counts of one bound, as the operator sees them. */
export async function waitOf(
  vault: TestVault,
  name: WaitName,
): Promise<{ inUse: number; max: number; refused: number }> {
  const { status, json } = await vault.call('operator', 'GET', '/v1/status');
  if (status !== 200) throw new Error(`no status: ${status}`);
  return json.waits.find((each: { name: string }) => each.name === name);
}
