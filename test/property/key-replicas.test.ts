// Laws of keys under three replicas that do anything at any time, one of them late to learn which
// key is active. Commands are random; how they interleave is up to the database, so a seed repeats
// the commands and not their timing.
import fc from 'fast-check';
import { sql } from 'kysely';
import t from 'tap';
import { ClockDiffers } from '../../src/db/clock.ts';
import { isCheckViolation } from '../../src/db/errors.ts';
import { AppError } from '../../src/shared/errors.ts';
import { newId } from '../../src/shared/ids.ts';
import type { JsonObject } from '../../src/shared/json.ts';
import type { MovedTime } from '../helpers/clock.ts';
import { type Replica, replicaOf } from '../helpers/replicas.ts';
import { openVersions } from '../helpers/stored.ts';
import { makeTeam, noClaim, type TeamOfTest, tokenVault } from '../helpers/tokens.ts';
import type { CredentialRow } from '../../src/credentials/rows.ts';

const dayMs = 86_400_000;
const travelMsMax = 60 * dayMs;
/** What a replica may answer to a change of keys: everything else is a fault. */
const refusals: ReadonlySet<string> = new Set([
  'rotationRunning',
  'rotationNotRunning',
  'keyBusy',
  'keyInUse',
  'keyStateConflict',
  'stateConflict',
]);

const kinds = [
  'create',
  'create',
  'create',
  'patch',
  'patch',
  'delete',
  'rotate',
  'rotate',
  'cancel',
  'retire',
  'retire',
  'restore',
  'scheduleDestroy',
  'scheduleDestroy',
  'scheduleDestroy',
  'cancelDestroy',
  'cancelDestroy',
  'destroyDue',
  'destroyDue',
  'markCompromised',
  'lookForDue',
  'step',
  'step',
  'step',
  'step',
] as const;
const command = fc.record({ kind: fc.constantFrom(...kinds), pick: fc.nat(1000) });
type Command = { readonly kind: (typeof kinds)[number]; readonly pick: number };
const script = fc.array(command, { minLength: 5, maxLength: 25 });

const startOf: Partial<Record<Command['kind'], string>> = {
  retire: 'decryptOnly',
  restore: 'retired',
  scheduleDestroy: 'retired',
  cancelDestroy: 'destroyPending',
};

/** A credential with the value that was last acknowledged. */
interface Owned {
  row: CredentialRow;
  value: string;
  isDeleted: boolean;
}

async function act(
  replica: Replica,
  of: TeamOfTest,
  clock: MovedTime,
  owned: Owned[],
  { kind, pick }: Command,
): Promise<void> {
  const { credentials, keys, life, scheduler } = replica;
  const anyOf = <T>(list: readonly T[]): T | undefined => list[pick % Math.max(1, list.length)];
  const living = anyOf(owned.filter(({ isDeleted }) => !isDeleted));
  const value = newId();
  if (kind === 'create') {
    const row = await credentials.createCredential(
      of.admin,
      { ...of.team, defaultDelivery: ['lease'], intact: true },
      { name: value, type: 'custom', fields: { first: value, kept: 'kept' } },
      noClaim,
    );
    owned.push({ row, value, isDeleted: false });
  } else if (kind === 'patch') {
    if (living === undefined) return;
    living.row = await credentials.updateCredential(
      of.admin,
      living.row,
      'admin',
      { fields: { first: value } },
      'any',
    );
    living.value = value;
  } else if (kind === 'delete') {
    if (living === undefined || pick % 3 > 0) return;
    await credentials.deleteCredential(of.admin, living.row, 'any');
    living.isDeleted = true;
  } else if (kind === 'rotate') await keys.startRotation(of.admin, of.team, noClaim);
  else if (kind === 'step') await replica.step(of.team.id, 1 + (pick % 10));
  else if (kind === 'lookForDue') await scheduler.run();
  else if (kind === 'destroyDue') {
    clock.ms = Math.min(clock.ms + 8 * dayMs, travelMsMax);
    await life.destroyDue();
  } else if (kind === 'cancel') {
    const running = (await keys.listRotations(of.team, { limit: 1, after: undefined })).find(
      ({ state }) => state === 'running',
    );
    if (running !== undefined) await keys.cancelRotation(of.admin, of.team, running.id);
  } else {
    // Mostly a key to which it may be done, by what was read a moment before.
    const all = await keys.listKeys(of.team, { limit: 100, after: undefined });
    const key = anyOf(
      pick % 5 === 0 ? all : all.filter(({ state }) => (startOf[kind] ?? state) === state),
    );
    if (key === undefined) return;
    if (kind === 'retire') await life.retireKey(of.admin, of.team, key.id);
    else if (kind === 'restore') await life.restoreKey(of.admin, of.team, key.id);
    else if (kind === 'scheduleDestroy') await life.scheduleDestroy(of.admin, of.team, key.id, 7);
    else if (kind === 'cancelDestroy') await life.cancelDestroy(of.admin, of.team, key.id);
    else await life.markCompromised(of.admin, of.team, key.id, 'a test');
  }
}

async function run(
  replica: Replica,
  of: TeamOfTest,
  clock: MovedTime,
  commands: readonly Command[],
): Promise<Owned[]> {
  const owned: Owned[] = [];
  for (const each of commands) {
    try {
      await act(replica, of, clock, owned, each);
    } catch (error) {
      const isStaleCreate =
        each.kind === 'create' && isCheckViolation(error, 'token_needs_active_key');
      // The time was moved by another while a replica looked at it.
      if (error instanceof ClockDiffers) continue;
      if (!isStaleCreate && !(error instanceof AppError && refusals.has(error.code))) throw error;
    }
  }
  return owned;
}

t.test(
  'whatever three replicas do at once, no law of keys is broken',
  { timeout: 170_000 },
  async (t) => {
    const vault = await tokenVault(t);
    const { db } = vault;
    await sql`create table past_key (at bigint generated always as identity, team uuid, id uuid, before text, after text, was_marked boolean, is_marked boolean, fingerprint text)`.execute(
      db,
    );
    await sql`create function note_key() returns trigger language plpgsql as $$ begin
    insert into past_key (team, id, before, after, was_marked, is_marked, fingerprint)
    values (new.team_id, new.id, case when tg_op = 'UPDATE' then old.state end, new.state, tg_op = 'UPDATE' and old.compromised_at is not null, new.compromised_at is not null, new.fingerprint);
    return new; end $$`.execute(db);
    await sql`create trigger note_key after insert or update on data_key for each row execute function note_key()`.execute(
      db,
    );
    await sql`create table past_token (at bigint generated always as identity, team uuid, credential uuid, version int, key uuid, history uuid[])`.execute(
      db,
    );
    await sql`create function note_token() returns trigger language plpgsql as $$ begin
    insert into past_token (team, credential, version, key, history) values (new.team_id, new.credential_id, new.version, new.data_key_id, new.key_history); return new; end $$`.execute(
      db,
    );
    await sql`create trigger note_token after insert or update on credential_version for each row execute function note_token()`.execute(
      db,
    );
    const clock = vault.time;
    const replicas = [
      await replicaOf(t, vault),
      await replicaOf(t, vault),
      await replicaOf(t, vault, { isStale: true }),
    ];
    const seen = new Map<string, number>();

    await fc.assert(
      fc.asyncProperty(fc.tuple(script, script, script), async (scripts) => {
        const of = await makeTeam(vault, newId());
        clock.ms = 0;
        const ended = await Promise.allSettled(
          replicas.map((replica, index) => run(replica, of, clock, scripts[index] ?? [])),
        );
        const owned = ended.flatMap((each) => {
          if (each.status === 'rejected') throw each.reason;
          return each.value;
        });
        while (await replicas[0]!.step(of.team.id, 50)) {
          /* until no rotation runs */
        }
        await judge(of, owned);
      }),
      { numRuns: Number(process.env['VAULT_TEST_RUNS'] ?? 30), endOnFailure: true },
    );
    t.comment(`transitions: ${[...seen].map(([what, times]) => `${what} ${times}`).join(', ')}`);
    for (const what of [
      'active→decryptOnly',
      'decryptOnly→retired',
      'retired→destroyPending',
      'marked',
      'completed',
      'cancelled',
    ]) {
      t.ok((seen.get(what) ?? 0) > 0, `${what} was among what happened`);
    }

    async function judge({ team }: TeamOfTest, owned: readonly Owned[]): Promise<void> {
      const none = async (law: string, rows: Promise<{ rows: unknown[] }>): Promise<void> => {
        const found = (await rows).rows;
        if (found.length > 0) throw new Error(`${law}: ${JSON.stringify(found.slice(0, 3))}`);
      };
      await none(
        'a team has exactly one active key',
        sql`select count(*) from data_key where team_id = ${team.id} and state = 'active' having count(*) <> 1`.execute(
          db,
        ),
      );
      await none(
        'no token lies under a key that has left',
        sql`
      select 1 from credential_version held join data_key key on key.id = held.data_key_id where held.team_id = ${team.id} and key.state not in ('active', 'decryptOnly')`.execute(
          db,
        ),
      );
      await none(
        "a token's keys are all in its list",
        sql`
      select 1 from credential_version held join past_token past on past.credential = held.credential_id and past.version = held.version
      where held.team_id = ${team.id} and not (past.key = any (held.key_history))`.execute(db),
      );
      await none(
        'the list only grows',
        sql`
      select 1 from past_token before join past_token after on after.credential = before.credential and after.version = before.version and after.at > before.at
      where before.team = ${team.id} and after.history[1:cardinality(before.history)] is distinct from before.history`.execute(
          db,
        ),
      );
      await none(
        'a version that keeps a value takes its list along',
        sql`
      select 1 from credential_version held join credential_version before on before.credential_id = held.credential_id and before.version = held.version - 1
      join lateral (select past.history from past_token past where past.credential = before.credential_id and past.version = before.version
        and past.at < (select min(at) from past_token mine where mine.credential = held.credential_id and mine.version = held.version) order by past.at desc limit 1) then_ on true
      where held.team_id = ${team.id} and not (then_.history <@ held.key_history)`.execute(db),
      );
      await none(
        'a destroyed key stays, without material and with its fingerprint',
        sql`
      select 1 from past_key past left join data_key key on key.id = past.id
      where past.team = ${team.id} and (key.id is null or key.fingerprint <> past.fingerprint
        or (past.after = 'destroyed' and (key.state <> 'destroyed' or key.wrapped is not null)) or (past.is_marked and key.compromised_at is null))`.execute(
          db,
        ),
      );
      await judgeEvents(team.id);
      for (const { row, value, isDeleted } of owned) {
        const versions = await openVersions(vault, row.id);
        if (
          versions.at(-1)?.fields['first'] !== value ||
          versions.at(-1)?.fields['kept'] !== 'kept'
        )
          throw new Error('an acknowledged value is not the one that opens');
        const { state, current_version: version } = await db
          .selectFrom('credential')
          .select(['state', 'current_version'])
          .where('id', '=', row.id)
          .executeTakeFirstOrThrow();
        if (version !== versions.length || isDeleted !== (state === 'deleted'))
          throw new Error('an acknowledged change is lost, or something deleted came back');
      }
    }

    /** Every transition has its event, and every event its transition. */
    async function judgeEvents(team: TeamOfTest['team']['id']): Promise<void> {
      const events = new Map(
        (
          await sql<{
            action: string;
            n: number;
          }>`select action, count(*) as n from audit_event where team_id = ${team} group by 1`.execute(
            db,
          )
        ).rows.map(({ action, n }) => [action, n]),
      );
      const { rows } = await sql<{ what: string; n: number }>`
      select case when before is null then 'made' else before || '→' || after end as what, count(*) as n from past_key where team = ${team} and before is distinct from after group by 1
      union all select 'marked', count(*) from past_key where team = ${team} and is_marked and not was_marked
      union all select state, count(*) from key_rotation where team_id = ${team} group by 1`.execute(
        db,
      );
      const happened = new Map(rows.map(({ what, n }) => [what, n]));
      for (const [what, n] of happened) seen.set(what, (seen.get(what) ?? 0) + n);
      const count = (...of: string[]): number =>
        of.reduce((sum, what) => sum + (happened.get(what) ?? 0), 0);
      const expected: Record<string, number> = {
        'key.rotate': count('active→decryptOnly'),
        'key.retire': count('decryptOnly→retired'),
        'key.restore': count('retired→decryptOnly'),
        'key.scheduleDestroy': count('retired→destroyPending'),
        'key.cancelDestroy': count('destroyPending→retired'),
        'key.destroy': count('destroyPending→destroyed'),
        'key.markCompromised': count('marked'),
        'key.rotationEnd': count('completed', 'completedWithFailures'),
        'key.rotationCancel': count('cancelled'),
      };
      const told: JsonObject = Object.fromEntries(
        Object.keys(expected).map((action) => [action, events.get(action) ?? 0]),
      );
      if (JSON.stringify(told) !== JSON.stringify(expected))
        throw new Error(`events ${JSON.stringify(told)}, transitions ${JSON.stringify(expected)}`);
      if (count('made') !== count('active→decryptOnly') + 1)
        throw new Error('a key was made without a rotation');
    }
  },
);
