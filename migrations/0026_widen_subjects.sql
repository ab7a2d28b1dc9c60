-- A subject may be 512 printable ASCII characters with blanks inside: the claim of a provider, and
-- the prefix of its issuer in front of it. Whatever was one stays one, so that the release before
-- runs on this schema.

alter table subject drop constraint subject_sub_visible_ascii;
alter table subject add constraint subject_sub_printable_ascii
  check (char_length(sub) <= 512 and sub ~ '^[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?$');
