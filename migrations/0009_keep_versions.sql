-- What a deleted credential comes back to, and how many versions of a credential a team keeps.

alter table credential
  add column state_before text constraint credential_state_before_known check (state_before in ('enabled', 'disabled')),
  add constraint credential_state_before_with_state check (state_before is null or state = 'deleted');
comment on column credential.state_before is 'sealed; of deleted ones: the state to which they come back';

alter table team
  add column versions_kept integer not null default 10 constraint team_versions_kept_range check (versions_kept between 1 and 1000);
