// What `--file` names: a file or a folder of files, read a piece at a time, as text. A file is from
// anywhere: nothing is opened that never ends, and no link in a folder is followed.
import {
  closeSync,
  constants,
  createReadStream,
  fstatSync,
  lstatSync,
  openSync,
  readdirSync,
  readSync,
} from 'node:fs';
import { join } from 'node:path';
import { OptionsUnfit } from '../target.ts';

/** The text of one file, from its beginning each time that it is asked for. */
export interface TextFile {
  readonly name: string;
  /** Throws NotText where the bytes are no text. */
  text(): Iterable<string>;
}
export interface ImportInput {
  readonly kind: 'file' | 'folder';
  /** The file itself, or those of the folder by name; a string is why one is not read. */
  files(): Iterable<TextFile | { readonly name: string; readonly fault: string }>;
}
/** The bytes are not text in an encoding that files have here. */
export class NotText extends Error {
  override name = 'NotText';
}

const pieceBytes = 64 * 1024;
/** A pipe is read once, and kept: an import looks at its file twice. */
const pipeBytesMax = 64 * 1024 * 1024;

/** Opens what the option names. Throws OptionsUnfit. */
export async function openInput(path: string, option: string): Promise<ImportInput> {
  const refuse = (why: string): never => {
    throw new OptionsUnfit(`${option} names ${why}`);
  };
  let file: number;
  try {
    // Without a writer, opening a pipe would wait for ever.
    file = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (error) {
    return refuse(
      `a file that cannot be read (${(error as NodeJS.ErrnoException).code ?? 'unknown'})`,
    );
  }
  const status = fstatSync(file);
  if (status.isDirectory()) {
    closeSync(file);
    return { kind: 'folder', files: () => filesIn(path) };
  }
  if (status.isFile()) {
    const text = (): Iterable<string> => decoded(piecesOf(file));
    return { kind: 'file', files: () => [{ name: path, text }] };
  }
  closeSync(file);
  if (!status.isFIFO()) return refuse('no file, folder or pipe');
  const pieces: Buffer[] = [];
  let bytes = 0;
  for await (const piece of createReadStream(path) as AsyncIterable<Buffer>) {
    bytes += piece.length;
    if (bytes > pipeBytesMax) refuse(`a pipe with more than ${pipeBytesMax} bytes: use a file`);
    pieces.push(piece);
  }
  return { kind: 'file', files: () => [{ name: path, text: () => decoded(pieces) }] };
}

function* filesIn(folder: string): ReturnType<ImportInput['files']> & Generator {
  for (const name of readdirSync(folder).sort()) {
    const path = join(folder, name);
    const status = lstatSync(path);
    if (!name.toLowerCase().endsWith('.json') || status.isDirectory()) continue;
    // SECURITY: somebody who may write into the folder would have other files of the caller's read.
    if (status.isSymbolicLink()) yield { name, fault: 'symbolicLink' };
    else if (!status.isFile()) yield { name, fault: 'noFile' };
    else yield { name, text: () => decoded(piecesAt(path)) };
  }
}

function* piecesAt(path: string): Generator<Uint8Array> {
  const file = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOFOLLOW);
  try {
    yield* piecesOf(file);
  } finally {
    closeSync(file);
  }
}

function* piecesOf(file: number): Generator<Uint8Array> {
  for (let at = 0; ; ) {
    const piece = new Uint8Array(pieceBytes);
    const length = readSync(file, piece, 0, pieceBytes, at);
    if (length === 0) return;
    at += length;
    yield piece.subarray(0, length);
  }
}

/**
 * UTF-8, or UTF-16 by its mark or by the zeros that it has beside the first letter, which is ASCII
 * in every file that is read here.
 */
function* decoded(pieces: Iterable<Uint8Array>): Generator<string> {
  let decoder: InstanceType<typeof TextDecoder> | undefined;
  const decode = (bytes?: Uint8Array): string => {
    try {
      return decoder === undefined ? '' : decoder.decode(bytes, { stream: bytes !== undefined });
    } catch {
      // SECURITY: never with U+FFFD in the place of bytes: a secret would be stored that nobody
      // has.
      throw new NotText('the file is no text in UTF-8 or UTF-16');
    }
  };
  for (const piece of pieces) {
    let from = 0;
    if (decoder === undefined) {
      const { label, markBytes } = encodingOf(piece);
      decoder = new TextDecoder(label, { fatal: true, ignoreBOM: true });
      from = markBytes;
    }
    const text = decode(piece.subarray(from));
    if (text !== '') yield text;
  }
  const rest = decode();
  if (rest !== '') yield rest;
}

function encodingOf([a, b, c, d]: Uint8Array): { label: string; markBytes: number } {
  if (a === 0xef && b === 0xbb && c === 0xbf) return { label: 'utf-8', markBytes: 3 };
  if ((a === 0xff && b === 0xfe && c === 0 && d === 0) || (a === 0 && b === 0))
    throw new NotText('the file is no text in UTF-8 or UTF-16');
  if (a === 0xff && b === 0xfe) return { label: 'utf-16le', markBytes: 2 };
  if (a === 0xfe && b === 0xff) return { label: 'utf-16be', markBytes: 2 };
  if (b === 0) return { label: 'utf-16le', markBytes: 0 };
  if (a === 0) return { label: 'utf-16be', markBytes: 0 };
  return { label: 'utf-8', markBytes: 0 };
}
