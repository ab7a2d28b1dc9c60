-- Idempotency keys: which resource a request made, so that its repetition answers with the same one.

create table idempotency_record (
  subject_id uuid not null constraint idempotency_record_subject_fkey references subject,
  method text not null,
  route text not null,
  key_hash bytea not null,
  body_mac_version integer not null,
  body_mac bytea not null,
  target_id text not null,
  created_at timestamptz not null,
  constraint idempotency_record_pkey primary key (subject_id, method, route, key_hash)
);
comment on table idempotency_record is 'operational: kept 24 hours; the body only as an HMAC';
create index idempotency_record_created on idempotency_record (created_at);
