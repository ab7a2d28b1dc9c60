-- Key rotations: the resource that moves a team's tokens to its active key. What is left to move is found by the tokens' own
-- key, never by a cursor: a rotation that was cut off goes on where it is.

create table key_rotation (
  id uuid constraint key_rotation_pkey primary key,
  team_id uuid not null constraint key_rotation_team_fkey references team on delete cascade,
  to_key_id uuid not null constraint key_rotation_to_key_fkey references data_key on delete cascade,
  state text not null
    constraint key_rotation_state_known check (state in ('running', 'completed', 'completedWithFailures', 'cancelled')),
  total bigint not null constraint key_rotation_total_natural check (total >= 0),
  done bigint not null default 0 constraint key_rotation_done_natural check (done >= 0),
  created_at timestamptz not null,
  created_by uuid not null constraint key_rotation_created_by_fkey references subject,
  progressed_at timestamptz not null,
  ended_at timestamptz,
  constraint key_rotation_ended_with_state check ((state = 'running') = (ended_at is null))
);
comment on table key_rotation is 'tenant-data: one run of re-encryption';
create unique index key_rotation_one_running on key_rotation (team_id) where state = 'running';
create index key_rotation_team on key_rotation (team_id, id);

create table key_rotation_failure (
  rotation_id uuid not null constraint key_rotation_failure_rotation_fkey references key_rotation on delete cascade,
  credential_id uuid not null,
  version integer not null,
  at timestamptz not null,
  constraint key_rotation_failure_pkey primary key (rotation_id, credential_id, version),
  constraint key_rotation_failure_version_fkey foreign key (credential_id, version)
    references credential_version (credential_id, version) on delete cascade
);
comment on table key_rotation_failure is 'tenant-data: tokens that did not open during a rotation; they stay under their key and block retiring it';
create index key_rotation_failure_version on key_rotation_failure (credential_id, version);
