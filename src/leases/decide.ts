// May this engine use this credential in this way, now, for this person? Pure: rows in, the answer
// out. What the caller may not know of is `notFound`, whatever else is the matter with it.
import type { Keyring } from '../crypto/index.ts';
import type { Delivery } from '../db/tables.ts';
import type { CredentialId, EngineId } from '../shared/ids.ts';
import type { FoundRow, RecipientRow, LeasedVersionRow } from './types.ts';
import {
  type Caller,
  verifyEngineRowMac,
  type GrantRow,
  isAllowed,
  noGrantPaths,
  refusesExposed,
  type RightsRow,
  type EffectiveRole,
  effectiveRoleOf,
  type TeamAction,
  type TeamRef,
  type GrantPath,
  grantPathFor,
  grantPathsOf,
  type Person,
  type RightsParts,
} from '../access/index.ts';
import { verifyCredentialRowMac, findType } from '../credentials/index.ts';
import { verifyEngineKeyRowMac, type PublicJwk } from '../engines/index.ts';

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

/** A refusal, with the details for the audit log only. */
export interface LeaseRefusal {
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
  readonly version: LeasedVersionRow;
  readonly isKnown: boolean;
  /** By which grants, the engine's and the person's; none where both are members with the right. */
  readonly grantPaths: readonly GrantPath[];
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
  /** The caller asks for one credential several times, and looks for repetitions itself. */
  readonly mayRepeat?: true;
  /** By position. */
  readonly knownVersions: readonly (number | undefined)[];
  readonly now: Date;
}

/** The engine behind the caller, if it is one whose registration holds; else why not. */
export function decideEngine(
  row: RecipientRow,
  caller: Caller,
  keyring: Keyring,
): { readonly id: EngineId; readonly revision: number } | { readonly refusal: string } {
  const { engine } = row;
  if (engine === undefined) return { refusal: 'notAnEngine' };
  // SECURITY: only the vault's own word makes an engine of a subject.
  if (
    !verifyEngineRowMac(
      keyring,
      { ...engine, subject: caller.subject, sub: caller.sub },
      engine.seal,
    )
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
): { readonly kid: string; readonly jwk: PublicJwk } | LeaseRefusal {
  const refuse = (reason: string): LeaseRefusal => ({
    pointer: '/keyId',
    rule: 'notFound',
    reason,
    team: undefined,
    target: { type: 'engine', id: engine },
  });
  const { key } = row;
  if (key === undefined) return refuse('noSuchKey');
  // SECURITY: an attacker who could put a key of their own here would get every secret of the
  // engine.
  if (
    !verifyEngineKeyRowMac(
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
): (Granted | LeaseRefusal)[] => found.map(decider(question, parts));

/**
 * Decides one reference of a request after the other, in their order; what was verified for one
 * counts for the next.
 */
export function decider(
  question: Question,
  parts: RightsParts,
): (row: FoundRow | undefined, position: number) => Granted | LeaseRefusal {
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
): (LeaseRefusal | undefined)[] {
  const rightOf = rightsOver(parts);
  return found.map((row, position) => {
    const refuse = refuserOf(row, position);
    if (row === undefined) return refuse('notFound', 'noSuchThing');
    const engine = engineRight(row, caller, rightOf);
    return engine.isGranted ? undefined : refuse('notFound', engine.reason);
  });
}

type Refuse = (rule: Rule, reason?: string) => LeaseRefusal;

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
  | {
      readonly isGranted: true;
      readonly grantPath: GrantPath | undefined;
      readonly actsForItself: boolean;
    }
  | { readonly isGranted: false; readonly reason: string };
/** Somebody's right to one credential: by membership or by a grant. */
type RightOf = (
  row: FoundRow,
  who: Person,
  held: { readonly rights: RightsRow; readonly grants: readonly GrantRow[] | null },
  action: TeamAction,
) => Right;

function rightsOver(parts: RightsParts): RightOf {
  const effectiveRoles = new Map<string, EffectiveRole>();
  // One statement read all rows, so that those of one team carry the same rights: their row MACs
  // are verified once.
  const effectiveRole = (rights: RightsRow, team: TeamRef, who: Person): EffectiveRole => {
    const key = `${team.id} ${who.subject} ${who.isEngineOnly === true}`;
    const held = effectiveRoles.get(key) ?? effectiveRoleOf(rights, team, who, parts);
    effectiveRoles.set(key, held);
    return held;
  };
  return (row, who, { rights, grants }, action) => {
    const owned = { team: row.team, slug: row.slug, credential: row.id };
    const member = effectiveRole(rights, { id: row.team, slug: row.slug }, who);
    if (member.role !== undefined && isAllowed(member.role, action))
      return { isGranted: true, grantPath: undefined, actsForItself: member.actsForItself };
    // A deleted credential exists for its team only.
    const grantPaths =
      row.state === 'deleted' ? noGrantPaths : grantPathsOf(grants, owned, who, parts);
    const grantPath = grantPathFor(grantPaths, action);
    if (grantPath !== undefined)
      return { isGranted: true, grantPath, actsForItself: grantPath.actsForItself };
    return {
      isGranted: false,
      reason: grantPaths.isBroken ? 'sealBroken' : (member.refusal ?? 'role'),
    };
  };
}

const engineRight = (row: FoundRow, caller: Caller, rightOf: RightOf): Right =>
  rightOf(row, caller, row, 'credential.lease');

/** What the audit log records of a person's missing right. */
const behalfReasons: Readonly<Record<string, string>> = {
  sealBroken: 'sealBroken',
  role: 'onBehalfOfRole',
  unknownIssuer: 'unknownIssuer',
  issuerTeams: 'issuerTeams',
};

function decide(
  row: FoundRow,
  position: number,
  { caller, onBehalfOf, delivery, knownVersions, now, mayRepeat }: Question,
  {
    keyring,
    rightOf,
    seen,
    refuse,
  }: { keyring: Keyring; rightOf: RightOf; seen: Set<CredentialId>; refuse: Refuse },
): Granted | LeaseRefusal {
  const engine = engineRight(row, caller, rightOf);
  if (!engine.isGranted) return refuse('notFound', engine.reason);
  const { content } = row;
  if (
    content === undefined ||
    !verifyCredentialRowMac(keyring, { ...row, ...content, version: row.currentVersion }, row.seal)
  )
    return refuse('notFound', 'sealBroken');
  if (mayRepeat !== true && seen.has(row.id)) return refuse('duplicate');
  seen.add(row.id);

  const grantPaths = engine.grantPath === undefined ? [] : [engine.grantPath];
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
    if (!behalf.isGranted)
      return refuse('onBehalfOfRefused', behalfReasons[behalf.reason] ?? 'onBehalfOfNotMember');
    if (behalf.grantPath !== undefined) grantPaths.push(behalf.grantPath);
  }

  if (row.state !== 'enabled') return refuse(row.state);
  if (row.expiresAt !== null && row.expiresAt <= now) return refuse('expired');
  const { version } = row;
  if (version === undefined) return refuse('undecryptable', 'keyNotUsable');
  const { exposedTeam } = version;
  if (exposedTeam !== undefined && refusesExposed(keyring, exposedTeam))
    return refuse('exposed', exposedTeam.refuseExposedLeases ? 'exposed' : 'sealBroken');
  // Only the opening proves the policy; a tampered one that says yes here does not open.
  const { delivery: allowed } = version.policy;
  if (!Array.isArray(allowed) || !allowed.includes(delivery)) return refuse('deliveryNotAllowed');
  // Access tokens come and go without a version: what the caller has may be over.
  return {
    row,
    version,
    grantPaths,
    isKnown:
      knownVersions[position] === row.currentVersion && findType(row.type)?.oauth === undefined,
  };
}
