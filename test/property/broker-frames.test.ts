// Frames of WebSockets against the parser of ws, which others wrote: what we write it reads, what it
// writes we read, wherever the pieces are cut; and what it refuses, we refuse.
import type { Writable } from 'node:stream';
import fc from 'fast-check';
import t from 'tap';
import * as ws from 'ws';
import {
  type Frame,
  frameBytes,
  FrameInvalid,
  FrameReader,
  opcodes,
} from '../../src/broker/frames.ts';

// What its types leave out.
const { Receiver, Sender } = ws as unknown as {
  readonly Receiver: new (options: object) => Writable;
  readonly Sender: { frame(payload: Buffer, options: object): Buffer[] };
};

interface Message {
  readonly isBinary: boolean;
  readonly parts: readonly Uint8Array[];
}
// Text is for ws only what is UTF-8; of binary it wants nothing.
const messages = fc.array(
  fc.record({
    isBinary: fc.constant(true),
    parts: fc.array(fc.uint8Array({ maxLength: 300 }), { minLength: 1, maxLength: 4 }),
  }),
  { maxLength: 5 },
);
const framesOf = (all: readonly Message[]): Frame[] =>
  all.flatMap(({ parts }) =>
    parts.map((part, i) => ({
      opcode: i === 0 ? opcodes.binary : opcodes.more,
      isFinal: i === parts.length - 1,
      payload: Buffer.from(part),
    })),
  );
const wholeOf = (all: readonly Message[]): string[] =>
  all.map(({ parts }) => Buffer.concat(parts).toString('hex'));
const cuts = fc.array(fc.integer({ min: 1, max: 50 }), { minLength: 1, maxLength: 20 });
function* pieces(bytes: Buffer, sizes: readonly number[]): Generator<Buffer> {
  for (let at = 0, i = 0; at < bytes.length; i += 1) {
    const size = sizes[i % sizes.length]!;
    yield bytes.subarray(at, at + size);
    at += size;
  }
}

/** What the receiver of ws makes of it: messages, or that it refuses. */
function received(chunks: Iterable<Buffer>, isServer: boolean): Promise<string[] | 'refused'> {
  return new Promise((resolve) => {
    const got: string[] = [];
    const receiver = new Receiver({ isServer, allowSynchronousEvents: true });
    receiver
      .on('message', (data: Buffer) => got.push(data.toString('hex')))
      .on('error', () => {
        resolve('refused');
      });
    for (const chunk of chunks) receiver.write(chunk);
    receiver.end((error?: Error | null) => {
      resolve(error ? 'refused' : got);
    });
  });
}

function read(chunks: Iterable<Buffer>, isMasked: boolean): string[] | 'refused' {
  const reader = new FrameReader({ isMasked });
  const got: string[] = [];
  let parts: Buffer[] = [];
  try {
    for (const chunk of chunks)
      for (const { opcode, isFinal, payload } of reader.push(chunk)) {
        if (opcode >= opcodes.close) continue;
        parts.push(payload);
        if (!isFinal) continue;
        got.push(Buffer.concat(parts).toString('hex'));
        parts = [];
      }
  } catch (error) {
    if (error instanceof FrameInvalid) return 'refused';
    throw error;
  }
  return got;
}

t.test('ws reads what is written', async (t) => {
  await fc.assert(
    fc.asyncProperty(messages, cuts, fc.boolean(), async (all, sizes, isMasked) => {
      const bytes = Buffer.concat(framesOf(all).map((frame) => frameBytes(frame, isMasked)));
      t.strictSame(await received(pieces(bytes, sizes), isMasked), wholeOf(all));
    }),
  );
});

t.test('what ws writes is read', async (t) => {
  await fc.assert(
    fc.asyncProperty(messages, cuts, fc.boolean(), async (all, sizes, isMasked) => {
      const bytes = Buffer.concat(
        framesOf(all).flatMap(({ opcode, isFinal, payload }) =>
          Sender.frame(payload, {
            fin: isFinal,
            opcode,
            mask: isMasked,
            readOnly: false,
            rsv1: false,
          }),
        ),
      );
      t.strictSame(read(pieces(bytes, sizes), isMasked), wholeOf(all));
    }),
  );
});

t.test('what ws refuses is refused', async (t) => {
  let refused = 0;
  await fc.assert(
    fc.asyncProperty(
      messages,
      fc.array(fc.tuple(fc.nat(12), fc.nat(255)), { minLength: 1, maxLength: 3 }),
      fc.boolean(),
      async (all, changes, isMasked) => {
        const bytes = Buffer.concat(framesOf(all).map((frame) => frameBytes(frame, isMasked)));
        for (const [at, value] of changes) if (at < bytes.length) bytes[at] = value;
        // Of what a text says the ends judge, and what follows a close is nobody's.
        const theirs = await received([bytes], isMasked);
        const hasOther = read([Buffer.from(bytes)], isMasked);
        if (theirs !== 'refused') return;
        refused += 1;
        const isOfContent = isJudgedByContent(bytes, isMasked);
        t.ok(hasOther === 'refused' || isOfContent, bytes.toString('hex'));
      },
    ),
    { numRuns: 500 },
  );
  t.ok(refused > 20, `${refused} were refused`);
});

/** Whether a frame is text or a close: of those, ws judges what they say. */
function isJudgedByContent(bytes: Buffer, isMasked: boolean): boolean {
  const reader = new FrameReader({ isMasked });
  try {
    for (const { opcode } of reader.push(Buffer.from(bytes)))
      if (opcode === opcodes.text || opcode === opcodes.close) return true;
  } catch {
    return false;
  }
  return false;
}
