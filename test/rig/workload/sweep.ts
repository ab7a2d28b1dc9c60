// A last look at everything through the API, when nothing is broken and nobody changes anything any
// more: each credential read by its team, and leased where it may be.
import { Lane } from './lane.ts';
import type { Stage } from './types.ts';
import type { Random } from '../random.ts';
import type { Owned } from './credential.ts';
import { leaseOf, UsesLane } from './uses.ts';

/** A credential as it stands in the database. */
export interface Standing {
  readonly id: string;
  readonly label: string;
  readonly team: string;
  readonly type: string;
  readonly state: string;
  readonly delivery: readonly string[];
}

const leasedAtOnce = 10;

/** Reads and leases; what is seen goes into the journal like any other read. */
export async function sweep(
  stage: Stage,
  random: Random,
  credentials: readonly Standing[],
): Promise<void> {
  for (const team of stage.teams) {
    const lane = new Lane(`sweep-${team.slug}`, stage, random.fork(team.slug));
    const own = credentials.filter((each) => each.team === team.slug);
    for (const { id, label, state } of own)
      await lane.read(
        { operation: 'getCredential', as: team.admin, params: { id } },
        (json, { status }) => ({
          [`credential/${label}`]:
            status === 200
              ? { name: json.name, version: json.version, revision: json.revision }
              : { state: 'deleted' },
        }),
        { expected: state === 'deleted' ? ['notFound'] : [] },
      );
    const uses = new UsesLane(lane, team, () => []);
    const leasable = own.filter(
      ({ state, delivery, type }) =>
        state === 'enabled' && type === 'openai' && delivery.includes('lease'),
    );
    for (let at = 0; at < leasable.length; at += leasedAtOnce)
      await leaseOf(uses, leasable.slice(at, at + leasedAtOnce) as unknown as Owned[]);
  }
}
