// Subjects: the `sub` of a JWT is stored once; everything else refers to its internal id. The
// mapping never changes, so it is remembered; it is a name, not a right: the row MACs of what
// grants cover the id and the sub together.
import type { SubjectId } from '../shared/ids.ts';
import { newId } from '../shared/ids.ts';
import { Recent } from '../shared/recent.ts';
import type { Executor } from './client.ts';

const rememberedMax = 10_000;

/** Finds and makes the internal ids of subjects. */
export class Subjects {
  readonly #ids = new Recent<string, SubjectId>(rememberedMax);

  /** The id of a subject that somebody has let in; undefined for everybody else. */
  async find(executor: Executor, sub: string): Promise<SubjectId | undefined> {
    const known = this.#ids.get(sub);
    if (known !== undefined) return known;
    const id = await findSubject(executor, sub);
    if (id !== undefined && !executor.isTransaction) this.#ids.set(sub, id);
    return id;
  }

  /**
   * The id of a subject, made where there is none. Inside a transaction nothing is remembered that
   * could roll back.
   */
  async ensure(executor: Executor, sub: string): Promise<SubjectId> {
    const known = this.#ids.get(sub);
    if (known !== undefined) return known;
    const id = (await findSubject(executor, sub)) ?? (await insertSubject(executor, sub));
    if (!executor.isTransaction) this.#ids.set(sub, id);
    return id;
  }
}

/** The id of a subject that is known already. */
export async function findSubject(executor: Executor, sub: string): Promise<SubjectId | undefined> {
  return (
    await executor.selectFrom('subject').select('id').where('sub', '=', sub).executeTakeFirst()
  )?.id;
}

async function insertSubject(executor: Executor, sub: string): Promise<SubjectId> {
  const made = await executor
    .insertInto('subject')
    .values({ id: newId<SubjectId>(), sub })
    .onConflict((conflict) => conflict.column('sub').doNothing())
    .returning('id')
    .executeTakeFirst();
  return (
    made?.id ??
    (
      await executor
        .selectFrom('subject')
        .select('id')
        .where('sub', '=', sub)
        .executeTakeFirstOrThrow()
    ).id
  );
}
