-- One clock decides what is destroyed, purged and forgotten, and when: the database's. What a replica says of the time is not asked.

-- The time of the statement, as this server sees it. Every statement and trigger that waits for something reads it here.
create function vault_now() returns timestamptz language sql stable parallel safe as $$ select statement_timestamp() $$;

-- As before, by the database's clock: the waiting time begins when it is written down, however the writer's clock stands, a key goes when
-- that time is over here, and the keys of a deleted team wait for as long as the team does.
create or replace function data_key_state_machine() returns trigger language plpgsql as $$
declare
  is_shred boolean := new.state = 'destroyed'
    and exists (select 1 from team where id = old.team_id and deleted_at <= vault_now() - interval '7 days');
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
  -- The waiting time is neither cut short nor dated back. An hour is what the clock of a writer may be behind; its time is not kept.
  if (new.state = 'destroyPending' and old.state = 'destroyPending'
      and (new.destroy_scheduled_at, new.destroy_at) is distinct from (old.destroy_scheduled_at, old.destroy_at))
    or (new.state = 'destroyPending' and old.state <> 'destroyPending' and new.destroy_scheduled_at < vault_now() - interval '1 hour')
    or (new.state = 'destroyed' and not is_shred
      and ((new.destroy_scheduled_at, new.destroy_at) is distinct from (old.destroy_scheduled_at, old.destroy_at) or vault_now() < old.destroy_at)) then
    raise exception 'a key waits for its destruction' using errcode = 'check_violation', constraint = 'data_key_destroy_waits';
  end if;
  if new.state = old.state then return new; end if;
  if new.state = 'destroyPending' and new.destroy_scheduled_at is not null then
    new.destroy_at := vault_now() + (new.destroy_at - new.destroy_scheduled_at);
    new.destroy_scheduled_at := vault_now();
  end if;
  if new.state = 'destroyed' then new.destroyed_at := vault_now(); end if;
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
  if new.state in ('retired', 'destroyed') and (exists (select 1 from credential_version where data_key_id = new.id) or exists (select 1 from oauth_token where data_key_id = new.id)) then
    raise exception 'the key is in use' using errcode = 'check_violation', constraint = 'data_key_in_use';
  end if;
  return new;
end $$;

-- What is deleted waits from the moment in which it is deleted here: that moment is not the writer's to say, nor to change.
create function deleted_at_is_the_databases() returns trigger language plpgsql as $$
begin
  new.deleted_at := coalesce(old.deleted_at, vault_now());
  return new;
end $$;
create trigger credential_deleted_at before update of deleted_at on credential
  for each row when (new.deleted_at is not null) execute function deleted_at_is_the_databases();
create trigger team_deleted_at before update of deleted_at on team
  for each row when (new.deleted_at is not null) execute function deleted_at_is_the_databases();

-- And it goes when that time is over: a credential after 30 days, whatever is in a deleted team after 7.
create function credential_waits_for_its_purge() returns trigger language plpgsql as $$
begin
  if (old.state = 'deleted' and old.deleted_at <= vault_now() - interval '30 days')
    or exists (select 1 from team where id = old.team_id and deleted_at <= vault_now() - interval '7 days') then
    return old;
  end if;
  raise exception 'a credential waits for its purge' using errcode = 'check_violation', constraint = 'credential_waits_for_its_purge';
end $$;
create trigger credential_waits_for_its_purge before delete on credential
  for each row execute function credential_waits_for_its_purge();
