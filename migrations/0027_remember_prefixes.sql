-- Which issuer each prefix of subjects belongs to: rights are made for a subject by its text, and the
-- text begins with the prefix. Whoever writes another issuer behind a prefix would hand over all of
-- them, so a start compares.

create table subject_prefix (
  prefix text constraint subject_prefix_pkey primary key
    constraint subject_prefix_form check (char_length(prefix) <= 257 and prefix ~ '^([\x21-\x7e]*:)?$'),
  issuer text not null
    constraint subject_prefix_issuer_form check (char_length(issuer) between 1 and 1000
      and issuer !~ '[\u0001-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]'),
  accepted_at timestamptz not null default now()
    constraint subject_prefix_accepted_at_sayable check (accepted_at >= '0001-01-01Z' and accepted_at <= '9999-12-31 23:59:59.999999Z')
);
comment on table subject_prefix is 'operational: which issuer each prefix of subjects belongs to';
