// The body of a token endpoint's answer, from bytes to members: decompressed, decoded, parsed.
// Providers answer in JSON and as forms, under any content type, with a mark in front or without.
import { brotliDecompressSync, gunzipSync, inflateRawSync, inflateSync } from 'node:zlib';

/** What is read of an answer, before and after it is decompressed. */
export const providerBodyBytesMax = 256 * 1024;

/** The members of an answer, and the names that come twice in one of its objects. */
export interface Members {
  readonly root: Readonly<Record<string, unknown>>;
  readonly repeated: ReadonlySet<string>;
}

const bounds = { maxOutputLength: providerBodyBytesMax };
const decoders: Readonly<Record<string, (body: Buffer) => Buffer>> = {
  gzip: (body) => gunzipSync(body, bounds),
  'x-gzip': (body) => gunzipSync(body, bounds),
  br: (body) => brotliDecompressSync(body, bounds),
  // Some mean the format of RFC 1950 by it, some the bare one.
  deflate: (body) => {
    const isZlib = body.length > 1 && (body[0]! & 0x0f) === 8 && body.readUInt16BE(0) % 31 === 0;
    return isZlib ? inflateSync(body, bounds) : inflateRawSync(body, bounds);
  },
};

/** The members of the answer; undefined where the body is no object and no form. */
export function membersOf(body: Buffer, encoding: string | null): Members | undefined {
  const bytes = decompressed(body, encoding);
  if (bytes === undefined) return undefined;
  const text = decoded(bytes).trim();
  return text.startsWith('{') ? ofJson(text) : ofForm(text);
}

/** SECURITY: at most one coding, and never more than `bodyBytesMax` out of it. */
function decompressed(body: Buffer, encoding: string | null): Buffer | undefined {
  const codings = (encoding ?? '')
    .split(',')
    .map((each) => each.trim().toLowerCase())
    .filter((each) => each !== '' && each !== 'identity');
  const [coding] = codings;
  if (coding === undefined) return body;
  if (codings.length > 1 || !Object.hasOwn(decoders, coding)) return undefined;
  try {
    return decoders[coding]!(body);
  } catch (error) {
    // What was labelled and not compressed is read as it is; what is too large is not read at all.
    return (error as { code?: unknown }).code === 'ERR_BUFFER_TOO_LARGE' ? undefined : body;
  }
}

/** A byte order mark says the encoding, and is no part of the text. */
function decoded(bytes: Buffer): string {
  const label =
    bytes[0] === 0xff && bytes[1] === 0xfe
      ? 'utf-16le'
      : bytes[0] === 0xfe && bytes[1] === 0xff
        ? 'utf-16be'
        : 'utf-8';
  return new TextDecoder(label).decode(bytes);
}

function ofJson(text: string): Members | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined; // SECURITY: the parser's message quotes its input
  }
  const root = value as Record<string, unknown>;
  const written = namesWritten(text);
  const kept = new Map<string, number>();
  countNames(root, kept);
  // JSON.parse keeps the last of two members of one name: then fewer are left than were written.
  return {
    root,
    repeated: new Set(
      [...written].flatMap(([name, n]) => (n > (kept.get(name) ?? 0) ? [name] : [])),
    ),
  };
}

/** How often each name is written, at whatever depth. */
function namesWritten(text: string): Map<string, number> {
  const names = new Map<string, number>();
  for (const [, string = '', colon] of text.matchAll(/("(?:[^"\\]|\\.)*")(\s*:)?/gs)) {
    if (colon === undefined) continue;
    const name = String(JSON.parse(string));
    names.set(name, (names.get(name) ?? 0) + 1);
  }
  return names;
}

function countNames(root: unknown, into: Map<string, number>): void {
  const open: unknown[] = [root];
  for (let value = open.pop(); value !== undefined; value = open.pop()) {
    if (typeof value !== 'object' || value === null) continue;
    for (const [name, member] of Object.entries(value)) {
      if (!Array.isArray(value)) into.set(name, (into.get(name) ?? 0) + 1);
      if (member !== null && member !== undefined) open.push(member);
    }
  }
}

function ofForm(text: string): Members | undefined {
  if (!/^[A-Za-z0-9_.~%[\]-]+=[^\s<>"{}]*$/.test(text)) return undefined;
  const parameters = new URLSearchParams(text);
  const met = new Set<string>();
  const repeated = new Set<string>();
  for (const name of parameters.keys()) {
    if (met.has(name)) repeated.add(name);
    met.add(name);
  }
  return { root: Object.fromEntries(parameters), repeated };
}
