// Whose subjects begin with which prefix, as it was when a vault last started: whoever is put
// behind a prefix gets every right of the subjects that begin with it.
import { sql } from 'kysely';
import type { Db, Executor } from './client.ts';
import { ShownError } from '../shared/shown-error.ts';

/** A prefix of subjects, and the issuer whose they are. */
export interface SubjectPrefix {
  readonly prefix: string;
  readonly issuer: string;
}

/** Rights would go to subjects of another issuer, or to nobody. Names prefixes and no subject. */
export class SubjectsWouldMove extends ShownError {
  constructor(prefixes: readonly string[]) {
    super(
      `subjects with ` +
        `${prefixes.map((each) => (each === '' ? 'no prefix' : `the prefix ${each}`)).join(', ')}` +
        ` hold rights, and their issuer is another one than before: if it speaks of the same ` +
        `people and machines, say so once with --accept-subjects`,
    );
    this.name = 'SubjectsWouldMove';
  }
}

const lockName = 7_302_712;

/**
 * Compares the prefixes with those of the last start and remembers them. Throws SubjectsWouldMove
 * where one belongs to another issuer by now, or an issuer has another one, while a subject with it
 * holds a right, unless that is accepted. A vault that remembers none takes what it is given.
 */
export async function settlePrefixes(
  db: Db,
  configured: readonly SubjectPrefix[],
  { isAccepted }: { isAccepted: boolean },
): Promise<void> {
  await db.transaction().execute(async (trx) => {
    await sql`select pg_advisory_xact_lock(${lockName})`.execute(trx);
    const known = await trx.selectFrom('subject_prefix').select(['prefix', 'issuer']).execute();
    const moved = known.length === 0 || isAccepted ? [] : movedOf(known, configured);
    const held: string[] = [];
    for (const prefix of moved)
      if (await holdRights(trx, prefix, [...known, ...configured])) held.push(prefix);
    if (held.length > 0) throw new SubjectsWouldMove(held);
    for (const { prefix, issuer } of configured) {
      if (known.some((each) => each.prefix === prefix && each.issuer === issuer)) continue;
      await trx
        .insertInto('subject_prefix')
        .values({ prefix, issuer })
        .onConflict((conflict) => conflict.column('prefix').doUpdateSet({ issuer }))
        .execute();
    }
    // An issuer has one prefix; of one that is gone its prefix stays taken.
    for (const { prefix, issuer } of known)
      if (configured.some((each) => each.issuer === issuer && each.prefix !== prefix))
        await trx
          .deleteFrom('subject_prefix')
          .where('prefix', '=', prefix)
          .where('issuer', '=', issuer)
          .execute();
  });
}

/** Prefixes that are another issuer's than before, and those that an issuer has no more. */
function movedOf(
  known: readonly SubjectPrefix[],
  configured: readonly SubjectPrefix[],
): readonly string[] {
  const taken = configured.filter(
    ({ prefix, issuer }) => !known.some((each) => each.prefix === prefix && each.issuer === issuer),
  );
  const left = known.filter(({ prefix, issuer }) =>
    configured.some((each) => each.issuer === issuer && each.prefix !== prefix),
  );
  return [...new Set([...taken, ...left].map(({ prefix }) => prefix))].sort();
}

/** Whether a subject that begins with the prefix, and with no longer one, is let in anywhere. */
async function holdRights(
  executor: Executor,
  prefix: string,
  all: readonly SubjectPrefix[],
): Promise<boolean> {
  const longer = [...new Set(all.map((each) => each.prefix))].filter(
    (each) => each !== prefix && each.startsWith(prefix),
  );
  const { rows } = await sql`
    select 1 from subject
    where starts_with(sub, ${prefix})
      and not exists (select 1 from unnest(${longer}::text[]) as other (prefix)
        where starts_with(subject.sub, other.prefix))
      and (exists (select 1 from membership where subject_id = subject.id)
        or exists (select 1 from credential_grant where grantee_subject_id = subject.id)
        or exists (select 1 from engine where subject_id = subject.id))
    limit 1`.execute(executor);
  return rows.length > 0;
}
