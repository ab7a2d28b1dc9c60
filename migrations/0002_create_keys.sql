-- Root key canaries, system keys and the teams' data keys. Key material is stored only wrapped by a root key.

create table root_key (
  fingerprint text constraint root_key_pkey primary key
    constraint root_key_fingerprint_form check (fingerprint ~ '^[0-9a-f]{16}$'),
  canary bytea not null,
  created_at timestamptz not null default now()
);
comment on table root_key is 'operational: a known value wrapped by each root key ever used, so that a wrong key shows at start';

create table system_key (
  id uuid constraint system_key_pkey primary key,
  purpose text not null
    constraint system_key_purpose_known check (purpose in ('rowSeal', 'auditMac', 'cursor', 'idempotency', 'leaseSigning')),
  version integer not null constraint system_key_version_positive check (version > 0),
  active boolean not null,
  root_fingerprint text not null constraint system_key_root_key_fkey references root_key,
  wrapped bytea not null,
  created_at timestamptz not null default now(),
  constraint system_key_purpose_version_key unique (purpose, version)
);
comment on table system_key is 'operational: random keys of one purpose each; an inactive one still verifies';
create unique index system_key_one_active on system_key (purpose) where active;

create table data_key (
  id uuid constraint data_key_pkey primary key,
  team_id uuid not null constraint data_key_team_fkey references team on delete cascade,
  version integer not null constraint data_key_version_positive check (version > 0),
  format text not null constraint data_key_format_known check (format in ('fernet', 'fernet-256')),
  state text not null constraint data_key_state_known check (state in ('active', 'decryptOnly', 'retired')),
  fingerprint text not null constraint data_key_fingerprint_form check (fingerprint ~ '^[0-9a-f]{16}$'),
  root_fingerprint text not null constraint data_key_root_key_fkey references root_key,
  wrapped bytea not null,
  created_at timestamptz not null,
  created_by uuid not null constraint data_key_created_by_fkey references subject,
  demoted_at timestamptz,
  retired_at timestamptz,
  constraint data_key_team_version_key unique (team_id, version),
  constraint data_key_team_id_key unique (team_id, id)
);
comment on table data_key is 'tenant-data: a team''s versioned keys; one active key seals, the others open';
create unique index data_key_one_active on data_key (team_id) where state = 'active';
