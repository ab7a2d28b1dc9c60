-- A page of a team reads the versions and the use of some fifty credentials. Ids are made one after the other, whosever they are, so that
-- in an index of ids alone each of them lies somewhere else; with the team in front they lie side by side.

alter table key_rotation_failure add column team_id uuid;
update key_rotation_failure set team_id = credential_version.team_id from credential_version
  where credential_version.credential_id = key_rotation_failure.credential_id and credential_version.version = key_rotation_failure.version;
alter table key_rotation_failure alter column team_id set not null, drop constraint key_rotation_failure_version_fkey;
alter table credential drop constraint credential_current_version_fkey;

-- A credential has one team, so this is as unique as before.
alter table credential_version
  drop constraint credential_version_pkey,
  add constraint credential_version_pkey primary key (team_id, credential_id, version);
alter table credential add constraint credential_current_version_fkey
  foreign key (team_id, id, current_version) references credential_version (team_id, credential_id, version) deferrable initially deferred;
alter table key_rotation_failure add constraint key_rotation_failure_version_fkey
  foreign key (team_id, credential_id, version) references credential_version (team_id, credential_id, version) on delete cascade;
drop index key_rotation_failure_version;
create index key_rotation_failure_version on key_rotation_failure (team_id, credential_id, version);

-- Whoever notes a failure need not know whose it is.
create function key_rotation_failure_knows_its_team() returns trigger language plpgsql as $$
begin
  select team_id into new.team_id from credential where id = new.credential_id;
  return new;
end $$;
create trigger key_rotation_failure_knows_its_team before insert on key_rotation_failure
  for each row when (new.team_id is null) execute function key_rotation_failure_knows_its_team();

create index credential_usage_team on credential_usage (team_id, credential_id) include (use_count, last_used_at, idle_since);

-- 64 bits of a credential's labels: one that has a label has its bit, and of those that do not have it one in 64 for each label has it too.
-- So a list looks for a label in an index, and then at the labels of those that may have it.
-- In plpgsql, which keeps its plans; plain SQL is planned anew, before PostgreSQL 18 by each statement that stores a credential.
create function label_bits(labels jsonb) returns bigint language plpgsql immutable strict parallel safe as $$
declare
  label record;
  bits bigint := 0;
begin
  if labels = '{}' or jsonb_typeof(labels) <> 'object' then return 0; end if;
  for label in select key, value from jsonb_each_text(labels) loop
    bits := bits | (1::bigint << (('x' || substr(md5(label.key || ':' || label.value), 1, 8))::bit(32)::bigint & 63)::integer);
  end loop;
  return bits;
end $$;
alter table credential add column label_bits bigint not null generated always as (label_bits(labels)) stored;
comment on column credential.label_bits is 'where a label may be, for lists; what it is stands in labels';

-- What is asked of the rows that a list walks comes along: type and labels, and the version on which other conditions are.
drop index credential_living_name, credential_updated, credential_expires, credential_due;
create unique index credential_living_name on credential (team_id, name collate "C") include (id, type, current_version, label_bits) where state <> 'deleted';
create index credential_updated on credential (team_id, updated_at, id) include (type, current_version, label_bits) where state <> 'deleted';
create index credential_expires on credential (team_id, expires_at, id) include (type, current_version, label_bits) where state <> 'deleted' and expires_at is not null;
create index credential_due on credential (team_id, due_at, id) include (type, current_version, label_bits) where state <> 'deleted' and due_at is not null;

-- What was never under a marked key is not looked for: a team has only its own keys in the lists of its versions, unless a credential came
-- to it from another.
alter table team add column has_received boolean not null default false;
comment on column team.has_received is 'whether a credential ever came from another team, with the list of keys that it was under there';
update team set has_received = true where id in (
  select held.team_id
  from (select team_id, key_history from credential_version union all select team_id, key_history from oauth_token) held
  cross join lateral unnest(held.key_history) as key (id) join data_key on data_key.id = key.id
  where data_key.team_id <> held.team_id);

create function team_receives() returns trigger language plpgsql as $$
begin
  update team set has_received = true where id = new.team_id and not has_received;
  return null;
end $$;
create trigger team_receives after update of team_id on credential
  for each row when (new.team_id <> old.team_id) execute function team_receives();

drop index data_key_compromised;
create index data_key_compromised on data_key (team_id, id) where compromised_at is not null;
