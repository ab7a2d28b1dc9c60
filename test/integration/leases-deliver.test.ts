// A lease brings what was stored, to the engine's key and to nobody else, and stands in the audit
// log of each owner.
import { randomBytes } from 'node:crypto';
import { test } from 'tap';
import {
  type EnginePrivateKey,
  generateEngineKey,
  LeaseInvalid,
  openLease,
} from '../../src/client/index.ts';
import { until } from '../helpers/processes.ts';
import {
  askLease,
  demand,
  openAnswer,
  registerEngine,
  rulesOf,
  storeOpenai,
  vaultIssuer,
} from '../helpers/leases.ts';
import { startVault } from '../helpers/vault.ts';

test('a lease', async (t) => {
  const vault = await startVault(t);
  await vault.team('payments');
  await vault.team('shipping', ['alice', 'zoe']);
  const engine = await registerEngine(vault, 'n8n');
  await vault.member('payments', 'n8n', 'engine');
  await vault.member('shipping', 'n8n', 'engine');
  const canary = `sk-${randomBytes(24).toString('hex')}`;
  const stored = await storeOpenai(vault, 'payments', 'openai-prod', canary);

  await t.test('201: by id and by team and name, public and secret fields together', async (t) => {
    for (const reference of [{ id: stored.id }, { team: 'payments', name: 'openai-prod' }]) {
      const answer = await askLease(vault, 'n8n', [reference], { runId: 'run-1' });
      t.equal(answer.status, 201);
      t.match(answer.json.credentials, [
        {
          id: stored.id,
          team: 'payments',
          name: 'openai-prod',
          type: 'openai',
          version: 1,
          revision: 1,
          expiresAt: null,
          notModified: false,
        },
      ]);
      const opened = await openAnswer(vault, engine, answer);
      t.equal(opened.id, answer.json.id);
      t.equal(opened.expiresAt.toISOString(), answer.json.expiresAt);
      t.strictSame(opened.credentials, [
        {
          id: stored.id,
          team: 'payments',
          name: 'openai-prod',
          type: 'openai',
          version: 1,
          notModified: false,
          fields: { ...stored.publicFields, apiKey: canary },
        },
      ]);
      t.equal(answer.headers['cache-control'], 'no-store');
      t.notOk(answer.text.includes(canary), 'the secret is only inside the sealed part');
    }
  });

  await t.test('201: the time to live is what was asked for, 60 seconds otherwise', async (t) => {
    for (const [ttlSeconds, expected] of [
      [undefined, 60],
      [1, 1],
      [300, 300],
    ] as const) {
      const before = Math.floor(Date.now() / 1000);
      const { json } = await askLease(
        vault,
        'n8n',
        [{ id: stored.id }],
        ttlSeconds === undefined ? {} : { ttlSeconds },
      );
      const seconds = Date.parse(json.expiresAt) / 1000 - before;
      t.ok(seconds >= expected && seconds <= expected + 2, String(seconds));
    }
  });

  await t.test(
    "201: several of several teams, in the order of the request, each in its owner's audit log",
    async (t) => {
      const other = await storeOpenai(vault, 'shipping', 'openai-prod', `${canary}-shipping`);
      const answer = await askLease(
        vault,
        'n8n',
        [{ team: 'shipping', name: 'openai-prod' }, { id: stored.id }],
        { runId: 'run-7', purpose: 'two teams' },
      );
      const opened = await openAnswer(vault, engine, answer);
      t.strictSame(
        opened.credentials.map(({ team, name, ...rest }) => [
          team,
          name,
          'fields' in rest && rest.fields['apiKey'],
        ]),
        [
          ['shipping', 'openai-prod', `${canary}-shipping`],
          ['payments', 'openai-prod', canary],
        ],
      );
      const people = new Map(
        (await vault.db.selectFrom('subject').select(['id', 'sub']).execute()).map(
          ({ id, sub }) => [sub, id],
        ),
      );
      const events = await vault.db
        .selectFrom('audit_event')
        .innerJoin('team', 'team.id', 'audit_event.team_id')
        .select([
          'team.slug',
          'target_id',
          'decision',
          'actor_id',
          'details',
          'credential_version',
          'key_id',
        ])
        .where('action', '=', 'credential.lease')
        .execute();
      const ours = events.filter(({ details }) => details['lease'] === answer.json.id);
      t.strictSame(ours.map(({ slug, target_id }) => [slug, target_id]).sort(), [
        ['payments', stored.id],
        ['shipping', other.id],
      ]);
      for (const event of ours) {
        t.equal(event.decision, 'allow');
        t.equal(event.actor_id, people.get('n8n'));
        t.equal(event.credential_version, 1);
        t.type(event.key_id, 'string');
        t.match(event.details, {
          engine: engine.id,
          purpose: 'two teams',
          runId: 'run-7',
          onBehalfOf: people.get('alice'),
          isProven: false,
          isNotModified: false,
          ttlSeconds: 60,
        });
      }
    },
  );

  await t.test('201: a hundred at once', async (t) => {
    const names = Array.from({ length: 100 }, (_, index) => `many-${index}`);
    for (const name of names) await storeOpenai(vault, 'payments', name, `${canary}-${name}`);
    const opened = await openAnswer(
      vault,
      engine,
      await askLease(
        vault,
        'n8n',
        names.map((name) => ({ team: 'payments', name })),
      ),
    );
    t.strictSame(
      opened.credentials.map((each) => !each.notModified && each.fields['apiKey']),
      names.map((name) => `${canary}-${name}`),
    );
    t.equal(
      (
        await askLease(
          vault,
          'n8n',
          [...names, 'openai-prod'].map((name) => ({ team: 'payments', name })),
        )
      ).status,
      400,
    );
  });

  await t.test(
    '201: a version that the engine holds is not sent again, and is authorised and recorded all the same',
    async (t) => {
      const known = await askLease(vault, 'n8n', [{ id: stored.id, knownVersion: 1 }]);
      t.match(known.json.credentials, [{ version: 1, notModified: true }]);
      t.strictSame((await openAnswer(vault, engine, known)).credentials, [
        {
          id: stored.id,
          team: 'payments',
          name: 'openai-prod',
          type: 'openai',
          version: 1,
          notModified: true,
        },
      ]);
      const old = await openAnswer(
        vault,
        engine,
        await askLease(vault, 'n8n', [{ id: stored.id, knownVersion: 2 }]),
      );
      t.match(old.credentials, [{ version: 1, notModified: false, fields: { apiKey: canary } }]);
      t.equal(
        (await askLease(vault, 'n8n', [{ id: stored.id, knownVersion: 1 }], { onBehalfOf: 'zoe' }))
          .status,
        422,
      );
      const { details } = await vault.db
        .selectFrom('audit_event')
        .select('details')
        .where('action', '=', 'credential.lease')
        .where('decision', '=', 'allow')
        .orderBy('id', 'desc')
        .offset(1)
        .limit(1)
        .executeTakeFirstOrThrow();
      t.match(details, { lease: known.json.id, isNotModified: true });
    },
  );

  await t.test('201: both kinds of keys, the newest by default, any by its name', async (t) => {
    const second = generateEngineKey('P-256');
    const withTwo = await demand(
      vault.call('operator', 'POST', `/v1/engines/${engine.id}/keys`, { key: second.publicJwk }),
      201,
    );
    const [first, newest] = withTwo.keys;
    const open = async (
      answer: Awaited<ReturnType<typeof askLease>>,
      key: EnginePrivateKey,
    ): Promise<unknown> => {
      const opened = await openAnswer(vault, { ...engine, privateKeys: [key] }, answer).catch(
        (error: unknown) => error,
      );
      return opened instanceof LeaseInvalid
        ? opened.fault
        : opened instanceof Error
          ? opened
          : 'opened';
    };
    const plain = await askLease(vault, 'n8n', [{ id: stored.id }]);
    t.equal(await open(plain, second.privateJwk), 'opened');
    t.equal(await open(plain, engine.privateKeys[0] as EnginePrivateKey), 'notOurKey');
    for (const [kid, key] of [
      [first.kid, engine.privateKeys[0] as EnginePrivateKey],
      [newest.kid, second.privateJwk],
    ] as const) {
      t.equal(
        await open(await askLease(vault, 'n8n', [{ id: stored.id }], { keyId: kid }), key),
        'opened',
      );
    }
    const unknown = await askLease(vault, 'n8n', [{ id: stored.id }], { keyId: 'A'.repeat(43) });
    t.equal(unknown.status, 422);
    t.strictSame(rulesOf(unknown), ['/keyId notFound']);
    await demand(
      vault.call('operator', 'DELETE', `/v1/engines/${engine.id}/keys/${newest.kid}`, undefined, {
        'if-match': '*',
      }),
      204,
    );
    t.strictSame(
      rulesOf(await askLease(vault, 'n8n', [{ id: stored.id }], { keyId: newest.kid })),
      ['/keyId notFound'],
      'a removed key is not sent to',
    );
    t.equal(
      await open(
        await askLease(vault, 'n8n', [{ id: stored.id }]),
        engine.privateKeys[0] as EnginePrivateKey,
      ),
      'opened',
    );
  });

  await t.test('201: after a rotation of the key, as before', async (t) => {
    vault.start();
    await demand(vault.call('alice', 'POST', '/v1/teams/payments/key-rotations'), 202);
    await until(
      async () =>
        (await demand(vault.call('alice', 'GET', '/v1/teams/payments/key-rotations'), 200)).items[0]
          .state === 'completed',
    );
    t.match(
      (await openAnswer(vault, engine, await askLease(vault, 'n8n', [{ id: stored.id }])))
        .credentials,
      [{ version: 1, fields: { apiKey: canary } }],
    );
  });

  await t.test('values arrive byte for byte', async (t) => {
    const values = [
      '-----BEGIN KEY-----\r\nAAAA\r\n-----END KEY-----\n',
      ' spaced ',
      'tab\tand \u{1f511}',
      'x'.repeat(64 * 1024),
      '"\\u0000"',
    ];
    for (const [index, value] of values.entries()) {
      await demand(
        vault.call('alice', 'POST', '/v1/teams/payments/credentials', {
          name: `bytes-${index}`,
          type: 'custom',
          fields: { value },
        }),
        201,
      );
      const [credential] = (
        await openAnswer(
          vault,
          engine,
          await askLease(vault, 'n8n', [{ team: 'payments', name: `bytes-${index}` }]),
        )
      ).credentials;
      t.ok(
        credential?.notModified === false && credential.fields['value'] === value,
        `value ${index}`,
      );
    }
  });

  await t.test('uses are counted', async (t) => {
    const counted = await storeOpenai(vault, 'payments', 'counted', canary);
    await Promise.all(
      Array.from({ length: 5 }, () => askLease(vault, 'n8n', [{ id: counted.id }])),
    );
    const seen = await until(async () => {
      const { json } = await vault.call('alice', 'GET', `/v1/credentials/${counted.id}`);
      return json.useCount === 5 && json;
    });
    t.ok(Date.now() - Date.parse(seen.lastUsedAt) < 60_000);
    t.equal(seen.revision, 1, 'and change nothing that a caller sees as a change');
  });

  await t.test("two engines do not open each other's leases", async (t) => {
    const other = await registerEngine(vault, 'other-engine', 'P-256');
    await vault.member('payments', 'other-engine', 'engine');
    const answer = await askLease(vault, 'other-engine', [{ id: stored.id }]);
    t.match((await openAnswer(vault, other, answer)).credentials, [{ fields: { apiKey: canary } }]);
    await t.rejects(openAnswer(vault, engine, answer), new LeaseInvalid('notOurKey'));
    const { json: keys } = await vault.call(null, 'GET', '/.well-known/jwks.json');
    await t.rejects(
      openLease(answer.json.sealed, {
        privateKeys: other.privateKeys,
        audience: 'n8n',
        vault: { issuer: vaultIssuer, keys },
      }),
      new LeaseInvalid('audience'),
    );
  });

  await t.test('the secret is in no answer and no log line but sealed', async (t) => {
    t.ok(
      vault.answers.some((answer) => answer.includes('openai-prod')),
      'the search finds what is there',
    );
    t.notOk(vault.answers.some((answer) => answer.includes(canary)));
    t.notOk(vault.logs.some((line) => line.includes(canary)));
  });
});

test('the keys that verify leases are public, and only public', async (t) => {
  const vault = await startVault(t);
  const answer = await vault.call(null, 'GET', '/.well-known/jwks.json');
  t.equal(answer.status, 200);
  t.equal(answer.headers['cache-control'], 'public, max-age=300');
  t.equal(answer.json.keys.length, 1);
  t.strictSame(Object.keys(answer.json.keys[0]).sort(), ['alg', 'crv', 'kid', 'kty', 'use', 'x']);
});
