// What is there before the first act: teams with somebody in every role, and an engine each.
import { generateEngineKey } from '../../../src/client/index.ts';
import type { Answered, Call, Client } from '../client.ts';
import type { EngineOfRig, TeamOfRig } from './types.ts';

/** Makes them; nothing is broken yet, so everything has to succeed at once. */
export async function makeTeams(
  client: Client,
  count: number,
): Promise<{ teams: TeamOfRig[]; engines: Map<string, EngineOfRig> }> {
  const must = async (call: Call): Promise<Answered> => {
    const answer = await client.send(call, client.choose());
    if (answer.outcome !== 'answer' || (answer.status ?? 500) >= 400)
      throw new Error(`${call.operation}: ${JSON.stringify(answer)}`);
    return answer;
  };
  const teams: TeamOfRig[] = [];
  const engines = new Map<string, EngineOfRig>();
  for (let at = 0; at < count; at += 1) {
    const slug = `team-${at}`;
    const of = (role: string): string => `${role}-of-${slug}`;
    const team = {
      slug,
      admin: of('admin'),
      editor: of('editor'),
      viewer: of('viewer'),
      auditor: of('auditor'),
      engine: of('engine'),
    };
    const body = { slug, name: slug, admins: [team.admin] };
    await must({ operation: 'createTeam', as: 'operator', body });
    const { publicJwk, privateJwk } = generateEngineKey('X25519');
    const registration = { name: team.engine, subject: team.engine, keys: [publicJwk] };
    const { json } = await must({ operation: 'createEngine', as: 'operator', body: registration });
    engines.set(team.engine, { id: json.id, subject: team.engine, privateJwk });
    for (const role of ['editor', 'viewer', 'auditor', 'engine'] as const)
      await must({
        operation: 'putMember',
        as: team.admin,
        params: { team: slug, subject: team[role] },
        body: { role },
      });
    teams.push(team);
  }
  return { teams, engines };
}
