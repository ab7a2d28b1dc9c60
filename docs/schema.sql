-- The schema that the migrations make, for reading. Generated: `npm run -s vault -- schema > docs/schema.sql`.

-- tenant-data: reads, lists and failed authentications, written in batches
create table access_record (
  id uuid not null,
  at timestamp with time zone not null,
  subject_id uuid,
  team_id uuid,
  action text not null,
  target_id text,
  status integer not null,
  request_id text not null,
  address text,
  reason text, -- why a log-in failed
  count integer not null default 1, -- how many failed log-ins it stands for
  constraint access_record_pkey PRIMARY KEY (at, id),
  constraint access_record_count_positive CHECK (count > 0) NOT VALID
) partition by RANGE (at);

-- tenant-data: the address behind an event's address_hash = SHA-256(salt, address); erasable without touching the event
create table audit_address (
  event_id uuid not null,
  at timestamp with time zone not null,
  address text not null,
  salt bytea not null,
  constraint audit_address_pkey PRIMARY KEY (at, event_id)
) partition by RANGE (at);

-- tenant-data: what was done or refused; each row carries its own MAC; never a value
create table audit_event (
  id uuid not null,
  at timestamp with time zone not null,
  actor_id uuid,
  team_id uuid,
  action text not null,
  target_type text not null,
  target_id text not null,
  decision text not null,
  reason text,
  request_id text not null,
  key_id uuid,
  credential_version integer,
  address_hash bytea,
  details jsonb not null,
  mac_version integer not null,
  mac bytea not null,
  constraint audit_event_pkey PRIMARY KEY (at, id),
  constraint audit_event_decision_known CHECK (decision = ANY (ARRAY['allow'::text, 'deny'::text]))
) partition by RANGE (at);
create index audit_event_team ON ONLY audit_event USING btree (team_id, at, id);
create trigger audit_event_is_append_only BEFORE DELETE OR UPDATE ON audit_event FOR EACH ROW EXECUTE FUNCTION audit_is_append_only();
create trigger audit_event_is_never_truncated BEFORE TRUNCATE ON audit_event FOR EACH STATEMENT EXECUTE FUNCTION audit_is_append_only();

-- tenant-data, sealed: leave for one engine to use one credential through the broker; purged when it has expired
create table broker_ticket (
  id uuid not null,
  ticket_hash bytea not null,
  credential_id uuid not null,
  engine_id uuid not null,
  behalf_subject_id uuid,
  host text, -- where calls go, with a port that is not 443, for a type that has no destination of its own
  expires_at timestamp with time zone not null,
  revision integer not null,
  seal bytea not null,
  created_at timestamp with time zone not null,
  bundle_id uuid, -- the id by which the tickets of one call are extended and ended; that of the ticket where there is one only, null of one that a release before made
  constraint broker_ticket_pkey PRIMARY KEY (id),
  constraint broker_ticket_behalf_subject_fkey FOREIGN KEY (behalf_subject_id) REFERENCES subject(id),
  constraint broker_ticket_credential_fkey FOREIGN KEY (credential_id) REFERENCES credential(id) ON DELETE CASCADE,
  constraint broker_ticket_engine_fkey FOREIGN KEY (engine_id) REFERENCES engine(id) ON DELETE CASCADE,
  constraint broker_ticket_hash_length CHECK (octet_length(ticket_hash) = 32),
  constraint broker_ticket_host_length CHECK (char_length(host) >= 1 AND char_length(host) <= 253),
  constraint broker_ticket_revision_positive CHECK (revision > 0)
);
create index broker_ticket_bundle ON broker_ticket USING btree (bundle_id);
create index broker_ticket_credential ON broker_ticket USING btree (credential_id);
create index broker_ticket_engine ON broker_ticket USING btree (engine_id);
create index broker_ticket_expired ON broker_ticket USING btree (expires_at);
create unique index broker_ticket_hash ON broker_ticket USING btree (ticket_hash);
create trigger broker_ticket_storable_when_changed BEFORE UPDATE ON broker_ticket FOR EACH ROW WHEN (new.created_at IS DISTINCT FROM old.created_at AND (new.created_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.created_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR new.expires_at IS DISTINCT FROM old.expires_at AND (new.expires_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.expires_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR new.host IS DISTINCT FROM old.host AND (new.host !~ '[\u0001-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]'::text) IS FALSE) EXECUTE FUNCTION refuse_unstorable();
create trigger broker_ticket_storable_when_made BEFORE INSERT ON broker_ticket FOR EACH ROW WHEN ((new.created_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.created_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR (new.expires_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.expires_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR (new.host !~ '[\u0001-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]'::text) IS FALSE) EXECUTE FUNCTION refuse_unstorable();

-- tenant-data, sealed: what is known of a credential besides its values
create table credential (
  id uuid not null,
  team_id uuid not null,
  name text not null,
  type text not null, -- a type of the vault's own; or the stored_name of a declared one
  description text,
  labels jsonb not null default '{}'::jsonb,
  state text not null,
  current_version integer not null,
  expires_at timestamp with time zone,
  revision integer not null,
  seal bytea not null,
  created_at timestamp with time zone not null,
  created_by uuid not null,
  updated_at timestamp with time zone not null,
  updated_by uuid not null,
  deleted_at timestamp with time zone,
  state_before text, -- sealed; of deleted ones: the state to which they come back
  rotate_after timestamp with time zone,
  due_at timestamp with time zone generated always as (LEAST(expires_at, rotate_after)) stored, -- when somebody has to see to it
  label_bits bigint not null generated always as (label_bits(labels)) stored, -- where a label may be, for lists; what it is stands in labels
  constraint credential_pkey PRIMARY KEY (id),
  constraint credential_team_id_key UNIQUE (team_id, id),
  constraint credential_created_by_fkey FOREIGN KEY (created_by) REFERENCES subject(id),
  constraint credential_current_version_fkey FOREIGN KEY (team_id, id, current_version) REFERENCES credential_version(team_id, credential_id, version) DEFERRABLE INITIALLY DEFERRED,
  constraint credential_team_fkey FOREIGN KEY (team_id) REFERENCES team(id) ON DELETE CASCADE,
  constraint credential_updated_by_fkey FOREIGN KEY (updated_by) REFERENCES subject(id),
  constraint credential_current_version_positive CHECK (current_version > 0),
  constraint credential_deleted_at_with_state CHECK ((state = 'deleted'::text) = (deleted_at IS NOT NULL)),
  constraint credential_description_length CHECK (char_length(description) <= 1000),
  constraint credential_name_length CHECK (char_length(name) >= 1 AND char_length(name) <= 100),
  constraint credential_revision_positive CHECK (revision > 0),
  constraint credential_state_before_known CHECK (state_before = ANY (ARRAY['enabled'::text, 'disabled'::text])),
  constraint credential_state_before_with_state CHECK (state_before IS NULL OR state = 'deleted'::text),
  constraint credential_state_known CHECK (state = ANY (ARRAY['enabled'::text, 'disabled'::text, 'deleted'::text]))
);
create index credential_declared_type ON credential USING btree (split_part(type, '#'::text, 1)) WHERE strpos(type, '#'::text) > 0;
create index credential_deleted ON credential USING btree (team_id, id) WHERE state = 'deleted'::text;
create index credential_disabled ON credential USING btree (team_id, name COLLATE "C") INCLUDE (id) WHERE state = 'disabled'::text;
create index credential_due ON credential USING btree (team_id, due_at, id) INCLUDE (type, current_version, label_bits) WHERE state <> 'deleted'::text AND due_at IS NOT NULL;
create index credential_expires ON credential USING btree (team_id, expires_at, id) INCLUDE (type, current_version, label_bits) WHERE state <> 'deleted'::text AND expires_at IS NOT NULL;
create unique index credential_living_name ON credential USING btree (team_id, name COLLATE "C") INCLUDE (id, type, current_version, label_bits) WHERE state <> 'deleted'::text;
create index credential_purge ON credential USING btree (deleted_at) WHERE state = 'deleted'::text;
create index credential_rotation ON credential USING btree (team_id, rotate_after) WHERE rotate_after IS NOT NULL AND state <> 'deleted'::text;
create index credential_updated ON credential USING btree (team_id, updated_at, id) INCLUDE (type, current_version, label_bits) WHERE state <> 'deleted'::text;
create trigger credential_deleted_at BEFORE UPDATE OF deleted_at ON credential FOR EACH ROW WHEN (new.deleted_at IS NOT NULL) EXECUTE FUNCTION deleted_at_is_the_databases();
create trigger credential_moves_by_offer BEFORE UPDATE ON credential FOR EACH ROW WHEN (new.team_id <> old.team_id OR new.id <> old.id) EXECUTE FUNCTION credential_moves_by_offer();
create trigger credential_storable_when_changed BEFORE UPDATE ON credential FOR EACH ROW WHEN (new.created_at IS DISTINCT FROM old.created_at AND (new.created_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.created_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR new.deleted_at IS DISTINCT FROM old.deleted_at AND (new.deleted_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.deleted_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR new.description IS DISTINCT FROM old.description AND (new.description !~ '[\u0001-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]'::text) IS FALSE OR new.expires_at IS DISTINCT FROM old.expires_at AND (new.expires_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.expires_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR new.labels IS DISTINCT FROM old.labels AND (new.labels = '{}'::jsonb OR jsonb_typeof(new.labels) = 'object'::text AND NOT jsonb_path_exists(new.labels, '$.*?(@.type() != "string")'::jsonpath)) IS FALSE OR new.name IS DISTINCT FROM old.name AND (new.name !~ '[\u0001-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]'::text) IS FALSE OR new.rotate_after IS DISTINCT FROM old.rotate_after AND (new.rotate_after >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.rotate_after <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR new.type IS DISTINCT FROM old.type AND (new.type ~ '^([a-zA-Z][a-zA-Z0-9]{0,99}|[a-z0-9.-]{3,60}#[A-Za-z0-9_-]{43})$'::text) IS FALSE OR new.updated_at IS DISTINCT FROM old.updated_at AND (new.updated_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.updated_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE) EXECUTE FUNCTION refuse_unstorable();
create trigger credential_storable_when_made BEFORE INSERT ON credential FOR EACH ROW WHEN ((new.created_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.created_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR (new.deleted_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.deleted_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR (new.description !~ '[\u0001-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]'::text) IS FALSE OR (new.expires_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.expires_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR (new.labels = '{}'::jsonb OR jsonb_typeof(new.labels) = 'object'::text AND NOT jsonb_path_exists(new.labels, '$.*?(@.type() != "string")'::jsonpath)) IS FALSE OR (new.name !~ '[\u0001-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]'::text) IS FALSE OR (new.rotate_after >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.rotate_after <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR (new.type ~ '^([a-zA-Z][a-zA-Z0-9]{0,99}|[a-z0-9.-]{3,60}#[A-Za-z0-9_-]{43})$'::text) IS FALSE OR (new.updated_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.updated_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE) EXECUTE FUNCTION refuse_unstorable();
create trigger credential_usage_follows AFTER DELETE OR UPDATE OF team_id ON credential FOR EACH ROW EXECUTE FUNCTION credential_usage_follows();
create trigger credential_waits_for_its_purge BEFORE DELETE ON credential FOR EACH ROW EXECUTE FUNCTION credential_waits_for_its_purge();
create trigger team_receives AFTER UPDATE OF team_id ON credential FOR EACH ROW WHEN (new.team_id <> old.team_id) EXECUTE FUNCTION team_receives();

-- tenant-data, sealed: what a team or a subject may do with a credential of another team
create table credential_grant (
  id uuid not null,
  team_id uuid not null,
  credential_id uuid not null,
  grantee_kind text not null, -- `engine`: the subject was a registered engine when it was granted to
  grantee_team_id uuid,
  grantee_subject_id uuid,
  access text not null,
  revision integer not null,
  seal bytea not null,
  created_at timestamp with time zone not null,
  created_by uuid not null,
  updated_at timestamp with time zone not null,
  updated_by uuid not null,
  constraint credential_grant_pkey PRIMARY KEY (id),
  constraint credential_grant_subject_key UNIQUE (credential_id, grantee_subject_id),
  constraint credential_grant_team_key UNIQUE (credential_id, grantee_team_id),
  constraint credential_grant_created_by_fkey FOREIGN KEY (created_by) REFERENCES subject(id),
  constraint credential_grant_credential_fkey FOREIGN KEY (team_id, credential_id) REFERENCES credential(team_id, id) ON DELETE CASCADE,
  constraint credential_grant_grantee_subject_fkey FOREIGN KEY (grantee_subject_id) REFERENCES subject(id),
  constraint credential_grant_grantee_team_fkey FOREIGN KEY (grantee_team_id) REFERENCES team(id) ON DELETE CASCADE,
  constraint credential_grant_updated_by_fkey FOREIGN KEY (updated_by) REFERENCES subject(id),
  constraint credential_grant_access_known CHECK (access = ANY (ARRAY['read'::text, 'use'::text])),
  constraint credential_grant_kind_known CHECK (grantee_kind = ANY (ARRAY['team'::text, 'subject'::text, 'engine'::text])),
  constraint credential_grant_revision_positive CHECK (revision > 0),
  constraint credential_grant_to_one CHECK ((grantee_kind = 'team'::text) = (grantee_team_id IS NOT NULL) AND (grantee_kind = 'team'::text) = (grantee_subject_id IS NULL)),
  constraint credential_grant_to_others CHECK (grantee_team_id <> team_id)
);
create index credential_grant_of_subject ON credential_grant USING btree (grantee_subject_id, credential_id) WHERE grantee_subject_id IS NOT NULL;
create index credential_grant_of_team ON credential_grant USING btree (grantee_team_id, credential_id) WHERE grantee_team_id IS NOT NULL;
create trigger credential_grant_storable_when_changed BEFORE UPDATE ON credential_grant FOR EACH ROW WHEN (new.created_at IS DISTINCT FROM old.created_at AND (new.created_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.created_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR new.updated_at IS DISTINCT FROM old.updated_at AND (new.updated_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.updated_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE) EXECUTE FUNCTION refuse_unstorable();
create trigger credential_grant_storable_when_made BEFORE INSERT ON credential_grant FOR EACH ROW WHEN ((new.created_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.created_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR (new.updated_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.updated_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE) EXECUTE FUNCTION refuse_unstorable();

-- tenant-data, sealed: an open offer of a credential to another team; accepted, declined and expired ones are deleted
create table credential_transfer (
  id uuid not null,
  team_id uuid not null,
  credential_id uuid not null,
  to_team_id uuid not null,
  expires_at timestamp with time zone not null,
  revision integer not null,
  seal bytea not null,
  created_at timestamp with time zone not null,
  created_by uuid not null,
  constraint credential_transfer_pkey PRIMARY KEY (id),
  constraint credential_transfer_credential_key UNIQUE (credential_id),
  constraint credential_transfer_created_by_fkey FOREIGN KEY (created_by) REFERENCES subject(id),
  constraint credential_transfer_credential_fkey FOREIGN KEY (credential_id) REFERENCES credential(id) ON DELETE CASCADE,
  constraint credential_transfer_team_fkey FOREIGN KEY (team_id) REFERENCES team(id) ON DELETE CASCADE,
  constraint credential_transfer_to_team_fkey FOREIGN KEY (to_team_id) REFERENCES team(id) ON DELETE CASCADE,
  constraint credential_transfer_revision_positive CHECK (revision > 0),
  constraint credential_transfer_to_another CHECK (to_team_id <> team_id)
);
create index credential_transfer_expired ON credential_transfer USING btree (expires_at);
create index credential_transfer_from ON credential_transfer USING btree (team_id, id);
create index credential_transfer_to ON credential_transfer USING btree (to_team_id, id);
create trigger credential_transfer_storable_when_changed BEFORE UPDATE ON credential_transfer FOR EACH ROW WHEN (new.created_at IS DISTINCT FROM old.created_at AND (new.created_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.created_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR new.expires_at IS DISTINCT FROM old.expires_at AND (new.expires_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.expires_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE) EXECUTE FUNCTION refuse_unstorable();
create trigger credential_transfer_storable_when_made BEFORE INSERT ON credential_transfer FOR EACH ROW WHEN ((new.created_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.created_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR (new.expires_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.expires_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE) EXECUTE FUNCTION refuse_unstorable();

-- operational, sealed: types of credentials that the platform operator declares
create table credential_type (
  name text not null,
  id uuid not null, -- another one for each declaration that is not the one before and more
  stored_name text not null, -- how credentials name it: the name, and the digest of what binds them
  declaration jsonb not null,
  revision integer not null,
  row_mac bytea not null, -- over name, id, stored_name, declaration and revision
  created_at timestamp with time zone not null,
  created_by uuid not null,
  updated_at timestamp with time zone not null,
  updated_by uuid not null,
  constraint credential_type_pkey PRIMARY KEY (name),
  constraint credential_type_stored_name_key UNIQUE (stored_name),
  constraint credential_type_created_by_fkey FOREIGN KEY (created_by) REFERENCES subject(id),
  constraint credential_type_updated_by_fkey FOREIGN KEY (updated_by) REFERENCES subject(id),
  constraint credential_type_created_at_sayable CHECK (created_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND created_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone),
  constraint credential_type_declaration_size CHECK (octet_length(declaration::text) <= 65536),
  constraint credential_type_name_form CHECK (char_length(name) <= 60 AND name ~ '^[a-z][a-z0-9-]*([.][a-z][a-z0-9-]*)+$'::text),
  constraint credential_type_revision_positive CHECK (revision > 0),
  constraint credential_type_stored_name_form CHECK (stored_name ~ '^[a-z0-9.-]+#[A-Za-z0-9_-]{43}$'::text AND split_part(stored_name, '#'::text, 1) = name),
  constraint credential_type_updated_at_sayable CHECK (updated_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND updated_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone)
);

-- operational: use counts, flushed as deltas; a hint, the audit is the truth
create table credential_usage (
  credential_id uuid not null,
  use_count bigint not null,
  last_used_at timestamp with time zone,
  team_id uuid not null,
  made_at timestamp with time zone not null, -- when the credential was made: the use of one that was never used
  idle_since timestamp with time zone not null generated always as (COALESCE(last_used_at, made_at)) stored,
  constraint credential_usage_pkey PRIMARY KEY (credential_id)
);
create index credential_usage_idle ON credential_usage USING btree (team_id, idle_since, credential_id);
create index credential_usage_team ON credential_usage USING btree (team_id, credential_id) INCLUDE (use_count, last_used_at, idle_since);
create trigger credential_usage_knows_its_team BEFORE INSERT ON credential_usage FOR EACH ROW WHEN (new.team_id IS NULL OR new.made_at IS NULL) EXECUTE FUNCTION credential_usage_knows_its_team();
create trigger credential_usage_storable_when_changed BEFORE UPDATE ON credential_usage FOR EACH ROW WHEN (new.last_used_at IS DISTINCT FROM old.last_used_at AND (new.last_used_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.last_used_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR new.made_at IS DISTINCT FROM old.made_at AND (new.made_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.made_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR new.use_count IS DISTINCT FROM old.use_count AND (new.use_count >= 0 AND new.use_count <= '9007199254740991'::bigint) IS FALSE) EXECUTE FUNCTION refuse_unstorable();
create trigger credential_usage_storable_when_made BEFORE INSERT ON credential_usage FOR EACH ROW WHEN ((new.last_used_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.last_used_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR (new.made_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.made_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR (new.use_count >= 0 AND new.use_count <= '9007199254740991'::bigint) IS FALSE) EXECUTE FUNCTION refuse_unstorable();

-- tenant-data: one immutable version; token is Fernet, bound to every other column but undecryptable_at and created_…
create table credential_version (
  team_id uuid not null,
  credential_id uuid not null,
  version integer not null,
  data_key_id uuid not null,
  token text not null,
  secret_field_names text[] not null,
  public_fields jsonb not null,
  policy jsonb not null,
  undecryptable_at timestamp with time zone,
  created_at timestamp with time zone not null,
  created_by uuid not null,
  key_history uuid[] not null default '{}'::uuid[],
  constraint credential_version_pkey PRIMARY KEY (team_id, credential_id, version),
  constraint credential_version_created_by_fkey FOREIGN KEY (created_by) REFERENCES subject(id),
  constraint credential_version_credential_fkey FOREIGN KEY (team_id, credential_id) REFERENCES credential(team_id, id) ON DELETE CASCADE DEFERRABLE,
  constraint credential_version_data_key_fkey FOREIGN KEY (team_id, data_key_id) REFERENCES data_key(team_id, id),
  constraint credential_version_positive CHECK (version > 0),
  constraint credential_version_token_form CHECK (token ~ '^(gAAAA|QQAAA)'::text)
);
create index credential_version_data_key ON credential_version USING btree (data_key_id, credential_id, version);
create index credential_version_undecryptable ON credential_version USING btree (team_id, credential_id) WHERE undecryptable_at IS NOT NULL;
create trigger credential_version_is_immutable BEFORE UPDATE ON credential_version FOR EACH ROW WHEN (new.credential_id IS DISTINCT FROM old.credential_id OR new.version IS DISTINCT FROM old.version OR new.secret_field_names IS DISTINCT FROM old.secret_field_names OR new.public_fields IS DISTINCT FROM old.public_fields OR new.policy IS DISTINCT FROM old.policy OR new.created_at IS DISTINCT FROM old.created_at OR new.created_by IS DISTINCT FROM old.created_by OR new.team_id <> old.team_id AND (new.token = old.token OR new.data_key_id = old.data_key_id)) EXECUTE FUNCTION credential_version_is_immutable();
create trigger credential_version_key_history BEFORE INSERT OR UPDATE OF data_key_id, key_history ON credential_version FOR EACH ROW EXECUTE FUNCTION credential_version_key_history();
create trigger credential_version_storable_when_changed BEFORE UPDATE ON credential_version FOR EACH ROW WHEN (new.key_history IS DISTINCT FROM old.key_history AND (COALESCE(array_ndims(new.key_history), 1) = 1 AND array_position(new.key_history, NULL::uuid) IS NULL) IS FALSE OR new.undecryptable_at IS DISTINCT FROM old.undecryptable_at AND (new.undecryptable_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.undecryptable_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE) EXECUTE FUNCTION refuse_unstorable();
create trigger credential_version_storable_when_made BEFORE INSERT ON credential_version FOR EACH ROW WHEN ((new.created_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.created_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR (COALESCE(array_ndims(new.key_history), 1) = 1 AND array_position(new.key_history, NULL::uuid) IS NULL) IS FALSE OR (jsonb_typeof(new.policy) = 'object'::text) IS FALSE OR (jsonb_typeof(new.public_fields) = 'object'::text) IS FALSE OR (COALESCE(array_ndims(new.secret_field_names), 1) = 1 AND array_position(new.secret_field_names, NULL::text) IS NULL) IS FALSE OR (new.undecryptable_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.undecryptable_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE) EXECUTE FUNCTION refuse_unstorable();
create trigger token_needs_active_key BEFORE INSERT OR UPDATE OF token, data_key_id ON credential_version FOR EACH ROW EXECUTE FUNCTION token_needs_active_key();

-- tenant-data: a team's versioned keys; one active key seals, the others open
create table data_key (
  id uuid not null,
  team_id uuid not null,
  version integer not null,
  format text not null,
  state text not null,
  fingerprint text not null,
  root_fingerprint text not null,
  wrapped bytea,
  created_at timestamp with time zone not null,
  created_by uuid,
  demoted_at timestamp with time zone,
  retired_at timestamp with time zone,
  root_history text[] not null default '{}'::text[],
  compromised_at timestamp with time zone,
  compromised_by uuid,
  compromise_reason text,
  destroy_scheduled_at timestamp with time zone,
  destroy_at timestamp with time zone,
  destroyed_at timestamp with time zone,
  constraint data_key_pkey PRIMARY KEY (id),
  constraint data_key_team_id_key UNIQUE (team_id, id),
  constraint data_key_team_version_key UNIQUE (team_id, version),
  constraint data_key_compromised_by_fkey FOREIGN KEY (compromised_by) REFERENCES subject(id),
  constraint data_key_created_by_fkey FOREIGN KEY (created_by) REFERENCES subject(id),
  constraint data_key_root_key_fkey FOREIGN KEY (root_fingerprint) REFERENCES root_key(fingerprint),
  constraint data_key_team_fkey FOREIGN KEY (team_id) REFERENCES team(id) ON DELETE CASCADE,
  constraint data_key_compromise_is_whole CHECK ((compromised_at IS NULL) = (compromise_reason IS NULL)),
  constraint data_key_compromise_reason_length CHECK (char_length(compromise_reason) >= 1 AND char_length(compromise_reason) <= 200),
  constraint data_key_destroy_at_only_then CHECK (destroy_at IS NULL OR (state = ANY (ARRAY['destroyPending'::text, 'destroyed'::text]))),
  constraint data_key_destroy_at_with_state CHECK ((state = 'destroyPending'::text) <= (destroy_at IS NOT NULL)),
  constraint data_key_destroy_waits CHECK ((destroy_at IS NULL) = (destroy_scheduled_at IS NULL) AND destroy_at >= (destroy_scheduled_at + '7 days'::interval)),
  constraint data_key_destroyed_at_with_state CHECK ((state = 'destroyed'::text) = (destroyed_at IS NOT NULL)),
  constraint data_key_destroyed_has_no_material CHECK ((state = 'destroyed'::text) = (wrapped IS NULL)),
  constraint data_key_fingerprint_form CHECK (fingerprint ~ '^[0-9a-f]{16}$'::text),
  constraint data_key_format_known CHECK (format = ANY (ARRAY['fernet'::text, 'fernet-256'::text])),
  constraint data_key_state_known CHECK (state = ANY (ARRAY['active'::text, 'decryptOnly'::text, 'retired'::text, 'destroyPending'::text, 'destroyed'::text])),
  constraint data_key_version_positive CHECK (version > 0)
);
create index data_key_compromised ON data_key USING btree (team_id, id) WHERE compromised_at IS NOT NULL;
create index data_key_destroy_due ON data_key USING btree (destroy_at) WHERE state = 'destroyPending'::text;
create unique index data_key_one_active ON data_key USING btree (team_id) WHERE state = 'active'::text;
create index data_key_root ON data_key USING btree (root_fingerprint, id) WHERE state <> 'destroyed'::text;
create trigger data_key_root_history BEFORE INSERT OR UPDATE OF root_fingerprint ON data_key FOR EACH ROW EXECUTE FUNCTION key_root_history();
create trigger data_key_state_machine BEFORE UPDATE ON data_key FOR EACH ROW EXECUTE FUNCTION data_key_state_machine();
create trigger data_key_storable_when_changed BEFORE UPDATE ON data_key FOR EACH ROW WHEN (new.compromise_reason IS DISTINCT FROM old.compromise_reason AND (new.compromise_reason !~ '[\u0001-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]'::text) IS FALSE OR new.compromised_at IS DISTINCT FROM old.compromised_at AND (new.compromised_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.compromised_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR new.created_at IS DISTINCT FROM old.created_at AND (new.created_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.created_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR new.demoted_at IS DISTINCT FROM old.demoted_at AND (new.demoted_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.demoted_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR new.destroy_at IS DISTINCT FROM old.destroy_at AND (new.destroy_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.destroy_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR new.destroy_scheduled_at IS DISTINCT FROM old.destroy_scheduled_at AND (new.destroy_scheduled_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.destroy_scheduled_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR new.destroyed_at IS DISTINCT FROM old.destroyed_at AND (new.destroyed_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.destroyed_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR new.retired_at IS DISTINCT FROM old.retired_at AND (new.retired_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.retired_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR new.root_history IS DISTINCT FROM old.root_history AND (COALESCE(array_ndims(new.root_history), 1) = 1 AND array_position(new.root_history, NULL::text) IS NULL) IS FALSE) EXECUTE FUNCTION refuse_unstorable();
create trigger data_key_storable_when_made BEFORE INSERT ON data_key FOR EACH ROW WHEN ((new.compromise_reason !~ '[\u0001-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]'::text) IS FALSE OR (new.compromised_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.compromised_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR (new.created_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.created_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR (new.demoted_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.demoted_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR (new.destroy_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.destroy_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR (new.destroy_scheduled_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.destroy_scheduled_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR (new.destroyed_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.destroyed_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR (new.retired_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.retired_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR (COALESCE(array_ndims(new.root_history), 1) = 1 AND array_position(new.root_history, NULL::text) IS NULL) IS FALSE) EXECUTE FUNCTION refuse_unstorable();
create trigger data_key_tombstone_stays BEFORE DELETE ON data_key FOR EACH ROW EXECUTE FUNCTION data_key_tombstone_stays();

-- operational, sealed: a registered workflow engine
create table engine (
  id uuid not null,
  subject_id uuid not null,
  name text not null,
  state text not null,
  revision integer not null,
  seal bytea not null,
  created_at timestamp with time zone not null,
  created_by uuid not null,
  updated_at timestamp with time zone not null,
  updated_by uuid not null,
  constraint engine_pkey PRIMARY KEY (id),
  constraint engine_name_key UNIQUE (name),
  constraint engine_subject_key UNIQUE (subject_id),
  constraint engine_created_by_fkey FOREIGN KEY (created_by) REFERENCES subject(id),
  constraint engine_subject_fkey FOREIGN KEY (subject_id) REFERENCES subject(id),
  constraint engine_updated_by_fkey FOREIGN KEY (updated_by) REFERENCES subject(id),
  constraint engine_name_length CHECK (char_length(name) >= 1 AND char_length(name) <= 100),
  constraint engine_revision_positive CHECK (revision > 0),
  constraint engine_state_known CHECK (state = ANY (ARRAY['enabled'::text, 'disabled'::text]))
);
create index engine_in_order ON engine USING btree (name COLLATE "C");
create trigger engine_storable_when_changed BEFORE UPDATE ON engine FOR EACH ROW WHEN (new.created_at IS DISTINCT FROM old.created_at AND (new.created_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.created_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR new.name IS DISTINCT FROM old.name AND (new.name !~ '[\u0001-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]'::text) IS FALSE OR new.updated_at IS DISTINCT FROM old.updated_at AND (new.updated_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.updated_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE) EXECUTE FUNCTION refuse_unstorable();
create trigger engine_storable_when_made BEFORE INSERT ON engine FOR EACH ROW WHEN ((new.created_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.created_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR (new.name !~ '[\u0001-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]'::text) IS FALSE OR (new.updated_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.updated_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE) EXECUTE FUNCTION refuse_unstorable();
create trigger engine_subject_is_no_person BEFORE INSERT OR UPDATE OF subject_id ON engine FOR EACH ROW EXECUTE FUNCTION engine_subject_is_no_person();

-- operational, sealed: a public key (RFC 7638 thumbprint and JWK) that leases are encrypted to
create table engine_key (
  engine_id uuid not null,
  kid text not null,
  jwk jsonb not null,
  revision integer not null,
  seal bytea not null,
  created_at timestamp with time zone not null,
  created_by uuid not null,
  constraint engine_key_pkey PRIMARY KEY (engine_id, kid),
  constraint engine_key_created_by_fkey FOREIGN KEY (created_by) REFERENCES subject(id),
  constraint engine_key_engine_fkey FOREIGN KEY (engine_id) REFERENCES engine(id) ON DELETE CASCADE,
  constraint engine_key_kid_form CHECK (kid ~ '^[A-Za-z0-9_-]{43}$'::text),
  constraint engine_key_revision_positive CHECK (revision > 0)
);
create trigger engine_key_storable_when_changed BEFORE UPDATE ON engine_key FOR EACH ROW WHEN (new.created_at IS DISTINCT FROM old.created_at AND (new.created_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.created_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR new.jwk IS DISTINCT FROM old.jwk AND (jsonb_typeof(new.jwk) = 'object'::text AND (new.jwk - ARRAY['kty'::text, 'crv'::text, 'x'::text, 'y'::text]) = '{}'::jsonb AND ((new.jwk ->> 'kty'::text) = ANY (ARRAY['OKP'::text, 'EC'::text])) AND ((new.jwk ->> 'crv'::text) = ANY (ARRAY['X25519'::text, 'P-256'::text])) AND (new.jwk ->> 'x'::text) ~ '^[A-Za-z0-9_-]{43}$'::text AND COALESCE(new.jwk ->> 'y'::text, new.jwk ->> 'x'::text) ~ '^[A-Za-z0-9_-]{43}$'::text) IS FALSE) EXECUTE FUNCTION refuse_unstorable();
create trigger engine_key_storable_when_made BEFORE INSERT ON engine_key FOR EACH ROW WHEN ((new.created_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.created_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR (jsonb_typeof(new.jwk) = 'object'::text AND (new.jwk - ARRAY['kty'::text, 'crv'::text, 'x'::text, 'y'::text]) = '{}'::jsonb AND ((new.jwk ->> 'kty'::text) = ANY (ARRAY['OKP'::text, 'EC'::text])) AND ((new.jwk ->> 'crv'::text) = ANY (ARRAY['X25519'::text, 'P-256'::text])) AND (new.jwk ->> 'x'::text) ~ '^[A-Za-z0-9_-]{43}$'::text AND COALESCE(new.jwk ->> 'y'::text, new.jwk ->> 'x'::text) ~ '^[A-Za-z0-9_-]{43}$'::text) IS FALSE) EXECUTE FUNCTION refuse_unstorable();

-- operational: kept 24 hours; the body only as an HMAC
create table idempotency_record (
  subject_id uuid not null,
  method text not null,
  route text not null,
  key_hash bytea not null,
  body_mac_version integer not null,
  body_mac bytea not null,
  target_id text not null,
  created_at timestamp with time zone not null,
  constraint idempotency_record_pkey PRIMARY KEY (subject_id, method, route, key_hash),
  constraint idempotency_record_subject_fkey FOREIGN KEY (subject_id) REFERENCES subject(id)
);
create index idempotency_record_created ON idempotency_record USING btree (created_at);
create trigger idempotency_record_storable_when_changed BEFORE UPDATE ON idempotency_record FOR EACH ROW WHEN (new.created_at IS DISTINCT FROM old.created_at AND (new.created_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.created_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE) EXECUTE FUNCTION refuse_unstorable();
create trigger idempotency_record_storable_when_made BEFORE INSERT ON idempotency_record FOR EACH ROW WHEN ((new.created_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.created_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE) EXECUTE FUNCTION refuse_unstorable();

-- tenant-data: one run of re-encryption
create table key_rotation (
  id uuid not null,
  team_id uuid not null,
  to_key_id uuid not null,
  state text not null,
  total bigint not null,
  done bigint not null default 0,
  created_at timestamp with time zone not null,
  created_by uuid, -- null when the vault started it by itself
  progressed_at timestamp with time zone not null,
  ended_at timestamp with time zone,
  cause text not null default 'request'::text,
  constraint key_rotation_pkey PRIMARY KEY (id),
  constraint key_rotation_created_by_fkey FOREIGN KEY (created_by) REFERENCES subject(id),
  constraint key_rotation_team_fkey FOREIGN KEY (team_id) REFERENCES team(id) ON DELETE CASCADE,
  constraint key_rotation_to_key_fkey FOREIGN KEY (to_key_id) REFERENCES data_key(id) ON DELETE CASCADE,
  constraint key_rotation_cause_known CHECK (cause = ANY (ARRAY['request'::text, 'policy'::text, 'compromise'::text, 'rootCompromise'::text])),
  constraint key_rotation_done_natural CHECK (done >= 0),
  constraint key_rotation_ended_with_state CHECK ((state = 'running'::text) = (ended_at IS NULL)),
  constraint key_rotation_state_known CHECK (state = ANY (ARRAY['running'::text, 'completed'::text, 'completedWithFailures'::text, 'cancelled'::text])),
  constraint key_rotation_total_natural CHECK (total >= 0)
);
create unique index key_rotation_one_running ON key_rotation USING btree (team_id) WHERE state = 'running'::text;
create index key_rotation_team ON key_rotation USING btree (team_id, id);
create trigger key_rotation_storable_when_changed BEFORE UPDATE ON key_rotation FOR EACH ROW WHEN (new.created_at IS DISTINCT FROM old.created_at AND (new.created_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.created_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR new.done IS DISTINCT FROM old.done AND (new.done <= '9007199254740991'::bigint) IS FALSE OR new.ended_at IS DISTINCT FROM old.ended_at AND (new.ended_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.ended_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR new.progressed_at IS DISTINCT FROM old.progressed_at AND (new.progressed_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.progressed_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR new.total IS DISTINCT FROM old.total AND (new.total <= '9007199254740991'::bigint) IS FALSE) EXECUTE FUNCTION refuse_unstorable();
create trigger key_rotation_storable_when_made BEFORE INSERT ON key_rotation FOR EACH ROW WHEN ((new.created_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.created_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR (new.done <= '9007199254740991'::bigint) IS FALSE OR (new.ended_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.ended_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR (new.progressed_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.progressed_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR (new.total <= '9007199254740991'::bigint) IS FALSE) EXECUTE FUNCTION refuse_unstorable();

-- tenant-data: tokens that did not open during a rotation; they stay under their key and block retiring it
create table key_rotation_failure (
  rotation_id uuid not null,
  credential_id uuid not null,
  version integer not null,
  at timestamp with time zone not null,
  team_id uuid not null,
  constraint key_rotation_failure_pkey PRIMARY KEY (rotation_id, credential_id, version),
  constraint key_rotation_failure_rotation_fkey FOREIGN KEY (rotation_id) REFERENCES key_rotation(id) ON DELETE CASCADE,
  constraint key_rotation_failure_version_fkey FOREIGN KEY (team_id, credential_id, version) REFERENCES credential_version(team_id, credential_id, version) ON DELETE CASCADE
);
create index key_rotation_failure_version ON key_rotation_failure USING btree (team_id, credential_id, version);
create trigger key_rotation_failure_knows_its_team BEFORE INSERT ON key_rotation_failure FOR EACH ROW WHEN (new.team_id IS NULL) EXECUTE FUNCTION key_rotation_failure_knows_its_team();
create trigger key_rotation_failure_storable_when_changed BEFORE UPDATE ON key_rotation_failure FOR EACH ROW WHEN (new.at IS DISTINCT FROM old.at AND (new.at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE) EXECUTE FUNCTION refuse_unstorable();
create trigger key_rotation_failure_storable_when_made BEFORE INSERT ON key_rotation_failure FOR EACH ROW WHEN ((new.at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE) EXECUTE FUNCTION refuse_unstorable();

-- tenant-data: held tokens that did not open during a rotation; they stay under their key and block retiring it
create table key_rotation_oauth_failure (
  rotation_id uuid not null,
  credential_id uuid not null,
  at timestamp with time zone not null,
  constraint key_rotation_oauth_failure_pkey PRIMARY KEY (rotation_id, credential_id),
  constraint key_rotation_oauth_failure_rotation_fkey FOREIGN KEY (rotation_id) REFERENCES key_rotation(id) ON DELETE CASCADE,
  constraint key_rotation_oauth_failure_token_fkey FOREIGN KEY (credential_id) REFERENCES oauth_token(credential_id) ON DELETE CASCADE
);
create index key_rotation_oauth_failure_token ON key_rotation_oauth_failure USING btree (credential_id);
create trigger key_rotation_oauth_failure_storable_when_changed BEFORE UPDATE ON key_rotation_oauth_failure FOR EACH ROW WHEN (new.at IS DISTINCT FROM old.at AND (new.at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE) EXECUTE FUNCTION refuse_unstorable();
create trigger key_rotation_oauth_failure_storable_when_made BEFORE INSERT ON key_rotation_oauth_failure FOR EACH ROW WHEN ((new.at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE) EXECUTE FUNCTION refuse_unstorable();

-- tenant-data, sealed: one role of one subject in one team
create table membership (
  team_id uuid not null,
  subject_id uuid not null,
  role text not null,
  acts_for_itself boolean not null default false,
  revision integer not null,
  seal bytea not null,
  created_at timestamp with time zone not null,
  created_by uuid not null,
  updated_at timestamp with time zone not null,
  updated_by uuid not null,
  constraint membership_pkey PRIMARY KEY (team_id, subject_id),
  constraint membership_created_by_fkey FOREIGN KEY (created_by) REFERENCES subject(id),
  constraint membership_subject_fkey FOREIGN KEY (subject_id) REFERENCES subject(id),
  constraint membership_team_fkey FOREIGN KEY (team_id) REFERENCES team(id) ON DELETE CASCADE,
  constraint membership_updated_by_fkey FOREIGN KEY (updated_by) REFERENCES subject(id),
  constraint membership_acts_for_itself_engine_only CHECK (role = 'engine'::text OR NOT acts_for_itself),
  constraint membership_revision_positive CHECK (revision > 0),
  constraint membership_role_known CHECK (role = ANY (ARRAY['viewer'::text, 'editor'::text, 'admin'::text, 'auditor'::text, 'engine'::text]))
);
create index membership_subject_index ON membership USING btree (subject_id);
create trigger membership_engine_role BEFORE INSERT OR UPDATE OF role, subject_id ON membership FOR EACH ROW EXECUTE FUNCTION membership_engine_role();
create trigger membership_keep_an_admin BEFORE DELETE OR UPDATE OF role ON membership FOR EACH ROW EXECUTE FUNCTION membership_keep_an_admin();
create trigger membership_storable_when_changed BEFORE UPDATE ON membership FOR EACH ROW WHEN (new.created_at IS DISTINCT FROM old.created_at AND (new.created_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.created_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR new.updated_at IS DISTINCT FROM old.updated_at AND (new.updated_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.updated_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE) EXECUTE FUNCTION refuse_unstorable();
create trigger membership_storable_when_made BEFORE INSERT ON membership FOR EACH ROW WHEN ((new.created_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.created_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR (new.updated_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.updated_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE) EXECUTE FUNCTION refuse_unstorable();

-- tenant-data, sealed: the outbox: messages to be sent and, for a while, those that were; names and ids, never a value
create table notification (
  id uuid not null,
  webhook_id uuid not null,
  team_id uuid not null,
  type text not null,
  subject_type text not null,
  subject_id text not null,
  due_at timestamp with time zone not null, -- what makes it one message: the time that it is about, of what happens by time
  at timestamp with time zone not null,
  data jsonb not null,
  seal bytea not null,
  state text not null,
  attempts integer not null default 0,
  next_attempt_at timestamp with time zone,
  last_attempt_at timestamp with time zone,
  outcome text,
  ended_at timestamp with time zone,
  constraint notification_pkey PRIMARY KEY (id),
  constraint notification_once UNIQUE (webhook_id, type, subject_id, due_at),
  constraint notification_webhook_fkey FOREIGN KEY (webhook_id) REFERENCES webhook(credential_id) ON DELETE CASCADE,
  constraint notification_attempts_natural CHECK (attempts >= 0),
  constraint notification_ended_has_a_time CHECK ((state = 'pending'::text) = (ended_at IS NULL)),
  constraint notification_pending_has_a_next CHECK ((state = 'pending'::text) = (next_attempt_at IS NOT NULL)),
  constraint notification_state_known CHECK (state = ANY (ARRAY['pending'::text, 'delivered'::text, 'failed'::text])),
  constraint notification_type_form CHECK (type ~ '^[a-z]+(\.[a-zA-Z]+)+$'::text)
);
create index notification_ended ON notification USING btree (ended_at) WHERE state <> 'pending'::text;
create index notification_newest ON notification USING btree (webhook_id, id);
create index notification_pending ON notification USING btree (webhook_id, next_attempt_at, id) WHERE state = 'pending'::text;
create trigger notification_storable_when_changed BEFORE UPDATE ON notification FOR EACH ROW WHEN (new.at IS DISTINCT FROM old.at AND (new.at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR new.attempts IS DISTINCT FROM old.attempts AND (new.attempts <= 100) IS FALSE OR new.data IS DISTINCT FROM old.data AND (jsonb_typeof(new.data) = 'object'::text) IS FALSE OR new.due_at IS DISTINCT FROM old.due_at AND (new.due_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.due_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR new.ended_at IS DISTINCT FROM old.ended_at AND (new.ended_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.ended_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR new.last_attempt_at IS DISTINCT FROM old.last_attempt_at AND (new.last_attempt_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.last_attempt_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR new.next_attempt_at IS DISTINCT FROM old.next_attempt_at AND (new.next_attempt_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.next_attempt_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR new.outcome IS DISTINCT FROM old.outcome AND (new.outcome ~ '^[a-zA-Z]{1,40}$'::text) IS FALSE OR new.subject_id IS DISTINCT FROM old.subject_id AND (new.subject_id !~ '[\u0001-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]'::text AND char_length(new.subject_id) >= 1 AND char_length(new.subject_id) <= 255) IS FALSE OR new.subject_type IS DISTINCT FROM old.subject_type AND (new.subject_type ~ '^[a-zA-Z]{1,40}$'::text) IS FALSE) EXECUTE FUNCTION refuse_unstorable();
create trigger notification_storable_when_made BEFORE INSERT ON notification FOR EACH ROW WHEN ((new.at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR (new.attempts <= 100) IS FALSE OR (jsonb_typeof(new.data) = 'object'::text) IS FALSE OR (new.due_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.due_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR (new.ended_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.ended_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR (new.last_attempt_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.last_attempt_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR (new.next_attempt_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.next_attempt_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR (new.outcome ~ '^[a-zA-Z]{1,40}$'::text) IS FALSE OR (new.subject_id !~ '[\u0001-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]'::text AND char_length(new.subject_id) >= 1 AND char_length(new.subject_id) <= 255) IS FALSE OR (new.subject_type ~ '^[a-zA-Z]{1,40}$'::text) IS FALSE) EXECUTE FUNCTION refuse_unstorable();

-- tenant-data: begun and not answered yet; the state only as a hash over it and the row, the PKCE verifier not at all
create table oauth_authorization (
  id uuid not null,
  team_id uuid not null,
  credential_id uuid not null,
  subject_id uuid not null,
  client jsonb not null,
  redirect_uri text not null,
  state_hash bytea not null,
  salt bytea not null,
  created_at timestamp with time zone not null,
  expires_at timestamp with time zone not null,
  constraint oauth_authorization_pkey PRIMARY KEY (id),
  constraint oauth_authorization_credential_fkey FOREIGN KEY (team_id, credential_id) REFERENCES credential(team_id, id) ON DELETE CASCADE,
  constraint oauth_authorization_subject_fkey FOREIGN KEY (subject_id) REFERENCES subject(id)
);
create index oauth_authorization_credential ON oauth_authorization USING btree (credential_id);
create index oauth_authorization_expired ON oauth_authorization USING btree (expires_at);
create index oauth_authorization_team ON oauth_authorization USING btree (team_id, id);
create trigger oauth_authorization_storable_when_changed BEFORE UPDATE ON oauth_authorization FOR EACH ROW WHEN (new.client IS DISTINCT FROM old.client AND (jsonb_typeof(new.client) = 'object'::text) IS FALSE OR new.created_at IS DISTINCT FROM old.created_at AND (new.created_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.created_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR new.expires_at IS DISTINCT FROM old.expires_at AND (new.expires_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.expires_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE) EXECUTE FUNCTION refuse_unstorable();
create trigger oauth_authorization_storable_when_made BEFORE INSERT ON oauth_authorization FOR EACH ROW WHEN ((jsonb_typeof(new.client) = 'object'::text) IS FALSE OR (new.created_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.created_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR (new.expires_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.expires_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE) EXECUTE FUNCTION refuse_unstorable();

-- tenant-data: access and refresh token of a credential; token is Fernet, bound to the row, to the client that it was given to and to the policy
create table oauth_token (
  credential_id uuid not null,
  team_id uuid not null,
  sequence integer not null,
  data_key_id uuid,
  token text,
  client jsonb not null,
  policy jsonb not null,
  key_history uuid[] not null default '{}'::uuid[],
  takes_version boolean not null default false, -- as long as there is no token here, the ones in the current version of the credential count
  expires_at timestamp with time zone,
  is_refreshable boolean not null default false,
  obtained_at timestamp with time zone,
  connected_at timestamp with time zone,
  connected_by uuid,
  claim_id uuid,
  claimed_until timestamp with time zone,
  attempts integer not null default 0,
  retry_at timestamp with time zone,
  failure text,
  failed_at timestamp with time zone,
  failure_detail text, -- with the failure refused: which part of the answer, where it is not a word of OAuth 2.0; a release without this column shows refused
  unavailable_since timestamp with time zone,
  forced_count integer not null default 0,
  force_after timestamp with time zone,
  rejected_at timestamp with time zone,
  instance_url text, -- what the provider calls the place of the account; shown, and never a destination by itself
  constraint oauth_token_pkey PRIMARY KEY (credential_id),
  constraint oauth_token_connected_by_fkey FOREIGN KEY (connected_by) REFERENCES subject(id),
  constraint oauth_token_credential_fkey FOREIGN KEY (team_id, credential_id) REFERENCES credential(team_id, id) ON DELETE CASCADE DEFERRABLE,
  constraint oauth_token_data_key_fkey FOREIGN KEY (team_id, data_key_id) REFERENCES data_key(team_id, id),
  constraint oauth_token_attempts_natural CHECK (attempts >= 0),
  constraint oauth_token_claim_is_whole CHECK ((claim_id IS NULL) = (claimed_until IS NULL)),
  constraint oauth_token_failure_detail_form CHECK (failure_detail ~ '^[A-Za-z]{1,40}$'::text),
  constraint oauth_token_failure_is_whole CHECK ((failure IS NULL) = (failed_at IS NULL)),
  constraint oauth_token_failure_known CHECK (failure = ANY (ARRAY['invalid_grant'::text, 'invalid_client'::text, 'unauthorized_client'::text, 'invalid_scope'::text, 'unsupported_grant_type'::text, 'invalid_request'::text, 'access_denied'::text, 'refused'::text, 'undecryptable'::text])),
  constraint oauth_token_forced_count_natural CHECK (forced_count >= 0),
  constraint oauth_token_instance_url_form CHECK (instance_url ~ '^https://[a-z0-9.-]{1,253}$'::text),
  constraint oauth_token_sequence_natural CHECK (sequence >= 0),
  constraint oauth_token_token_form CHECK (token ~ '^(gAAAA|QQAAA)'::text),
  constraint oauth_token_under_a_key CHECK ((token IS NULL) = (data_key_id IS NULL))
);
create index oauth_token_data_key ON oauth_token USING btree (data_key_id, credential_id);
create index oauth_token_rejected ON oauth_token USING btree (team_id, credential_id) WHERE rejected_at IS NOT NULL;
create index oauth_token_team ON oauth_token USING btree (team_id, credential_id);
create index oauth_token_unwell ON oauth_token USING btree (team_id, credential_id) WHERE failure IS NOT NULL OR NOT is_refreshable;
create trigger oauth_token_extension_storable_when_changed BEFORE UPDATE ON oauth_token FOR EACH ROW WHEN (new.unavailable_since IS DISTINCT FROM old.unavailable_since AND (new.unavailable_since >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.unavailable_since <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR new.force_after IS DISTINCT FROM old.force_after AND (new.force_after >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.force_after <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR new.rejected_at IS DISTINCT FROM old.rejected_at AND (new.rejected_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.rejected_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR new.forced_count IS DISTINCT FROM old.forced_count AND new.forced_count >= 2147483647) EXECUTE FUNCTION refuse_unstorable();
create trigger oauth_token_extension_storable_when_made BEFORE INSERT ON oauth_token FOR EACH ROW WHEN ((new.unavailable_since >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.unavailable_since <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR (new.force_after >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.force_after <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR (new.rejected_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.rejected_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR new.forced_count >= 2147483647) EXECUTE FUNCTION refuse_unstorable();
create trigger oauth_token_keeps_its_place BEFORE INSERT OR UPDATE ON oauth_token FOR EACH ROW EXECUTE FUNCTION oauth_token_keeps_its_place();
create trigger oauth_token_storable_when_changed BEFORE UPDATE ON oauth_token FOR EACH ROW WHEN (new.attempts IS DISTINCT FROM old.attempts AND (new.attempts < 2147483647) IS FALSE OR new.claimed_until IS DISTINCT FROM old.claimed_until AND (new.claimed_until >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.claimed_until <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR new.client IS DISTINCT FROM old.client AND (jsonb_typeof(new.client) = 'object'::text) IS FALSE OR new.connected_at IS DISTINCT FROM old.connected_at AND (new.connected_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.connected_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR new.expires_at IS DISTINCT FROM old.expires_at AND (new.expires_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.expires_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR new.failed_at IS DISTINCT FROM old.failed_at AND (new.failed_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.failed_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR new.key_history IS DISTINCT FROM old.key_history AND (COALESCE(array_ndims(new.key_history), 1) = 1 AND array_position(new.key_history, NULL::uuid) IS NULL) IS FALSE OR new.obtained_at IS DISTINCT FROM old.obtained_at AND (new.obtained_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.obtained_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR new.policy IS DISTINCT FROM old.policy AND (jsonb_typeof(new.policy) = 'object'::text) IS FALSE OR new.retry_at IS DISTINCT FROM old.retry_at AND (new.retry_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.retry_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR new.sequence IS DISTINCT FROM old.sequence AND (new.sequence < 2147483647) IS FALSE) EXECUTE FUNCTION refuse_unstorable();
create trigger oauth_token_storable_when_made BEFORE INSERT ON oauth_token FOR EACH ROW WHEN ((new.attempts < 2147483647) IS FALSE OR (new.claimed_until >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.claimed_until <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR (jsonb_typeof(new.client) = 'object'::text) IS FALSE OR (new.connected_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.connected_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR (new.expires_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.expires_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR (new.failed_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.failed_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR (COALESCE(array_ndims(new.key_history), 1) = 1 AND array_position(new.key_history, NULL::uuid) IS NULL) IS FALSE OR (new.obtained_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.obtained_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR (jsonb_typeof(new.policy) = 'object'::text) IS FALSE OR (new.retry_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.retry_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR (new.sequence < 2147483647) IS FALSE) EXECUTE FUNCTION refuse_unstorable();
create trigger token_needs_active_key BEFORE INSERT OR UPDATE OF token, data_key_id ON oauth_token FOR EACH ROW WHEN (new.token IS NOT NULL) EXECUTE FUNCTION token_needs_active_key();

-- operational: a known value wrapped by each root key ever used, so that a wrong key shows at start
create table root_key (
  fingerprint text not null,
  canary bytea not null,
  created_at timestamp with time zone not null default now(),
  compromised_at timestamp with time zone,
  compromised_by uuid,
  compromise_reason text,
  constraint root_key_pkey PRIMARY KEY (fingerprint),
  constraint root_key_compromised_by_fkey FOREIGN KEY (compromised_by) REFERENCES subject(id),
  constraint root_key_fingerprint_form CHECK (fingerprint ~ '^[0-9a-f]{16}$'::text)
);
create trigger root_key_storable_when_changed BEFORE UPDATE ON root_key FOR EACH ROW WHEN (new.compromise_reason IS DISTINCT FROM old.compromise_reason AND (new.compromise_reason !~ '[\u0001-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]'::text AND char_length(new.compromise_reason) <= 200) IS FALSE OR new.compromised_at IS DISTINCT FROM old.compromised_at AND (new.compromised_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.compromised_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR new.created_at IS DISTINCT FROM old.created_at AND (new.created_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.created_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE) EXECUTE FUNCTION refuse_unstorable();
create trigger root_key_storable_when_made BEFORE INSERT ON root_key FOR EACH ROW WHEN ((new.compromise_reason !~ '[\u0001-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]'::text AND char_length(new.compromise_reason) <= 200) IS FALSE OR (new.compromised_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.compromised_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR (new.created_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.created_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE) EXECUTE FUNCTION refuse_unstorable();

-- operational: what migrate has applied, with the checksum of each file
create table schema_migration (
  version integer not null,
  name text not null,
  checksum bytea not null,
  applied_at timestamp with time zone not null default now(),
  constraint schema_migration_pkey PRIMARY KEY (version)
);

-- operational: maps the sub of a JWT to the internal id that everything else refers to
create table subject (
  id uuid not null,
  sub text not null,
  created_at timestamp with time zone not null default now(),
  constraint subject_pkey PRIMARY KEY (id),
  constraint subject_sub_key UNIQUE (sub),
  constraint subject_sub_printable_ascii CHECK (char_length(sub) <= 512 AND sub ~ '^[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?$'::text)
);
create trigger subject_storable_when_changed BEFORE UPDATE ON subject FOR EACH ROW WHEN (new.created_at IS DISTINCT FROM old.created_at AND (new.created_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.created_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE) EXECUTE FUNCTION refuse_unstorable();
create trigger subject_storable_when_made BEFORE INSERT ON subject FOR EACH ROW WHEN ((new.created_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.created_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE) EXECUTE FUNCTION refuse_unstorable();

-- operational: which issuer each prefix of subjects belongs to
create table subject_prefix (
  prefix text not null,
  issuer text not null,
  accepted_at timestamp with time zone not null default now(),
  constraint subject_prefix_pkey PRIMARY KEY (prefix),
  constraint subject_prefix_accepted_at_sayable CHECK (accepted_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND accepted_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone),
  constraint subject_prefix_form CHECK (char_length(prefix) <= 257 AND prefix ~ '^([\x21-\x7e]*:)?$'::text),
  constraint subject_prefix_issuer_form CHECK (char_length(issuer) >= 1 AND char_length(issuer) <= 1000 AND issuer !~ '[\u0001-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]'::text)
);

-- operational: random keys of one purpose each; an inactive one still verifies
create table system_key (
  id uuid not null,
  purpose text not null,
  version integer not null,
  root_fingerprint text not null,
  wrapped bytea not null,
  created_at timestamp with time zone not null default now(),
  usable_from timestamp with time zone not null default now(), -- every replica has loaded it by then; the newest usable one signs
  retired_at timestamp with time zone,
  root_history text[] not null default '{}'::text[],
  constraint system_key_pkey PRIMARY KEY (id),
  constraint system_key_purpose_version_key UNIQUE (purpose, version),
  constraint system_key_root_key_fkey FOREIGN KEY (root_fingerprint) REFERENCES root_key(fingerprint),
  constraint system_key_purpose_known CHECK (purpose = ANY (ARRAY['rowSeal'::text, 'auditMac'::text, 'cursor'::text, 'idempotency'::text, 'leaseSigning'::text])),
  constraint system_key_version_positive CHECK (version > 0)
);
create trigger system_key_root_history BEFORE INSERT OR UPDATE OF root_fingerprint ON system_key FOR EACH ROW EXECUTE FUNCTION key_root_history();
create trigger system_key_storable_when_changed BEFORE UPDATE ON system_key FOR EACH ROW WHEN (new.created_at IS DISTINCT FROM old.created_at AND (new.created_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.created_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR new.retired_at IS DISTINCT FROM old.retired_at AND (new.retired_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.retired_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR new.root_history IS DISTINCT FROM old.root_history AND (COALESCE(array_ndims(new.root_history), 1) = 1 AND array_position(new.root_history, NULL::text) IS NULL) IS FALSE OR new.usable_from IS DISTINCT FROM old.usable_from AND (new.usable_from >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.usable_from <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR new.version IS DISTINCT FROM old.version AND (new.version <= 65535) IS FALSE) EXECUTE FUNCTION refuse_unstorable();
create trigger system_key_storable_when_made BEFORE INSERT ON system_key FOR EACH ROW WHEN ((new.created_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.created_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR (new.retired_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.retired_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR (COALESCE(array_ndims(new.root_history), 1) = 1 AND array_position(new.root_history, NULL::text) IS NULL) IS FALSE OR (new.usable_from >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.usable_from <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR (new.version <= 65535) IS FALSE) EXECUTE FUNCTION refuse_unstorable();

-- tenant-data, sealed: owns credentials and keys; the slug never changes and is never given again
create table team (
  id uuid not null,
  slug text not null,
  name text not null,
  token_format text not null,
  revision integer not null default 1,
  created_at timestamp with time zone not null,
  created_by uuid not null,
  updated_at timestamp with time zone not null,
  updated_by uuid not null,
  deleted_at timestamp with time zone,
  rotate_every_days integer,
  refuse_exposed_leases boolean not null default false,
  default_delivery text[] not null default '{lease}'::text[],
  versions_kept integer not null default 10,
  has_received boolean not null default false, -- whether a credential ever came from another team, with the list of keys that it was under there
  row_mac bytea, -- over id, slug, token_format, rotate_every_days, refuse_exposed_leases, default_delivery, versions_kept and revision
  row_mac_version integer not null default 0, -- 0: written by the release before, which knows no MAC here
  constraint team_pkey PRIMARY KEY (id),
  constraint team_slug_key UNIQUE (slug),
  constraint team_created_by_fkey FOREIGN KEY (created_by) REFERENCES subject(id),
  constraint team_updated_by_fkey FOREIGN KEY (updated_by) REFERENCES subject(id),
  constraint team_default_delivery_known CHECK (default_delivery <@ ARRAY['lease'::text, 'broker'::text]),
  constraint team_name_length CHECK (char_length(name) >= 1 AND char_length(name) <= 100),
  constraint team_revision_positive CHECK (revision > 0),
  constraint team_rotate_every_days_range CHECK (rotate_every_days >= 1 AND rotate_every_days <= 3650),
  constraint team_row_mac_version_known CHECK (row_mac_version = ANY (ARRAY[0, 1])),
  constraint team_row_mac_with_version CHECK ((row_mac_version = 0) = (row_mac IS NULL)),
  constraint team_slug_form CHECK (slug ~ '^[a-z0-9][a-z0-9-]{1,38}$'::text),
  constraint team_token_format_known CHECK (token_format = ANY (ARRAY['fernet'::text, 'fernet-256'::text])),
  constraint team_versions_kept_range CHECK (versions_kept >= 1 AND versions_kept <= 1000)
);
create index team_deleted ON team USING btree (deleted_at) WHERE deleted_at IS NOT NULL;
create trigger team_deleted_at BEFORE UPDATE OF deleted_at ON team FOR EACH ROW WHEN (new.deleted_at IS NOT NULL) EXECUTE FUNCTION deleted_at_is_the_databases();
create trigger team_row_mac_leaves BEFORE UPDATE ON team FOR EACH ROW WHEN (new.row_mac IS NOT NULL AND NOT new.row_mac IS DISTINCT FROM old.row_mac AND (new.token_format IS DISTINCT FROM old.token_format OR new.rotate_every_days IS DISTINCT FROM old.rotate_every_days OR new.refuse_exposed_leases IS DISTINCT FROM old.refuse_exposed_leases OR new.default_delivery IS DISTINCT FROM old.default_delivery OR new.versions_kept IS DISTINCT FROM old.versions_kept OR new.revision IS DISTINCT FROM old.revision)) EXECUTE FUNCTION team_row_mac_leaves();
create trigger team_storable_when_changed BEFORE UPDATE ON team FOR EACH ROW WHEN (new.created_at IS DISTINCT FROM old.created_at AND (new.created_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.created_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR new.default_delivery IS DISTINCT FROM old.default_delivery AND (COALESCE(array_ndims(new.default_delivery), 1) = 1 AND array_position(new.default_delivery, NULL::text) IS NULL) IS FALSE OR new.deleted_at IS DISTINCT FROM old.deleted_at AND (new.deleted_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.deleted_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR new.name IS DISTINCT FROM old.name AND (new.name !~ '[\u0001-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]'::text) IS FALSE OR new.updated_at IS DISTINCT FROM old.updated_at AND (new.updated_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.updated_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE) EXECUTE FUNCTION refuse_unstorable();
create trigger team_storable_when_made BEFORE INSERT ON team FOR EACH ROW WHEN ((new.created_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.created_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR (COALESCE(array_ndims(new.default_delivery), 1) = 1 AND array_position(new.default_delivery, NULL::text) IS NULL) IS FALSE OR (new.deleted_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.deleted_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR (new.name !~ '[\u0001-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]'::text) IS FALSE OR (new.updated_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.updated_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE) EXECUTE FUNCTION refuse_unstorable();

-- operational: how much a team holds, for its bounds
create table team_size (
  team_id uuid not null,
  living_credentials bigint not null,
  stored_credentials bigint not null, -- deleted ones, too, as long as their rows are there
  bytes bigint not null, -- tokens of versions and accounts, and public fields
  counted_at timestamp with time zone, -- when it was last counted; null: never
  constraint team_size_pkey PRIMARY KEY (team_id),
  constraint team_size_team_fkey FOREIGN KEY (team_id) REFERENCES team(id) ON DELETE CASCADE,
  constraint team_size_natural CHECK (living_credentials >= 0 AND stored_credentials >= 0 AND bytes >= 0)
);
create trigger team_size_storable_when_changed BEFORE UPDATE ON team_size FOR EACH ROW WHEN (new.counted_at IS DISTINCT FROM old.counted_at AND (new.counted_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.counted_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE) EXECUTE FUNCTION refuse_unstorable();
create trigger team_size_storable_when_made BEFORE INSERT ON team_size FOR EACH ROW WHEN ((new.counted_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.counted_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE) EXECUTE FUNCTION refuse_unstorable();

-- tenant-data, sealed: of what a team is told, and with which credential of type webhook; beside the seal the state of deliveries
create table webhook (
  credential_id uuid not null,
  team_id uuid not null,
  events text[] not null,
  revision integer not null,
  seal bytea not null,
  created_at timestamp with time zone not null,
  created_by uuid not null,
  updated_at timestamp with time zone not null,
  updated_by uuid not null,
  claim_id uuid,
  claimed_until timestamp with time zone, -- a replica sends something there; after this time it is taken to be gone
  served_at timestamp with time zone,
  paused_until timestamp with time zone, -- nothing is sent before: the receiver failed, or asked for it
  failing_since timestamp with time zone,
  delivered_at timestamp with time zone,
  gone_at timestamp with time zone, -- the receiver answered 410: nothing is sent any more until somebody puts the webhook again
  constraint webhook_pkey PRIMARY KEY (credential_id),
  constraint webhook_created_by_fkey FOREIGN KEY (created_by) REFERENCES subject(id),
  constraint webhook_credential_fkey FOREIGN KEY (credential_id) REFERENCES credential(id) ON DELETE CASCADE,
  constraint webhook_team_fkey FOREIGN KEY (team_id) REFERENCES team(id),
  constraint webhook_updated_by_fkey FOREIGN KEY (updated_by) REFERENCES subject(id),
  constraint webhook_claim_is_whole CHECK ((claim_id IS NULL) = (claimed_until IS NULL)),
  constraint webhook_events_some CHECK (cardinality(events) >= 1 AND cardinality(events) <= 50),
  constraint webhook_revision_positive CHECK (revision > 0)
);
create index webhook_team ON webhook USING btree (team_id);
create trigger webhook_storable_when_changed BEFORE UPDATE ON webhook FOR EACH ROW WHEN (new.claimed_until IS DISTINCT FROM old.claimed_until AND (new.claimed_until >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.claimed_until <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR new.created_at IS DISTINCT FROM old.created_at AND (new.created_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.created_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR new.delivered_at IS DISTINCT FROM old.delivered_at AND (new.delivered_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.delivered_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR new.events IS DISTINCT FROM old.events AND (array_ndims(new.events) = 1 AND array_position(new.events, NULL::text) IS NULL) IS FALSE OR new.failing_since IS DISTINCT FROM old.failing_since AND (new.failing_since >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.failing_since <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR new.gone_at IS DISTINCT FROM old.gone_at AND (new.gone_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.gone_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR new.paused_until IS DISTINCT FROM old.paused_until AND (new.paused_until >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.paused_until <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR new.served_at IS DISTINCT FROM old.served_at AND (new.served_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.served_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR new.updated_at IS DISTINCT FROM old.updated_at AND (new.updated_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.updated_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE) EXECUTE FUNCTION refuse_unstorable();
create trigger webhook_storable_when_made BEFORE INSERT ON webhook FOR EACH ROW WHEN ((new.claimed_until >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.claimed_until <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR (new.created_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.created_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR (new.delivered_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.delivered_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR (array_ndims(new.events) = 1 AND array_position(new.events, NULL::text) IS NULL) IS FALSE OR (new.failing_since >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.failing_since <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR (new.gone_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.gone_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR (new.paused_until >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.paused_until <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR (new.served_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.served_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE OR (new.updated_at >= '0001-01-01 00:00:00+00'::timestamp with time zone AND new.updated_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) IS FALSE) EXECUTE FUNCTION refuse_unstorable();

CREATE OR REPLACE FUNCTION public.audit_drop_months(months_kept integer)
 RETURNS integer
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET lock_timeout TO '2s'
AS $function$
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
end $function$;

CREATE OR REPLACE FUNCTION public.audit_is_append_only()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
begin
  raise exception 'the audit is append-only' using errcode = 'check_violation', constraint = 'audit_is_append_only';
end $function$;

CREATE OR REPLACE FUNCTION public.audit_make_months(ahead integer)
 RETURNS void
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET lock_timeout TO '2s'
AS $function$
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
end $function$;

CREATE OR REPLACE FUNCTION public.credential_moves_by_offer()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
begin
  if new.id <> old.id or old.state = 'deleted' or new.state = 'deleted'
    or not exists (select 1 from credential_transfer where credential_id = old.id and team_id = old.team_id and to_team_id = new.team_id) then
    raise exception 'a credential moves by an offer' using errcode = 'check_violation', constraint = 'credential_moves_by_offer';
  end if;
  return new;
end $function$;

CREATE OR REPLACE FUNCTION public.credential_usage_follows()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
begin
  if tg_op = 'DELETE' then
    delete from credential_usage where credential_id = old.id;
  else
    update credential_usage set team_id = new.team_id where credential_id = new.id;
  end if;
  return null;
end $function$;

CREATE OR REPLACE FUNCTION public.credential_usage_knows_its_team()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
begin
  select credential.team_id, credential.created_at into new.team_id, new.made_at from credential where credential.id = new.credential_id;
  return new;
end $function$;

CREATE OR REPLACE FUNCTION public.credential_version_is_immutable()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
begin
  raise exception 'a version is immutable' using errcode = 'check_violation', constraint = 'credential_version_is_immutable';
end $function$;

CREATE OR REPLACE FUNCTION public.credential_version_key_history()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
begin
  if new.key_history is null or not (new.data_key_id = any (new.key_history)) then
    new.key_history := coalesce(new.key_history, '{}') || new.data_key_id;
  end if;
  if tg_op = 'UPDATE' and new.key_history[1:cardinality(old.key_history)] is distinct from old.key_history then
    raise exception 'the list of keys only grows' using errcode = 'check_violation', constraint = 'credential_version_key_history';
  end if;
  return new;
end $function$;

CREATE OR REPLACE FUNCTION public.credential_waits_for_its_purge()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
begin
  if (old.state = 'deleted' and old.deleted_at <= vault_now() - interval '30 days')
    or exists (select 1 from team where id = old.team_id and deleted_at <= vault_now() - interval '7 days') then
    return old;
  end if;
  raise exception 'a credential waits for its purge' using errcode = 'check_violation', constraint = 'credential_waits_for_its_purge';
end $function$;

CREATE OR REPLACE FUNCTION public.data_key_queue(key uuid)
 RETURNS bigint
 LANGUAGE sql
 IMMUTABLE PARALLEL SAFE
RETURN hashtextextended(('credential-vault data key '::text || (key)::text), (0)::bigint);

CREATE OR REPLACE FUNCTION public.data_key_state_machine()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
declare
  is_shred boolean := new.state = 'destroyed'
    and exists (select 1 from team where id = old.team_id and deleted_at <= vault_now() - interval '7 days');
begin
  if (new.id, new.team_id, new.version, new.format, new.fingerprint, new.created_at, new.created_by)
    is distinct from (old.id, old.team_id, old.version, old.format, old.fingerprint, old.created_at, old.created_by)
    or (old.compromised_at is not null and (new.compromised_at, new.compromised_by, new.compromise_reason)
      is distinct from (old.compromised_at, old.compromised_by, old.compromise_reason))
    or old.state = 'destroyed'
    or ((new.root_fingerprint, new.root_history) is distinct from (old.root_fingerprint, old.root_history)
      and (new.root_history[1:cardinality(old.root_history)] is distinct from old.root_history
        or not (new.root_fingerprint = any (new.root_history)))) then
    raise exception 'a key keeps what it was' using errcode = 'check_violation', constraint = 'data_key_keeps_its_past';
  end if;
  -- The waiting time is neither cut short nor dated back. An hour is what the clock of a writer may be behind; its time is not kept.
  if (new.state = 'destroyPending' and old.state = 'destroyPending'
      and (new.destroy_scheduled_at, new.destroy_at) is distinct from (old.destroy_scheduled_at, old.destroy_at))
    or (new.state = 'destroyPending' and old.state <> 'destroyPending' and new.destroy_scheduled_at < vault_now() - interval '1 hour')
    or (new.state = 'destroyed' and not is_shred
      and ((new.destroy_scheduled_at, new.destroy_at) is distinct from (old.destroy_scheduled_at, old.destroy_at) or vault_now() < old.destroy_at)) then
    raise exception 'a key waits for its destruction' using errcode = 'check_violation', constraint = 'data_key_destroy_waits';
  end if;
  if new.state = old.state then return new; end if;
  if new.state = 'destroyPending' and new.destroy_scheduled_at is not null then
    new.destroy_at := vault_now() + (new.destroy_at - new.destroy_scheduled_at);
    new.destroy_scheduled_at := vault_now();
  end if;
  if new.state = 'destroyed' then new.destroyed_at := vault_now(); end if;
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
end $function$;

CREATE OR REPLACE FUNCTION public.data_key_tombstone_stays()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
begin
  raise exception 'keys are never deleted' using errcode = 'check_violation', constraint = 'data_key_tombstone_stays';
end $function$;

CREATE OR REPLACE FUNCTION public.deleted_at_is_the_databases()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
begin
  new.deleted_at := coalesce(old.deleted_at, vault_now());
  return new;
end $function$;

CREATE OR REPLACE FUNCTION public.engine_subject_is_no_person()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
begin
  perform 1 from subject where id = new.subject_id for no key update;
  if exists (select 1 from membership where subject_id = new.subject_id and role <> 'engine') then
    raise exception 'a person cannot become an engine' using errcode = 'check_violation', constraint = 'engine_subject_is_no_person';
  end if;
  return new;
end $function$;

CREATE OR REPLACE FUNCTION public.key_root_history()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
begin
  if not (new.root_fingerprint = any (new.root_history)) then new.root_history := new.root_history || new.root_fingerprint; end if;
  return new;
end $function$;

CREATE OR REPLACE FUNCTION public.key_rotation_failure_knows_its_team()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
begin
  select team_id into new.team_id from credential where id = new.credential_id;
  return new;
end $function$;

CREATE OR REPLACE FUNCTION public.label_bits(labels jsonb)
 RETURNS bigint
 LANGUAGE plpgsql
 IMMUTABLE PARALLEL SAFE STRICT
AS $function$
declare
  label record;
  bits bigint := 0;
begin
  if labels = '{}' or jsonb_typeof(labels) <> 'object' then return 0; end if;
  for label in select key, value from jsonb_each_text(labels) loop
    bits := bits | (1::bigint << (('x' || substr(md5(label.key || ':' || label.value), 1, 8))::bit(32)::bigint & 63)::integer);
  end loop;
  return bits;
end $function$;

CREATE OR REPLACE FUNCTION public.membership_engine_role()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
begin
  perform 1 from subject where id = new.subject_id for no key update;
  if (new.role = 'engine') <> exists (select 1 from engine where subject_id = new.subject_id) then
    raise exception 'the role engine and registered engines go together' using errcode = 'check_violation', constraint = 'membership_engine_role';
  end if;
  return new;
end $function$;

CREATE OR REPLACE FUNCTION public.membership_keep_an_admin()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
begin
  if old.role <> 'admin' or (tg_op = 'UPDATE' and new.role = 'admin') then return coalesce(new, old); end if;
  perform 1 from team where id = old.team_id and deleted_at is null for update;
  if not found then return coalesce(new, old); end if;   -- a deleted team loses its members with everything else
  if not exists (select 1 from membership where team_id = old.team_id and role = 'admin' and subject_id <> old.subject_id) then
    raise exception 'a team keeps at least one admin' using errcode = 'check_violation', constraint = 'membership_keep_an_admin';
  end if;
  return coalesce(new, old);
end $function$;

CREATE OR REPLACE FUNCTION public.oauth_token_keeps_its_place()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
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
end $function$;

CREATE OR REPLACE FUNCTION public.refuse_unstorable()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
begin
  raise exception 'a value that the API cannot say' using errcode = 'check_violation', constraint = tg_table_name || '_storable', table = tg_table_name;
end $function$;

CREATE OR REPLACE FUNCTION public.team_receives()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
begin
  update team set has_received = true where id = new.team_id and not has_received;
  return null;
end $function$;

CREATE OR REPLACE FUNCTION public.team_row_mac_leaves()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
begin
  new.row_mac := null;
  new.row_mac_version := 0;
  return new;
end $function$;

CREATE OR REPLACE FUNCTION public.token_needs_active_key()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
begin
  perform pg_advisory_xact_lock_shared(data_key_queue(new.data_key_id));
  perform 1 from data_key where id = new.data_key_id and team_id = new.team_id and state = 'active' for key share;
  if not found then
    raise exception 'the key is not active' using errcode = 'check_violation', constraint = 'token_needs_active_key';
  end if;
  return new;
end $function$;

CREATE OR REPLACE FUNCTION public.vault_now()
 RETURNS timestamp with time zone
 LANGUAGE sql
 STABLE PARALLEL SAFE
AS $function$ select statement_timestamp() $function$;
