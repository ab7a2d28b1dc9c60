-- What callers can make grow has a bound.

-- Failed log-ins of one origin are counted above some a minute, as refusals are.
alter table access_record
  add column reason text,
  add column count integer not null default 1,
  add constraint access_record_count_positive check (count > 0) not valid;
comment on column access_record.reason is 'why a log-in failed';
comment on column access_record.count is 'how many failed log-ins it stands for';

-- How large a team is, for its bounds. Counted by the vault and not by triggers, which would make
-- each credential that is stored cost an eighth more. It may say too much: recounts find that.
create table team_size (
  team_id uuid not null,
  living_credentials bigint not null,
  stored_credentials bigint not null,
  bytes bigint not null,
  counted_at timestamptz,
  constraint team_size_pkey primary key (team_id),
  constraint team_size_team_fkey foreign key (team_id) references team (id) on delete cascade,
  constraint team_size_natural check (living_credentials >= 0 and stored_credentials >= 0 and bytes >= 0)
);
comment on table team_size is 'operational: how much a team holds, for its bounds';
comment on column team_size.stored_credentials is 'deleted ones, too, as long as their rows are there';
comment on column team_size.bytes is 'tokens of versions and accounts, and public fields';
comment on column team_size.counted_at is 'when it was last counted; null: never';
