// From another system's credential to ours, losing nothing: what its type has no field for is kept
// as secret fields of a second, `custom` credential, and what does not make a whole credential of
// its type becomes a `custom` one.
import {
  type CredentialType,
  credentialTypes,
  type FieldSpec,
  type PublicValue,
  type System,
} from '../../credentials/types/registry.ts';
import type { Foreign } from './sources.ts';
import { visibleName } from '../../shared/visible-names.ts';

/**
 * What was done with one field; names only. `to` is undefined for what was left behind because it
 * is empty, or because the vault writes it by itself.
 */
export interface FieldNote {
  readonly from: string;
  readonly to: string | undefined;
  readonly as: 'secret' | 'public' | 'extra' | 'empty' | 'written';
}

/** A credential to be stored. */
export interface Translated {
  readonly id: string;
  readonly name: string;
  readonly type: string;
  readonly fields: Readonly<Record<string, PublicValue>>;
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

const custom = credentialTypes.find(({ isOpen }) => isOpen === true)!;
const nameLengthMax = 80;

/**
 * The credentials that a foreign one becomes: none when nothing is in it, two when its type cannot
 * take all of it.
 */
export function translate(system: System, foreign: Foreign): Translated[] {
  const data = Object.entries(foreign.data ?? {});
  const found = typeOf(system, foreign.type);
  const name = nameOf(foreign.name);
  if (found !== undefined) {
    const { fields, notes, rest } = fill(found.type, found.fields, data);
    if (isWhole(found.type, fields)) {
      const extra = keepAll(rest);
      const first: Translated = { id: foreign.id, name, type: found.type.name, fields, notes };
      return extra.notes.every(({ as }) => as === 'empty')
        ? [{ ...first, notes: [...notes, ...extra.notes] }]
        : [
            first,
            {
              id: `${foreign.id}#extra`,
              name: `${name} (extra)`,
              type: custom.name,
              fields: extra.fields,
              notes: extra.notes.map((note) =>
                note.as === 'secret' ? { ...note, as: 'extra' } : note,
              ),
            },
          ];
    }
  }
  const { fields, notes } = keepAll(data);
  return Object.keys(fields).length === 0
    ? []
    : [{ id: foreign.id, name, type: custom.name, fields, notes }];
}

function typeOf(
  system: System,
  type: string,
): { type: CredentialType; fields: Readonly<Record<string, string>> } | undefined {
  for (const candidate of credentialTypes) {
    const alias = candidate.aliases?.[system]?.find((each) => each.type === type);
    if (alias !== undefined) return { type: candidate, fields: alias.fields };
  }
  return undefined;
}

type Entry = readonly [name: string, value: unknown];

function fill(
  type: CredentialType,
  aliases: Readonly<Record<string, string>>,
  data: readonly Entry[],
): { fields: Record<string, PublicValue>; notes: FieldNote[]; rest: Entry[] } {
  const fields: Record<string, PublicValue> = {};
  const notes: FieldNote[] = [];
  const rest: Entry[] = [];
  for (const [from, value] of data) {
    const to = Object.hasOwn(aliases, from) ? aliases[from] : undefined;
    const spec = to === undefined ? undefined : type.fields[to];
    const fit =
      to === undefined || spec === undefined || isEmpty(value) ? undefined : fitting(spec, value);
    if (to === undefined || spec === undefined || fit === undefined) {
      rest.push([from, value]);
      continue;
    }
    fields[to] = fit;
    notes.push({ from, to, as: spec.class });
  }
  return { fields, notes, rest };
}

/**
 * The value as the field takes it: as it is, or as the number or the truth value that its text
 * says; undefined where it fits in no way.
 */
function fitting(spec: FieldSpec, value: unknown): PublicValue | undefined {
  const text = typeof value === 'string' ? value : undefined;
  const candidates =
    spec.class === 'secret'
      ? [text ?? JSON.stringify(value)]
      : [
          value,
          ...(text !== undefined && /^-?\d{1,15}$/.test(text.trim()) ? [Number(text)] : []),
          ...(/^(?:true|false)$/i.test(text?.trim() ?? '')
            ? [/^true$/i.test(text?.trim() ?? '')]
            : []),
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

/** Everything as secret fields of an open type, what is no text as JSON. */
function keepAll(data: readonly Entry[]): { fields: Record<string, string>; notes: FieldNote[] } {
  const fields: Record<string, string> = {};
  const notes: FieldNote[] = [];
  for (const [from, value] of data) {
    if (isEmpty(value)) {
      notes.push({ from, to: undefined, as: 'empty' });
      continue;
    }
    const plain = from
      .replace(/[^A-Za-z0-9_.-]/g, '_')
      .replace(/^(?![A-Za-z_])|^__proto__$/, '_')
      .slice(0, 60);
    const to = Object.hasOwn(fields, plain) ? `${plain}_${Object.keys(fields).length}` : plain;
    fields[to] = typeof value === 'string' ? value : JSON.stringify(value);
    notes.push({ from, to, as: 'secret' });
  }
  return { fields, notes };
}

const isEmpty = (value: unknown): boolean => value === undefined || value === null || value === '';

/** A name that the vault takes: visible characters, blanks only inside. */
function nameOf(text: string): string {
  const name = Array.from(visibleName(text)).slice(0, nameLengthMax).join('');
  return visibleName(name) || 'unnamed';
}
