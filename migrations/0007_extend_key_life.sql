-- The rest of a key's life: restoring, destroying, compromise; which keys a value was ever under; a team's rotation policy.

alter table data_key
  drop constraint data_key_state_known,
  add constraint data_key_state_known check (state in ('active', 'decryptOnly', 'retired', 'destroyPending', 'destroyed')),
  alter column wrapped drop not null,
  add column root_history text[] not null default '{}',
  add column compromised_at timestamptz,
  add column compromised_by uuid constraint data_key_compromised_by_fkey references subject,
  add column compromise_reason text constraint data_key_compromise_reason_length check (char_length(compromise_reason) between 1 and 200),
  add column destroy_scheduled_at timestamptz,
  add column destroy_at timestamptz,
  add column destroyed_at timestamptz,
  add constraint data_key_destroyed_has_no_material check ((state = 'destroyed') = (wrapped is null)),
  add constraint data_key_destroyed_at_with_state check ((state = 'destroyed') = (destroyed_at is not null)),
  add constraint data_key_destroy_at_with_state check ((state = 'destroyPending') <= (destroy_at is not null)),
  add constraint data_key_destroy_at_only_then check (destroy_at is null or state in ('destroyPending', 'destroyed')),
  add constraint data_key_destroy_waits check ((destroy_at is null) = (destroy_scheduled_at is null) and destroy_at >= destroy_scheduled_at + interval '7 days'),
  add constraint data_key_compromise_is_whole check ((compromised_at is null) = (compromise_reason is null));
update data_key set root_history = array[root_fingerprint];
create index data_key_compromised on data_key (id) where compromised_at is not null;
create index data_key_destroy_due on data_key (destroy_at) where state = 'destroyPending';
create index data_key_root on data_key (root_fingerprint);

-- Every root key that ever wrapped a key: when one of them is known to somebody, so is the key.
create function key_root_history() returns trigger language plpgsql as $$
begin
  if not (new.root_fingerprint = any (new.root_history)) then new.root_history := new.root_history || new.root_fingerprint; end if;
  return new;
end $$;
create trigger data_key_root_history before insert or update of root_fingerprint on data_key
  for each row execute function key_root_history();

-- What a key was and is stays; its state moves along the arrows; compromise is never taken back; material goes once.
create or replace function data_key_state_machine() returns trigger language plpgsql as $$
declare
  is_shred boolean := new.state = 'destroyed' and exists (select 1 from team where id = old.team_id and deleted_at is not null);
begin
  if (new.id, new.team_id, new.version, new.format, new.fingerprint, new.created_at, new.created_by)
    is distinct from (old.id, old.team_id, old.version, old.format, old.fingerprint, old.created_at, old.created_by)
    or (old.compromised_at is not null and (new.compromised_at, new.compromised_by, new.compromise_reason)
      is distinct from (old.compromised_at, old.compromised_by, old.compromise_reason))
    or old.state = 'destroyed'
    or new.root_history[1:cardinality(old.root_history)] is distinct from old.root_history
    or not (new.root_fingerprint = any (new.root_history)) then
    raise exception 'a key keeps what it was' using errcode = 'check_violation', constraint = 'data_key_keeps_its_past';
  end if;
  -- The waiting time is neither cut short nor dated back; an hour is what clocks may differ by.
  if (new.state = 'destroyPending' and old.state = 'destroyPending'
      and (new.destroy_scheduled_at, new.destroy_at) is distinct from (old.destroy_scheduled_at, old.destroy_at))
    or (new.state = 'destroyPending' and old.state <> 'destroyPending' and new.destroy_scheduled_at < now() - interval '1 hour')
    or (new.state = 'destroyed' and not is_shred
      and ((new.destroy_scheduled_at, new.destroy_at) is distinct from (old.destroy_scheduled_at, old.destroy_at) or new.destroyed_at < old.destroy_at)) then
    raise exception 'a key waits for its destruction' using errcode = 'check_violation', constraint = 'data_key_destroy_waits';
  end if;
  if new.state = old.state then return new; end if;
  -- At REPEATABLE READ the count below would not see what the key's last writers committed while we waited for them.
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception 'a key changes its state at READ COMMITTED only' using errcode = 'check_violation', constraint = 'data_key_read_committed';
  end if;
  if not is_shred and (old.state, new.state) not in (
    ('active', 'decryptOnly'), ('decryptOnly', 'retired'), ('retired', 'decryptOnly'),
    ('retired', 'destroyPending'), ('destroyPending', 'retired'), ('destroyPending', 'destroyed')) then
    raise exception 'a key does not go from % to %', old.state, new.state using errcode = 'check_violation', constraint = 'data_key_state_machine';
  end if;
  perform 1 from data_key where id = new.id for update;
  if new.state in ('retired', 'destroyed') and exists (select 1 from credential_version where data_key_id = new.id) then
    raise exception 'the key is in use' using errcode = 'check_violation', constraint = 'data_key_in_use';
  end if;
  return new;
end $$;

-- A key's row goes only with its whole team: ids and fingerprints stay, so that a backup can be matched to the keys it needs.
create function data_key_tombstone_stays() returns trigger language plpgsql as $$
begin
  raise exception 'keys are never deleted' using errcode = 'check_violation', constraint = 'data_key_tombstone_stays';
end $$;
create trigger data_key_tombstone_stays before delete on data_key
  for each row execute function data_key_tombstone_stays();

-- Which keys the values of a version were ever under. Append-only: a re-encryption adds to it, a version that keeps values of the
-- one before takes its list along. Re-encrypting does not un-leak a copied row.
alter table credential_version add column key_history uuid[];
update credential_version set key_history = array[data_key_id];
alter table credential_version alter column key_history set not null, alter column key_history set default '{}';

create function credential_version_key_history() returns trigger language plpgsql as $$
begin
  if new.key_history is null or not (new.data_key_id = any (new.key_history)) then
    new.key_history := coalesce(new.key_history, '{}') || new.data_key_id;
  end if;
  if tg_op = 'UPDATE' and new.key_history[1:cardinality(old.key_history)] is distinct from old.key_history then
    raise exception 'the list of keys only grows' using errcode = 'check_violation', constraint = 'credential_version_key_history';
  end if;
  return new;
end $$;
create trigger credential_version_key_history before insert or update of data_key_id, key_history on credential_version
  for each row execute function credential_version_key_history();

-- A team's policy on its keys, and why a rotation runs.
alter table team
  add column rotate_every_days integer constraint team_rotate_every_days_range check (rotate_every_days between 1 and 3650),
  add column refuse_exposed_leases boolean not null default false;
alter table key_rotation
  add column cause text not null default 'request' constraint key_rotation_cause_known check (cause in ('request', 'policy', 'compromise', 'rootCompromise')),
  alter column created_by drop not null;
alter table data_key alter column created_by drop not null;
comment on column key_rotation.created_by is 'null when the vault started it by itself';

-- Root keys and system keys over time.
alter table root_key
  add column compromised_at timestamptz,
  add column compromised_by uuid constraint root_key_compromised_by_fkey references subject,
  add column compromise_reason text;
alter table system_key
  add column usable_from timestamptz not null default now(),
  add column retired_at timestamptz,
  add column root_history text[] not null default '{}';
update system_key set root_history = array[root_fingerprint];
create trigger system_key_root_history before insert or update of root_fingerprint on system_key
  for each row execute function key_root_history();
drop index system_key_one_active;
alter table system_key drop column active;
comment on column system_key.usable_from is 'every replica has loaded it by then; the newest usable one signs';
