-- The trail: audit events (with their addresses beside them, erasable) and access records, by month.

create table audit_event (
  id uuid not null,
  at timestamptz not null,
  actor_id uuid,
  team_id uuid,
  action text not null,
  target_type text not null,
  target_id text not null,
  decision text not null constraint audit_event_decision_known check (decision in ('allow', 'deny')),
  reason text,
  request_id text not null,
  key_id uuid,
  credential_version integer,
  address_hash bytea,
  details jsonb not null,
  mac_version integer not null,
  mac bytea not null,
  constraint audit_event_pkey primary key (at, id)
) partition by range (at);
comment on table audit_event is 'tenant-data: what was done or refused; each row carries its own MAC; never a value';
create index audit_event_team on audit_event (team_id, at, id);

create table audit_address (
  event_id uuid not null,
  at timestamptz not null,
  address text not null,
  salt bytea not null,
  constraint audit_address_pkey primary key (at, event_id)
) partition by range (at);
comment on table audit_address is 'tenant-data: the address behind an event''s address_hash = SHA-256(salt, address); erasable without touching the event';

create table access_record (
  id uuid not null,
  at timestamptz not null,
  subject_id uuid,
  team_id uuid,
  action text not null,
  target_id text,
  status integer not null,
  request_id text not null,
  address text,
  constraint access_record_pkey primary key (at, id)
) partition by range (at);
comment on table access_record is 'tenant-data: reads, lists and failed authentications, written in batches';

create function audit_is_append_only() returns trigger language plpgsql as $$
begin
  raise exception 'the audit is append-only' using errcode = 'check_violation', constraint = 'audit_is_append_only';
end $$;
create trigger audit_event_is_append_only before update or delete on audit_event
  for each row execute function audit_is_append_only();
create trigger audit_event_is_never_truncated before truncate on audit_event
  for each statement execute function audit_is_append_only();

-- Months are made ahead by the service and dropped when their time is over; both run with the rights of their owner, so that
-- the service's own role needs only INSERT and SELECT on the audit. Who waits for these locks holds up every writer: not for long.
create function audit_make_months(ahead integer) returns void language plpgsql security definer
  set search_path = pg_catalog, pg_temp set lock_timeout = '2s' as $$
declare
  parent text; month timestamp; part text; home text;
begin
  select n.nspname into home from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where c.relname = 'audit_event' and c.relkind = 'p' and c.relowner = current_user::regrole;
  if ahead < 0 or ahead > 24 then raise exception 'ahead is from 0 to 24 months'; end if;
  perform pg_advisory_xact_lock(hashtext('credential-vault audit months'));
  foreach parent in array array['audit_event', 'audit_address', 'access_record'] loop
    for i in -1..ahead loop
      month := date_trunc('month', now() at time zone 'UTC') + make_interval(months => i);
      part := parent || '_' || to_char(month, 'YYYY_MM');
      if to_regclass(format('%I.%I', home, part)) is null then
        execute format('create table %I.%I partition of %I.%I for values from (%L) to (%L)',
          home, part, home, parent, month at time zone 'UTC', (month + interval '1 month') at time zone 'UTC');
        if parent = 'audit_event' then   -- triggers on rows come from the parent, those on statements do not
          execute format('create trigger audit_event_is_never_truncated before truncate on %I.%I for each statement execute function %I.audit_is_append_only()',
            home, part, home);
        end if;
      end if;
    end loop;
  end loop;
end $$;

create function audit_drop_months(months_kept integer) returns integer language plpgsql security definer
  set search_path = pg_catalog, pg_temp set lock_timeout = '2s' as $$
declare
  parent text; part text; home text; oldest text; dropped integer := 0;
begin
  if months_kept < 1 then raise exception 'at least one month is kept'; end if;
  select n.nspname into home from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where c.relname = 'audit_event' and c.relkind = 'p' and c.relowner = current_user::regrole;
  perform pg_advisory_xact_lock(hashtext('credential-vault audit months'));
  oldest := to_char(date_trunc('month', now() at time zone 'UTC') - make_interval(months => months_kept), 'YYYY_MM');
  foreach parent in array array['audit_event', 'audit_address', 'access_record'] loop
    for part in
      select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid
      where i.inhparent = to_regclass(format('%I.%I', home, parent)) and right(c.relname, 7) < oldest
    loop
      execute format('drop table %I.%I', home, part);
      dropped := dropped + 1;
    end loop;
  end loop;
  return dropped;
end $$;

-- They work on tables of their owner's only; who may call them is said where roles are made (docs/operations.md).
revoke all on function audit_make_months, audit_drop_months from public;

select audit_make_months(3);
