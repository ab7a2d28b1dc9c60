// An export has everything that is known of a team: every column of every table about a team's
// things is in it, or is left out for a reason that stands here.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  DummyDriver,
  Kysely,
  PostgresAdapter,
  PostgresIntrospector,
  PostgresQueryCompiler,
  sql,
} from 'kysely';
import t from 'tap';
import { folded } from '../helpers/folded.ts';
import { rotationFailuresSql } from '../../src/keys/sql.ts';
import { testDatabase } from '../helpers/database.ts';

// What a descriptor lends to a kind is read as the SQL that it comes to.
const lent = rotationFailuresSql(sql.ref('rotation.id')).compile(
  new Kysely<object>({
    dialect: {
      createAdapter: () => new PostgresAdapter(),
      createDriver: () => new DummyDriver(),
      createIntrospector: (db) => new PostgresIntrospector(db),
      createQueryCompiler: () => new PostgresQueryCompiler(),
    },
  }),
).sql;
const source =
  readFileSync(join(import.meta.dirname, '../../src/exports/kinds.ts'), 'utf8') +
  lent.replaceAll('"', '');

/** Tables that are about a team's things and are no kind of line. */
const leftOut: Readonly<Record<string, string>> = {
  access_record: 'reads, which nothing finds by their team',
  credential_transfer:
    'an offer that nobody has answered; until then nothing has changed, and the audit log has it',
  team_size: 'how much there is of what is exported, for the bounds of the team',
  audit_event: 'read as the list of audit events reads it',
};
const place = 'the team is in the first line';
const value = 'a value, or what a value could be got from';
const seal = 'what it says is `intact`';
const claim = 'who refreshes at this very moment';
const columnsLeftOut: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  team: {
    deleted_at: 'a team that is exported lives',
    row_mac: seal,
    row_mac_version: seal,
    has_received: 'whether a list of keys may name keys of another team',
  },
  membership: { team_id: place, seal },
  data_key: { team_id: place, wrapped: value },
  key_rotation: { team_id: place },
  key_rotation_failure: { team_id: place },
  credential: {
    team_id: place,
    seal,
    due_at: 'the earlier of `expiresAt` and `rotateAfter`',
    label_bits: 'made of the labels',
  },
  credential_usage: {
    team_id: place,
    made_at: 'when the credential was made',
    idle_since: '`lastUsedAt`, or when the credential was made',
  },
  credential_version: { team_id: place, token: value },
  oauth_token: {
    team_id: place,
    token: value,
    client: 'the fields of the version, as they were',
    policy: 'the policy of the version, as it was',
    takes_version: '`isHeld` says it',
    claim_id: claim,
    claimed_until: claim,
  },
  oauth_authorization: {
    team_id: place,
    client: 'the fields of the version, as they were',
    redirect_uri: "the configuration's",
    state_hash: value,
    salt: value,
  },
  credential_grant: { team_id: place, seal },
  webhook: {
    team_id: place,
    seal,
    claim_id: 'who sends at this very moment',
    claimed_until: 'who sends at this very moment',
  },
  notification: {
    team_id: place,
    seal: 'it is asked for when it is sent',
    data: 'names and ids that stand in the lines of what it is about',
  },
  broker_ticket: { ticket_hash: value, revision: 'never changes', seal },
};

t.test(
  'every column about a team is exported, or left out for a reason',
  folded(async (t) => {
    const { db } = await testDatabase(t);
    const { rows } = await sql<{ table: string; columns: string[] }>`
    select relname as "table", array_agg(attname::text order by attnum) as columns from pg_attribute join pg_class on pg_class.oid = attrelid
    where relnamespace = 'public'::regnamespace and relkind in ('r', 'p') and not relispartition and attnum > 0 and not attisdropped group by relname
    having relname = 'team' or bool_or(attname in ('team_id', 'credential_id', 'rotation_id'))`.execute(
      db,
    );
    t.ok(rows.length > 10, 'the tables are seen');
    const named = new Set<string>();
    for (const { table, columns } of rows) {
      if (leftOut[table] !== undefined) {
        named.add(table);
        continue;
      }
      t.match(
        source,
        new RegExp(`(?:from|join) ${table}\\b`),
        `${table} is read: make it a kind in src/exports/kinds.ts, or say here why not`,
      );
      for (const column of columns) {
        const isLeftOut = columnsLeftOut[table]?.[column] !== undefined;
        if (isLeftOut) named.add(`${table}.${column}`);
        else
          t.match(
            source,
            new RegExp(`\\b${column}\\b`),
            `${table}.${column} is read: put it into src/exports/kinds.ts and its shape, or say here why not`,
          );
      }
    }
    t.same(
      [...named].sort(),
      [
        ...Object.keys(leftOut),
        ...Object.entries(columnsLeftOut).flatMap(([table, each]) =>
          Object.keys(each).map((column) => `${table}.${column}`),
        ),
      ].sort(),
      'no exception is left over',
    );
  }),
);
