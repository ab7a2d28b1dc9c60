-- What lists of credentials walk: for each order an index with the team in front that has all a walk needs, and small ones for what is rare.

alter table credential add column due_at timestamptz generated always as (least(expires_at, rotate_after)) stored;
comment on column credential.due_at is 'when somebody has to see to it';

drop index credential_living_name;
create unique index credential_living_name on credential (team_id, name collate "C") include (id, type) where state <> 'deleted';
create index credential_living on credential (team_id, id) where state <> 'deleted';
create index credential_living_type on credential (team_id, type, name collate "C") include (id) where state <> 'deleted';
create index credential_updated on credential (team_id, updated_at, id) where state <> 'deleted';
create index credential_expires on credential (team_id, expires_at, id) where state <> 'deleted' and expires_at is not null;
create index credential_due on credential (team_id, due_at, id) where state <> 'deleted' and due_at is not null;
create index credential_disabled on credential (team_id, name collate "C") include (id) where state = 'disabled';
create index credential_version_undecryptable on credential_version (team_id, credential_id) where undecryptable_at is not null;
create index oauth_token_unwell on oauth_token (team_id, credential_id) where failure is not null or not is_refreshable;

-- Every credential has a row of use from the beginning, so that what was never used stands in one order with what was.
alter table credential_usage
  add column team_id uuid,
  add column made_at timestamptz,
  alter column last_used_at drop not null;
update credential_usage set team_id = credential.team_id, made_at = credential.created_at from credential where credential.id = credential_id;
insert into credential_usage (credential_id, team_id, made_at, use_count)
  select id, team_id, created_at, 0 from credential on conflict do nothing;
alter table credential_usage
  alter column team_id set not null,
  alter column made_at set not null,
  drop constraint credential_usage_credential_fkey,
  add constraint credential_usage_credential_fkey foreign key (team_id, credential_id) references credential (team_id, id) on update cascade on delete cascade;
comment on column credential_usage.made_at is 'when the credential was made: the use of one that was never used';
alter table credential_usage add column idle_since timestamptz not null generated always as (coalesce(last_used_at, made_at)) stored;
create index credential_usage_idle on credential_usage (team_id, idle_since, credential_id);

create function credential_begins_unused() returns trigger language plpgsql as $$
begin
  insert into credential_usage (credential_id, team_id, made_at, use_count) values (new.id, new.team_id, new.created_at, 0);
  return null;
end $$;
create trigger credential_begins_unused after insert on credential
  for each row execute function credential_begins_unused();

-- Whoever counts uses need not know whose they are.
create function credential_usage_knows_its_team() returns trigger language plpgsql as $$
begin
  select credential.team_id, credential.created_at into new.team_id, new.made_at from credential where credential.id = new.credential_id;
  return new;
end $$;
create trigger credential_usage_knows_its_team before insert on credential_usage
  for each row when (new.team_id is null or new.made_at is null) execute function credential_usage_knows_its_team();
