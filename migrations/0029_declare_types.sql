-- Types of a platform's own, which the platform operator declares. A credential names its type with
-- the digest of the declaration, so that its row, its versions and its tokens are bound to it.

create table credential_type (
  name text constraint credential_type_pkey primary key
    constraint credential_type_name_form check (char_length(name) <= 60 and name ~ '^[a-z][a-z0-9-]*([.][a-z][a-z0-9-]*)+$'),
  id uuid not null,
  stored_name text not null constraint credential_type_stored_name_key unique
    constraint credential_type_stored_name_form check (stored_name ~ '^[a-z0-9.-]+#[A-Za-z0-9_-]{43}$' and split_part(stored_name, '#', 1) = name),
  declaration jsonb not null constraint credential_type_declaration_size check (octet_length(declaration::text) <= 65536),
  revision integer not null constraint credential_type_revision_positive check (revision > 0),
  row_mac bytea not null,
  created_at timestamptz not null
    constraint credential_type_created_at_sayable check (created_at >= '0001-01-01Z' and created_at <= '9999-12-31 23:59:59.999999Z'),
  created_by uuid not null constraint credential_type_created_by_fkey references subject,
  updated_at timestamptz not null
    constraint credential_type_updated_at_sayable check (updated_at >= '0001-01-01Z' and updated_at <= '9999-12-31 23:59:59.999999Z'),
  updated_by uuid not null constraint credential_type_updated_by_fkey references subject
);
comment on table credential_type is 'operational, sealed: types of credentials that the platform operator declares';
comment on column credential_type.id is 'another one for each declaration that is not the one before and more';
comment on column credential_type.stored_name is 'how credentials name it: the name, and the digest of what binds them';
comment on column credential_type.row_mac is 'over name, id, stored_name, declaration and revision';
comment on column credential.type is 'a type of the vault''s own; or the stored_name of a declared one';

-- Whether a declared type is in use.
create index credential_declared_type on credential (split_part(type, '#', 1)) where strpos(type, '#') > 0;

-- A credential may name a declared type. The triggers are otherwise as they were.
do $$
declare
  held record;
  after text;
begin
  for held in
    select tgname, pg_get_triggerdef(oid) as before from pg_trigger
    where tgrelid = 'credential'::regclass and tgname in ('credential_storable_when_made', 'credential_storable_when_changed')
  loop
    after := replace(held.before, '^[a-zA-Z][a-zA-Z0-9]{0,99}$', '^([a-zA-Z][a-zA-Z0-9]{0,99}|[a-z0-9.-]{3,60}#[A-Za-z0-9_-]{43})$');
    if after = held.before then raise exception '% is not as this migration knows it', held.tgname; end if;
    execute format('drop trigger %I on credential', held.tgname);
    execute after;
  end loop;
end $$;
