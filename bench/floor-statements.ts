// The floor's SQL: one statement an answer.

const columns = `credential.id, team.slug as team, credential.name, credential.type, credential.description, credential.labels,
  current.public_fields as "publicFields", current.secret_field_names as "secretFields", current.policy, credential.current_version as version, credential.revision,
  credential.expires_at as "expiresAt", usage.last_used_at as "lastUsedAt", usage.use_count as "useCount", credential.deleted_at as "deletedAt",
  credential.created_at as "createdAt", creator.sub as "createdBy", credential.updated_at as "updatedAt", updater.sub as "updatedBy", member.role,
  credential.seal, member.revision as "memberRevision", member.seal as "memberMac", creator.sub as "memberSub"`;
const from = `credential join team on team.id = credential.team_id
  join credential_version current on current.credential_id = credential.id and current.version = credential.current_version
  left join credential_usage usage on usage.credential_id = credential.id
  join subject creator on creator.id = credential.created_by join subject updater on updater.id = credential.updated_by
  left join membership member on member.team_id = team.id and member.subject_id = $2`;

export const read = `select ${columns} from ${from} where credential.id = $1`;

export const list = `select ${columns} from ${from} where credential.team_id = $1 and credential.state <> 'deleted' and member.role is not null
  order by credential.name collate "C", credential.id limit $3`;

export const create = `
  with allowed as (select 1 from membership where team_id = $2 and subject_id = $8 and role in ('editor', 'admin')),
  made as (
    insert into floor.credential (id, team_id, name, type, description, labels, state, current_version, revision, created_at, created_by, updated_at, updated_by)
    select $1::uuid, $2::uuid, $3, $4, $5, $6::jsonb, 'enabled', 1, 1, $7::timestamptz, $8::uuid, $7::timestamptz, $8::uuid from allowed returning id),
  versioned as (
    insert into floor.credential_version (team_id, credential_id, version, data_key_id, token, secret_field_names, public_fields, policy, created_at, created_by)
    select $2::uuid, id, 1, $9::uuid, $10, $11::text[], $12::jsonb, $13::jsonb, $7::timestamptz, $8::uuid from made),
  recorded as (
    insert into floor.audit_event (id, at, actor_id, team_id, action, target_type, target_id, decision, request_id, key_id, credential_version, details, mac_version, mac, address_hash)
    select $14::uuid, $7::timestamptz, $8::uuid, $2::uuid, 'credential.create', 'credential', id::text, 'allow', $15, $9::uuid, 1, $16::jsonb, 1, $17::bytea, $18::bytea from made),
  recorded_address as (insert into floor.audit_address (event_id, at, address, salt) select $14::uuid, $7::timestamptz, $19, $20::bytea from made)
  select id from made`;

export const lease = `
  with found as (
    select credential.id, team.id as team_id, team.slug as team, credential.name, credential.type, credential.current_version as version, credential.revision,
      credential.expires_at as "expiresAt", version.public_fields as "publicFields", version.policy, held.token, held.data_key_id, recipient.kid, recipient.jwk
    from credential join team on team.id = credential.team_id
    join credential_version version on version.credential_id = credential.id and version.version = credential.current_version
    join floor.token held on held.credential_id = credential.id
    join membership member on member.team_id = team.id and member.subject_id = $2 and member.role = 'engine'
    join engine caller on caller.subject_id = $2 and caller.state = 'enabled'
    join engine_key recipient on recipient.engine_id = caller.id
    join membership behalf on behalf.team_id = team.id and behalf.subject_id = $3 and behalf.role in ('editor', 'admin')
    where credential.id = $1 and credential.state = 'enabled'),
  recorded as (
    insert into floor.audit_event (id, at, actor_id, team_id, action, target_type, target_id, decision, request_id, key_id, credential_version, details, mac_version, mac, address_hash)
    select $4::uuid, $5::timestamptz, $2, team_id, 'credential.lease', 'credential', id::text, 'allow', $6, data_key_id, version, $7::jsonb, 1, $8::bytea, $9::bytea from found),
  recorded_address as (insert into floor.audit_address (event_id, at, address, salt) select $4::uuid, $5::timestamptz, $10, $11::bytea from found)
  select * from found`;

export const held =
  'select credential_id, token from floor.moving where key = $1 and credential_id > $2 order by credential_id limit 100 for update skip locked';

export const move = `update floor.moving set token = moved.token, key = $3
  from unnest($1::uuid[], $2::text[]) as moved (id, token) where credential_id = moved.id`;
