-- OAuth 2.0: the tokens held for a credential, one row each that changes in place, and the authorizations that people have begun.

create table oauth_token (
  credential_id uuid constraint oauth_token_pkey primary key,
  team_id uuid not null,
  sequence integer not null constraint oauth_token_sequence_natural check (sequence >= 0),
  data_key_id uuid,
  token text constraint oauth_token_token_form check (token ~ '^(gAAAA|QQAAA)'),
  client jsonb not null,
  policy jsonb not null,
  key_history uuid[] not null default '{}',
  takes_version boolean not null default false,
  expires_at timestamptz,
  is_refreshable boolean not null default false,
  obtained_at timestamptz,
  connected_at timestamptz,
  connected_by uuid constraint oauth_token_connected_by_fkey references subject,
  claim_id uuid,
  claimed_until timestamptz,
  attempts integer not null default 0 constraint oauth_token_attempts_natural check (attempts >= 0),
  retry_at timestamptz,
  failure text constraint oauth_token_failure_known check (failure in (
    'invalid_grant', 'invalid_client', 'unauthorized_client', 'invalid_scope', 'unsupported_grant_type', 'invalid_request', 'access_denied', 'refused', 'undecryptable')),
  failed_at timestamptz,
  constraint oauth_token_credential_fkey foreign key (team_id, credential_id) references credential (team_id, id) on delete cascade,
  constraint oauth_token_data_key_fkey foreign key (team_id, data_key_id) references data_key (team_id, id),
  constraint oauth_token_under_a_key check ((token is null) = (data_key_id is null)),
  constraint oauth_token_claim_is_whole check ((claim_id is null) = (claimed_until is null)),
  constraint oauth_token_failure_is_whole check ((failure is null) = (failed_at is null))
);
comment on table oauth_token is 'tenant-data: access and refresh token of a credential; token is Fernet, bound to the row, to the client that it was given to and to the policy';
comment on column oauth_token.takes_version is 'as long as there is no token here, the ones in the current version of the credential count';
create index oauth_token_data_key on oauth_token (data_key_id, credential_id);

create trigger token_needs_active_key before insert or update of token, data_key_id on oauth_token
  for each row when (new.token is not null) execute function token_needs_active_key();

-- Within one sequence only the encryption of a token moves; what replaces it has a later one. The list of keys follows the value.
create function oauth_token_keeps_its_place() returns trigger language plpgsql as $$
begin
  if new.data_key_id is not null and not (new.data_key_id = any (new.key_history)) then
    new.key_history := new.key_history || new.data_key_id;
  end if;
  if tg_op = 'UPDATE' and ((new.team_id, new.credential_id) is distinct from (old.team_id, old.credential_id) or new.sequence < old.sequence
    or (new.sequence = old.sequence and ((new.client, new.policy, new.token is null) is distinct from (old.client, old.policy, old.token is null)
      or new.key_history[1:cardinality(old.key_history)] is distinct from old.key_history))) then
    raise exception 'a held token keeps its place' using errcode = 'check_violation', constraint = 'oauth_token_keeps_its_place';
  end if;
  return new;
end $$;
create trigger oauth_token_keeps_its_place before insert or update on oauth_token
  for each row execute function oauth_token_keeps_its_place();

create table key_rotation_oauth_failure (
  rotation_id uuid not null constraint key_rotation_oauth_failure_rotation_fkey references key_rotation on delete cascade,
  credential_id uuid not null constraint key_rotation_oauth_failure_token_fkey references oauth_token on delete cascade,
  at timestamptz not null,
  constraint key_rotation_oauth_failure_pkey primary key (rotation_id, credential_id)
);
comment on table key_rotation_oauth_failure is 'tenant-data: held tokens that did not open during a rotation; they stay under their key and block retiring it';
create index key_rotation_oauth_failure_token on key_rotation_oauth_failure (credential_id);

create table oauth_authorization (
  id uuid constraint oauth_authorization_pkey primary key,
  team_id uuid not null,
  credential_id uuid not null,
  subject_id uuid not null constraint oauth_authorization_subject_fkey references subject,
  client jsonb not null,
  redirect_uri text not null,
  state_hash bytea not null,
  salt bytea not null,
  created_at timestamptz not null,
  expires_at timestamptz not null,
  constraint oauth_authorization_credential_fkey foreign key (team_id, credential_id) references credential (team_id, id) on delete cascade
);
comment on table oauth_authorization is 'tenant-data: begun and not answered yet; the state only as a hash over it and the row, the PKCE verifier not at all';
create index oauth_authorization_credential on oauth_authorization (credential_id);
create index oauth_authorization_expired on oauth_authorization (expires_at);

-- As before, and held tokens count as well.
create or replace function data_key_state_machine() returns trigger language plpgsql as $$
declare
  is_shred boolean := new.state = 'destroyed' and exists (select 1 from team where id = old.team_id and deleted_at is not null);
begin
  if (new.id, new.team_id, new.version, new.format, new.fingerprint, new.created_at, new.created_by)
    is distinct from (old.id, old.team_id, old.version, old.format, old.fingerprint, old.created_at, old.created_by)
    or (old.compromised_at is not null and (new.compromised_at, new.compromised_by, new.compromise_reason)
      is distinct from (old.compromised_at, old.compromised_by, old.compromise_reason))
    or old.state = 'destroyed'
    or new.root_history[1:cardinality(old.root_history)] is distinct from old.root_history
    or not (new.root_fingerprint = any (new.root_history)) then
    raise exception 'a key keeps what it was' using errcode = 'check_violation', constraint = 'data_key_keeps_its_past';
  end if;
  -- The waiting time is neither cut short nor dated back; an hour is what clocks may differ by.
  if (new.state = 'destroyPending' and old.state = 'destroyPending'
      and (new.destroy_scheduled_at, new.destroy_at) is distinct from (old.destroy_scheduled_at, old.destroy_at))
    or (new.state = 'destroyPending' and old.state <> 'destroyPending' and new.destroy_scheduled_at < now() - interval '1 hour')
    or (new.state = 'destroyed' and not is_shred
      and ((new.destroy_scheduled_at, new.destroy_at) is distinct from (old.destroy_scheduled_at, old.destroy_at) or new.destroyed_at < old.destroy_at)) then
    raise exception 'a key waits for its destruction' using errcode = 'check_violation', constraint = 'data_key_destroy_waits';
  end if;
  if new.state = old.state then return new; end if;
  -- At REPEATABLE READ the count below would not see what the key's last writers committed while we waited for them.
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception 'a key changes its state at READ COMMITTED only' using errcode = 'check_violation', constraint = 'data_key_read_committed';
  end if;
  if not is_shred and (old.state, new.state) not in (
    ('active', 'decryptOnly'), ('decryptOnly', 'retired'), ('retired', 'decryptOnly'),
    ('retired', 'destroyPending'), ('destroyPending', 'retired'), ('destroyPending', 'destroyed')) then
    raise exception 'a key does not go from % to %', old.state, new.state using errcode = 'check_violation', constraint = 'data_key_state_machine';
  end if;
  perform 1 from data_key where id = new.id for update;
  if new.state in ('retired', 'destroyed') and (exists (select 1 from credential_version where data_key_id = new.id) or exists (select 1 from oauth_token where data_key_id = new.id)) then
    raise exception 'the key is in use' using errcode = 'check_violation', constraint = 'data_key_in_use';
  end if;
  return new;
end $$;
