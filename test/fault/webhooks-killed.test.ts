// A process of `serve` is killed between what it wrote about a delivery and what it would have
// written after it: another one sends the message again, with the same id.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { sql } from 'kysely';
import t from 'tap';
import { testDatabase } from '../helpers/database.ts';
import { until } from '../helpers/processes.ts';
import { deploy } from '../helpers/serve.ts';
import { startReceiver } from '../helpers/webhooks.ts';

t.setTimeout(120_000);

t.test(
  'killed with -9 while the receiver answers: at least once, and the same message',
  async (t) => {
    const { url, db } = await testDatabase(t);
    const receiver = await startReceiver(t, 'localhost');
    const ca = join(t.testdir(), 'ca.pem');
    writeFileSync(ca, receiver.certificate);
    const deployment = deploy(t, url);
    const settings = {
      CREDVAULT_EGRESS_ALLOW: `localhost:${receiver.port}=127.0.0.1,localhost:${receiver.port}=::1`,
      CREDVAULT_EGRESS_CA_FILE: ca,
    };
    const first = await deployment.start(settings);
    await first.call('operator', 'POST', '/v1/teams', {
      slug: 'payments',
      name: 'Payments',
      admins: ['alice'],
    });
    const {
      json: { id },
    } = await first.call('alice', 'POST', '/v1/teams/payments/credentials', {
      name: 'on-call',
      type: 'webhook',
      fields: { url: `${receiver.url}/vault`, secret: receiver.secret },
    });
    t.equal(
      (
        await first.call('alice', 'PUT', `/v1/teams/payments/webhooks/${id}`, {
          events: ['key.overdue'],
        })
      ).status,
      200,
    );
    receiver.answer = () => {
      first.child.kill('SIGKILL');
    };
    const {
      json: { id: message },
    } = await first.call('alice', 'POST', `/v1/teams/payments/webhooks/${id}/test`);
    t.equal(await first.ended, 'SIGKILL');
    const actions = async (): Promise<string[]> =>
      (
        await db
          .selectFrom('audit_event')
          .select('action')
          .where('target_id', '=', id)
          .where('action', 'like', 'credential.use%')
          .orderBy('at')
          .execute()
      ).map(({ action }) => action);
    t.same(await actions(), ['credential.use'], 'that the secret was used stands in the audit log');
    t.match(
      (
        await sql<object>`select state, attempts from notification where id = ${message}`.execute(
          db,
        )
      ).rows,
      [{ state: 'pending', attempts: 0 }],
    );

    receiver.answer = (response) => {
      response.writeHead(200).end();
    };
    const second = await deployment.start(settings);
    await sql`update webhook set claimed_until = now()`.execute(db); // the claim of the dead ends after a minute
    await until(
      async () =>
        (await second.call('alice', 'GET', `/v1/teams/payments/webhooks/${id}/deliveries`)).json
          .items[0].state === 'delivered',
    );
    t.same(
      receiver.received.map((each) => [each.id, each.message?.type]),
      [
        [message, 'webhook.test'],
        [message, 'webhook.test'],
      ],
    );
    t.equal(receiver.received[0]!.body, receiver.received[1]!.body);
    t.same(await actions(), ['credential.use', 'credential.use', 'credential.used']);
  },
);
