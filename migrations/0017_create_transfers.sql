-- Transfer: a credential that one team offers to another, and the one way in which it moves.

create table credential_transfer (
  id uuid constraint credential_transfer_pkey primary key,
  team_id uuid not null constraint credential_transfer_team_fkey references team on delete cascade,
  credential_id uuid not null constraint credential_transfer_credential_key unique
    constraint credential_transfer_credential_fkey references credential on delete cascade,
  to_team_id uuid not null constraint credential_transfer_to_team_fkey references team on delete cascade,
  expires_at timestamptz not null,
  revision integer not null constraint credential_transfer_revision_positive check (revision > 0),
  seal bytea not null,
  created_at timestamptz not null,
  created_by uuid not null constraint credential_transfer_created_by_fkey references subject,
  constraint credential_transfer_to_another check (to_team_id <> team_id)
);
comment on table credential_transfer is 'tenant-data, sealed: an open offer of a credential to another team; accepted, declined and expired ones are deleted';
create index credential_transfer_from on credential_transfer (team_id, id);
create index credential_transfer_to on credential_transfer (to_team_id, id);
create index credential_transfer_expired on credential_transfer (expires_at);

-- A credential changes its team by an offer of that team to that one, and while it lives.
create function credential_moves_by_offer() returns trigger language plpgsql as $$
begin
  if new.id <> old.id or old.state = 'deleted' or new.state = 'deleted'
    or not exists (select 1 from credential_transfer where credential_id = old.id and team_id = old.team_id and to_team_id = new.team_id) then
    raise exception 'a credential moves by an offer' using errcode = 'check_violation', constraint = 'credential_moves_by_offer';
  end if;
  return new;
end $$;
create trigger credential_moves_by_offer before update on credential
  for each row when (new.team_id <> old.team_id or new.id <> old.id) execute function credential_moves_by_offer();

-- Its versions and held tokens follow it, batch by batch within one transaction: whether all did is asked at its end.
alter table credential_version alter constraint credential_version_credential_fkey deferrable initially immediate;
alter table oauth_token alter constraint oauth_token_credential_fkey deferrable initially immediate;

-- A version changes in nothing but its encryption, and in its team only together with that: re-encrypted, under another key. That it
-- is its credential's team is the foreign key's affair.
drop trigger credential_version_is_immutable on credential_version;
create trigger credential_version_is_immutable before update on credential_version
  for each row when (
    (new.credential_id, new.version, new.secret_field_names, new.public_fields, new.policy, new.created_at, new.created_by)
    is distinct from
    (old.credential_id, old.version, old.secret_field_names, old.public_fields, old.policy, old.created_at, old.created_by)
    or (new.team_id <> old.team_id and (new.token = old.token or new.data_key_id = old.data_key_id)))
  execute function credential_version_is_immutable();

-- As before; the team changes within one sequence only, and together with the encryption where there is a token.
create or replace function oauth_token_keeps_its_place() returns trigger language plpgsql as $$
begin
  if new.data_key_id is not null and not (new.data_key_id = any (new.key_history)) then
    new.key_history := new.key_history || new.data_key_id;
  end if;
  if tg_op = 'UPDATE' and (new.credential_id <> old.credential_id or new.sequence < old.sequence
    or (new.team_id <> old.team_id and (new.sequence <> old.sequence or new.token = old.token or new.data_key_id = old.data_key_id))
    or (new.sequence = old.sequence and ((new.client, new.policy, new.token is null) is distinct from (old.client, old.policy, old.token is null)
      or new.key_history[1:cardinality(old.key_history)] is distinct from old.key_history))) then
    raise exception 'a held token keeps its place' using errcode = 'check_violation', constraint = 'oauth_token_keeps_its_place';
  end if;
  return new;
end $$;
