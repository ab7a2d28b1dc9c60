-- Who there is: subjects, teams, members, engines and their public keys.
-- Rows that grant something carry `revision` and `seal`: an HMAC made by the service over the columns named in docs/format.md.

create table subject (
  id uuid constraint subject_pkey primary key,
  sub text not null constraint subject_sub_key unique
    constraint subject_sub_visible_ascii check (sub ~ '^[\x21-\x7e]{1,255}$'),
  created_at timestamptz not null default now()
);
comment on table subject is 'operational: maps the sub of a JWT to the internal id that everything else refers to';

create table team (
  id uuid constraint team_pkey primary key,
  slug text not null constraint team_slug_key unique
    constraint team_slug_form check (slug ~ '^[a-z0-9][a-z0-9-]{1,38}$'),
  name text not null constraint team_name_length check (char_length(name) between 1 and 100),
  token_format text not null constraint team_token_format_known check (token_format in ('fernet', 'fernet-256')),
  revision integer not null default 1 constraint team_revision_positive check (revision > 0),
  created_at timestamptz not null,
  created_by uuid not null constraint team_created_by_fkey references subject,
  updated_at timestamptz not null,
  updated_by uuid not null constraint team_updated_by_fkey references subject,
  deleted_at timestamptz
);
comment on table team is 'tenant-data: owns credentials and keys; the slug never changes and is never given again';

create table membership (
  team_id uuid not null constraint membership_team_fkey references team on delete cascade,
  subject_id uuid not null constraint membership_subject_fkey references subject,
  role text not null constraint membership_role_known check (role in ('viewer', 'editor', 'admin', 'auditor', 'engine')),
  acts_for_itself boolean not null default false
    constraint membership_acts_for_itself_engine_only check (role = 'engine' or not acts_for_itself),
  revision integer not null constraint membership_revision_positive check (revision > 0),
  seal bytea not null,
  created_at timestamptz not null,
  created_by uuid not null constraint membership_created_by_fkey references subject,
  updated_at timestamptz not null,
  updated_by uuid not null constraint membership_updated_by_fkey references subject,
  constraint membership_pkey primary key (team_id, subject_id)
);
comment on table membership is 'tenant-data, sealed: one role of one subject in one team';
create index membership_subject_index on membership (subject_id);

create table engine (
  id uuid constraint engine_pkey primary key,
  subject_id uuid not null constraint engine_subject_key unique constraint engine_subject_fkey references subject,
  name text not null constraint engine_name_key unique
    constraint engine_name_length check (char_length(name) between 1 and 100),
  state text not null constraint engine_state_known check (state in ('enabled', 'disabled')),
  revision integer not null constraint engine_revision_positive check (revision > 0),
  seal bytea not null,
  created_at timestamptz not null,
  created_by uuid not null constraint engine_created_by_fkey references subject,
  updated_at timestamptz not null,
  updated_by uuid not null constraint engine_updated_by_fkey references subject
);
comment on table engine is 'operational, sealed: a registered workflow engine';

create table engine_key (
  engine_id uuid not null constraint engine_key_engine_fkey references engine on delete cascade,
  kid text not null constraint engine_key_kid_form check (kid ~ '^[A-Za-z0-9_-]{43}$'),
  jwk jsonb not null,
  revision integer not null constraint engine_key_revision_positive check (revision > 0),
  seal bytea not null,
  created_at timestamptz not null,
  created_by uuid not null constraint engine_key_created_by_fkey references subject,
  constraint engine_key_pkey primary key (engine_id, kid)
);
comment on table engine_key is 'operational, sealed: a public key (RFC 7638 thumbprint and JWK) that leases are encrypted to';

-- A team never loses its last admin. The lock on the team row makes two admins who remove each other wait for one another.
create function membership_keep_an_admin() returns trigger language plpgsql as $$
begin
  if old.role <> 'admin' or (tg_op = 'UPDATE' and new.role = 'admin') then return coalesce(new, old); end if;
  perform 1 from team where id = old.team_id and deleted_at is null for update;
  if not found then return coalesce(new, old); end if;   -- a deleted team loses its members with everything else
  if not exists (select 1 from membership where team_id = old.team_id and role = 'admin' and subject_id <> old.subject_id) then
    raise exception 'a team keeps at least one admin' using errcode = 'check_violation', constraint = 'membership_keep_an_admin';
  end if;
  return coalesce(new, old);
end $$;
create trigger membership_keep_an_admin before update of role or delete on membership
  for each row execute function membership_keep_an_admin();

-- The role `engine` belongs to registered engines, and they hold no other. Both sides lock the subject first; `no key`, because two
-- admins who change each other's role also reference each other as the one who did it.
create function membership_engine_role() returns trigger language plpgsql as $$
begin
  perform 1 from subject where id = new.subject_id for no key update;
  if (new.role = 'engine') <> exists (select 1 from engine where subject_id = new.subject_id) then
    raise exception 'the role engine and registered engines go together' using errcode = 'check_violation', constraint = 'membership_engine_role';
  end if;
  return new;
end $$;
create trigger membership_engine_role before insert or update of role, subject_id on membership
  for each row execute function membership_engine_role();

create function engine_subject_is_no_person() returns trigger language plpgsql as $$
begin
  perform 1 from subject where id = new.subject_id for no key update;
  if exists (select 1 from membership where subject_id = new.subject_id and role <> 'engine') then
    raise exception 'a person cannot become an engine' using errcode = 'check_violation', constraint = 'engine_subject_is_no_person';
  end if;
  return new;
end $$;
create trigger engine_subject_is_no_person before insert or update of subject_id on engine
  for each row execute function engine_subject_is_no_person();
