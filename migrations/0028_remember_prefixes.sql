-- Which issuer each prefix of subjects belongs to: rights are made for a subject by its text, and the
-- text begins with the prefix. Whoever writes another issuer behind a prefix would hand over all of
-- them, so a start compares.

create table subject_prefix (
  prefix text constraint subject_prefix_pkey primary key
    constraint subject_prefix_form check (char_length(prefix) <= 257 and prefix ~ '^([\x21-\x7e]*:)?$'),
  issuer text not null
    constraint subject_prefix_issuer_form check (char_length(issuer) between 1 and 1000),
  accepted_at timestamptz not null default now()
);
comment on table subject_prefix is 'operational: which issuer each prefix of subjects belongs to';
