// The plaintext of a token: the secret fields with their binding. A token that was copied to
// another row is not opened, though its MAC is right.
//   { v, team, credential, version, key, type, place, fields, pad } as UTF-8 JSON,
//   padded so that its length tells little
import { hash } from 'node:crypto';
import type { CredentialId, DataKeyId, TeamId } from '../shared/ids.ts';
import type { JsonObject } from '../shared/json.ts';
import { canonicalJson, findCanonicalJson } from './canonical.ts';
import { DecryptionFailed } from './errors.ts';
import { Secret } from './secret.ts';

const envelopeVersion = 1;
const smallStepBytes = 256;
const largeStepBytes = 4096;
const tail = '"}';

/**
 * Where a token belongs, as its row claims: the version, its type, and where its public fields and
 * policy let it be sent.
 */
export interface Binding {
  readonly team: TeamId;
  readonly credential: CredentialId;
  readonly version: number;
  readonly type: string;
  readonly publicFields: JsonObject;
  readonly policy: JsonObject;
  /** The names of the secret fields, where the row says them; compared when the token is opened. */
  readonly secretFields?: readonly string[];
}

export type SecretFields = Secret<Readonly<Record<string, string>>>;

/**
 * The digest of what decides where the secret may go. Throws for a binding that has no canonical
 * form.
 */
export const bindingDigest = (binding: Binding): string => digestOf(canonicalJson(bound(binding)));

/**
 * The plaintext of a token. It is a buffer so that the caller can zero it. `digest` is the
 * binding's, where it is known already.
 */
export function packEnvelope(
  key: DataKeyId,
  binding: Binding,
  secret: SecretFields,
  digest = bindingDigest(binding),
): Buffer {
  const fields = secret.expose();
  if (!isFlat(fields)) throw new TypeError('secret fields are a flat object of strings');
  const { team, credential, version, type } = binding;
  const members = {
    v: envelopeVersion,
    team,
    credential,
    version,
    key,
    type,
    place: digest,
    fields,
  };
  const head = `${JSON.stringify(members).slice(0, -1)},"pad":"`;
  const headBytes = Buffer.byteLength(head);
  const plaintext = Buffer.allocUnsafe(paddedLength(headBytes + tail.length));
  plaintext.write(head);
  plaintext.fill(' ', headBytes, plaintext.length - tail.length);
  plaintext.write(tail, plaintext.length - tail.length);
  return plaintext;
}

/**
 * The same for what a row claims; undefined where that has no canonical form, and then nothing
 * opens there.
 */
export function findBindingDigest(binding: Binding): string | undefined {
  const text = findCanonicalJson(bound(binding));
  return text === undefined ? undefined : digestOf(text);
}

/**
 * The fields in the plaintext, if every bound member says what the row claims; else
 * DecryptionFailed.
 */
export function unpackEnvelope(
  key: DataKeyId,
  binding: Binding,
  plaintext: Buffer,
  digest = findBindingDigest(binding),
): SecretFields {
  const envelope = parse(plaintext);
  // SECURITY: each comparison closes a way to move a token: to another row, team, version, key,
  // type, destination or policy.
  const isBound =
    envelope.v === envelopeVersion &&
    envelope.team === binding.team &&
    envelope.credential === binding.credential &&
    envelope.version === binding.version &&
    envelope.key === key &&
    envelope.type === binding.type &&
    digest !== undefined &&
    envelope.place === digest;
  const { fields } = envelope;
  if (!isBound || !isFlat(fields) || !isNamed(fields, binding.secretFields))
    throw new DecryptionFailed();
  return new Secret(fields);
}

/** Whether a row names just these fields. A database can hold any list, of any depth. */
function isNamed(fields: object, names: readonly unknown[] | undefined): boolean {
  if (names === undefined) return true;
  if (!Array.isArray(names)) return false;
  // SECOND LINE: as many names as fields, and each field among them, leave no place for a doubled
  // one.
  if (new Set(names).size !== names.length) return false;
  const own = Object.keys(fields);
  return own.length === names.length && own.every((name) => names.includes(name));
}

/** What decides where the secret may go. */
function bound({ policy, publicFields }: Binding): JsonObject {
  return { policy, publicFields };
}

function digestOf(text: string): string {
  return hash('sha256', text, 'base64url');
}

function paddedLength(bytes: number): number {
  const step = bytes > largeStepBytes ? largeStepBytes : smallStepBytes;
  return Math.ceil(bytes / step) * step;
}

function parse(plaintext: Buffer): Partial<Record<string, unknown>> {
  try {
    const value: unknown = JSON.parse(plaintext.toString());
    if (isObject(value)) return value;
  } catch {
    // SECURITY: the error of JSON.parse quotes its input, which is plaintext.
  }
  throw new DecryptionFailed();
}

function isFlat(fields: unknown): fields is Readonly<Record<string, string>> {
  return isObject(fields) && Object.values(fields).every((value) => typeof value === 'string');
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
