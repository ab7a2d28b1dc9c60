// Whose things go where: Heym's credentials belong to people, the vault's to teams. What nobody can
// guess is said in a file.
import { OptionsUnfit } from '../target.ts';
import type { HeymRows } from './heym.ts';
import { isSubject } from '../../shared/subjects.ts';
import { slugForm } from '../../shared/patterns.ts';

/** What the file says; each part may be left out. */
interface MappingFile {
  readonly owners?: Record<string, string>;
  readonly teams?: Record<string, string>;
  readonly subjects?: Record<string, string>;
}
export interface Mapping {
  /** The slug of the team that a person's credentials go to. */
  readonly teamOfOwner: (userId: string) => string;
  /** The slug of a team of Heym's. */
  readonly teamOf: (teamId: string) => string;
  /** The subject that a person is to the vault. */
  readonly subjectOf: (userId: string) => string;
}

/**
 * The mapping of these rows. Throws OptionsUnfit that names everything for which there is no place,
 * before anything is stored.
 */
export function mappingOf(
  rows: HeymRows,
  text: string | undefined,
  defaultTeam: string | undefined,
): Mapping {
  const file = read(text);
  const emails = new Map(rows.users.map(({ id, email }) => [id, email]));
  const faults: string[] = [];
  const subjects = new Map([...emails].map(([id, email]) => [id, file.subjects?.[email] ?? email]));
  for (const [id, subject] of subjects)
    if (!isSubject(subject))
      faults.push(`subjects: ${shown(emails.get(id))} has no subject that a token could have`);
  const owners = new Map<string, string>();
  for (const id of new Set(rows.credentials.map(({ owner_id: owner }) => owner))) {
    const slug = file.owners?.[emails.get(id) ?? ''] ?? defaultTeam;
    if (slug === undefined)
      faults.push(
        `owners: say a team for the credentials of ${shown(emails.get(id))}, or --team for all`,
      );
    else owners.set(id, slug);
  }
  const teams = new Map(
    rows.teams.map(({ id, name }) => [id, file.teams?.[name] ?? file.teams?.[id] ?? slugOf(name)]),
  );
  for (const [id, slug] of teams) {
    const { name = '' } = rows.teams.find((team) => team.id === id) ?? {};
    if (!slugForm.test(slug)) faults.push(`teams: say a slug for ${shown(name)}`);
    else if (
      [...teams].some(([other, taken]) => other < id && taken === slug) &&
      file.teams?.[name] === undefined &&
      file.teams?.[id] === undefined
    )
      faults.push(`teams: ${shown(name)} and another one would both be ${slug}`);
  }
  for (const slug of [
    ...owners.values(),
    ...Object.values(file.owners ?? {}),
    ...Object.values(file.teams ?? {}),
  ])
    if (!slugForm.test(slug)) faults.push('owners, teams: a value is the slug of no team');
  const isKnown = (ids: readonly { readonly id: string }[]) => {
    const known = new Set(ids.map(({ id }) => id));
    return (id: string): boolean => known.has(id);
  };
  const [user, team, credential] = [
    isKnown(rows.users),
    isKnown(rows.teams),
    isKnown(rows.credentials),
  ];
  const isWhole =
    rows.teams.every((each) => user(each.creator_id)) &&
    rows.team_members.every((each) => team(each.team_id) && user(each.user_id)) &&
    rows.credentials.every((each) => user(each.owner_id)) &&
    rows.credential_shares.every((each) => credential(each.credential_id) && user(each.user_id)) &&
    rows.credential_team_shares.every(
      (each) => credential(each.credential_id) && team(each.team_id),
    );
  if (!isWhole)
    throw new OptionsUnfit('the rows name somebody, a team or a credential that is not among them');
  if (faults.length > 0)
    throw new OptionsUnfit(
      `--map has to say more:\n${[...new Set(faults)].map((fault) => `- ${fault}`).join('\n')}`,
    );
  const get =
    (map: ReadonlyMap<string, string>) =>
    (id: string): string =>
      map.get(id) ?? '';
  return { teamOfOwner: get(owners), teamOf: get(teams), subjectOf: get(subjects) };
}

function read(text: string | undefined): MappingFile {
  if (text === undefined) return {};
  let document: unknown;
  try {
    document = JSON.parse(text);
  } catch {
    throw new OptionsUnfit('--map names a file that is no JSON');
  }
  const isMap = (value: unknown): boolean =>
    typeof value === 'object' &&
    value !== null &&
    !Array.isArray(value) &&
    Object.values(value).every((each) => typeof each === 'string');
  const parts =
    typeof document === 'object' && document !== null && !Array.isArray(document)
      ? Object.entries(document)
      : [['', null]];
  if (
    !parts.every(
      ([name, part]) => ['owners', 'teams', 'subjects'].includes(name as string) && isMap(part),
    )
  )
    throw new OptionsUnfit(
      '--map takes { "owners": { EMAIL: TEAM }, "teams": { NAME: TEAM }, "subjects": { EMAIL: ' +
        'SUBJECT } }, each part if it is needed',
    );
  return document as MappingFile;
}

const slugOf = (name: string): string =>
  name
    .toLowerCase()
    .normalize('NFKD')
    .replace(/[^a-z0-9]+/g, '-')
    .replace(/^-+|-+$/g, '')
    .slice(0, 39);
/** A name for an error: people and teams are no secrets, but one line is enough. */
const shown = (name: string | undefined): string =>
  (name ?? '').replace(/[\p{C}\p{Z}]+/gu, ' ').slice(0, 100);
