// Content codings of answers, taken off so that the secret can be looked for. An upstream is asked
// for identity; some compress all the same.
import type { Readable, Transform } from 'node:stream';
import {
  constants,
  createBrotliDecompress,
  createGunzip,
  createInflate,
  createInflateRaw,
  createZstdDecompress,
} from 'node:zlib';
import { unknownMember } from '../shared/closed-sets.ts';
import { BrokerRefusal } from './refusal.ts';

/** How a body is to be read: as it is, through one coding, or by nobody here. */
export type Coding = 'identity' | 'gzip' | 'deflate' | 'br' | 'zstd' | 'unknown';

const codings: Readonly<Record<string, Coding>> = {
  gzip: 'gzip',
  'x-gzip': 'gzip',
  deflate: 'deflate',
  br: 'br',
  zstd: 'zstd',
};

/** What Content-Encoding says; `unknown` for several codings over each other. */
export function codingOf(contentEncoding: string): Coding {
  const listed = contentEncoding
    .toLowerCase()
    .split(',')
    .map((name) => name.trim())
    .filter((name) => name !== '' && name !== 'identity');
  if (listed.length === 0) return 'identity';
  return (listed.length === 1 ? codings[listed[0]!] : undefined) ?? 'unknown';
}

/** Eight MiB, as RFC 9659 has it: what a decoder may be made to remember. */
const windowBits = 23;

/**
 * The body without its coding, as it comes. Throws what the body throws, and BrokerRefusal
 * `unscannable` for what is not in the coding, is cut off, or needs a larger window.
 */
export async function* withoutCoding(
  body: Readable,
  coding: Exclude<Coding, 'identity' | 'unknown'>,
): AsyncGenerator<Buffer> {
  const iterator = body[Symbol.asyncIterator]() as AsyncIterator<Buffer>;
  const first = await nextPiece(iterator);
  if (first === undefined) return; // nothing is nothing in every coding
  const decoder = decoderFor(coding, first[0]!);
  let failure: unknown;
  const feed = async (): Promise<void> => {
    try {
      for (
        let piece: Buffer | undefined = first;
        piece !== undefined;
        piece = await nextPiece(iterator)
      ) {
        if (decoder.destroyed || decoder.readableEnded) return;
        if (!decoder.write(piece)) await drained(decoder);
      }
      decoder.end();
    } catch (error) {
      failure = error;
      decoder.destroy(error as Error);
    }
  };
  decoder.on('error', () => undefined);
  const feeding = feed();
  try {
    yield* decoder as AsyncIterable<Buffer>;
  } catch (error) {
    throw failure ?? (error instanceof BrokerRefusal ? error : new BrokerRefusal('unscannable'));
  } finally {
    decoder.destroy();
    body.destroy();
    await feeding;
  }
}

async function nextPiece(iterator: AsyncIterator<Buffer>): Promise<Buffer | undefined> {
  for (;;) {
    const { done, value } = await iterator.next();
    if (done === true) return undefined;
    if (value.length > 0) return value;
  }
}

function decoderFor(coding: Exclude<Coding, 'identity' | 'unknown'>, first: number): Transform {
  switch (coding) {
    case 'gzip':
      return createGunzip();
    case 'deflate':
      // Some send it without the frame of zlib that the standard demands.
      return (first & 0x0f) === 8 ? createInflate() : createInflateRaw();
    case 'zstd':
      return createZstdDecompress({
        params: { [constants.ZSTD_d_windowLogMax]: windowBits },
      });
    case 'br':
      // SECURITY: the bits of 2^24, the one window of Brotli that is larger, and of larger ones.
      if ((first & 0x0f) === 0x0f || (first & 0x7f) === 0x11)
        throw new BrokerRefusal('unscannable');
      return createBrotliDecompress();
  }
  throw unknownMember(coding satisfies never);
}

/** When more may be written, or nothing any more. */
function drained(decoder: Transform): Promise<void> {
  return new Promise((resolve) => {
    const go = (): void => {
      decoder.off('drain', go).off('close', go);
      resolve();
    };
    if (decoder.destroyed || !decoder.writableNeedDrain) go();
    else decoder.on('drain', go).on('close', go);
  });
}
