// What is written beside the requests, while the database is away: the log hears of it once and not
// at every try, and at the stop it hears what was lost.
import t from 'tap';
import { AuditLog } from '../../src/audit/record.ts';
import { Outcomes } from '../../src/broker/outcomes.ts';
import { TeamRoom } from '../../src/credentials/room.ts';
import { openDatabase } from '../../src/db/client.ts';
import { UsageCounter } from '../../src/leases/usage.ts';
import { Complaint } from '../../src/shared/complaint.ts';
import { type CredentialId, newId, type SubjectId, type TeamId } from '../../src/shared/ids.ts';
import { tokenVault } from '../helpers/tokens.ts';

const caller = { sub: 'alice', isOperator: false, requestId: 'r', address: null } as const;
const subject = newId<SubjectId>();

t.test('while the database is away', async (t) => {
  const { keyring } = await tokenVault(t);
  const { db, close } = openDatabase({
    url: 'postgresql://vault@127.0.0.1:1/nothing',
    onError: () => undefined,
  });
  t.teardown(close);
  const told: string[] = [];
  const onError = (error: Error): void => {
    told.push(error.message);
  };
  const auditOf = (): AuditLog =>
    new AuditLog({ db, keyring, now: Date.now, onError, onAlarm: () => undefined });
  const team = newId<TeamId>();

  await t.test('access records', async (t) => {
    const audit = auditOf();
    audit.access({
      subject: null,
      team: null,
      action: 'credential.read',
      target: null,
      status: 200,
      requestId: 'r',
      address: null,
    });
    for (let time = 0; time < 5; time += 1) await audit.flush();
    t.match(told.splice(0), [/^access records cannot be written; they wait, up to a bound \(1\)$/]);
    await audit.stop();
    t.same(told.splice(0), ['1 access records are lost: the vault stops']);
  });
  await t.test('refusals that were only counted', async (t) => {
    const audit = auditOf();
    for (let time = 0; time < 11; time += 1)
      await audit
        .denial({
          caller: { ...caller, subject },
          team: undefined,
          action: 'credential.read',
          target: { type: 'credential', id: 'x' },
          reason: 'role',
        })
        .catch(() => undefined);
    await audit.stop();
    t.same(told.splice(0), [
      'cannot write counted refusals',
      'the vault stops, and refusals that were only counted are lost',
    ]);
  });
  await t.test('outcomes of calls', async (t) => {
    const outcomes = new Outcomes({ db, audit: auditOf(), onError });
    outcomes.add({
      caller: { subject: null, requestId: 'r', address: null },
      team: undefined,
      action: 'credential.used',
      target: { type: 'credential', id: 'x' },
    });
    for (let time = 0; time < 5; time += 1) await outcomes.flush();
    t.match(told.splice(0), [/^outcomes of calls cannot be written; they wait/]);
    await outcomes.stop();
    t.same(told.splice(0), ['1 outcomes of calls are lost: the vault stops']);
  });
  await t.test('use counts', async (t) => {
    const usage = new UsageCounter({ db, now: Date.now, onError });
    usage.count(newId<CredentialId>());
    for (let time = 0; time < 5; time += 1) await usage.flush();
    t.same(told.splice(0), ['use counts are waiting (1)']);
    await usage.stop();
    t.same(told.splice(0), ['use counts of 1 credentials are lost: the vault stops']);
  });
  await t.test('sizes of teams', async (t) => {
    const room = new TeamRoom({ db, now: Date.now, onError });
    room.give(team, { living: 1 });
    for (let time = 0; time < 5; time += 1) await room.flush();
    t.same(told.splice(0), ['sizes are waiting (1)']);
  });
});

t.test('what lasts is told every minute, what comes back at once', async (t) => {
  const told: string[] = [];
  let ms = 0;
  const complaint = new Complaint(
    (error) => told.push(error.message),
    () => ms,
  );
  for (; ms < 150_000; ms += 500) complaint.raise(String(ms), undefined);
  t.same(told.splice(0), ['0', '60000', '120000']);
  complaint.settle();
  complaint.raise('anew', undefined);
  t.same(told, ['anew']);
});
