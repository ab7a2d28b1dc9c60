// What is read about everything that was done: the audit log and exports.
import type { Lane } from './lane.ts';
import type { TeamOfRig } from './types.ts';
import type { Work } from './work.ts';

export class AuditLane {
  readonly lane: Lane;
  readonly team: TeamOfRig;

  constructor(lane: Lane, team: TeamOfRig) {
    this.lane = lane;
    this.team = team;
  }
}

async function listAuditEvents(of: AuditLane): Promise<boolean> {
  const answer = await of.lane.read({
    operation: 'listAuditEvents',
    as: of.team.auditor,
    params: { team: of.team.slug },
    query: { limit: '200' },
  });
  const tampered = answer?.json.items.filter(({ intact }: { intact: boolean }) => !intact) ?? [];
  if (tampered.length > 0)
    of.lane.stage.journal.fault(
      'eventTampered',
      `${tampered.length} events, the first ${tampered[0].id}`,
    );
  return answer !== null;
}

async function exportTeam(of: AuditLane): Promise<boolean> {
  const answer = await of.lane.read(
    {
      operation: 'exportTeam',
      as: of.team.auditor,
      params: { team: of.team.slug },
      query: { events: of.lane.random.pick(['true', 'false']) },
    },
    () => ({}),
    { events: { 'team.export': 1 } },
  );
  return answer !== null;
}

export const auditWork: Work<AuditLane> = {
  listAuditEvents: { weight: 3, run: listAuditEvents },
  exportTeam: { weight: 1, run: exportTeam },
};
