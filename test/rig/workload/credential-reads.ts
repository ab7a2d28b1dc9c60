// Reads of credentials, each of which has to show what its lane stored.
import { readOwned, shown, thingOf } from './credential.ts';
import type { CredentialsLane } from './credentials-lane.ts';

export async function getCredential(of: CredentialsLane): Promise<boolean> {
  const known = [...of.living, ...of.deleted];
  if (known.length === 0) return false;
  await readOwned(
    of.lane,
    of.random.pick(known),
    of.random.pick([of.team.viewer, of.team.auditor]),
  );
  return true;
}

export const list =
  (operation: string, params: (of: CredentialsLane) => Record<string, string>) =>
  async (of: CredentialsLane): Promise<boolean> => {
    if (of.living.length === 0) return false;
    const owned = of.random.pick(of.living);
    await of.lane.read(
      {
        operation,
        as: of.team.viewer,
        params: params(of),
        query: { namePrefix: owned.name, limit: '200' },
      },
      (json) => {
        const found = json.items.find(({ id }: { id: string }) => id === owned.id);
        return { [thingOf(owned)]: found === undefined ? null : shown(found) };
      },
    );
    return true;
  };

export async function listCredentialVersions(of: CredentialsLane): Promise<boolean> {
  if (of.living.length === 0) return false;
  const owned = of.random.pick(of.living);
  await of.lane.read(
    { operation: 'listCredentialVersions', as: of.team.viewer, params: { id: owned.id } },
    (json) => ({
      [thingOf(owned)]: {
        version: json.items.find(({ isCurrent }: { isCurrent: boolean }) => isCurrent)?.version,
      },
    }),
  );
  return true;
}

export const plainRead =
  (
    operation: string,
    as: (of: CredentialsLane) => string,
    params: (of: CredentialsLane) => Record<string, string> = () => ({}),
  ) =>
  async (of: CredentialsLane): Promise<boolean> => {
    await of.lane.read({ operation, as: as(of), params: params(of) });
    return true;
  };

export const ofTeam = (of: CredentialsLane): Record<string, string> => ({ team: of.team.slug });
