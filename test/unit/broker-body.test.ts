// The caller's body, and what becomes of it when nobody reads it yet.
import type { IncomingMessage } from 'node:http';
import { PassThrough } from 'node:stream';
import t from 'tap';
import { countedBody, wholeBody } from '../../src/broker/body.ts';
import { BrokerRefusal } from '../../src/broker/refusal.ts';

const bodyOf = (
  bytesMax: number,
): { request: PassThrough; body: ReturnType<typeof countedBody> } => {
  const request = new PassThrough();
  const options = { bytesMax, onBytes: () => undefined };
  return { request, body: countedBody(request as unknown as IncomingMessage, options) };
};

t.test('one that is too large while nobody reads it ends no process', async (test) => {
  const { request, body } = bodyOf(10);
  request.write('x'.repeat(11));
  await new Promise((resolve) => {
    body.once('close', resolve);
  });
  test.ok(body.errored instanceof BrokerRefusal, 'its failure waits for its reader');
  await test.rejects(async () => {
    for await (const _ of body);
  }, BrokerRefusal);
});

t.test('one that is too large while it is read fails for its reader', async (test) => {
  const { request, body } = bodyOf(10);
  const read = (async () => {
    for await (const _ of body);
  })();
  request.write('x'.repeat(10));
  request.write('y');
  await test.rejects(read, BrokerRefusal);
  const whole = new PassThrough();
  const all = wholeBody(whole as unknown as IncomingMessage, {
    bytesMax: 10,
    onBytes: () => undefined,
    signal: new AbortController().signal,
  });
  whole.end('0123456789');
  test.equal((await all).toString(), '0123456789');
});
