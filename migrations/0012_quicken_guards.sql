-- The same guard, asked before the function is called and not in it: a rotation updates every version and changes none.

create or replace function credential_version_is_immutable() returns trigger language plpgsql as $$
begin
  raise exception 'a version is immutable' using errcode = 'check_violation', constraint = 'credential_version_is_immutable';
end $$;
drop trigger credential_version_is_immutable on credential_version;
create trigger credential_version_is_immutable before update on credential_version
  for each row when (
    (new.team_id, new.credential_id, new.version, new.secret_field_names, new.public_fields, new.policy, new.created_at, new.created_by)
    is distinct from
    (old.team_id, old.credential_id, old.version, old.secret_field_names, old.public_fields, old.policy, old.created_at, old.created_by))
  execute function credential_version_is_immutable();
