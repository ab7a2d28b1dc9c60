-- Indexes for what would grow with the whole vault: what is asked of a team, or in the order of a list, and had none that begins with it.

create index oauth_token_team on oauth_token (team_id, credential_id);
create index oauth_authorization_team on oauth_authorization (team_id, id);
create index engine_in_order on engine (name collate "C");
-- In the order in which a rotation of root keys walks them.
drop index data_key_root;
create index data_key_root on data_key (root_fingerprint, id) where state <> 'destroyed';
create index team_deleted on team (deleted_at) where deleted_at is not null;
