// A credential as the lane that owns it knows it, and the changes of it that several lanes make.
import type { Call } from '../client.ts';
import type { State } from '../journal.ts';
import { isPassing } from './answers.ts';
import type { Lane } from './lane.ts';
import type { Changed, ChangeInput, TeamOfRig } from './types.ts';

export interface Owned {
  /** Never changes: by it the checker finds the credential. */
  readonly label: string;
  id: string;
  team: string;
  name: string;
  type: string;
  state: 'enabled' | 'disabled' | 'deleted';
  /** To which it comes back when it is restored. */
  stateBefore: 'enabled' | 'disabled';
  version: number;
  revision: number;
  description: string | null;
  /** What each version holds. */
  secrets: Readonly<Record<number, string>>;
  /** A request for it may still be under way somewhere. */
  isLoose: boolean;
}

export const thingOf = ({ label }: Pick<Owned, 'label'>): string => `credential/${label}`;

/** What the checker looks for. */
export function stateOf(owned: Owned): NonNullable<State> {
  const { team, name, type, state, version, revision, description, secrets } = owned;
  return { team, name, type, state, version, revision, description, secrets };
}

/** What an answer of the API shows of it. */
export const shown = (json: any): State => ({
  team: json.team,
  name: json.name,
  version: json.version,
  revision: json.revision,
  description: json.description,
});

/** What does not fit between what was meant and what was answered. */
export function mismatchWith(meant: Owned): (json: any) => string | undefined {
  return (json) => {
    const wanted = shown(meant);
    const answered = shown(json);
    return JSON.stringify(wanted) === JSON.stringify(answered)
      ? undefined
      : `${JSON.stringify(answered)} and not ${JSON.stringify(wanted)}`;
  };
}

/** A secret that says which change it came with. */
export const newSecret = (lane: Lane): string => lane.fresh(`sk-rig-${lane.random.word(8)}`);

/** What a fresh credential is to be. */
export function planned(lane: Lane, team: TeamOfRig, type = 'openai'): Owned {
  const label = lane.fresh('c');
  return {
    label,
    id: '',
    team: team.slug,
    name: `${label} named`,
    type,
    state: 'enabled',
    stateBefore: 'enabled',
    version: 1,
    revision: 1,
    description: null,
    secrets: { 1: newSecret(lane) },
    isLoose: false,
  };
}

/** The body that stores it. */
export function bodyOf(owned: Owned, fields: object, more: object = {}): Record<string, unknown> {
  return {
    name: owned.name,
    type: owned.type,
    fields,
    labels: { rig: owned.label },
    ...more,
  };
}

/** Stores it; undefined where that did not come to a good end. */
export async function create(
  lane: Lane,
  owned: Owned,
  as: string,
  body: Record<string, unknown>,
  { isKeyed = true } = {},
): Promise<Owned | undefined> {
  const { verdict, answer, isLoose } = await lane.change({
    operation: 'createCredential',
    as,
    params: { team: owned.team },
    body,
    effects: { [thingOf(owned)]: stateOf(owned) },
    events: { 'credential.create': 1 },
    isKeyed,
    happened: (refused) => refused.code === 'nameTaken',
    mismatch: mismatchWith(owned),
  });
  if (verdict !== 'done') return undefined;
  const id = answer?.status === 201 ? String(answer.json.id) : await idOf(lane, owned, as);
  return id === undefined ? undefined : { ...owned, id, isLoose };
}

/** Its id, by its name. */
export async function idOf(lane: Lane, owned: Owned, as: string): Promise<string | undefined> {
  const answer = await lane.read({
    operation: 'listTeamCredentials',
    as,
    params: { team: owned.team },
    query: { namePrefix: owned.name },
  });
  return answer?.json.items.find(({ name }: { name: string }) => name === owned.name)?.id;
}

/**
 * Asks for a change of it that rests on its revision; what it is afterwards, or undefined where
 * nobody knows any more.
 */
export async function changeOwned(
  lane: Lane,
  owned: Owned,
  next: Owned | null,
  input: Omit<ChangeInput, 'effects' | 'mismatch'> & {
    isShown?: boolean;
    more?: Readonly<Record<string, State>>;
  },
): Promise<{ owned: Owned | undefined; changed: Changed }> {
  const { isShown = true, more = {}, ...rest } = input;
  const changed = await lane.change({
    ...rest,
    effects: { [thingOf(owned)]: next === null ? null : stateOf(next), ...more },
    ...(isShown && next !== null ? { mismatch: mismatchWith(next) } : {}),
  });
  const isLoose = owned.isLoose || changed.isLoose;
  if (changed.verdict === 'done')
    return { changed, owned: next === null ? undefined : { ...next, isLoose } };
  if (changed.verdict === 'unknown') return { changed, owned: undefined };
  // One that nobody else may change and that is not as it should be is left to the checker.
  const isSame = changed.answer !== undefined && isPassing(changed.answer);
  return { changed, owned: isSame ? { ...owned, isLoose } : undefined };
}

/** Reads it by its id. */
export const readOwned = (lane: Lane, owned: Owned, as: string): Promise<unknown> =>
  lane.read(
    { operation: 'getCredential', as, params: { id: owned.id } } satisfies Call,
    (json, { status }) => ({
      [thingOf(owned)]:
        status === 200
          ? { ...shown(json), state: json.health === 'disabled' ? 'disabled' : 'enabled' }
          : { state: 'deleted' },
    }),
    { expected: owned.state === 'deleted' ? ['notFound'] : [] },
  );
