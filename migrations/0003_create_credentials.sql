-- Credentials, their immutable versions (one Fernet token each), and how often they are used.

create table credential (
  id uuid constraint credential_pkey primary key,
  team_id uuid not null constraint credential_team_fkey references team on delete cascade,
  name text not null constraint credential_name_length check (char_length(name) between 1 and 100),
  type text not null,
  description text constraint credential_description_length check (char_length(description) <= 1000),
  labels jsonb not null default '{}',
  state text not null constraint credential_state_known check (state in ('enabled', 'disabled', 'deleted')),
  current_version integer not null constraint credential_current_version_positive check (current_version > 0),
  expires_at timestamptz,
  revision integer not null constraint credential_revision_positive check (revision > 0),
  seal bytea not null,
  created_at timestamptz not null,
  created_by uuid not null constraint credential_created_by_fkey references subject,
  updated_at timestamptz not null,
  updated_by uuid not null constraint credential_updated_by_fkey references subject,
  deleted_at timestamptz,
  constraint credential_deleted_at_with_state check ((state = 'deleted') = (deleted_at is not null)),
  constraint credential_team_id_key unique (team_id, id)
);
comment on table credential is 'tenant-data, sealed: what is known of a credential besides its values';
create unique index credential_living_name on credential (team_id, name collate "C") where state <> 'deleted';
create index credential_deleted on credential (team_id, id) where state = 'deleted';
create index credential_purge on credential (deleted_at) where state = 'deleted';

create table credential_version (
  team_id uuid not null,
  credential_id uuid not null,
  version integer not null constraint credential_version_positive check (version > 0),
  data_key_id uuid not null,
  token text not null constraint credential_version_token_form check (token ~ '^(gAAAA|QQAAA)'),
  secret_field_names text[] not null,
  public_fields jsonb not null,
  policy jsonb not null,
  undecryptable_at timestamptz,
  created_at timestamptz not null,
  created_by uuid not null constraint credential_version_created_by_fkey references subject,
  constraint credential_version_pkey primary key (credential_id, version),
  constraint credential_version_credential_fkey foreign key (team_id, credential_id)
    references credential (team_id, id) on delete cascade,
  constraint credential_version_data_key_fkey foreign key (team_id, data_key_id) references data_key (team_id, id)
);
comment on table credential_version is 'tenant-data: one immutable version; token is Fernet, bound to every other column but undecryptable_at and created_…';
create index credential_version_data_key on credential_version (data_key_id, credential_id, version);

alter table credential add constraint credential_current_version_fkey
  foreign key (id, current_version) references credential_version (credential_id, version) deferrable initially deferred;

create table credential_usage (
  credential_id uuid constraint credential_usage_pkey primary key
    constraint credential_usage_credential_fkey references credential on delete cascade,
  use_count bigint not null,
  last_used_at timestamptz not null
);
comment on table credential_usage is 'operational: use counts, flushed as deltas; a hint, the audit is the truth';

-- The queue in which writers of tokens (shared) and whoever takes their key away (alone) stand before they lock the key's row. Row
-- locks by themselves let new writers overtake who waits for the old ones: under steady writing a rotation would never start.
create function data_key_queue(key uuid) returns bigint language sql immutable parallel safe
  return hashtextextended('credential-vault data key ' || key::text, 0);

-- A token is written only under its team's active key. The share lock is held to the end of the writer's transaction and
-- conflicts with the `for update` that every change of a key's state takes first: no row can land under a key that has left.
create function token_needs_active_key() returns trigger language plpgsql as $$
begin
  perform pg_advisory_xact_lock_shared(data_key_queue(new.data_key_id));
  perform 1 from data_key where id = new.data_key_id and team_id = new.team_id and state = 'active' for key share;
  if not found then
    raise exception 'the key is not active' using errcode = 'check_violation', constraint = 'token_needs_active_key';
  end if;
  return new;
end $$;
create trigger token_needs_active_key before insert or update of token, data_key_id on credential_version
  for each row execute function token_needs_active_key();

-- A version never changes but for its encryption.
create function credential_version_is_immutable() returns trigger language plpgsql as $$
begin
  if (new.team_id, new.credential_id, new.version, new.secret_field_names, new.public_fields, new.policy, new.created_at, new.created_by)
    is distinct from
     (old.team_id, old.credential_id, old.version, old.secret_field_names, old.public_fields, old.policy, old.created_at, old.created_by) then
    raise exception 'a version is immutable' using errcode = 'check_violation', constraint = 'credential_version_is_immutable';
  end if;
  return new;
end $$;
create trigger credential_version_is_immutable before update on credential_version
  for each row execute function credential_version_is_immutable();

-- active → decryptOnly → retired; retired only when no token is left under the key. The lock is a statement of its own, before
-- the count, so that a writer who holds the key's share lock has committed when we count.
create function data_key_state_machine() returns trigger language plpgsql as $$
begin
  if new.state = old.state then return new; end if;
  if (old.state, new.state) not in (('active', 'decryptOnly'), ('decryptOnly', 'retired')) then
    raise exception 'a key does not go from % to %', old.state, new.state using errcode = 'check_violation', constraint = 'data_key_state_machine';
  end if;
  perform 1 from data_key where id = new.id for update;
  if new.state = 'retired' and exists (select 1 from credential_version where data_key_id = new.id) then
    raise exception 'the key is in use' using errcode = 'check_violation', constraint = 'data_key_in_use';
  end if;
  return new;
end $$;
create trigger data_key_state_machine before update on data_key
  for each row execute function data_key_state_machine();
