-- What callers can make grow has a bound.

-- Failed log-ins of one origin are counted above some a minute, as refusals are.
alter table access_record
  add column reason text,
  add column count integer not null default 1,
  add constraint access_record_count_positive check (count > 0) not valid;
comment on column access_record.reason is 'why a log-in failed';
comment on column access_record.count is 'how many failed log-ins it stands for';
