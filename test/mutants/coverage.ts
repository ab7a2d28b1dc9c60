// Which test runs which piece of source: recorded once by V8 itself, kept in
// node_modules/.cache, and taken again for the test files that changed.
import { hash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { pathToFileURL } from 'node:url';
import type { TestRun, Workspace } from './workspace.ts';

/** Begin and end of a piece of source that ran, by offset; the end is not part of it. */
type Piece = readonly [start: number, end: number];

export interface Recording {
  /** Digest of the test file that was run. */
  readonly digest: string;
  readonly outcome: TestRun['outcome'];
  readonly ms: number;
  /** What ran, by source file; the digest is that of the file then. */
  readonly sources: Readonly<
    Record<string, { readonly digest: string; readonly pieces: readonly Piece[] }>
  >;
}

/** Recordings by test file. */
export type CoverageMap = Record<string, Recording>;

const recordingTimeoutMs = 600_000;

export const digestOf = (path: string): string => hash('sha256', readFileSync(path), 'hex');

export const readMap = (file: string): CoverageMap =>
  existsSync(file) ? (JSON.parse(readFileSync(file, 'utf8')) as CoverageMap) : {};

export function writeMap(file: string, map: CoverageMap): void {
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, JSON.stringify(map));
}

/** Runs the test file as it is and says what it ran. */
export async function record(workspace: Workspace, file: string): Promise<Recording> {
  const coverageFolder = join(workspace.folder, '..', 'coverage');
  try {
    const { outcome, ms } = await workspace.test(file, {
      timeoutMs: recordingTimeoutMs,
      coverageFolder,
    });
    return {
      digest: digestOf(join(workspace.folder, file)),
      outcome,
      ms: Math.round(ms),
      sources: sourcesIn(coverageFolder, workspace.folder),
    };
  } finally {
    rmSync(coverageFolder, { recursive: true, force: true });
  }
}

/** Whether the test runs what stands at this offset; for a source that changed since, anything in it. */
export function runs(recording: Recording, path: string, digest: string, offset: number): boolean {
  const source = recording.sources[path];
  if (source === undefined) return false;
  if (source.digest !== digest) return source.pieces.length > 0;
  return source.pieces.some(([start, end]) => start <= offset && offset < end);
}

interface V8Coverage {
  readonly result: readonly {
    readonly url: string;
    readonly functions: readonly {
      readonly functionName: string;
      readonly ranges: readonly {
        readonly startOffset: number;
        readonly endOffset: number;
        readonly count: number;
      }[];
    }[];
  }[];
}

function sourcesIn(coverageFolder: string, root: string): Recording['sources'] {
  const base = `${pathToFileURL(root).href}/`;
  const flags = new Map<string, Uint8Array>();
  for (const name of existsSync(coverageFolder) ? readdirSync(coverageFolder) : []) {
    const { result } = coverageIn(join(coverageFolder, name));
    for (const { url, functions } of result) {
      if (!url.startsWith(`${base}src/`)) continue;
      const path = decodeURIComponent(url.slice(base.length));
      const length = readFileSync(join(root, path), 'utf8').length;
      const ran = flags.get(path) ?? new Uint8Array(length);
      flags.set(path, ran);
      const here = new Uint8Array(length);
      // Outer functions and blocks come before those within them. A module's own top level runs
      // wherever it is imported, which says nothing.
      for (const { ranges } of functions)
        for (const { startOffset, endOffset, count } of ranges)
          here.fill(count > 0 && endOffset - startOffset < length ? 1 : 0, startOffset, endOffset);
      for (let at = 0; at < length; at++) ran[at]! |= here[at]!;
    }
  }
  return Object.fromEntries(
    [...flags].map(([path, ran]) => [
      path,
      { digest: digestOf(join(root, path)), pieces: piecesOf(ran) },
    ]),
  );
}

// A process that was killed while it wrote leaves half a file, and has nothing to say.
function coverageIn(file: string): V8Coverage {
  try {
    return JSON.parse(readFileSync(file, 'utf8')) as V8Coverage;
  } catch (error) {
    if (error instanceof SyntaxError) return { result: [] };
    throw error;
  }
}

function piecesOf(ran: Uint8Array): Piece[] {
  const pieces: Piece[] = [];
  for (let start = ran.indexOf(1); start !== -1; ) {
    const end = ran.indexOf(0, start);
    pieces.push([start, end === -1 ? ran.length : end]);
    start = end === -1 ? -1 : ran.indexOf(1, end);
  }
  return pieces;
}
