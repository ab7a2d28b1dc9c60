// The file of issuers (CREDVAULT_ISSUERS_FILE): read whole, strictly, and every fault said at once,
// by its place and its rule, never by its value. Pure but for the way to read files that the caller
// hands in.
import { createHash } from 'node:crypto';
import { z } from 'zod';
import { authoritiesPem, isLoopback, jwksUrl, publicKeyPem, ValueInvalid } from './values.ts';
import {
  type ClaimValue,
  type FixedKey,
  fixedKey,
  type Issuer,
  issuerOf,
  type KeySource,
  knownAlgorithms,
  type OneIssuer,
  prefixesMeet,
  readFixedKeys,
  type TokenType,
  usualAlgorithms,
  usualLifetimeSeconds,
  usualRules,
  usualTypes,
} from '../access/index.ts';
import { faultsOfIssues, pointerTo } from '../shared/input-faults.ts';
import { JsonRefused, parseJson } from '../shared/strict-json.ts';
import { storableForm, visibleAsciiForm } from '../shared/patterns.ts';

/** An issuer as it is configured: a shared secret stands among the secrets. */
export type ConfiguredIssuer = Omit<Issuer, 'keys'> & {
  readonly keys: Exclude<KeySource, { kind: 'secret' }> | { readonly kind: 'secret' };
  /** The client by which people sign in at the console. */
  readonly consoleClientId: string | undefined;
};

/** What is wrong with the file, a sentence each. */
export class IssuersInvalid extends Error {
  readonly faults: readonly string[];
  constructor(faults: readonly string[]) {
    super('the issuers cannot be used');
    this.name = 'IssuersInvalid';
    this.faults = faults;
  }
}

/** The issuer that the variables for one describe. */
export const configuredIssuer = (
  one: Omit<OneIssuer, 'keys'> & { readonly keys: ConfiguredIssuer['keys'] },
): ConfiguredIssuer => {
  const { keys } = one;
  const named = keys.kind === 'secret' ? { kind: 'secret' as const, secret: '' } : keys;
  return Object.freeze({
    ...issuerOf({ ...one, keys: named }),
    keys: Object.freeze(keys),
    consoleClientId: undefined,
  });
};

/** The issuers of a vault, from its configuration and, where the one shares it, the secret. */
export const issuersOf = (
  configured: readonly ConfiguredIssuer[],
  secret: string | undefined,
): readonly Issuer[] =>
  configured.map((issuer) => {
    const { keys } = issuer;
    if (keys.kind !== 'secret') return { ...issuer, keys };
    if (secret === undefined) throw new TypeError('a shared secret is configured');
    return { ...issuer, keys: { kind: 'secret', secret } };
  });

// ── the form ─────────────────────────────────────────────────────────────────────────────────────

const fileBytesMax = 1024 * 1024;
const issuersMax = 100;
const lifetimeSecondsMax = 366 * 24 * 60 * 60;
const toleranceSecondsMax = 300;
/** With a subject of 255 characters behind it, 512. */
const prefixLengthMax = 257;

const line = (max: number) => z.string().min(1).max(max).regex(storableForm);
const isUnique = (list: readonly unknown[]): boolean => new Set(list).size === list.length;
const listOf = <T extends z.ZodType>(item: T, max: number) =>
  z.array(item).min(1).max(max).refine(isUnique, 'unique');
const claimName = z
  .string()
  .min(1)
  .max(100)
  .regex(/^[\x21-\x7e]+$/);
const claimValue = z.union([line(1_000), z.number(), z.boolean()]);
// Everything stands for itself but `*`; what looks like a regular expression would match nothing.
const isNoExpression = (text: string): boolean => !/^\^|\$$|\.\*|\.\+|\\/.test(text);
const subjectPattern = z
  .string()
  .min(1)
  .max(255)
  .regex(visibleAsciiForm)
  .refine(isNoExpression, 'noRegularExpression');
const teamPattern = z
  .string()
  .min(1)
  .max(39)
  .regex(/^[a-z0-9*][a-z0-9*-]*$/);
const typeOf: Readonly<Record<string, TokenType>> = {
  absent: 'absent',
  jwt: 'JWT',
  jose: 'JOSE',
  'at+jwt': 'at+jwt',
  'application/at+jwt': 'at+jwt',
};
const path = line(4_096);

const sources = ['jwksUrl', 'discovery', 'jwksFile', 'publicKeyFile'];
const keys = z
  .strictObject({
    jwksUrl: line(2_048).optional(),
    discovery: z.literal(true).optional(),
    jwksFile: path.optional(),
    publicKeyFile: path.optional(),
  })
  .refine(
    (given) => Object.keys(given).filter((name) => sources.includes(name)).length === 1,
    'exactlyOne',
  );

/** What one entry may say. */
export const entrySchema = z.strictObject({
  issuer: line(1_000),
  audiences: listOf(line(1_000), 16),
  keys,
  caFile: path.optional(),
  algorithms: listOf(z.enum(knownAlgorithms), knownAlgorithms.length).optional(),
  types: listOf(
    z
      .string()
      .max(30)
      .refine((word) => Object.hasOwn(typeOf, word.toLowerCase()), 'enum'),
    5,
  ).optional(),
  subjectClaim: claimName.optional(),
  subjectPrefix: z
    .string()
    .max(prefixLengthMax)
    .regex(/^(?:[\x21-\x7e]*:)?$/)
    .optional(),
  subjectPattern: subjectPattern.optional(),
  teams: z.union([teamPattern, listOf(teamPattern, 100)]).optional(),
  scopeClaims: listOf(claimName, 10).optional(),
  require: z
    .record(claimName, z.union([claimValue, listOf(claimValue, 100)]))
    .refine((claims) => Object.keys(claims).length <= 20, 'maxProperties')
    .optional(),
  maxLifetimeSeconds: z.int().min(60).max(lifetimeSecondsMax).optional(),
  clockToleranceSeconds: z.int().min(0).max(toleranceSecondsMax).optional(),
  iatRequired: z.boolean().optional(),
  operators: z.boolean().optional(),
  trustDomain: z
    .string()
    .min(1)
    .max(255)
    .regex(/^[a-z0-9._-]+$/)
    .optional(),
  console: z.strictObject({ clientId: line(255) }).optional(),
});
type Entry = z.infer<typeof entrySchema>;
const file = z.strictObject({ issuers: z.array(z.unknown()).min(1).max(issuersMax) });

// ── the reading ──────────────────────────────────────────────────────────────────────────────────

/** Says a fault: where it is, and which rule is broken. */
type Fault = (pointer: string, rule: string) => void;

/** The issuers of a file's text. Throws IssuersInvalid with everything that is wrong. */
export function readIssuers(
  text: string,
  readFile: (path: string) => string,
): readonly ConfiguredIssuer[] {
  const faults: string[] = [];
  const fault: Fault = (pointer, rule) => {
    faults.push(`${pointer === '' ? 'the document' : pointer} ${rule}`);
  };
  const read = readEntries(text, fault).map((each) => ({
    ...each,
    issuer: readEntry(each, readFile, fault),
  }));
  checkTogether(read, fault);
  if (faults.length > 0) throw new IssuersInvalid(faults);
  return Object.freeze(read.map(({ issuer }) => Object.freeze(issuer)));
}

/**
 * An entry, less the members that are wrong by themselves: the others are looked at all the same.
 */
interface Found {
  readonly at: string;
  readonly entry: Partial<Entry>;
  /** Whether there is a fault in the member itself. */
  readonly isWrong: (name: string) => boolean;
}
type ReadEntry = Found & { readonly issuer: ConfiguredIssuer };

/**
 * What a value breaks, each by pointer and rule, with the bound of a rule that has one. Rules of
 * this file's own are named by their refinements.
 */
function brokenRules(
  schema: z.ZodType,
  data: unknown,
  part: string,
): { readonly pointer: string; readonly rule: string }[] {
  const result = schema.safeParse(data);
  if (result.success) return [];
  return result.error.issues.flatMap((issue) =>
    issue.code === 'custom'
      ? [{ pointer: part + pointerTo(issue.path), rule: issue.message }]
      : faultsOfIssues([issue], { schema, data, part }).map(({ pointer, rule, min, max }) => ({
          pointer,
          rule: [rule, min ?? max].filter((each) => each !== undefined).join(':'),
        })),
  );
}

function readEntries(text: string, fault: Fault): Found[] {
  const bytes = Buffer.from(text);
  if (bytes.length > fileBytesMax) {
    fault('', `must be at most ${fileBytesMax} bytes`);
    return [];
  }
  let document: unknown;
  try {
    document = parseJson(bytes);
  } catch (error) {
    if (!(error instanceof JsonRefused)) throw error;
    fault(error.pointer, `is no plain JSON (${error.rule})`);
    return [];
  }
  for (const { pointer, rule } of brokenRules(file, document, '')) fault(pointer, `breaks ${rule}`);
  const { issuers } = (document ?? {}) as { issuers?: unknown };
  if (!Array.isArray(issuers)) return [];
  return issuers.slice(0, issuersMax).flatMap((each: unknown, index) => {
    const at = `/issuers/${index}`;
    const found = brokenRules(entrySchema, each, at);
    for (const { pointer, rule } of found) fault(pointer, `breaks ${rule}`);
    if (typeof each !== 'object' || each === null || Array.isArray(each)) return [];
    const isWrong = (name: string): boolean =>
      found.some(({ pointer }) => `${pointer}/`.startsWith(`${at}/${name}/`));
    const sound = Object.entries(each).filter(
      ([name]) => name in entrySchema.shape && !isWrong(name),
    );
    return [
      {
        at,
        entry: Object.fromEntries(sound) as Partial<Entry>,
        isWrong,
      },
    ];
  });
}

/** What stands for the rest of an entry that has a fault: nobody sees it. */
const noKeys = { kind: 'fixed', keys: [] } as const;

function readEntry(
  { at, entry: each, isWrong }: Found,
  readFile: (path: string) => string,
  fault: Fault,
): ConfiguredIssuer {
  const isNone = each.issuer === 'none';
  const source = readKeys(each, at, readFile, fault);
  const algorithms = each.algorithms ?? usualAlgorithms;
  checkEntry(each, at, isWrong, fault);
  if (
    source.kind === 'fixed' &&
    source.keys.length > 0 &&
    !source.keys.every((key) => algorithms.some((name) => key.algorithms.includes(name)))
  )
    fault(`${at}/algorithms`, 'must name one for each of the keys');
  return {
    ...usualRules,
    issuer: isNone ? undefined : each.issuer,
    audiences: Object.freeze([...(each.audiences ?? [])]),
    keys: source,
    ca: fromFile(each.caFile, `${at}/caFile`, authoritiesPem, readFile, fault),
    algorithms,
    types:
      each.types === undefined
        ? usualTypes
        : [...new Set(each.types.map((word) => typeOf[word.toLowerCase()]!))],
    subjectClaim: each.subjectClaim ?? usualRules.subjectClaim,
    subjectPrefix: each.subjectPrefix ?? '',
    subjectPattern: each.subjectPattern,
    teams: each.teams === undefined ? undefined : [each.teams].flat(),
    scopeClaims: each.scopeClaims ?? usualRules.scopeClaims,
    require: new Map<string, readonly ClaimValue[]>(
      Object.entries(each.require ?? {}).map(([name, value]) => [name, [value].flat()]),
    ),
    maxLifetimeSeconds: each.maxLifetimeSeconds ?? usualLifetimeSeconds,
    clockToleranceSeconds: each.clockToleranceSeconds ?? usualRules.clockToleranceSeconds,
    isIatRequired: each.iatRequired ?? true,
    areOperators: each.operators ?? false,
    trustDomain: each.trustDomain,
    consoleClientId: each.console?.clientId,
  };
}

/** The rules between the members of one entry. */
function checkEntry(
  each: Partial<Entry>,
  at: string,
  isWrong: (name: string) => boolean,
  fault: Fault,
): void {
  const { keys: given = {}, issuer = '' } = each;
  const isStatic = given.jwksFile !== undefined || given.publicKeyFile !== undefined;
  if (issuer === 'none' && !isWrong('trustDomain') && each.trustDomain === undefined)
    fault(`${at}/trustDomain`, 'is required where tokens have no issuer');
  if (given.discovery === true && issuer !== '' && !isDiscoverable(issuer))
    fault(
      `${at}/issuer`,
      'must be an https URL without credentials, query and fragment to be discovered',
    );
  // SECURITY: everybody can have a token of these; which of them count has to be said.
  if (isShared(issuer) && !isWrong('require') && Object.keys(each.require ?? {}).length === 0)
    fault(`${at}/require`, 'is required for an issuer whose tokens everybody can have');
  // SECURITY: whoever has a key that lies in files would be operator.
  if (each.operators === true && isStatic)
    fault(`${at}/operators`, 'must not be true where the keys are files');
  if (each.operators === true && each.teams !== undefined)
    fault(`${at}/operators`, 'must not be true where the subjects are kept to teams');
  if (each.caFile !== undefined && isStatic)
    fault(`${at}/caFile`, 'is of no use where nothing is fetched');
}

function readKeys(
  { keys: given = {} }: Partial<Entry>,
  at: string,
  readFile: (path: string) => string,
  fault: Fault,
): ConfiguredIssuer['keys'] {
  if (given.discovery === true) return { kind: 'discovery' };
  if (given.jwksUrl !== undefined) {
    const url = checked(() => jwksUrl(given.jwksUrl!), `${at}/keys/jwksUrl`, fault);
    return url === undefined ? noKeys : { kind: 'jwksUrl', url };
  }
  if (given.publicKeyFile !== undefined) {
    const pointer = `${at}/keys/publicKeyFile`;
    const pem = fromFile(given.publicKeyFile, pointer, publicKeyPem, readFile, fault);
    return pem === undefined ? noKeys : { kind: 'fixed', keys: [fixedKey(pem)] };
  }
  const pointer = `${at}/keys/jwksFile`;
  const found = fromFile(given.jwksFile, pointer, fixedKeys, readFile, fault);
  return found === undefined ? noKeys : { kind: 'fixed', keys: found };
}

function fixedKeys(text: string): readonly FixedKey[] {
  const read = readFixedKeys(Buffer.from(text));
  if ('rule' in read) throw new ValueInvalid(read.rule);
  return read.keys;
}

function fromFile<T>(
  name: string | undefined,
  pointer: string,
  rule: (text: string) => T,
  readFile: (path: string) => string,
  fault: Fault,
): T | undefined {
  if (name === undefined) return undefined;
  let text: string;
  try {
    text = readFile(name);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    fault(pointer, `names a file that cannot be read${code === undefined ? '' : ` (${code})`}`);
    return undefined;
  }
  return checked(() => rule(text), pointer, fault);
}

function checked<T>(read: () => T, pointer: string, fault: Fault): T | undefined {
  try {
    return read();
  } catch (error) {
    if (!(error instanceof ValueInvalid)) throw error;
    fault(pointer, error.message);
    return undefined;
  }
}

// ── the entries together ─────────────────────────────────────────────────────────────────────────

/** SECURITY: two issuers meet in nothing: not in their name, their prefix, their keys. */
function checkTogether(read: readonly ReadEntry[], fault: Fault): void {
  for (const [index, each] of read.entries())
    for (const other of read.slice(0, index)) {
      if (each.entry.issuer !== undefined && other.entry.issuer === each.entry.issuer)
        fault(`${each.at}/issuer`, `is that of ${other.at}`);
      const rule = faultOfPrefixes(each, other);
      if (rule !== undefined) fault(`${each.at}/subjectPrefix`, rule);
      if (sharesKey(each.issuer.keys, other.issuer.keys))
        fault(`${each.at}/keys`, `are those of ${other.at}`);
    }
}

function faultOfPrefixes(each: ReadEntry, other: ReadEntry): string | undefined {
  if (each.isWrong('subjectPrefix') || other.isWrong('subjectPrefix')) return undefined;
  const [ours, theirs] = [each.issuer.subjectPrefix, other.issuer.subjectPrefix];
  if (ours === theirs)
    return `is that of ${other.at}${ours === '' ? ': at most one may have none' : ''}`;
  return prefixesMeet(ours, theirs)
    ? `and that of ${other.at} are one the beginning of the other`
    : undefined;
}

function sharesKey(a: ConfiguredIssuer['keys'], b: ConfiguredIssuer['keys']): boolean {
  const [ours, theirs] = [namesOf(a), new Set(namesOf(b))];
  return ours.some((name) => theirs.has(name));
}

/** What a source is told by: its address as it is asked for, or the keys in it. */
function namesOf(source: ConfiguredIssuer['keys']): readonly string[] {
  if (source.kind === 'jwksUrl') return [new URL(source.url).href];
  if (source.kind !== 'fixed') return [];
  return source.keys.map(({ pem }) => createHash('sha256').update(pem).digest('hex'));
}

function isDiscoverable(issuer: string): boolean {
  const url = URL.parse(issuer);
  return (
    url !== null &&
    url.username === '' &&
    url.password === '' &&
    !/[?#@\\\s]/.test(issuer) &&
    (url.protocol === 'https:' || (url.protocol === 'http:' && isLoopback(url.hostname)))
  );
}

/** Hosts and, where it matters, tenants of issuers that sign for whoever comes. */
const sharedHosts: ReadonlySet<string> = new Set([
  'token.actions.githubusercontent.com',
  'gitlab.com',
  'accounts.google.com',
  'appleid.apple.com',
  'agent.buildkite.com',
  'app.terraform.io',
  'cognito-identity.amazonaws.com',
]);
const microsoftHosts: ReadonlySet<string> = new Set([
  'login.microsoftonline.com',
  'sts.windows.net',
]);
/** The last one is that of all personal accounts. */
const microsoftTenants =
  /^\/(?:common|organizations|consumers|9188040d-6c67-4c5b-b112-36a304b66dad)(?:\/|$)/i;

function isShared(issuer: string): boolean {
  const url = URL.parse(issuer) ?? URL.parse(`https://${issuer}`);
  if (url === null) return false;
  return (
    sharedHosts.has(url.hostname) ||
    (microsoftHosts.has(url.hostname) && microsoftTenants.test(url.pathname))
  );
}
