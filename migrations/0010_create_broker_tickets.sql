-- Leave to use one credential through the broker for a while. The ticket itself is known to who was given it; here is its hash.

create table broker_ticket (
  id uuid constraint broker_ticket_pkey primary key,
  ticket_hash bytea not null constraint broker_ticket_hash_length check (octet_length(ticket_hash) = 32),
  credential_id uuid not null constraint broker_ticket_credential_fkey references credential on delete cascade,
  engine_id uuid not null constraint broker_ticket_engine_fkey references engine on delete cascade,
  behalf_subject_id uuid constraint broker_ticket_behalf_subject_fkey references subject,
  host text constraint broker_ticket_host_length check (char_length(host) between 1 and 253),
  expires_at timestamptz not null,
  revision integer not null constraint broker_ticket_revision_positive check (revision > 0),
  seal bytea not null,
  created_at timestamptz not null
);
comment on table broker_ticket is 'tenant-data, sealed: leave for one engine to use one credential through the broker; purged when it has expired';
comment on column broker_ticket.host is 'where calls go, for a type that has no destination of its own';
create index broker_ticket_credential on broker_ticket (credential_id);
create index broker_ticket_engine on broker_ticket (engine_id);
create index broker_ticket_expired on broker_ticket (expires_at);
