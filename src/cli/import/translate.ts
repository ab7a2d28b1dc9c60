// From another system's credential to ours, losing nothing: what its type has no field for is kept
// as secret fields of a second, `custom` credential, and what does not make a whole credential of
// its type, or goes to another place than its type can say, becomes a `custom` one.
import {
  type Alias,
  type AliasField,
  type CredentialType,
  credentialTypes,
  type FieldSpec,
  findType,
  type PublicValue,
  type System,
  standInOf,
} from '../../credentials/index.ts';
import {
  allowedHostsIn,
  isEmpty,
  isKeyAsUser,
  isOff,
  isPlaceName,
  isTls,
  openAiBase,
  publicNames,
  strayPlaces,
  textIn,
  textsIn,
  tlsOf,
} from './destinations.ts';
import type { Foreign } from './foreign.ts';
import { isPlainName } from '../../shared/names.ts';
import { legalName, withSuffix } from './names.ts';

/**
 * What was done with one field; names only. `to` is undefined for what was left behind because it
 * is empty or off, or because the vault writes it by itself.
 */
export interface FieldNote {
  readonly from: string;
  readonly to: string | undefined;
  readonly as: 'secret' | 'public' | 'extra' | 'empty' | 'off' | 'policy' | 'written';
}

/** A credential to be stored. */
export interface Translated {
  readonly id: string;
  readonly name: string;
  /** What it is called there, where that is no name here. */
  readonly nameThere?: string;
  readonly type: string;
  readonly fields: Readonly<Record<string, PublicValue>>;
  readonly publicFieldNames?: readonly string[];
  /** The hosts that the source restricts it to. */
  readonly allowedHosts?: readonly string[];
  readonly notes: readonly FieldNote[];
  /** What a vault knows of it besides; other systems know nothing of the kind. */
  readonly more?: {
    readonly description: string | null;
    readonly labels: Readonly<Record<string, string>>;
    readonly expiresAt: string | null;
    readonly rotateAfter: string | null;
    readonly policy: object;
    readonly publicFieldNames?: readonly string[];
  };
  readonly isDisabled?: boolean;
}
/** Why nothing of a foreign credential can be stored: a word, and where. */
export interface Unfit {
  readonly reason: string;
}

const custom = findType('custom')!;
type Entry = readonly [name: string, value: unknown];

/**
 * The credentials that a foreign one becomes: none when nothing is in it, two when its type cannot
 * take all of it; or why it becomes none.
 */
export function translate(system: System, foreign: Foreign): readonly Translated[] | Unfit {
  if (foreign.fault !== undefined || foreign.data === undefined)
    return { reason: foreign.fault ?? 'doesNotOpen' };
  const reason = standInFault(system, foreign.data);
  if (reason !== undefined) return { reason };
  const allowedHosts = allowedHostsIn(foreign.data);
  if (allowedHosts === 'unfit')
    return { reason: '/allowedDomains is no list of host names: name them in the policy by hand' };
  const restricted = new Set(['allowedHttpRequestDomains', 'allowedDomains']);
  const data = Object.entries(foreign.data).filter(
    ([name]) => allowedHosts === undefined || !restricted.has(name),
  );
  const name = legalName(foreign.name);
  const about = {
    id: foreign.id,
    name,
    ...(name === foreign.name ? {} : { nameThere: foreign.name }),
    ...(allowedHosts === undefined ? {} : { allowedHosts }),
  };
  const policyNotes: FieldNote[] =
    allowedHosts === undefined
      ? []
      : [{ from: 'allowedDomains', to: 'allowedHosts', as: 'policy' }];
  const found = typeOf(system, foreign.type);
  const made = found === undefined ? undefined : ofType(found.type, found.alias, data);
  if (made !== undefined && 'reason' in made) return made;
  if (made !== undefined) {
    const extra = keepAll(made.rest.filter((entry) => !isOff(entry)));
    const off = made.rest.filter(isOff).map(([from, value]): FieldNote => {
      return { from, to: undefined, as: isEmpty(value) ? 'empty' : 'off' };
    });
    const first: Translated = {
      ...about,
      type: made.type,
      fields: made.fields,
      notes: [...made.notes, ...policyNotes, ...off],
    };
    if (extra.notes.length === 0) return [first];
    const { allowedHosts: _, ...aboutExtra } = about;
    return [
      first,
      {
        ...aboutExtra,
        id: `${foreign.id}#extra`,
        name: withSuffix(name, ' (extra)'),
        type: custom.name,
        fields: extra.fields,
        notes: extra.notes.map((note) => (note.as === 'secret' ? { ...note, as: 'extra' } : note)),
      },
    ];
  }
  const shown = publicNames(data);
  const { fields, notes, publicFieldNames } = keepAll(data, shown);
  if (Object.keys(fields).length === 0) return [];
  return [
    {
      ...about,
      type: custom.name,
      fields,
      ...(publicFieldNames.length === 0 ? {} : { publicFieldNames }),
      notes: [...notes, ...policyNotes],
    },
  ];
}

/**
 * Words that files of examples have, and that somebody may really use: whoever does stores it by
 * hand.
 */
const exampleForm = new RegExp(
  '^(?:(?:please[-_ ]?)?(?:change|replace|fill)[-_ ]?(?:me|this|in)[!.]*|' +
    'to[-_ ]?do|tbd|fix[-_ ]?me|(?:your|insert|enter|' +
    'paste)[-_ ](?:[a-z0-9]+[-_ ])*(?:key|token|secret|password|here)(?:[-_ ]here)?|' +
    '(?:api[-_]?key|token|secret|password)[-_ ]here|placeholder)$',
  'i',
);

/** The first text that stands for a secret and is none. */
function standInFault(system: System, data: Readonly<Record<string, unknown>>): string | undefined {
  for (const [name, value] of Object.entries(data)) {
    for (const { path, text } of textsIn(value, '')) {
      if (text === '') continue;
      // n8n reads whatever begins so as an expression.
      const isExpression = system === 'n8n' && /^=/.test(text);
      const standIn = isExpression
        ? 'reference'
        : (standInOf(text) ??
          (text.length < 80 && exampleForm.test(text.trim()) ? 'placeholder' : undefined));
      if (standIn === undefined) continue;
      const pointer = `/${[name, ...path.split('/').slice(1)]
        .map((part) => (isPlainName(part) || /^\d{1,6}$/.test(part) ? part : '…'))
        .join('/')}`;
      return `${pointer} ${standIn} (${standInWords[standIn]})`;
    }
  }
  return undefined;
}
const standInWords = {
  blank: 'nothing in it can be seen',
  mask: 'a mask in place of the secret',
  placeholder: 'a placeholder, not a secret',
  reference: 'a reference, not a secret',
  encrypted: 'a ciphertext of another store',
} as const;

function typeOf(system: System, name: string): { type: CredentialType; alias: Alias } | undefined {
  for (const type of credentialTypes) {
    const alias = type.aliases?.[system]?.find((each) => each.type === name);
    if (alias !== undefined) return { type, alias };
  }
  return undefined;
}

interface Made {
  readonly type: string;
  readonly fields: Record<string, PublicValue>;
  readonly notes: readonly FieldNote[];
  readonly rest: readonly Entry[];
}

/** The members as a credential of the type; undefined where they make none, or another one. */
function ofType(
  type: CredentialType,
  alias: Alias,
  data: readonly Entry[],
): Made | Unfit | undefined {
  const isIdle = ([name, value]: Entry): boolean =>
    isOff([name, value]) || alias.idle?.[name]?.includes(textIn(value)) === true;
  if (alias.unfit?.some((name) => data.some((entry) => entry[0] === name && !isIdle(entry))))
    return undefined;
  const says = (name: string): boolean =>
    data.some((entry) => entry[0] === name && !isIdle(entry) && textIn(entry[1]) !== '0');
  if (alias.demands !== undefined && !alias.demands.some(says)) return undefined;
  const filled = fill(type, alias, data);
  if ('reason' in filled) return filled;
  const { fields, notes } = filled;
  const idle = filled.rest.filter((entry) => isIdle(entry) && !isOff(entry));
  const rest = filled.rest.filter((entry) => !idle.includes(entry));
  const { connectionString } = fields;
  const tls = typeof connectionString === 'string' ? tlsOf(connectionString) : undefined;
  for (const [name, value] of Object.entries({
    ...alias.absent,
    ...(tls === undefined || type.fields['tls'] === undefined ? {} : { tls }),
  }))
    if (!Object.hasOwn(fields, name)) fields[name] = value;
  const isKeyed =
    (type.name === 'httpBasic' || type.name === 'httpDigest') &&
    isKeyAsUser(String(fields['username'] ?? ''), String(fields['password'] ?? ''));
  // A name alone is half of something, unless it looks like a key.
  const isHalf =
    fields['password'] === undefined && !isKeyAsUser(String(fields['username'] ?? ''), 'something');
  if (isKeyed && (type.fields['apiKey'] === undefined || isHalf)) return undefined;
  if (isKeyed) {
    // SECURITY: what stands where a user name does is a secret then.
    fields['apiKey'] = String(fields['username']);
    delete fields['username'];
    const at = notes.findIndex(({ to }) => to === 'username');
    notes[at] = { from: notes[at]!.from, to: 'apiKey', as: 'secret' };
  }
  const isImplicit = type.name === 'smtp' && fields['port'] === 465;
  // SECURITY: a key goes to the place that stands beside it or nowhere, and never with less TLS.
  const isElsewhere =
    strayPlaces(type, rest).length > 0 ||
    rest.some((entry) => isTls(entry[0]) && !isOff(entry) && !isImplicit);
  if (isElsewhere || !isWhole(type, fields)) return undefined;
  const off = idle.map(([from]): FieldNote => ({ from, to: undefined, as: 'off' }));
  const left = isImplicit ? rest.filter(([name]) => !isTls(name)) : rest;
  const made = { type: type.name, fields, notes: [...notes, ...off], rest: left };
  const { baseUrl } = fields;
  return type.name === 'openai' && typeof baseUrl === 'string'
    ? {
        ...made,
        type: openAiBase(baseUrl).type,
        fields: { ...fields, baseUrl: openAiBase(baseUrl).baseUrl },
      }
    : made;
}

function fill(
  type: CredentialType,
  alias: Alias,
  data: readonly Entry[],
): { fields: Record<string, PublicValue>; notes: FieldNote[]; rest: Entry[] } | Unfit {
  const fields: Record<string, PublicValue> = {};
  const notes: FieldNote[] = [];
  const rest: Entry[] = [];
  const isIdle = unchosen(alias, data);
  for (const [from, value] of data) {
    if (isIdle.has(from)) {
      if (alias.modes?.[from] === undefined) rest.push([from, value]);
      else notes.push({ from, to: undefined, as: 'off' });
      continue;
    }
    const found = Object.hasOwn(alias.fields, from) ? alias.fields[from] : undefined;
    const given: Partial<AliasField> = typeof found === 'string' ? { to: found } : (found ?? {});
    const { to, words, read, unless } = given;
    if (unless !== undefined && data.some(([name, other]) => name === unless && !isEmpty(other))) {
      notes.push({ from, to: undefined, as: 'off' });
      continue;
    }
    const spec = to === undefined ? undefined : type.fields[to];
    const said =
      read === undefined
        ? words === undefined
          ? value
          : words[textIn(value).trim().toLowerCase()]
        : read(textIn(value));
    const fit =
      spec === undefined || isEmpty(value) || said === undefined ? undefined : fitting(spec, said);
    // A default must not take the place of what the source says.
    const isLost = spec?.default !== undefined && !isEmpty(value) && fit === undefined;
    if (isLost && words === undefined && !isPlaceName(from) && !isTls(from))
      return { reason: `/${isPlainName(from) ? from : '…'} is no ${to} that ${type.name} has` };
    if (to === undefined || spec === undefined || fit === undefined) {
      rest.push([from, value]);
      continue;
    }
    if (Object.hasOwn(fields, to) && fields[to] !== fit)
      return { reason: 'contradictory (two members say different things of one field)' };
    fields[to] = fit;
    notes.push({ from, to, as: spec.class });
  }
  return { fields, notes, rest };
}

/** The members that choose, where they say a word of theirs, and those that do not count then. */
function unchosen({ modes = {} }: Alias, data: readonly Entry[]): ReadonlySet<string> {
  return new Set(
    Object.entries(modes).flatMap(([name, words]) => {
      const said = textIn(data.find(([each]) => each === name)?.[1]).toLowerCase();
      const [, others] = Object.entries(words).find(([word]) => word.toLowerCase() === said) ?? [];
      return others === undefined ? [] : [name, ...others];
    }),
  );
}

/**
 * The value as the field takes it: as it is, or as the number or the truth value that its text
 * says; undefined where it fits in no way.
 */
function fitting(spec: FieldSpec, value: unknown): PublicValue | undefined {
  const text = typeof value === 'object' || typeof value === 'number' ? textIn(value) : value;
  const plain = typeof text === 'string' ? text.trim() : '';
  const candidates =
    spec.class === 'secret'
      ? [textIn(value)]
      : [
          value,
          text,
          ...(/^-?\d{1,15}(?:\.0+)?$/.test(plain) ? [Number(plain)] : []),
          ...(/^(?:true|t|yes|on|1)$/i.test(plain) ? [true] : []),
          ...(/^(?:false|f|no|off|0)$/i.test(plain) ? [false] : []),
        ];
  for (const candidate of candidates) {
    const { success, data } = spec.schema.safeParse(candidate);
    if (success) return data;
  }
  return undefined;
}

function isWhole(type: CredentialType, fields: Readonly<Record<string, PublicValue>>): boolean {
  const has = (name: string): boolean => Object.hasOwn(fields, name);
  return (
    Object.entries(type.fields).every(([name, spec]) => !spec.isRequired || has(name)) &&
    (type.anyOf === undefined || type.anyOf.some(has))
  );
}

const fieldNameLengthMax = 60;

/**
 * Everything as fields of an open type, secret but for those named; what is no text as JSON,
 * numbers with the digits that they have there.
 */
function keepAll(
  data: readonly Entry[],
  shown: ReadonlySet<string> = new Set(),
): { fields: Record<string, string>; notes: FieldNote[]; publicFieldNames: string[] } {
  const fields: Record<string, string> = {};
  const notes: FieldNote[] = [];
  const publicFieldNames: string[] = [];
  for (const [from, value] of data) {
    if (isEmpty(value)) {
      notes.push({ from, to: undefined, as: 'empty' });
      continue;
    }
    const plain = from
      .replace(/[^A-Za-z0-9_.-]/g, '_')
      .replace(/^(?![A-Za-z_])|^__proto__$/, '_')
      .slice(0, fieldNameLengthMax);
    let to = plain;
    for (let n = 2; Object.hasOwn(fields, to); n += 1) to = `${plain.slice(0, 56)}_${n}`;
    fields[to] = textIn(value);
    const isShown = shown.has(from);
    if (isShown) publicFieldNames.push(to);
    notes.push({ from, to, as: isShown ? 'public' : 'secret' });
  }
  return { fields, notes, publicFieldNames };
}
