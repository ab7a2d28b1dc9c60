// Teams, members and grants through the ordinary routes, each only where it is not there yet.
// Nothing that is there is changed: an import must not take a role away that somebody was given
// here.
import { type VaultCall, VaultRefused } from '../target.ts';

/** What became of a team, a member or a grant. */
export interface PeopleReport {
  readonly kind: 'team' | 'member' | 'grant';
  readonly team: string;
  readonly subject?: string;
  readonly credential?: string;
  readonly role?: string;
  readonly access?: string;
  readonly action: 'created' | 'present' | 'failed';
  readonly reason?: string;
}
interface Doing {
  readonly call: VaultCall;
  readonly isDryRun: boolean;
  readonly tell: (report: PeopleReport) => void;
}

/** The items of every page. */
export async function listAll<T>(call: VaultCall, path: string): Promise<T[]> {
  const items: T[] = [];
  for (let cursor = ''; ; ) {
    const { body } = await call('GET', `${path}?limit=200${cursor}`);
    items.push(...(body['items'] as T[]));
    if (body['nextCursor'] === null) return items;
    cursor = `&cursor=${String(body['nextCursor'])}`;
  }
}

/** Makes the teams that the caller has no role in yet; those that are there now, or would be. */
export async function ensureTeams(
  { call, isDryRun, tell }: Doing,
  wanted: ReadonlyMap<string, { readonly name: string; readonly admins: readonly string[] }>,
): Promise<{ there: Set<string>; made: Set<string> }> {
  const there = new Set(
    (await listAll<{ slug: string }>(call, '/v1/teams')).map(({ slug }) => slug),
  );
  const made = new Set<string>();
  for (const [slug, { name, admins }] of wanted) {
    if (there.has(slug)) {
      tell({ kind: 'team', team: slug, action: 'present' });
      continue;
    }
    const reason = isDryRun
      ? undefined
      : await attempt(() =>
          call('POST', '/v1/teams', { slug, name, admins: [...new Set(admins)] }),
        );
    tell({
      kind: 'team',
      team: slug,
      action: reason === undefined ? 'created' : 'failed',
      ...(reason === undefined ? {} : { reason }),
    });
    if (reason !== undefined) continue;
    there.add(slug);
    made.add(slug);
  }
  return { there, made };
}

/**
 * Adds the members that a team does not have yet. `admins` are those of a team that a dry run would
 * make.
 */
export async function ensureMembers(
  { call, isDryRun, tell }: Doing,
  team: string,
  wanted: ReadonlyMap<string, string>,
  admins: readonly string[] | undefined,
): Promise<void> {
  const members =
    isDryRun && admins !== undefined
      ? admins.map((subject) => ({ subject, role: 'admin' }))
      : await listAll<{ subject: string; role: string }>(call, `/v1/teams/${team}/members`);
  const present = new Map(members.map(({ subject, role }) => [subject, role]));
  for (const [subject, role] of wanted) {
    const held = present.get(subject);
    if (held !== undefined) {
      tell({ kind: 'member', team, subject, role: held, action: 'present' });
      continue;
    }
    const reason = isDryRun
      ? undefined
      : await attempt(() =>
          call('PUT', `/v1/teams/${team}/members/${encodeURIComponent(subject)}`, { role }),
        );
    tell({
      kind: 'member',
      team,
      subject,
      role,
      action: reason === undefined ? 'created' : 'failed',
      ...(reason === undefined ? {} : { reason }),
    });
  }
}

/** A grant to a team or to somebody. */
export type Grantee = { readonly team: string } | { readonly subject: string };

/**
 * Gives leave to use a credential to whom it is not given yet. `id` is undefined for one that a dry
 * run would make.
 */
export async function ensureGrants(
  { call, isDryRun, tell }: Doing,
  of: { readonly id: string | undefined; readonly name: string; readonly team: string },
  grantees: readonly Grantee[],
): Promise<void> {
  const present =
    of.id === undefined
      ? []
      : await listAll<{ team: string | null; subject: string | null }>(
          call,
          `/v1/credentials/${of.id}/grants`,
        );
  for (const grantee of grantees) {
    const isTeam = 'team' in grantee;
    const report = {
      kind: 'grant' as const,
      team: isTeam ? grantee.team : of.team,
      ...(isTeam ? {} : { subject: grantee.subject }),
      credential: of.name,
      access: 'use',
    };
    if (
      present.some(({ team, subject }) =>
        isTeam ? team === grantee.team : subject === grantee.subject,
      )
    ) {
      tell({ ...report, action: 'present' });
      continue;
    }
    const path = isTeam
      ? `teams/${grantee.team}`
      : `subjects/${encodeURIComponent(grantee.subject)}`;
    const reason = isDryRun
      ? undefined
      : await attempt(() =>
          call('PUT', `/v1/credentials/${String(of.id)}/grants/${path}`, { access: 'use' }),
        );
    tell({
      ...report,
      action: reason === undefined ? 'created' : 'failed',
      ...(reason === undefined ? {} : { reason }),
    });
  }
}

/** The code of a refusal; what is no refusal ends the import. */
async function attempt(action: () => Promise<unknown>): Promise<string | undefined> {
  try {
    await action();
    return undefined;
  } catch (error) {
    if (
      error instanceof VaultRefused &&
      error.status >= 400 &&
      error.status < 500 &&
      error.status !== 401
    )
      return error.code;
    throw error;
  }
}
