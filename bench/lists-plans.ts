// The plans of every list that is measured, from the statements that the vault itself sends.
import { AuditLog } from '../src/audit/record.ts';
import { CredentialLists } from '../src/credentials/lists/listing.ts';
import { credentialListQuery, listingOf } from '../src/credentials/lists/schemas.ts';
import { parseRootKeys } from '../src/crypto/index.ts';
import { openDatabase } from '../src/db/client.ts';
import { Subjects } from '../src/db/subjects.ts';
import { openKeyring } from '../src/keys/system-keys.ts';
import type { TeamId } from '../src/shared/ids.ts';
import { unbounded } from '../src/access/issuers.ts';
import { memberOf, slugOf } from './lists-filling.ts';
import { explain, indexesOf, noting, scannedWhole } from './plans.ts';
import type { Setting } from './setting.ts';
import type { Caller, TeamRef } from '../src/access/caller.ts';

/** Lines of a table, and the statements that read a large table from end to end. */
export async function plansOf(
  setting: Setting,
  cases: readonly (readonly [string, string])[],
): Promise<{ lines: string[][]; scans: string[] }> {
  const { db, close } = openDatabase({
    url: setting.databaseUrl,
    onError: (error) => {
      throw error;
    },
  });
  try {
    const keyring = await openKeyring({
      db,
      roots: parseRootKeys(setting.rootKeys),
      now: Date.now,
    });
    const noted = noting(db);
    const fail = (): never => {
      throw new Error('a row MAC of a listed row does not hold');
    };
    const lists = new CredentialLists({
      subjectBounds: unbounded,
      db: noted.db,
      keyring,
      audit: new AuditLog({ db, keyring, now: Date.now, onError: fail, onAlarm: fail }),
      now: Date.now,
    });
    const sub = memberOf(0, 1);
    const caller: Caller = {
      sub,
      subject: await new Subjects().ensure(db, sub),
      isOperator: false,
      requestId: '',
      address: null,
    };
    const { id } = await db
      .selectFrom('team')
      .select('id')
      .where('slug', '=', slugOf(0) as never)
      .executeTakeFirstOrThrow();
    const [lines, scans]: [string[][], string[]] = [[], []];
    const page = { limit: 50, after: undefined };
    for (const [scope, team] of [
      ['one team', { id: id as TeamId, slug: slugOf(0) }],
      ['ten teams', undefined],
    ] as const satisfies readonly (readonly [string, TeamRef | undefined])[]) {
      for (const [name, query] of cases) {
        noted.statements.length = 0;
        const listing = listingOf(
          credentialListQuery.parse(Object.fromEntries(new URLSearchParams(query))),
        );
        await (query.includes('view=names')
          ? lists.listNames(caller, team, listing, page)
          : lists.list(caller, team, listing, page));
        const plans = await Promise.all(
          noted.statements.map((statement) => explain(db, statement)),
        );
        scans.push(
          ...plans
            .filter((plan) => scannedWhole(plan).length > 0)
            .map((plan) => `${scope}: ${name}\n${plan}`),
        );
        lines.push([
          `${scope}: ${name}`,
          [...new Set(plans.flatMap(indexesOf))]
            .filter((index) => /^(?:credential|oauth|data)/.test(index))
            .join(' '),
        ]);
      }
    }
    return { lines, scans };
  } finally {
    await close();
  }
}
