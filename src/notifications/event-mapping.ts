// From events of the audit log to what is told outside: the one table, and what each message says.
import { sql } from 'kysely';
import type { Keyring } from '../crypto/index.ts';
import type { Executor } from '../db/client.ts';
import { countOf } from '../db/counts.ts';
import type { JsonObject } from '../shared/json.ts';
import type { EventType, Notice } from './types.ts';
import { rotationFailureCountSql } from '../keys/sql.ts';
import type { EventInput } from '../audit/index.ts';
import {
  verifyCredentialRowMac,
  type CredentialMacFields,
  shownType,
} from '../credentials/index.ts';
import { rowMacColumns } from '../credentials/sql.ts';
import { unknownMember } from '../shared/closed-sets.ts';

type MappedEvent = Omit<Notice, 'type' | 'data'> & {
  readonly type: EventType;
  readonly reason: string | undefined;
};

/**
 * What an event means for somebody outside; undefined for nothing. Asked for every event: it looks
 * at names alone.
 */
export function noticeOf(
  { action, decision, reason, team, target }: EventInput,
  at: Date,
): MappedEvent | undefined {
  const type = typeOf(action, decision, reason);
  return type === undefined || team === undefined
    ? undefined
    : { team, type, subject: target, dueAt: at, reason };
}

function typeOf(
  action: string,
  decision: EventInput['decision'],
  reason: string | undefined,
): EventType | undefined {
  switch (action) {
    case 'key.rotationEnd':
    case 'key.rotationCancel':
      return 'key.rotationEnded';
    case 'key.markCompromised':
      return 'credential.exposed';
    // A provider that cannot be reached is asked again by itself: that is no end.
    case 'oauth.refresh':
      return decision === 'deny' && reason !== 'unavailable'
        ? 'credential.refreshFailed'
        : undefined;
    case 'oauth.rejected':
      return 'credential.refreshFailed';
    default:
      return undefined;
  }
}

/**
 * The notice with its data, read where it happened; undefined where it happened to a thing of
 * another team's, or to a credential that the vault did not write as it is.
 */
export async function describe(
  executor: Executor,
  keyring: Keyring,
  mapped: MappedEvent,
): Promise<Notice | undefined> {
  const { reason, ...notice } = mapped;
  const data = await dataOf(executor, keyring, mapped, reason);
  return data === undefined ? undefined : { ...notice, data };
}

async function dataOf(
  executor: Executor,
  keyring: Keyring,
  { type, subject, team }: MappedEvent,
  reason: string | undefined,
): Promise<JsonObject | undefined> {
  switch (type) {
    case 'key.rotationEnded': {
      const {
        rows: [row],
      } = await sql<{ state: string; toKey: string; total: number; done: number; failed: number }>`
        select rotation.state, rotation.to_key_id as "toKey", ${countOf('rotation.total')} as total,
          ${countOf('rotation.done')} as done, ${rotationFailureCountSql} as failed
        from key_rotation rotation where rotation.team_id = ${team.id}
          and rotation.id = ${subject.id}`.execute(executor);
      if (row === undefined || row.total < 0 || row.done < 0) return undefined;
      return { rotation: { id: subject.id, ...row } };
    }
    case 'credential.exposed': {
      const {
        rows: [row],
      } = await sql<{
        version: number;
      }>`select version from data_key where team_id = ${team.id} and id = ${subject.id}`.execute(
        executor,
      );
      return row && { key: { id: subject.id, ...row } };
    }
    case 'credential.expiring':
    case 'credential.expired':
    case 'credential.rotationDue':
    case 'credential.refreshFailed':
    case 'key.overdue':
    case 'row.sealBroken': {
      const {
        rows: [row],
      } = await sql<CredentialMacFields & { seal: Buffer }>`
        select ${rowMacColumns} from credential
        join credential_version current on current.team_id = credential.team_id
          and current.credential_id = credential.id and current.version = credential.current_version
        where credential.team_id = ${team.id} and credential.id = ${subject.id}`.execute(executor);
      // SECURITY: the message is protected as the vault's own word, so what is in it is that.
      if (row === undefined || !verifyCredentialRowMac(keyring, row, row.seal)) return undefined;
      return {
        credential: { id: subject.id, name: row.name, type: shownType(row.type) },
        ...(reason === undefined ? {} : { reason }),
      };
    }
  }
  throw unknownMember(type satisfies never);
}
