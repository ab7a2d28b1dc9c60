// How many calls run at once: for a credential, for a team, in all; and that what ended makes room,
// once.
import t from 'tap';
import { CallLimits } from '../../src/broker/limits.ts';
import { type CredentialId, newId, type TeamId } from '../../src/shared/ids.ts';

const limits = { concurrency: 3, requestsPerMinute: 1_000 };
const place = (team = newId<TeamId>()): { team: TeamId; credential: CredentialId } => ({
  team,
  credential: newId<CredentialId>(),
});
const refused = { code: 'rateLimited', retryAfterSeconds: 1 };

t.test(
  'a credential has its concurrency, and what ended makes room once, however often its end is told',
  async (t) => {
    const calls = new CallLimits(Date.now, 100);
    const at = place();
    const ends = [1, 2, 3].map(() => calls.enter(at, limits));
    t.throws(() => calls.enter(at, limits), { ...refused, message: /for this credential/ });
    ends[0]!();
    ends[0]!();
    ends.push(calls.enter(at, limits));
    t.throws(() => calls.enter(at, limits), refused);
  },
);

t.test('a team has half of all calls, over all of its credentials', async (t) => {
  const calls = new CallLimits(Date.now, 8);
  const { team } = place();
  const ends = [1, 2, 3, 4].map(() => calls.enter(place(team), limits));
  t.throws(() => calls.enter(place(team), limits), { ...refused, message: /for this team/ });
  calls.enter(place(), limits)();
  ends[3]!();
  ends.push(calls.enter(place(team), limits));
  t.throws(() => calls.enter(place(team), limits), refused);
  for (const end of ends) end();
  for (let i = 0; i < 4; i += 1) calls.enter(place(team), limits);
  t.throws(() => calls.enter(place(team), limits), refused);
});

t.test('all calls together are bounded, and a refused one takes no room', async (t) => {
  const calls = new CallLimits(Date.now, 4);
  const ends = [1, 2, 3, 4].map(() => calls.enter(place(), limits));
  for (let i = 0; i < 10; i += 1)
    t.throws(() => calls.enter(place(), limits), { ...refused, message: /at this moment/ });
  for (const end of ends) end();
  for (let i = 0; i < 4; i += 1) calls.enter(place(), limits);
  t.throws(() => calls.enter(place(), limits), refused);
});

t.test('a clock that was set back does not lengthen the minute', async (t) => {
  let now = Date.parse('2026-12-01T12:00:00Z');
  const calls = new CallLimits(() => now, 100);
  const at = place();
  const few = { concurrency: 3, requestsPerMinute: 2 };
  calls.enter(at, few)();
  calls.enter(at, few)();
  t.throws(() => calls.enter(at, few), { code: 'rateLimited', retryAfterSeconds: 60 });
  now -= 3_600_000;
  calls.enter(at, few)();
  calls.enter(at, few)();
  t.throws(() => calls.enter(at, few), { code: 'rateLimited', retryAfterSeconds: 60 });
});
