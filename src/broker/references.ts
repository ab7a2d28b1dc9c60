// What a request for tickets asks for, looked up and decided. Persons are asked about one by one:
// each reference may be for another one.
import type { Db } from '../db/client.ts';
import type { Caller, OnBehalfOf, RightsParts } from '../access/index.ts';
import {
  decideAll,
  findLeasable,
  type Granted,
  type RecipientRow,
  type Reference,
  type Rule,
  smallBytesMax,
} from '../leases/index.ts';

/** One ticket that is asked for. */
export interface Wanted {
  readonly reference: Reference;
  readonly onBehalfOf: OnBehalfOf | undefined;
  readonly host: string | undefined;
}

type Decision = ReturnType<typeof decideAll>[number];
export type { Granted, Rule };

/** Each reference with what was decided on it, and who asks; in the order of the request. */
export interface Decided {
  readonly recipient: RecipientRow;
  /** Positions and decisions, as they come: of many large ones no two are in memory at once. */
  readonly decisions: AsyncIterable<readonly [position: number, decision: Decision]>;
}

interface Question {
  readonly caller: Caller;
  readonly now: Date;
}

/**
 * Reads and decides. One statement for each person; where what they ask for is large, one for each
 * reference.
 */
export async function decideWanted(
  db: Db,
  wanted: readonly Wanted[],
  question: Question,
  parts: RightsParts,
): Promise<Decided> {
  const groups = [...Map.groupBy(wanted.keys(), (at) => wanted[at]!.onBehalfOf?.sub)];
  const read = (
    sub: string | undefined,
    positions: readonly number[],
    bytesMax?: number,
  ): ReturnType<typeof findLeasable> =>
    findLeasable(
      db,
      {
        subject: question.caller.subject,
        references: positions.map((at) => wanted[at]!.reference),
        onBehalfOf: sub,
        keyId: undefined,
      },
      bytesMax,
    );
  const first = await read(
    groups[0]![0],
    groups[0]![1],
    wanted.length === 1 ? undefined : smallBytesMax,
  );
  const decide = (
    sub: string | undefined,
    found: Awaited<ReturnType<typeof findLeasable>>['found'],
  ): Decision[] =>
    decideAll(
      found,
      { ...question, onBehalfOf: sub, delivery: 'broker', knownVersions: [], mayRepeat: true },
      parts,
    );
  async function* decisions(): Decided['decisions'] {
    for (const [index, [sub, positions]] of groups.entries()) {
      const whole = index === 0 ? first : await read(sub, positions, smallBytesMax);
      if (!whole.isWithheld) {
        const all = decide(sub, whole.found);
        for (const [place, at] of positions.entries()) yield [at, all[place]!];
        continue;
      }
      for (const at of positions) {
        const { found } = await read(sub, [at]);
        yield [at, decide(sub, found)[0]!];
      }
    }
  }
  return { recipient: first.recipient, decisions: decisions() };
}
