// Moves the tokens of any table under another key of their team, in SQL. Whoever holds a row may
// replace its token at any time: a token is stored only as it was read, and what was replaced
// meanwhile is under the active key already.
import { sql } from 'kysely';
import type { WrappedDataKey } from '../../crypto/index.ts';
import { withinBytes } from '../../db/bytes.ts';
import type { Trx } from '../../db/client.ts';
import { statement } from '../../db/statement.ts';
import type { DataKeyState } from '../../db/tables.ts';
import type { CredentialId, DataKeyId, RotationId, TeamId } from '../../shared/ids.ts';
import { batchBytesMax, type ReencryptedToken, type Reencryptor } from '../mover.ts';
import { ciphertextTables } from './list.ts';
import { type BoundRow, boundColumns, type CiphertextTable, placeOf, readBytes } from './table.ts';

const smallestId = sql.raw(`'00000000-0000-0000-0000-000000000000'::uuid`);

type StoredTokensRow = Omit<BoundRow, 'team'> & {
  readonly token: string;
  readonly from_id: DataKeyId;
  readonly from_state: DataKeyState;
  readonly to_id: DataKeyId;
  readonly bytes: number;
};
interface HoldParameters {
  readonly rotation: RotationId;
  readonly team: TeamId;
  readonly passOver: readonly DataKeyId[];
  readonly key: DataKeyId | null;
  readonly credential: CredentialId | null;
  readonly number: number | null;
  readonly limit: number;
}

// A range of one key, and not an equality, so that only the index on keys has this order: the
// primary key would lead past the rows of every other team. Keys are walked in their order too:
// what was found exhausted is not looked at again in this pass.
const holdFrom = (table: CiphertextTable) => {
  const isNumbered = table.rows === 'versions';
  const number = sql.ref(`stored.${table.number}`);
  const andNumber = isNumbered ? sql`, ${number}` : sql``;
  return statement<HoldParameters, StoredTokensRow>((of) => {
    const isBegun = sql`from_key.id = ${of('key')}::uuid`;
    const lastNumber = isNumbered
      ? sql`, case when ${isBegun} then ${of('number')}::int else 0 end`
      : sql``;
    const isSameNumber = isNumbered ? sql`and failure.${sql.ref(table.number)} = ${number}` : sql``;
    return sql`${withinBytes(
      sql`
  select held.credential_id as credential, held.token, ${boundColumns(table, 'held')},
    credential.type,
    from_key.id as from_id, from_key.state as from_state, to_key.id as to_id,
    ${readBytes(table, 'held')} as bytes
  from key_rotation rotation
  join data_key to_key on to_key.team_id = rotation.team_id and to_key.state = 'active'
  cross join lateral (
    select id, team_id, state from data_key
    where team_id = rotation.team_id and id <> to_key.id and id <> all (${of('passOver')}::uuid[])
      and id >= coalesce(${of('key')}::uuid, ${smallestId})
    order by team_id, id
  ) from_key
  cross join lateral (
    select ${sql.join(readColumns(table).map((column) => sql.ref(`stored.${column}`)))}
    from ${sql.table(table.name)} stored
    where stored.data_key_id <= from_key.id and stored.team_id = from_key.team_id
      and (stored.data_key_id, stored.credential_id ${andNumber}) > (from_key.id,
        case when ${isBegun} then ${of('credential')}::uuid else ${smallestId} end ${lastNumber})
      and not exists (
        select 1 from ${sql.table(table.failures)} failure
        where failure.rotation_id = rotation.id and failure.credential_id = stored.credential_id
          ${isSameNumber})
    order by stored.data_key_id, stored.credential_id ${andNumber}
    limit ${of('limit')}::int for update of stored skip locked
  ) held
  join credential on credential.id = held.credential_id and credential.team_id = rotation.team_id
  where rotation.id = ${of('rotation')}::uuid and rotation.team_id = ${of('team')}::uuid
    and rotation.state = 'running'
  limit ${of('limit')}::int`,
      batchBytesMax,
    )}`;
  });
};

const readColumns = ({ number, binding }: CiphertextTable): string[] => [
  ...new Set([
    ...['credential_id', 'token', number, binding.publicFields, binding.policy],
    ...(binding.secretFields === undefined ? [] : [binding.secretFields]),
  ]),
];

interface Columns {
  readonly credentials: readonly CredentialId[];
  readonly numbers: readonly number[];
  readonly from: readonly DataKeyId[];
  readonly tokens: readonly string[];
  readonly team: TeamId;
  readonly to: DataKeyId;
}

// What opened is not undecryptable, whatever was thought of it before.
const storeInto = ({ name, number, undecryptable }: CiphertextTable) =>
  statement<Columns, object>(
    (of) => sql`
  update ${sql.table(name)} held
  set token = moved.token, data_key_id = to_key.id, ${undecryptable.clear}
  from unnest(${of('credentials')}::uuid[], ${of('numbers')}::int[], ${of('from')}::uuid[],
    ${of('tokens')}::text[]) as moved (credential_id, number, from_id, token)
  join data_key to_key on to_key.id = ${of('to')}::uuid and to_key.team_id = ${of('team')}::uuid
    and to_key.state = 'active'
  where held.credential_id = moved.credential_id and held.${sql.ref(number)} = moved.number
    and held.data_key_id = moved.from_id and held.team_id = to_key.team_id
  returning 1`,
  );

/** The wrapped material of a batch's keys; their states were read with the tokens. */
async function keysById(
  trx: Trx,
  team: TeamId,
  ids: readonly DataKeyId[],
): Promise<ReadonlyMap<DataKeyId, WrappedDataKey>> {
  const { rows } = await sql<WrappedDataKey>`
    select id, team_id as team, version, format, root_fingerprint as "rootFingerprint", wrapped
    from data_key where team_id = ${team} and id = any (${ids}::uuid[])`.execute(trx);
  return new Map(rows.map((row) => [row.id, row]));
}

/** Keys are never deleted while their team lives. */
function keyOf(keys: ReadonlyMap<DataKeyId, WrappedDataKey>, id: DataKeyId): WrappedDataKey {
  const key = keys.get(id);
  if (key === undefined) throw new Error('a token under a key that is not there');
  return key;
}

function makeMover(table: CiphertextTable): Reencryptor {
  const hold = holdFrom(table);
  const store = storeInto(table);
  return {
    table,
    async hold(trx, { id: rotation, team }, { limit, passOver, after }) {
      const rows = await hold(trx, {
        rotation,
        team,
        passOver,
        key: after?.key ?? null,
        credential: after?.credential ?? null,
        number: after?.version ?? null,
        limit,
      });
      if (rows.length === 0) return [];
      const keys = await keysById(trx, team, [
        ...new Set(rows.flatMap(({ from_id, to_id }) => [from_id, to_id])),
      ]);
      return rows.map(({ token, bytes, from_id, from_state, to_id, ...row }) => ({
        binding: placeOf(table, { ...row, team }),
        token,
        bytes,
        from: keyOf(keys, from_id),
        fromState: from_state,
        to: keyOf(keys, to_id),
      }));
    },

    async store(trx, tokens) {
      const [first] = tokens;
      if (first === undefined) return true;
      const column = <T>(of: (token: ReencryptedToken) => T): T[] => tokens.map(of);
      const rows = await store(trx, {
        credentials: column(({ binding }) => binding.credential),
        numbers: column(({ binding }) => binding.version),
        from: column(({ from }) => from.id),
        tokens: column(({ moved }) => moved),
        team: first.binding.team,
        to: first.to.id,
      });
      // The rows are locked, so nothing but a key that is active no more can be in the way.
      return rows.length === tokens.length;
    },

    async fail(trx, rotation, { token: { binding }, isUndecryptable, at }) {
      const { name, number, failures, undecryptable } = table;
      const isNumbered = table.rows === 'versions';
      await sql`
        insert into ${sql.table(failures)} (rotation_id, credential_id, at
          ${isNumbered ? sql`, team_id, ${sql.ref(number)}` : sql``})
        values (${rotation.id}, ${binding.credential}, ${at}
          ${isNumbered ? sql`, ${binding.team}, ${binding.version}` : sql``})`.execute(trx);
      if (!isUndecryptable) return;
      await sql`
        update ${sql.table(name)} held set ${undecryptable.set(at)}
        where held.team_id = ${binding.team} and held.credential_id = ${binding.credential}
          and held.${sql.ref(number)} = ${binding.version} and ${undecryptable.isUnset}`.execute(
        trx,
      );
    },
  };
}

/** What re-encrypts tokens, table by table, in the order in which a rotation walks them. */
export const reencryptors: readonly Reencryptor[] = ciphertextTables.map(makeMover);
