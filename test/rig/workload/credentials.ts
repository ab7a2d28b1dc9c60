// Storing, changing, deleting and restoring credentials, and their versions.
import {
  bodyOf,
  changeOwned,
  create,
  newSecret,
  type Owned,
  planned,
  readOwned,
  stateOf,
  thingOf,
  idOf,
} from './credential.ts';
import {
  getCredential,
  list,
  listCredentialVersions,
  ofTeam,
  plainRead,
} from './credential-reads.ts';
import { CredentialsLane } from './credentials-lane.ts';
import type { Work } from './work.ts';

const match = ({ revision }: Owned): Record<string, string> => ({ 'if-match': `"${revision}"` });
const isStale = ({ code }: { code?: string }): boolean => code === 'preconditionFailed';

/** The versions that are not the current one. */
const olderOf = ({ secrets, version }: Owned): number[] =>
  Object.keys(secrets)
    .map(Number)
    .filter((each) => each !== version);

/** With the fields that a credential of type openai has. */
const fieldsOf = (owned: Owned): object => ({ apiKey: owned.secrets[owned.version] });

async function createCredential(of: CredentialsLane): Promise<boolean> {
  if (of.living.length >= CredentialsLane.livingMax) return false;
  const owned = planned(of.lane, of.team);
  const isKeyed = of.random.chance(0.6);
  return of.put(
    await create(of.lane, owned, of.team.editor, bodyOf(owned, fieldsOf(owned)), { isKeyed }),
  );
}

async function putCredential(of: CredentialsLane): Promise<boolean> {
  const isNew = of.random.chance(0.5) && of.living.length < CredentialsLane.livingMax;
  const owned = isNew
    ? planned(of.lane, of.team)
    : of.take(({ version }) => version < CredentialsLane.versionsMax);
  if (owned === undefined) return false;
  const version = isNew ? 1 : owned.version + 1;
  const secret = newSecret(of.lane);
  const next = {
    ...owned,
    version,
    revision: isNew ? 1 : owned.revision + 1,
    secrets: { ...(isNew ? {} : owned.secrets), [version]: secret },
  };
  const { name: _, ...body } = bodyOf(next, { apiKey: secret });
  const params = { team: of.team.slug, name: owned.name };
  const headers = isNew ? {} : match(owned);
  if (of.random.chance(0.2)) {
    await of.lane.read({
      operation: 'putCredential',
      as: of.team.editor,
      params,
      body,
      headers,
      query: { dryRun: 'true' },
    });
    return of.put(isNew ? undefined : owned);
  }
  const { owned: after, changed } = await changeOwned(of.lane, owned, next, {
    operation: 'putCredential',
    as: of.team.editor,
    params,
    body,
    headers,
    events: { [isNew ? 'credential.create' : 'credential.update']: 1 },
    // Without If-Match it makes one or says that there is one.
    happened: ({ code }) => code === (isNew ? 'preconditionRequired' : 'preconditionFailed'),
    isShown: false,
  });
  if (!isNew) return of.put(after);
  if (changed.verdict !== 'done' || after === undefined) return true;
  const id = changed.answer?.json?.credential?.id ?? (await idOf(of.lane, after, of.team.editor));
  return of.put(id === undefined ? undefined : { ...after, id });
}

async function updateCredential(of: CredentialsLane): Promise<boolean> {
  const owned = of.take();
  if (owned === undefined) return false;
  const isVersion = of.random.chance(0.5) && owned.version < CredentialsLane.versionsMax;
  const isRename = !isVersion && of.random.chance(0.4) && !owned.isLoose;
  const secret = newSecret(of.lane);
  const description = isVersion || isRename ? owned.description : of.lane.fresh('about');
  const name = isRename ? `${of.lane.fresh('renamed')}` : owned.name;
  const version = isVersion ? owned.version + 1 : owned.version;
  const next: Owned = {
    ...owned,
    name,
    description,
    version,
    revision: owned.revision + 1,
    secrets: isVersion ? { ...owned.secrets, [version]: secret } : owned.secrets,
  };
  const isAny = of.random.chance(0.15);
  const { owned: after } = await changeOwned(of.lane, owned, next, {
    operation: 'updateCredential',
    as: of.team.editor,
    params: { id: owned.id },
    headers: isAny ? { 'if-match': '*' } : match(owned),
    body: isVersion ? { fields: { apiKey: secret } } : isRename ? { name } : { description },
    events: { 'credential.update': 1 },
    ...(isAny ? {} : { happened: isStale }),
  });
  return of.put(after);
}

async function deleteCredential(of: CredentialsLane): Promise<boolean> {
  const owned = of.living.length < 3 ? undefined : of.take(({ isLoose }) => !isLoose);
  if (owned === undefined) return false;
  const next: Owned = {
    ...owned,
    state: 'deleted',
    stateBefore: owned.state === 'disabled' ? 'disabled' : 'enabled',
    revision: owned.revision + 1,
  };
  const { owned: after } = await changeOwned(of.lane, owned, next, {
    operation: 'deleteCredential',
    as: of.team.editor,
    params: { id: owned.id },
    headers: match(owned),
    events: { 'credential.delete': 1 },
    happened: ({ code }) => code === 'notFound' || code === 'preconditionFailed',
    isShown: false,
  });
  of.put(after);
  if (after?.state === 'deleted') await readOwned(of.lane, after, of.team.viewer);
  return true;
}

async function restoreCredential(of: CredentialsLane): Promise<boolean> {
  const owned = of.deleted.shift();
  if (owned === undefined) return false;
  const next: Owned = { ...owned, state: owned.stateBefore, revision: owned.revision + 1 };
  const { owned: after } = await changeOwned(of.lane, owned, next, {
    operation: 'restoreCredential',
    as: of.team.editor,
    params: { id: owned.id },
    events: { 'credential.restore': 1 },
    isKeyed: true,
  });
  return of.put(after);
}

const setState =
  (operation: string, from: Owned['state'], to: Owned['state'], event: string) =>
  async (of: CredentialsLane): Promise<boolean> => {
    const owned = of.take(({ state }) => state === from);
    if (owned === undefined) return false;
    const isKeyed = of.random.chance(0.7);
    const { owned: after } = await changeOwned(
      of.lane,
      owned,
      { ...owned, state: to, revision: owned.revision + 1 },
      {
        operation,
        as: of.team.editor,
        params: { id: owned.id },
        events: { [event]: 1 },
        ...(isKeyed ? { isKeyed } : { happened: ({ code }) => code === 'stateConflict' }),
      },
    );
    return of.put(after);
  };

async function restoreCredentialVersion(of: CredentialsLane): Promise<boolean> {
  const owned = of.take(
    (each) => each.version < CredentialsLane.versionsMax && olderOf(each).length > 0,
  );
  if (owned === undefined) return false;
  const from = of.random.pick(olderOf(owned));
  const version = owned.version + 1;
  const { owned: after } = await changeOwned(
    of.lane,
    owned,
    {
      ...owned,
      version,
      revision: owned.revision + 1,
      secrets: { ...owned.secrets, [version]: owned.secrets[from]! },
    },
    {
      operation: 'restoreCredentialVersion',
      as: of.team.admin,
      params: { id: owned.id, version: String(from) },
      events: { 'credential.restoreVersion': 1 },
      isKeyed: true,
    },
  );
  return of.put(after);
}

async function destroyCredentialVersion(of: CredentialsLane): Promise<boolean> {
  const owned = of.take((each) => !each.isLoose && olderOf(each).length > 0);
  if (owned === undefined) return false;
  const old = of.random.pick(olderOf(owned));
  const { [old]: _, ...secrets } = owned.secrets;
  const { owned: after } = await changeOwned(
    of.lane,
    owned,
    { ...owned, secrets },
    {
      operation: 'destroyCredentialVersion',
      as: of.team.admin,
      params: { id: owned.id, version: String(old) },
      events: { 'credential.destroyVersion': 1 },
      happened: ({ code }) => code === 'notFound',
      isShown: false,
    },
  );
  return of.put(after);
}

/** Each item is a change by itself: what became of it stands in the answer, or is not known. */
async function changeCredentials(of: CredentialsLane): Promise<boolean> {
  const made = planned(of.lane, of.team);
  const taken = of.take();
  if (taken === undefined) return false;
  const description = of.lane.fresh('bulk');
  const next: Owned = { ...taken, description, revision: taken.revision + 1 };
  const items = [
    { op: 'create', ...bodyOf(made, fieldsOf(made)) },
    { op: 'update', id: taken.id, revision: taken.revision, description },
  ];
  const results = await of.lane.several(
    {
      operation: 'changeCredentials',
      as: of.team.editor,
      params: { team: of.team.slug },
      body: { items },
    },
    [
      {
        effects: { [thingOf(made)]: stateOf(made) },
        events: { 'credential.create': 1 },
        happened: ({ code }) => code === 'nameTaken',
      },
      {
        effects: { [thingOf(taken)]: stateOf(next) },
        events: { 'credential.update': 1 },
        happened: isStale,
      },
    ],
  );
  const [creation, update] = results;
  if (creation?.verdict === 'done') {
    const id =
      creation.answer?.json?.results?.[0]?.credential?.id ??
      (await idOf(of.lane, made, of.team.editor));
    if (id !== undefined) of.put({ ...made, id, isLoose: creation.isLoose });
  }
  if (update?.verdict === 'done') of.put({ ...next, isLoose: taken.isLoose || update.isLoose });
  else if (update?.verdict === 'refused' && update.isPassing) of.put(taken);
  return true;
}

export const credentialsWork: Work<CredentialsLane> = {
  createCredential: { weight: 4, run: createCredential },
  putCredential: { weight: 2, run: putCredential },
  updateCredential: { weight: 6, run: updateCredential },
  deleteCredential: { weight: 2, run: deleteCredential },
  restoreCredential: { weight: 2, run: restoreCredential },
  disableCredential: {
    weight: 1,
    run: setState('disableCredential', 'enabled', 'disabled', 'credential.disable'),
  },
  enableCredential: {
    weight: 2,
    run: setState('enableCredential', 'disabled', 'enabled', 'credential.enable'),
  },
  restoreCredentialVersion: { weight: 2, run: restoreCredentialVersion },
  destroyCredentialVersion: { weight: 1, run: destroyCredentialVersion },
  changeCredentials: { weight: 2, run: changeCredentials },
  getCredential: { weight: 4, run: getCredential },
  listTeamCredentials: { weight: 2, run: list('listTeamCredentials', ofTeam) },
  listCredentials: { weight: 1, run: list('listCredentials', () => ({})) },
  listCredentialVersions: { weight: 1, run: listCredentialVersions },
  listCredentialTypes: {
    weight: 1,
    run: plainRead('listCredentialTypes', ({ team }) => team.viewer),
  },
  listOauthProviders: {
    weight: 1,
    run: plainRead('listOauthProviders', ({ team }) => team.viewer),
  },
  getCredentialType: {
    weight: 1,
    run: plainRead(
      'getCredentialType',
      ({ team }) => team.viewer,
      () => ({ type: 'openai' }),
    ),
  },
  countTeamProblems: {
    weight: 1,
    run: plainRead('countTeamProblems', ({ team }) => team.viewer, ofTeam),
  },
};
