// May this engine use this credential in this way, now, for this person? Pure: rows in, the answer
// out. What the caller may not know of is `notFound`, whatever else is the matter with it.
import type { Keyring } from '../crypto/index.ts';
import type { Delivery } from '../db/tables.ts';
import type { CredentialId, EngineId } from '../shared/ids.ts';
import type { FoundRow, RecipientRow, VersionRow } from './types.ts';
import {
  type Caller,
  engineSealHolds,
  type GrantRow,
  isAllowed,
  noWays,
  refusesExposed,
  type RightsRow,
  type Standing,
  standingOf,
  type TeamAction,
  type TeamRef,
  type Way,
  wayFor,
  waysOf,
  type Person,
  type RightsParts,
} from '../access/index.ts';
import { credentialSealHolds, findType } from '../credentials/index.ts';
import { engineKeySealHolds, type PublicJwk } from '../engines/index.ts';

/** Why a reference is refused, as the caller is told; a test holds the documents to it. */
export const leaseRules = [
  'notFound',
  'duplicate',
  'onBehalfOfRequired',
  'onBehalfOfRefused',
  'deleted',
  'disabled',
  'expired',
  'deliveryNotAllowed',
  'exposed',
  'undecryptable',
  'notConnected',
  'refreshFailed',
  'refreshUnavailable',
  'rejectedByUpstream',
] as const;
export type Rule = (typeof leaseRules)[number];

/** A refusal, with what only the trail is told. */
export interface Refusal {
  readonly pointer: string;
  readonly rule: Rule;
  readonly reason: string;
  readonly team: TeamRef | undefined;
  readonly target: { readonly type: string; readonly id: string };
}

/**
 * A credential that may be used as was asked; `isKnown` where the caller has this version already.
 */
export interface Granted {
  readonly row: FoundRow;
  readonly version: VersionRow;
  readonly isKnown: boolean;
  /** By which grants, the engine's and the person's; none where both are members with the right. */
  readonly ways: readonly Way[];
}

/** The engine that asks and the key that it is answered with. */
export interface Recipient {
  readonly id: EngineId;
  readonly revision: number;
  readonly kid: string;
  readonly jwk: PublicJwk;
}

export interface Question {
  readonly caller: Caller;
  readonly onBehalfOf: string | undefined;
  /** How the secret would be used. */
  readonly delivery: Delivery;
  /** By position. */
  readonly knownVersions: readonly (number | undefined)[];
  readonly now: Date;
}

/** The engine behind the caller, if he is one whose registration holds; else why not. */
export function decideEngine(
  row: RecipientRow,
  caller: Caller,
  keyring: Keyring,
): { readonly id: EngineId; readonly revision: number } | { readonly refusal: string } {
  const { engine } = row;
  if (engine === undefined) return { refusal: 'notAnEngine' };
  // SECURITY: only the vault's own word makes an engine of a subject.
  if (
    !engineSealHolds(keyring, { ...engine, subject: caller.subject, sub: caller.sub }, engine.seal)
  )
    return { refusal: 'sealBroken' };
  return engine.state === 'enabled'
    ? { id: engine.id, revision: engine.revision }
    : { refusal: 'engineDisabled' };
}

/** The key that the lease goes to; else the refusal. */
export function decideKey(
  row: RecipientRow,
  engine: EngineId,
  keyring: Keyring,
): { readonly kid: string; readonly jwk: PublicJwk } | Refusal {
  const refuse = (reason: string): Refusal => ({
    pointer: '/keyId',
    rule: 'notFound',
    reason,
    team: undefined,
    target: { type: 'engine', id: engine },
  });
  const { key } = row;
  if (key === undefined) return refuse('noSuchKey');
  // SECURITY: whoever could put a key of his own here would be sent every secret of the engine.
  if (
    !engineKeySealHolds(
      keyring,
      { engine, kid: key.kid, jwk: key.jwk, revision: key.revision },
      key.seal,
    )
  )
    return refuse('sealBroken');
  return { kid: key.kid, jwk: key.jwk as unknown as PublicJwk };
}

/** Each reference granted or refused, in their order. */
export const decideAll = (
  found: readonly (FoundRow | undefined)[],
  question: Question,
  parts: RightsParts,
): (Granted | Refusal)[] => found.map(decider(question, parts));

/**
 * Decides one reference of a request after the other, in their order; what was verified for one
 * counts for the next.
 */
export function decider(
  question: Question,
  parts: RightsParts,
): (row: FoundRow | undefined, position: number) => Granted | Refusal {
  const seen = new Set<CredentialId>();
  const rightOf = rightsOver(parts);
  return (row, position) => {
    const refuse = refuserOf(row, position);
    if (row === undefined) return refuse('notFound', 'noSuchThing');
    return decide(row, position, question, {
      keyring: parts.keyring,
      rightOf,
      seen,
      refuse,
    });
  };
}

/**
 * What the engine may not know of: a refusal where that is so, else undefined. Needs nothing of a
 * credential's content.
 */
export function decideRights(
  found: readonly (FoundRow | undefined)[],
  caller: Caller,
  parts: RightsParts,
): (Refusal | undefined)[] {
  const rightOf = rightsOver(parts);
  return found.map((row, position) => {
    const refuse = refuserOf(row, position);
    if (row === undefined) return refuse('notFound', 'noSuchThing');
    const engine = engineRight(row, caller, rightOf);
    return engine.isHeld ? undefined : refuse('notFound', engine.reason);
  });
}

type Refuse = (rule: Rule, reason?: string) => Refusal;

const refuserOf =
  (row: FoundRow | undefined, position: number): Refuse =>
  (rule, reason = rule) => ({
    pointer: `/credentials/${position}`,
    rule,
    reason,
    team: row === undefined ? undefined : { id: row.team, slug: row.slug },
    target: { type: 'credential', id: row?.id ?? 'unknown' },
  });

type Right =
  | { readonly isHeld: true; readonly way: Way | undefined; readonly actsForItself: boolean }
  | { readonly isHeld: false; readonly reason: string };
/** Somebody's right to one credential: by membership or by a grant. */
type RightOf = (
  row: FoundRow,
  who: Person,
  held: { readonly rights: RightsRow; readonly grants: readonly GrantRow[] | null },
  action: TeamAction,
) => Right;

function rightsOver(parts: RightsParts): RightOf {
  const standings = new Map<string, Standing>();
  // One statement read all rows, so that those of one team carry the same rights: their seals are
  // verified once.
  const standing = (rights: RightsRow, team: TeamRef, who: Person): Standing => {
    const key = `${team.id} ${who.subject} ${who.isEngineOnly === true}`;
    const held = standings.get(key) ?? standingOf(rights, team, who, parts);
    standings.set(key, held);
    return held;
  };
  return (row, who, { rights, grants }, action) => {
    const owned = { team: row.team, slug: row.slug, credential: row.id };
    const member = standing(rights, { id: row.team, slug: row.slug }, who);
    if (member.role !== undefined && isAllowed(member.role, action))
      return { isHeld: true, way: undefined, actsForItself: member.actsForItself };
    // What was deleted is nobody's but its team's.
    const ways = row.state === 'deleted' ? noWays : waysOf(grants, owned, who, parts);
    const way = wayFor(ways, action);
    if (way !== undefined) return { isHeld: true, way, actsForItself: way.actsForItself };
    return { isHeld: false, reason: ways.isBroken ? 'sealBroken' : (member.refusal ?? 'role') };
  };
}

const engineRight = (row: FoundRow, caller: Caller, rightOf: RightOf): Right =>
  rightOf(row, caller, row, 'credential.lease');

/** What the audit log is told of a person's missing right. */
const behalfReasons: Readonly<Record<string, string>> = {
  sealBroken: 'sealBroken',
  role: 'onBehalfOfRole',
  unknownIssuer: 'unknownIssuer',
  issuerTeams: 'issuerTeams',
};

function decide(
  row: FoundRow,
  position: number,
  { caller, onBehalfOf, delivery, knownVersions, now }: Question,
  {
    keyring,
    rightOf,
    seen,
    refuse,
  }: { keyring: Keyring; rightOf: RightOf; seen: Set<CredentialId>; refuse: Refuse },
): Granted | Refusal {
  const engine = engineRight(row, caller, rightOf);
  if (!engine.isHeld) return refuse('notFound', engine.reason);
  const { content } = row;
  if (
    content === undefined ||
    !credentialSealHolds(keyring, { ...row, ...content, version: row.currentVersion }, row.seal)
  )
    return refuse('notFound', 'sealBroken');
  if (seen.has(row.id)) return refuse('duplicate');
  seen.add(row.id);

  const ways = engine.way === undefined ? [] : [engine.way];
  if (onBehalfOf === undefined) {
    if (!engine.actsForItself) return refuse('onBehalfOfRequired');
  } else {
    const { behalfSubject: subject } = row;
    if (subject === null) return refuse('onBehalfOfRefused', 'onBehalfOfUnknown');
    const behalf = rightOf(
      row,
      { subject, sub: onBehalfOf },
      { rights: row.behalfRights, grants: row.behalfGrants },
      'credential.use',
    );
    // SECURITY: the person's access counts, not only the engine's. Somebody unknown is refused like
    // somebody without the right.
    if (!behalf.isHeld)
      return refuse('onBehalfOfRefused', behalfReasons[behalf.reason] ?? 'onBehalfOfNotMember');
    if (behalf.way !== undefined) ways.push(behalf.way);
  }

  if (row.state !== 'enabled') return refuse(row.state);
  if (row.expiresAt !== null && row.expiresAt <= now) return refuse('expired');
  const { version } = row;
  if (version === undefined) return refuse('undecryptable', 'keyNotUsable');
  const { exposedTeam } = version;
  if (exposedTeam !== undefined && refusesExposed(keyring, exposedTeam))
    return refuse('exposed', exposedTeam.refuseExposedLeases ? 'exposed' : 'sealBroken');
  // Only the opening proves the policy; a bent one that says yes here does not open.
  const { delivery: allowed } = version.policy;
  if (!Array.isArray(allowed) || !allowed.includes(delivery)) return refuse('deliveryNotAllowed');
  // Access tokens come and go without a version: what the caller has may be over.
  return {
    row,
    version,
    ways,
    isKnown:
      knownVersions[position] === row.currentVersion && findType(row.type)?.oauth === undefined,
  };
}
