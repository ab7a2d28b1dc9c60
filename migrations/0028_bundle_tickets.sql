-- Tickets of one call belong together: one id extends and ends them. A ticket without a bundle is one of a release before: it is its own.
-- A call finds its ticket by the hash of it, because the address says no ticket.

alter table broker_ticket add column bundle_id uuid;
comment on column broker_ticket.bundle_id is 'the id by which the tickets of one call are extended and ended; that of the ticket where there is one only, null of one that a release before made';
create index broker_ticket_bundle on broker_ticket (bundle_id);
create unique index broker_ticket_hash on broker_ticket (ticket_hash);

comment on column broker_ticket.host is 'where calls go, with a port that is not 443, for a type that has no destination of its own';
