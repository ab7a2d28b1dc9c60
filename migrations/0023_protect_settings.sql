-- A team's settings decide what engines get of it, so they count only as the vault wrote them, as rights do. Rows of before have no MAC;
-- the vault takes them over, and from then on a row without one counts no more.

alter table team
  add column row_mac bytea,
  add column row_mac_version integer not null default 0 constraint team_row_mac_version_known check (row_mac_version in (0, 1)),
  add constraint team_row_mac_with_version check ((row_mac_version = 0) = (row_mac is null));
comment on table team is 'tenant-data, sealed: owns credentials and keys; the slug never changes and is never given again';
comment on column team.row_mac is 'over id, slug, token_format, rotate_every_days, refuse_exposed_leases, default_delivery, versions_kept and revision';
comment on column team.row_mac_version is '0: written by the release before, which knows no MAC here';

-- The release before changes the settings and leaves the MAC as it is, which then says nothing any more.
create function team_row_mac_leaves() returns trigger language plpgsql as $$
begin
  new.row_mac := null;
  new.row_mac_version := 0;
  return new;
end $$;
create trigger team_row_mac_leaves before update on team
  for each row when (new.row_mac is not null and new.row_mac is not distinct from old.row_mac
    and (new.token_format, new.rotate_every_days, new.refuse_exposed_leases, new.default_delivery, new.versions_kept, new.revision)
      is distinct from (old.token_format, old.rotate_every_days, old.refuse_exposed_leases, old.default_delivery, old.versions_kept, old.revision))
  execute function team_row_mac_leaves();
