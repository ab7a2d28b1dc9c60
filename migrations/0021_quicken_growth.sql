-- Indexes for what would grow with the whole vault.
select 1;
