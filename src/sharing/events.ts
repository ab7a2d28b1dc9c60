// What sharing says in the audit logs: the same in the one of the owner and in the one of the other
// team, each with the name of the other.
import type { GrantAccess, GranteeKind } from '../db/tables.ts';
import type { DataKeyId, SubjectId, TeamId } from '../shared/ids.ts';
import type { JsonObject } from '../shared/json.ts';
import type { TransferMacFields } from './transfer-row-mac.ts';
import type { Caller, TeamRef } from '../access/index.ts';
import { credentialTarget, type EventInput } from '../audit/index.ts';

/** An event about a grant; of one to a subject only in the audit log of the owner. */
export function eventsOfGrant(
  event: EventInput & { readonly team: TeamRef },
  { kind, grantee, name }: { kind: GranteeKind; grantee: TeamId | SubjectId; name: string },
): EventInput[] {
  const { team: owner, details } = event;
  if (kind !== 'team') return [{ ...event, details: { ...details, kind, grantee } }];
  return [
    { ...event, details: { ...details, kind, sharedWith: name } },
    {
      ...event,
      team: { id: grantee as TeamId, slug: name },
      details: { ...details, kind, owner: owner.slug },
    },
  ];
}

/**
 * The end of a grant, in both logs. SECURITY: of a tampered one nothing stands in another team's
 * log: what its row says is somebody else's word.
 */
export function eventsOfEnd(
  event: EventInput & { readonly team: TeamRef },
  grant: Parameters<typeof eventsOfGrant>[1] & { readonly access: GrantAccess },
  isIntact: boolean,
): EventInput[] {
  const { details } = event;
  return isIntact
    ? eventsOfGrant({ ...event, details: { ...details, accessBefore: grant.access } }, grant)
    : [{ ...event, details: { ...details, wasTampered: true } }];
}

/** An event about an offer. The key is the new team's affair. */
export function eventsOfTransfer(
  caller: Caller,
  { id, team, slug, credential, to, toSlug }: TransferMacFields,
  {
    action,
    key,
    credentialVersion,
    details = {},
  }: { action: string; key?: DataKeyId; credentialVersion?: number; details?: JsonObject },
): EventInput[] {
  const event = {
    caller,
    action,
    target: credentialTarget(credential),
    ...(credentialVersion === undefined ? {} : { credentialVersion }),
    details: { transfer: id, from: slug, to: toSlug, ...details },
  };
  return [
    { ...event, team: { id: team, slug } },
    { ...event, team: { id: to, slug: toSlug }, ...(key === undefined ? {} : { key }) },
  ];
}
