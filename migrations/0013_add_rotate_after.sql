-- When the secret of a credential should be replaced: a reminder, on which no decision rests.

alter table credential add column rotate_after timestamptz;
