-- How credentials that are stored without a policy may be used.

alter table team
  add column default_delivery text[] not null default '{lease}' constraint team_default_delivery_known check (default_delivery <@ array['lease', 'broker']);
