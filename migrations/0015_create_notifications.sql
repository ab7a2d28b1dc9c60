-- Notifications: to which credentials of type webhook a team's go, and the outbox of what is to be sent and was.

create table webhook (
  credential_id uuid constraint webhook_pkey primary key constraint webhook_credential_fkey references credential on delete cascade,
  team_id uuid not null constraint webhook_team_fkey references team,
  events text[] not null constraint webhook_events_some check (cardinality(events) between 1 and 50),
  revision integer not null constraint webhook_revision_positive check (revision > 0),
  seal bytea not null,
  created_at timestamptz not null,
  created_by uuid not null constraint webhook_created_by_fkey references subject,
  updated_at timestamptz not null,
  updated_by uuid not null constraint webhook_updated_by_fkey references subject,
  claim_id uuid,
  claimed_until timestamptz,
  served_at timestamptz,
  paused_until timestamptz,
  failing_since timestamptz,
  delivered_at timestamptz,
  gone_at timestamptz,
  constraint webhook_claim_is_whole check ((claim_id is null) = (claimed_until is null))
);
comment on table webhook is 'tenant-data, sealed: of what a team is told, and with which credential of type webhook; beside the seal the state of deliveries';
comment on column webhook.claimed_until is 'a replica sends something there; after this time it is taken to be gone';
comment on column webhook.paused_until is 'nothing is sent before: the receiver failed, or asked for it';
comment on column webhook.gone_at is 'the receiver answered 410: nothing is sent any more until somebody puts the webhook again';
create index webhook_team on webhook (team_id);

create table notification (
  id uuid constraint notification_pkey primary key,
  webhook_id uuid not null constraint notification_webhook_fkey references webhook on delete cascade,
  team_id uuid not null,
  type text not null constraint notification_type_form check (type ~ '^[a-z]+(\.[a-zA-Z]+)+$'),
  subject_type text not null,
  subject_id text not null,
  due_at timestamptz not null,
  at timestamptz not null,
  data jsonb not null,
  seal bytea not null,
  state text not null constraint notification_state_known check (state in ('pending', 'delivered', 'failed')),
  attempts integer not null default 0 constraint notification_attempts_natural check (attempts >= 0),
  next_attempt_at timestamptz,
  last_attempt_at timestamptz,
  outcome text,
  ended_at timestamptz,
  constraint notification_pending_has_a_next check ((state = 'pending') = (next_attempt_at is not null)),
  constraint notification_ended_has_a_time check ((state = 'pending') = (ended_at is null)),
  constraint notification_once unique (webhook_id, type, subject_id, due_at)
);
comment on table notification is 'tenant-data, sealed: the outbox: messages to be sent and, for a while, those that were; names and ids, never a value';
comment on column notification.due_at is 'what makes it one message: the time that it is about, of what happens by time';
create index notification_pending on notification (webhook_id, next_attempt_at, id) where state = 'pending';
create index notification_newest on notification (webhook_id, id);
create index notification_ended on notification (ended_at) where state <> 'pending';

create index credential_rotation on credential (team_id, rotate_after) where rotate_after is not null and state <> 'deleted';
