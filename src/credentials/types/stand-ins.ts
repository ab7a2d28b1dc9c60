// Texts that stand where a secret should: what a form, a log or a template shows in its place.
// Stored, they would pass for the secret until something fails.

/** Why a text is no secret. */
export type StandIn = 'blank' | 'mask' | 'placeholder' | 'reference' | 'encrypted';

const invisible = /^[\p{White_Space}\p{Default_Ignorable_Code_Point}\u2800\u{1d159}]*$/u;

const star = '*\u2022\u25cf\u00b7\u2219\u25aa\u25a0\u2588\u00d7\u2731\uff0a';
// A mask is as long as what people look at; and no form below sees a long text.
const shownLengthMax = 128;
const stars = new RegExp(`^[${star}]{3,}$`, 'u');
const masks: readonly RegExp[] = [
  /^([-_#?\u2013\u2014])\1{2,}$|^\.{4,}$|^\u2026+$/u,
  /^x{4,64}$/i,
  /^REDACTED$/,
  // The beginning of a secret, and stars for the rest; or stars, and its end.
  new RegExp(`^[^${star}]{1,8}[${star}]{2,}$`, 'u'),
  new RegExp(`^[^${star}]{0,8}[${star}]{4,}[^${star}]{0,4}$`, 'u'),
  /^[A-Za-z0-9_-]{0,10}(?:\.{3}|\u2026)[A-Za-z0-9_-]{2,4}$/u,
];
const concealed =
  'redacted|masked|hidden|sensitive|sensitive ' +
  'value|filtered|removed|censored|concealed|obfuscated|secret|secure string|protected';
const marked = new RegExp(`^[[<({*_-]+ ?(?:${concealed}) ?[\\])}>*_-]*$`, 'i');

const placeholders: readonly RegExp[] = [
  /^__[a-z0-9]+(?:_[a-z0-9]+)*_value_[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i,
  /^\[object [A-Z][A-Za-z]*\]$/,
  /^undefined$/,
  new RegExp(
    '^<(?=.*(?:your|api|key|token|secret|passw|insert|enter|paste|replace|change|' +
      "placeholder|here|value)) ?[a-z][a-z0-9 _'.:/-]{1,60}>$",
    'i',
  ),
];

const stores = [
  ['op', 'vault', 'bw', 'bws', 'bitwarden', 'doppler', 'infisical', 'akeyless', 'conjur', 'keeper'],
  ['chamber', 'aws-?sm', 'aws-?ssm', 'awssecretsmanager', 'awsssm', 'ssm', 'gcp-?sm', 'gsm', 'sm'],
  ['gcp-?secret', 'gcp-?secret-?manager', 'azure-?kv', 'azure-?key-?vault', 'akv', 'key-?vault'],
  ['secret-?manager', 'secrets?', 'secretref', 'berglas', 'keychain', 'keyring', 'env', 'k8s'],
  ['kubernetes', 'kms', 'sops', 'pass', 'lastpass', 'ref\\+[a-z0-9]+'],
]
  .flat()
  .join('|');
const references: readonly RegExp[] = [
  new RegExp(`^(?:${stores})://\\S`, 'i'),
  // Expressions of templates, whole: n8n, Jinja, GitHub, shells.
  /^=?\s*\{\{[\s\S]*\}\}\s*$/,
  /^\$\{[A-Za-z_][^{}]+\}$|^\$\{\{[^{}]*\}\}$/,
  /^\$\([^()]*\)$/,
  /^arn:aws[a-z-]*:(?:secretsmanager|ssm):\S+$/,
  /^projects\/[^/\s]+\/(?:locations\/[^/\s]+\/)?secrets\/[^/\s]+(?:\/versions\/[^/\s]+)?$/,
  /^@Microsoft\.KeyVault\(.*\)$/i,
  /^vault:[a-z0-9_-]+\/[^\s#]+#\S+$/i,
  /^vault:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i,
  /^!vault\b/,
];
const ciphertexts: readonly RegExp[] = [
  /^ENC\[[A-Za-z0-9_]+,data:/,
  /^ENC\([A-Za-z0-9+/=]+\)$/,
  /^\$ANSIBLE_VAULT;/,
  /^vault:v\d+:[A-Za-z0-9+/=]+$/,
];

/**
 * What the text stands for in place of a secret; undefined for what may be one. Only what nobody
 * uses as a secret is named: a weak password is one.
 */
export function standInOf(text: string): StandIn | undefined {
  const is = (forms: readonly RegExp[]): boolean => forms.some((form) => form.test(text));
  if (invisible.test(text)) return 'blank';
  if (is(ciphertexts)) return 'encrypted';
  if (is(references)) return 'reference';
  if (stars.test(text)) return 'mask';
  if (text.length > shownLengthMax) return undefined;
  if (marked.test(text) || is(masks)) return 'mask';
  return is(placeholders) ? 'placeholder' : undefined;
}
