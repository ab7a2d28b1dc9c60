// What lists can be narrowed to. Each condition says which orders' indexes answer it by themselves;
// what is left over is asked of the rows that are walked, unless what it lets through is little and
// an index finds that.
import { isDeclaredName } from '../declared/names.ts';
import { type RawBuilder, sql } from 'kysely';
import { unseen } from '../../db/statement.ts';
import { mayBeExposed, type ProblemName, problemCondition } from '../health.ts';
import type { SortName } from './sorts.ts';
import { unknownMember } from '../../shared/closed-sets.ts';

export interface CredentialFilters {
  readonly type?: string | undefined;
  /** Each as `key:value`. */
  readonly labels: readonly string[];
  readonly namePrefix?: string | undefined;
  readonly problem?: ProblemName | undefined;
  readonly expiresBefore?: Date | undefined;
  readonly dueBefore?: Date | undefined;
  readonly unusedSince?: Date | undefined;
  readonly updatedSince?: Date | undefined;
  readonly isDeleted: boolean;
}

/** What a condition looks at besides what a walk has at hand. */
export type Beside = 'current' | 'usage' | 'labels' | 'fields';

export interface Condition {
  readonly sql: RawBuilder<unknown>;
  /** The orders in whose index it is a range or a whole part. */
  readonly servedBy: readonly SortName[];
  readonly beside?: Beside;
  /** Asked of each `team.id` first: where it does not hold, the condition holds for nothing. */
  readonly ofTeam?: RawBuilder<unknown>;
  /**
   * The ids of the living credentials of `team.id` for which it may hold, by an index of its own.
   */
  readonly few?: RawBuilder<unknown>;
}

const living = sql`credential.state <> 'deleted'`;
const livingWhere = (condition: RawBuilder<unknown>): RawBuilder<unknown> =>
  sql`select credential.id from credential where credential.team_id = team.id and ${living}
    and ${condition}`;

/** The conditions of the filters, those first that are likely to let through the least. */
export function conditionsOf(
  {
    type,
    labels,
    namePrefix,
    problem,
    expiresBefore,
    dueBefore,
    unusedSince,
    updatedSince,
  }: CredentialFilters,
  now: Date,
): Condition[] {
  const time = (at: Date): RawBuilder<unknown> => unseen(at, 'timestamptz');
  const conditions: Condition[] = [];
  const add = (
    condition: RawBuilder<unknown>,
    servedBy: readonly SortName[],
    more: Pick<Condition, 'beside' | 'few'> = {},
  ): void => {
    conditions.push({ sql: condition, servedBy, ...more });
  };
  const onCredential = (condition: RawBuilder<unknown>, servedBy: readonly SortName[]): void => {
    add(condition, servedBy, { few: livingWhere(condition) });
  };
  if (problem !== undefined) conditions.push(ofProblem(problem, time(now)));
  if (dueBefore !== undefined) onCredential(sql`credential.due_at < ${time(dueBefore)}`, ['dueAt']);
  if (expiresBefore !== undefined)
    onCredential(sql`credential.expires_at < ${time(expiresBefore)}`, ['expiresAt']);
  if (unusedSince !== undefined) {
    const isIdle = sql`usage.idle_since < ${time(unusedSince)}`;
    add(isIdle, ['lastUsedAt'], {
      beside: 'usage',
      few: sql`select usage.credential_id as id from credential_usage usage
        where usage.team_id = team.id and ${isIdle}`,
    });
  }
  if (namePrefix !== undefined) {
    // A range and not a pattern: the index on names serves it, and no character of the prefix means
    // anything.
    const end = afterPrefix(namePrefix);
    onCredential(
      sql`credential.name collate
        "C" >= ${unseen(namePrefix, 'text')}${
          end === undefined
            ? sql``
            : sql`
        and credential.name collate "C" < ${unseen(end, 'text')}`
        }`,
      ['name'],
    );
  }
  if (updatedSince !== undefined)
    onCredential(sql`credential.updated_at >= ${time(updatedSince)}`, ['updatedAt']);
  if (type !== undefined)
    add(
      isDeclaredName(type)
        ? sql`split_part(credential.type, '#', 1) = ${unseen(type, 'text')}`
        : sql`credential.type = ${unseen(type, 'text')}`,
      [],
    );
  for (const label of labels) {
    const colon = label.indexOf(':');
    const wanted = JSON.stringify({ [label.slice(0, colon)]: label.slice(colon + 1) });
    const bits = sql`(select label_bits(${wanted}::jsonb))`;
    // The bits stand in the indexes: only of what they let through are the labels read.
    add(
      sql`credential.label_bits & ${bits} = ${bits}
        and labelled.labels @> ${unseen(wanted, 'jsonb')}`,
      [],
      { beside: 'labels' },
    );
  }
  return conditions;
}

function ofProblem(problem: ProblemName, now: RawBuilder<unknown>): Condition {
  const condition = problemCondition(problem, now);
  switch (problem) {
    case 'disabled':
      return { sql: condition, servedBy: ['name'], few: livingWhere(condition) };
    case 'expired':
    case 'expiring':
      return { sql: condition, servedBy: ['expiresAt'], few: livingWhere(condition) };
    case 'undecryptable':
      return {
        sql: condition,
        servedBy: [],
        beside: 'current',
        few: sql`select version.credential_id as id from credential_version version
          where version.team_id = team.id and version.undecryptable_at is not null`,
      };
    case 'refreshFailed':
      return {
        sql: condition,
        servedBy: [],
        few: sql`select held.credential_id as id from oauth_token held where held.team_id = team.id
          and (held.failure is not null or not held.is_refreshable)`,
      };
    case 'rejectedByUpstream':
      return {
        sql: condition,
        servedBy: [],
        few: sql`select held.credential_id as id from oauth_token held where held.team_id = team.id
          and held.rejected_at is not null`,
      };
    case 'notConnected':
      return { sql: condition, servedBy: [], beside: 'fields' };
    // It changes with an upgrade, so no column says it.
    case 'providerOutdated':
      return { sql: condition, servedBy: [], beside: 'fields' };
    // What was ever under a key has no index: rotations would pay for it at each row.
    case 'exposed':
      return {
        sql: condition,
        servedBy: [],
        beside: 'current',
        ofTeam: mayBeExposed(sql`team.id`),
      };
  }
  throw unknownMember(problem satisfies never);
}

/**
 * The least text, by code point, that is beyond every text with this prefix; undefined when there
 * is none.
 */
export function afterPrefix(prefix: string): string | undefined {
  const points = Array.from(prefix, (character) => character.codePointAt(0) ?? 0);
  for (let last = points.pop(); last !== undefined; last = points.pop()) {
    if (last === 0x10ffff) continue;
    // no text in UTF-8 has a surrogate
    return String.fromCodePoint(...points, last === 0xd7ff ? 0xe000 : last + 1);
  }
  return undefined;
}
