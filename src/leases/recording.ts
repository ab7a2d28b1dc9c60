// What a lease rests on and what stands in the audit log of it.
import type { SecretFields } from '../crypto/index.ts';
import type { GrantId, LeaseId } from '../shared/ids.ts';
import type { Granted, Recipient } from './decide.ts';
import type { ExpectedLease } from './snapshots.ts';
import type { Basis } from './repository.ts';
import type { Caller, OnBehalfOf } from '../access/index.ts';
import { credentialTarget, type EventInput, eventsThrough } from '../audit/index.ts';

type Opened = Granted & { readonly secrets: SecretFields | undefined };

export const leaseAction = 'credential.lease';

/** What of a request for a lease stands in the audit log. */
export interface LeaseOrder {
  readonly id: LeaseId;
  readonly caller: Caller;
  readonly input: {
    readonly references: readonly { readonly knownVersion?: number | undefined }[];
    readonly purpose: string;
    readonly runId: string | undefined;
    readonly onBehalfOf: OnBehalfOf | undefined;
    readonly ttlSeconds: number;
  };
}

/** Every row that was decided on, at its revision: what recording rests on. */
export function basisOf(
  caller: Caller,
  { id, revision, kid }: Pick<Recipient, 'id' | 'revision' | 'kid'>,
  opened: readonly Opened[],
): Basis {
  const members = new Map<string, Basis['members'][number]>();
  for (const { row } of opened) {
    const held = [
      [caller.subject, row.rights.member_revision],
      [row.behalfSubject, row.behalfRights.member_revision],
    ] as const;
    for (const [subject, memberRevision] of held) {
      if (subject !== null && memberRevision !== null)
        members.set(`${row.team} ${subject}`, {
          team: row.team,
          subject,
          revision: memberRevision,
        });
    }
  }
  const grants = new Map<GrantId, Basis['grants'][number]>();
  for (const { grant, revision, team, subject } of opened.flatMap(({ grantPaths }) => grantPaths)) {
    grants.set(grant, { id: grant, revision });
    if (team !== undefined)
      members.set(`${team.id} ${subject}`, {
        team: team.id,
        subject,
        revision: team.memberRevision,
      });
  }
  return {
    engine: { id, revision, kid },
    members: [...members.values()],
    grants: [...grants.values()],
    credentials: opened.map(({ row, version, secrets }) => ({
      id: row.id,
      revision: row.revision,
      version: row.currentVersion,
      dataKey: version.key.id,
      isMarked: version.isMarked && secrets !== undefined,
    })),
  };
}

/**
 * One event for each credential in the audit log of its owner, and the same in those of the teams
 * by whose grants it was leased.
 */
export function eventsOf(
  { id, caller, input }: LeaseOrder,
  { recipient, leased }: Pick<ExpectedLease, 'recipient' | 'leased'>,
): EventInput[] {
  return leased.flatMap((each, position) =>
    eventsThrough(
      {
        caller,
        team: { id: each.team, slug: each.slug },
        action: leaseAction,
        target: credentialTarget(each.id),
        key: each.dataKey,
        credentialVersion: each.version,
        details: {
          lease: id,
          engine: recipient.id,
          kid: recipient.kid,
          purpose: input.purpose,
          ...(input.runId === undefined ? {} : { runId: input.runId }),
          ...(each.behalfSubject === null
            ? {}
            : { onBehalfOf: each.behalfSubject, isProven: input.onBehalfOf?.isProven === true }),
          isNotModified: input.references[position]?.knownVersion === each.version,
          ttlSeconds: input.ttlSeconds,
        },
      },
      each.grantPaths,
    ),
  );
}
