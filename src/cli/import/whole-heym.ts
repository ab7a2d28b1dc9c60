// All of Heym: its teams and their members, each person's credentials into the team that they map
// to, and its shares as grants. In that order, each thing only where it is not there yet, so that
// an import that broke off is simply run again.
import type { VaultCall } from '../target.ts';
import type { HeymRows } from './heym.ts';
import type { Mapping } from './mapping.ts';
import {
  ensureGrants,
  ensureMembers,
  ensureTeams,
  type GrantTarget,
  type PeopleReport,
} from './sharing.ts';
import { heymCredential } from './heym-rows.ts';
import { type Report, storeAll, translated } from './store.ts';
import { visibleName } from '../../shared/visible-names.ts';

export interface WholeOrder {
  readonly rows: HeymRows;
  readonly key: string;
  readonly mapping: Mapping;
  readonly memberRole: string;
  readonly isUpdate: boolean;
  readonly isDryRun: boolean;
}
export type AnyReport =
  | PeopleReport
  | (Report & { readonly kind: 'credential'; readonly team: string });

/** Runs the import; tells of each team, member, credential and grant. */
export async function importWhole(
  call: VaultCall,
  { rows, key, mapping, memberRole, isUpdate, isDryRun }: WholeOrder,
  tell: (report: AnyReport) => void,
): Promise<void> {
  const self = String((await call('GET', '/v1/whoami')).body['subject']);
  const doing = { call, isDryRun, tell };

  const wanted = new Map<string, { name: string; admins: string[] }>();
  for (const { id, name, creator_id: creator } of rows.teams) {
    const slug = mapping.teamOf(id);
    // Who imports has to be an admin to let the others in.
    wanted.set(slug, {
      name: nameOf(name),
      admins: [...(wanted.get(slug)?.admins ?? [self]), mapping.subjectOf(creator)],
    });
  }
  const ofTeam = Map.groupBy(rows.credentials, ({ owner_id: owner }) => mapping.teamOfOwner(owner));
  for (const [slug, credentials] of ofTeam) {
    if (!wanted.has(slug))
      wanted.set(slug, {
        name: slug,
        admins: [self, ...credentials.map(({ owner_id: owner }) => mapping.subjectOf(owner))],
      });
  }
  for (const each of wanted.values()) each.admins = [...new Set(each.admins)].slice(0, adminsMax);
  const { there, made } = await ensureTeams(doing, wanted);

  const members = Map.groupBy(rows.team_members, ({ team_id: team }) => mapping.teamOf(team));
  for (const [slug, each] of members) {
    if (there.has(slug))
      await ensureMembers(
        doing,
        slug,
        new Map(each.map(({ user_id: user }) => [mapping.subjectOf(user), memberRole])),
        made.has(slug) ? wanted.get(slug)?.admins : undefined,
      );
  }

  /** The credentials here that one there became: two where its type could not take all of it. */
  const stored = new Map<string, { id: string | undefined; name: string }[]>();
  for (const [slug, credentials] of ofTeam) {
    const foreign = credentials.map((row) => heymCredential(row, key));
    if (!there.has(slug)) {
      for (const { id, name, type } of foreign)
        tell({
          kind: 'credential',
          team: slug,
          id,
          name,
          type,
          action: 'failed',
          reason: 'noTeam',
          fields: [],
        });
      continue;
    }
    const note = (report: Report): void => {
      tell({ kind: 'credential', team: slug, ...report });
      const isThere =
        report.credential !== undefined ||
        (isDryRun && report.action !== 'failed' && report.action !== 'skipped');
      const of = report.id.replace(/#extra$/, '');
      if (isThere)
        stored.set(of, [...(stored.get(of) ?? []), { id: report.credential, name: report.name }]);
    };
    await storeAll(
      call,
      { team: slug, system: 'heym', isUpdate, isDryRun, isNew: isDryRun && made.has(slug) },
      translated('heym', foreign, note),
      note,
    );
  }

  for (const { id, owner_id: owner } of rows.credentials) {
    const team = mapping.teamOfOwner(owner);
    const grantees = granteesOf(rows, mapping, id, { team, owner: mapping.subjectOf(owner) });
    if (grantees.length > 0)
      for (const each of stored.get(id) ?? [])
        await ensureGrants(doing, { ...each, team }, grantees);
  }
}

/** With whom one is shared; its own team and its owner have it anyway. */
function granteesOf(
  rows: HeymRows,
  mapping: Mapping,
  id: string,
  own: { team: string; owner: string },
): GrantTarget[] {
  const teams = new Set(
    rows.credential_team_shares
      .filter(({ credential_id: of }) => of === id)
      .map(({ team_id: team }) => mapping.teamOf(team)),
  );
  const subjects = new Set(
    rows.credential_shares
      .filter(({ credential_id: of }) => of === id)
      .map(({ user_id: user }) => mapping.subjectOf(user)),
  );
  return [
    ...[...teams].filter((team) => team !== own.team).map((team) => ({ team })),
    ...[...subjects].filter((subject) => subject !== own.owner).map((subject) => ({ subject })),
  ];
}

const adminsMax = 20;
/** A team's name as the vault takes it. */
const nameOf = (text: string): string =>
  visibleName(Array.from(visibleName(text)).slice(0, 100).join('')) || 'unnamed';
