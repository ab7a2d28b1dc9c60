// YAML as Airflow's files have it: one mapping. What makes other files of it (anchors that
// multiply, tags that make things) is refused.
import { type Document, isAlias, isMap, isScalar, isSeq, type Node, parseAllDocuments } from 'yaml';
import { OptionsUnfit } from '../target.ts';

const lengthMax = 8 * 1024 * 1024;
const depthMax = 32;

/** A value that is none, or not the same to every reader; the message holds nothing of it. */
export class YamlUnfit extends Error {
  override name = 'YamlUnfit';
}

/**
 * The members of the outermost mapping; asking for a value throws YamlUnfit. Throws OptionsUnfit.
 */
export function readYaml(text: Iterable<string>): { key: string; value: () => unknown }[] {
  let whole = '';
  for (const piece of text) {
    whole += piece;
    if (whole.length > lengthMax)
      throw new OptionsUnfit(`a YAML file is read to ${lengthMax} characters: export it as JSON`);
  }
  const document = parsed(whole);
  // SECURITY: the parser's own messages quote the file.
  if (document === undefined || document.errors.length > 0 || document.warnings.length > 0)
    throw new OptionsUnfit('the file is not one document of YAML');
  if (!isMap(document.contents))
    throw new OptionsUnfit('the file is no mapping of connections by their ids');
  return document.contents.items.map((pair) => ({
    key: keyOf(pair.key),
    value: () => partOf(pair.value as Node | null, 0),
  }));
}

function parsed(text: string): Document.Parsed | undefined {
  try {
    const documents = parseAllDocuments(text, {
      schema: 'core',
      version: '1.2',
      uniqueKeys: false, // quadratic there; asked below
      intAsBigInt: true,
      logLevel: 'silent',
    });
    return Array.isArray(documents) && documents.length === 1 ? documents[0] : undefined;
  } catch {
    return undefined; // deeper than the stack
  }
}

function keyOf(key: unknown): string {
  const text = isScalar(key) ? (key.source ?? String(key.value)) : undefined;
  if (text === undefined || text === '__proto__') throw new YamlUnfit('a name is none');
  return text;
}

function partOf(node: Node | null, depth: number): unknown {
  if (depth > depthMax) throw new YamlUnfit('depth');
  if (node === null) return null;
  if (isAlias(node) || node.anchor !== undefined || !isPlainTag(node.tag))
    throw new YamlUnfit('an anchor, an alias or a tag: write it out');
  if (isScalar(node)) {
    if (node.type === 'PLAIN' && typeof node.source === 'string' && isOtherIn11(node.source))
      throw new YamlUnfit('readers differ about a value without quotes: put it in quotes');
    return scalarOf(node.value, node.source);
  }
  if (isSeq(node)) return node.items.map((item) => partOf(item as Node | null, depth + 1));
  if (!isMap(node)) throw new YamlUnfit('a value is none');
  const members = new Map<string, unknown>();
  for (const { key, value } of node.items) {
    const name = keyOf(key);
    if (members.has(name)) throw new YamlUnfit('duplicateMember');
    members.set(name, partOf(value as Node | null, depth + 1));
  }
  return Object.fromEntries(members);
}

const numbersOf11 = new RegExp(
  '^[-+]?(?:0[0-7_]+|0b[01_]+|0[xo][0-9a-fA-F_]+|' +
    String.raw`[0-9][0-9_]*_[0-9_]*(?:\.[0-9_]*)?|[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?)$`,
);
const wordsOf11 =
  /^(?:=|<<|yes|no|on|off|Yes|No|On|Off|YES|NO|ON|OFF|\d{4}-\d\d?-\d\d?(?:[Tt \t].*)?)$/;
/** What Python reads by YAML 1.1 as something else than what stands there. */
const isOtherIn11 = (source: string): boolean => numbersOf11.test(source) || wordsOf11.test(source);

const isPlainTag = (tag: string | undefined): boolean =>
  tag === undefined || /^(?:tag:yaml\.org,2002:|!!)(?:str|int|float|bool|null|map|seq)$/.test(tag);

/**
 * Numbers keep the text that they were written in, unless it is the one that they are printed in.
 */
function scalarOf(value: unknown, source: string | undefined): unknown {
  if (typeof value === 'bigint' || typeof value === 'number') {
    const number = Number(value);
    return source === undefined || String(number) === source ? number : source;
  }
  return value;
}
