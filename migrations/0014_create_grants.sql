-- Sharing: credentials that a team lets another team, or somebody, read or use.

create table credential_grant (
  id uuid constraint credential_grant_pkey primary key,
  team_id uuid not null,
  credential_id uuid not null,
  grantee_kind text not null constraint credential_grant_kind_known check (grantee_kind in ('team', 'subject', 'engine')),
  grantee_team_id uuid constraint credential_grant_grantee_team_fkey references team on delete cascade,
  grantee_subject_id uuid constraint credential_grant_grantee_subject_fkey references subject,
  access text not null constraint credential_grant_access_known check (access in ('read', 'use')),
  revision integer not null constraint credential_grant_revision_positive check (revision > 0),
  seal bytea not null,
  created_at timestamptz not null,
  created_by uuid not null constraint credential_grant_created_by_fkey references subject,
  updated_at timestamptz not null,
  updated_by uuid not null constraint credential_grant_updated_by_fkey references subject,
  constraint credential_grant_credential_fkey foreign key (team_id, credential_id) references credential (team_id, id) on delete cascade,
  constraint credential_grant_to_one check ((grantee_kind = 'team') = (grantee_team_id is not null) and (grantee_kind = 'team') = (grantee_subject_id is null)),
  constraint credential_grant_to_others check (grantee_team_id <> team_id),
  constraint credential_grant_team_key unique (credential_id, grantee_team_id),
  constraint credential_grant_subject_key unique (credential_id, grantee_subject_id)
);
comment on table credential_grant is 'tenant-data, sealed: what a team or a subject may do with a credential of another team';
comment on column credential_grant.grantee_kind is '`engine`: the subject was a registered engine when it was granted to';
create index credential_grant_of_team on credential_grant (grantee_team_id, credential_id) where grantee_team_id is not null;
create index credential_grant_of_subject on credential_grant (grantee_subject_id, credential_id) where grantee_subject_id is not null;
