-- What of a token endpoint's answer cannot be used, since when a provider answers nothing usable, refreshes that a refused token forced, and where a provider says the account lives.

alter table oauth_token
  add column failure_detail text constraint oauth_token_failure_detail_form check (failure_detail ~ '^[A-Za-z]{1,40}$'),
  add column unavailable_since timestamptz,
  add column forced_count integer not null default 0 constraint oauth_token_forced_count_natural check (forced_count >= 0),
  add column force_after timestamptz,
  add column rejected_at timestamptz,
  add column instance_url text constraint oauth_token_instance_url_form check (instance_url ~ '^https://[a-z0-9.-]{1,253}$');
comment on column oauth_token.failure_detail is 'with the failure refused: which part of the answer, where it is not a word of OAuth 2.0; a release without this column shows refused';
comment on column oauth_token.instance_url is 'what the provider calls the place of the account; shown, and never a destination by itself';

create index oauth_token_rejected on oauth_token (team_id, credential_id) where rejected_at is not null;

-- What the API cannot say of the columns above, as the triggers of every table refuse it.
create trigger oauth_token_extension_storable_when_made before insert on oauth_token for each row when (
  (new.unavailable_since between timestamptz '0001-01-01 00:00:00+00' and timestamptz '9999-12-31 23:59:59.999999+00') is false
  or (new.force_after between timestamptz '0001-01-01 00:00:00+00' and timestamptz '9999-12-31 23:59:59.999999+00') is false
  or (new.rejected_at between timestamptz '0001-01-01 00:00:00+00' and timestamptz '9999-12-31 23:59:59.999999+00') is false
  or new.forced_count >= 2147483647) execute function refuse_unstorable();
create trigger oauth_token_extension_storable_when_changed before update on oauth_token for each row when (
  new.unavailable_since is distinct from old.unavailable_since and (new.unavailable_since between timestamptz '0001-01-01 00:00:00+00' and timestamptz '9999-12-31 23:59:59.999999+00') is false
  or new.force_after is distinct from old.force_after and (new.force_after between timestamptz '0001-01-01 00:00:00+00' and timestamptz '9999-12-31 23:59:59.999999+00') is false
  or new.rejected_at is distinct from old.rejected_at and (new.rejected_at between timestamptz '0001-01-01 00:00:00+00' and timestamptz '9999-12-31 23:59:59.999999+00') is false
  or new.forced_count is distinct from old.forced_count and new.forced_count >= 2147483647) execute function refuse_unstorable();
