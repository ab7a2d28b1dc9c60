// What goes over the wire and when it goes again: the vector of the standard-webhooks
// specification, the schedule, Retry-After.
import t from 'tap';
import { folded } from '../helpers/folded.ts';
import { Secret } from '../../src/crypto/index.ts';
import { bodyOf, signedHeaders } from '../../src/notifications/message.ts';
import {
  attemptsMax,
  delayAfter,
  pauseAfter,
  readRetryAfter,
  tooLateMs,
} from '../../src/notifications/retries.ts';

const secret = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw';
const hour = 3_600_000;

t.test("the signature is that of the specification's own example", (t) => {
  const of = {
    id: 'msg_p5jXN8AQM9LWM0D4loKWxJek',
    body: '{"test": 2432232314}',
    nowMs: 1_614_265_330_999,
  };
  t.strictSame(signedHeaders(new Secret({ secret }), of), {
    'content-type': 'application/json',
    'user-agent': 'credential-vault',
    'webhook-id': of.id,
    'webhook-timestamp': '1614265330',
    'webhook-signature': 'v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=',
  });
  const both = signedHeaders(
    new Secret({ secret, previousSecret: `whsec_${Buffer.alloc(24).toString('base64')}` }),
    of,
  )['webhook-signature']!.split(' ');
  t.equal(both.length, 2);
  t.equal(both[0], 'v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=');
  t.throws(() => signedHeaders(new Secret({}), of), TypeError);
  t.end();
});

t.test('a body says what, when and about what, in one form', (t) => {
  const message = {
    id: '019aa7c2-5b1e-7c3a-9d52-0a4f6e1b2c3d' as never,
    type: 'key.overdue',
    at: new Date(0),
    data: { team: 'payments', key: { id: 'k', version: 1 } },
  };
  t.equal(
    bodyOf(message),
    '{"type":"key.overdue","timestamp":"1970-01-01T00:00:00.000Z","data":{"team":"payments","key":{"id":"k","version":1}}}',
  );
  t.end();
});

t.test(
  'ten attempts within some three days, later and later, and never sooner than the receiver asks',
  folded((t) => {
    for (let round = 0; round < 200; round += 1) {
      const delays = Array.from({ length: attemptsMax }, (_, index) =>
        delayAfter(index + 1, undefined),
      );
      t.equal(delays.indexOf(undefined), attemptsMax - 1, 'after the last there is none');
      const known = delays.slice(0, -1) as number[];
      t.ok(known.every((delay, index) => index === 0 || delay > known[index - 1]! * 0.7));
      const sum = known.reduce((a, b) => a + b);
      t.ok(sum > 60 * hour && sum < 91 * hour);
      t.ok(known[0]! >= 4_000 && known[0]! <= 6_000);
    }
    t.ok(tooLateMs > 75 * hour, 'the schedule without its chance fits');
    t.equal(delayAfter(1, 2 * hour), 2 * hour);
    t.ok(delayAfter(9, 1)! > hour);
    t.same(
      [
        pauseAfter(4_000, undefined),
        pauseAfter(10 * hour, undefined),
        pauseAfter(undefined, undefined),
        pauseAfter(4_000, hour),
      ],
      [4_000, 300_000, 300_000, hour],
    );
  }),
);

t.test('Retry-After in seconds or as a date, within a day; everything else says nothing', (t) => {
  const now = Date.parse('2026-11-22T10:00:00Z');
  for (const [header, expected] of [
    ['120', 120_000],
    ['0', undefined],
    ['-5', undefined],
    ['', undefined],
    ['soon', undefined],
    ['1e3', undefined],
    [null, undefined],
    ['999999999', 24 * hour],
    ['99999999999', undefined],
    ['Sun, 22 Nov 2026 10:05:00 GMT', 300_000],
    ['Sun, 22 Nov 2026 09:00:00 GMT', undefined],
    ['Sun, 22 Nov 2099 10:00:00 GMT', 24 * hour],
  ] as const)
    t.equal(readRetryAfter(header, now), expected, String(header));
  t.end();
});
