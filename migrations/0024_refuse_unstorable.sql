-- What the API cannot say is not stored: times that RFC 3339 cannot write, JSON of another shape, counts that no number holds, control
-- and direction characters in names. Triggers, and not checks: they ask only of what is written. A row of before that breaks a rule keeps this migration
-- and its own team from nothing: it can be re-encrypted, marked and removed like any other, and nothing is read to find it.

create function refuse_unstorable() returns trigger language plpgsql as $$
begin
  raise exception 'a value that the API cannot say' using errcode = 'check_violation', constraint = tg_table_name || '_storable', table = tg_table_name;
end $$;

do $$
declare
  held record;
begin
  for held in
    with rule (relation, attribute, form) as (
      select relname::text, attname::text, 'new.%1$I between timestamptz ''0001-01-01 00:00:00+00'' and timestamptz ''9999-12-31 23:59:59.999999+00'''
        from pg_attribute join pg_class on pg_class.oid = attrelid
        where relnamespace = 'public'::regnamespace and atttypid = 'timestamptz'::regtype and attnum > 0 and not attisdropped and attgenerated = ''
          and relname in ('subject', 'team', 'team_size', 'membership', 'engine', 'engine_key', 'root_key', 'system_key', 'data_key', 'credential', 'credential_version',
            'credential_usage', 'key_rotation', 'key_rotation_failure', 'key_rotation_oauth_failure', 'oauth_token', 'oauth_authorization',
            'idempotency_record', 'broker_ticket', 'credential_grant', 'credential_transfer', 'webhook', 'notification')
      union all
      select * from (values
        ('team', 'name', 'new.%1$I !~ ''[\u0001-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]'''),
        ('team', 'default_delivery', 'coalesce(array_ndims(new.%1$I), 1) = 1 and array_position(new.%1$I, null) is null'),
        ('engine', 'name', 'new.%1$I !~ ''[\u0001-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]'''),
        ('engine_key', 'jwk', 'jsonb_typeof(new.%1$I) = ''object'' and new.%1$I - array[''kty'', ''crv'', ''x'', ''y''] = ''{}'' and new.%1$I ->> ''kty'' in (''OKP'', ''EC'')
          and new.%1$I ->> ''crv'' in (''X25519'', ''P-256'') and new.%1$I ->> ''x'' ~ ''^[A-Za-z0-9_-]{43}$'' and coalesce(new.%1$I ->> ''y'', new.%1$I ->> ''x'') ~ ''^[A-Za-z0-9_-]{43}$'''),
        ('root_key', 'compromise_reason', 'new.%1$I !~ ''[\u0001-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]'' and char_length(new.%1$I) <= 200'),
        ('system_key', 'version', 'new.%1$I <= 65535'),
        ('system_key', 'root_history', 'coalesce(array_ndims(new.%1$I), 1) = 1 and array_position(new.%1$I, null) is null'),
        ('data_key', 'compromise_reason', 'new.%1$I !~ ''[\u0001-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]'''),
        ('data_key', 'root_history', 'coalesce(array_ndims(new.%1$I), 1) = 1 and array_position(new.%1$I, null) is null'),
        ('credential', 'name', 'new.%1$I !~ ''[\u0001-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]'''),
        ('credential', 'description', 'new.%1$I !~ ''[\u0001-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]'''),
        ('credential', 'type', 'new.%1$I ~ ''^[a-zA-Z][a-zA-Z0-9]{0,99}$'''),
        ('credential', 'labels', 'new.%1$I = ''{}'' or jsonb_typeof(new.%1$I) = ''object'' and not jsonb_path_exists(new.%1$I, ''$.* ? (@.type() <> "string")'')'),
        ('credential_version', 'public_fields', 'jsonb_typeof(new.%1$I) = ''object'''),
        ('credential_version', 'policy', 'jsonb_typeof(new.%1$I) = ''object'''),
        ('credential_version', 'secret_field_names', 'coalesce(array_ndims(new.%1$I), 1) = 1 and array_position(new.%1$I, null) is null'),
        ('credential_version', 'key_history', 'coalesce(array_ndims(new.%1$I), 1) = 1 and array_position(new.%1$I, null) is null'),
        ('credential_usage', 'use_count', 'new.%1$I between 0 and 9007199254740991'),
        ('key_rotation', 'total', 'new.%1$I <= 9007199254740991'),
        ('key_rotation', 'done', 'new.%1$I <= 9007199254740991'),
        ('oauth_token', 'client', 'jsonb_typeof(new.%1$I) = ''object'''),
        ('oauth_token', 'policy', 'jsonb_typeof(new.%1$I) = ''object'''),
        ('oauth_token', 'sequence', 'new.%1$I < 2147483647'),
        ('oauth_token', 'attempts', 'new.%1$I < 2147483647'),
        ('oauth_token', 'key_history', 'coalesce(array_ndims(new.%1$I), 1) = 1 and array_position(new.%1$I, null) is null'),
        ('oauth_authorization', 'client', 'jsonb_typeof(new.%1$I) = ''object'''),
        ('webhook', 'events', 'array_ndims(new.%1$I) = 1 and array_position(new.%1$I, null) is null'),
        ('broker_ticket', 'host', 'new.%1$I !~ ''[\u0001-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]'''),
        ('notification', 'subject_type', 'new.%1$I ~ ''^[a-zA-Z]{1,40}$'''),
        ('notification', 'subject_id', 'new.%1$I !~ ''[\u0001-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]'' and char_length(new.%1$I) between 1 and 255'),
        ('notification', 'outcome', 'new.%1$I ~ ''^[a-zA-Z]{1,40}$'''),
        ('notification', 'data', 'jsonb_typeof(new.%1$I) = ''object'''),
        ('notification', 'attempts', 'new.%1$I <= 100')
      ) as listed (relation, attribute, form))
    select relation, string_agg(format('(' || form || ') is false', attribute), ' or ' order by attribute) as made,
      -- What a version says never changes, which another trigger sees to; a rotation writes a million of them.
      string_agg(format('new.%1$I is distinct from old.%1$I and (' || form || ') is false', attribute), ' or ' order by attribute)
        filter (where relation <> 'credential_version' or attribute in ('undecryptable_at', 'key_history')) as changed
    from rule group by relation order by relation
  loop
    execute format('create trigger %I before insert on %I for each row when (%s) execute function refuse_unstorable()', held.relation || '_storable_when_made', held.relation, held.made);
    execute format('create trigger %I before update on %I for each row when (%s) execute function refuse_unstorable()', held.relation || '_storable_when_changed', held.relation, held.changed);
  end loop;
end $$;

-- A key whose list of root keys somebody emptied moves along the arrows like any other: rotations away from it wait for nobody. The
-- function is otherwise as the migration before it has it.
do $$
declare
  before constant text := pg_get_functiondef('data_key_state_machine'::regproc);
  -- Whatever stands between the words: migrations are laid out by people.
  after constant text := regexp_replace(before,
    'or\s+(new\.root_history\[1:cardinality\(old\.root_history\)\] is distinct from old\.root_history)\s+or\s+(not \(new\.root_fingerprint = any \(new\.root_history\)\))',
    E'or ((new.root_fingerprint, new.root_history) is distinct from (old.root_fingerprint, old.root_history)\n      and (\\1\n        or \\2))');
begin
  if after = before then raise exception 'data_key_state_machine is not as this migration knows it'; end if;
  execute after;
end $$;
