// Engines over HTTP: who may register them, which keys are keys, and that every team served sees
// each change.
import { generateKeyPairSync } from 'node:crypto';
import { test } from 'tap';
import { generateEngineKey } from '../../src/client/index.ts';
import { demand, registerEngine } from '../helpers/leases.ts';
import { startVault, type TestVault } from '../helpers/vault.ts';

const any = { 'if-match': '*' };
const x25519 = (): any => generateEngineKey('X25519').publicJwk;
const p256 = (): any => generateEngineKey('P-256').publicJwk;
const register = (
  vault: TestVault,
  body: object,
  headers: Record<string, string> = {},
  as: string | null = 'operator',
) => vault.call(as, 'POST', '/v1/engines', body, headers);

test('registering', async (t) => {
  const vault = await startVault(t);
  await vault.team('payments');

  await t.test('201: an engine with both kinds of keys, under their thumbprints', async (t) => {
    const [first, second] = [x25519(), p256()];
    const answer = await register(vault, {
      name: 'n8n production',
      subject: 'n8n',
      keys: [{ ...first, use: 'enc', alg: 'ECDH-ES' }, second],
    });
    t.equal(answer.status, 201);
    t.match(answer.json, {
      name: 'n8n production',
      subject: 'n8n',
      state: 'enabled',
      revision: 1,
      createdBy: 'operator',
    });
    t.equal(answer.headers['etag'], '"1"');
    t.equal(answer.headers['location'], `/v1/engines/${answer.json.id}`);
    t.strictSame(
      answer.json.keys
        .map(({ jwk }: any) => jwk)
        .sort((a: any, b: any) => (a.kty < b.kty ? 1 : -1)),
      [first, second],
    );
    const again = await demand(vault.call('operator', 'GET', `/v1/engines/${answer.json.id}`), 200);
    t.strictSame(again, answer.json);
    const kid = answer.json.keys[0].kid;
    t.equal(
      (
        await register(vault, {
          name: 'with kid',
          subject: 'with-kid',
          keys: [{ ...answer.json.keys[0].jwk, kid }],
        })
      ).status,
      201,
    );
    t.match(
      await register(vault, {
        name: 'wrong kid',
        subject: 'wrong-kid',
        keys: [{ ...x25519(), kid }],
      }),
      { status: 400, json: { errors: [{ pointer: '/keys/0', rule: 'thumbprint' }] } },
    );
  });

  await t.test('201 once: the same idempotency key gives the same engine', async (t) => {
    const body = { name: 'once', subject: 'once', keys: [x25519()] };
    const key = { 'idempotency-key': 'registration-1' };
    const [first, second] = [await register(vault, body, key), await register(vault, body, key)];
    t.strictSame([first.status, second.status], [201, 201]);
    t.equal(first.json.id, second.json.id);
    t.equal((await register(vault, { ...body, name: 'twice' }, key)).status, 422);
  });

  await t.test(
    '400: a private key is refused by its rule, and is nowhere afterwards',
    async (t) => {
      for (const curve of ['X25519', 'P-256'] as const) {
        const { privateJwk } = generateEngineKey(curve);
        const answer = await register(vault, {
          name: 'careless',
          subject: 'careless',
          keys: [x25519(), privateJwk],
        });
        t.match(answer, {
          status: 400,
          json: { errors: [{ pointer: '/keys/1/d', rule: 'privateKey' }] },
        });
        const d = String(privateJwk.d);
        t.notOk(answer.text.includes(d) || vault.logs.some((line) => line.includes(d)));
        t.strictSame(
          await vault.db.selectFrom('engine').select('id').where('name', '=', 'careless').execute(),
          [],
        );
      }
    },
  );

  await t.test('400: what is no key', async (t) => {
    const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 }).publicKey.export({
      format: 'jwk',
    });
    const ed25519 = generateKeyPairSync('ed25519').publicKey.export({ format: 'jwk' });
    const p384 = generateKeyPairSync('ec', { namedCurve: 'P-384' }).publicKey.export({
      format: 'jwk',
    });
    const zero = Buffer.alloc(32).toString('base64url');
    const one = Buffer.concat([Buffer.from([1]), Buffer.alloc(31)]).toString('base64url');
    const order8 = Buffer.from(
      'e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800',
      'hex',
    ).toString('base64url');
    const key = p256();
    for (const [bad, rule] of [
      [{ kty: 'OKP', crv: 'X25519', x: zero }, 'weakKey'],
      [{ kty: 'OKP', crv: 'X25519', x: one }, 'weakKey'],
      [{ kty: 'OKP', crv: 'X25519', x: order8 }, 'weakKey'],
      [{ ...key, x: key.y, y: key.x }, 'point'],
      [{ ...key, y: zero }, 'point'],
      [{ kty: 'OKP', crv: 'P-256', x: key.x, y: key.y }, 'curve'],
      [{ kty: 'EC', crv: 'P-256', x: key.x }, 'curve'],
      [{ ...x25519(), y: zero }, 'curve'],
      [{ kty: 'EC', crv: 'X25519', x: key.x }, 'curve'],
      [rsa, undefined],
      [ed25519, undefined],
      [p384, undefined],
      [{ kty: 'oct', k: zero }, undefined],
      [{ ...x25519(), use: 'sig' }, undefined],
      [{ ...x25519(), alg: 'dir' }, undefined],
      [{ ...x25519(), x: `${zero.slice(0, 42)}B` }, undefined],
      [{ ...x25519(), x: zero.slice(1) }, undefined],
      [{ ...x25519(), x5u: 'https://elsewhere.test' }, 'unknownField'],
    ] as const) {
      const answer = await register(vault, { name: 'bad', subject: 'bad', keys: [bad] });
      t.equal(answer.status, 400, JSON.stringify(bad).slice(0, 60));
      t.ok(answer.json.errors.every(({ pointer }: any) => pointer.startsWith('/keys/0')));
      if (rule !== undefined)
        t.ok(
          answer.json.errors.some((fault: any) => fault.rule === rule),
          answer.text,
        );
    }
    const twin = x25519();
    t.match(await register(vault, { name: 'bad', subject: 'bad', keys: [twin, x25519(), twin] }), {
      status: 400,
      json: { errors: [{ pointer: '/keys/2', rule: 'unique' }] },
    });
    t.equal((await register(vault, { name: 'bad', subject: 'bad', keys: [] })).status, 400);
    t.equal(
      (
        await register(vault, {
          name: 'bad',
          subject: 'bad',
          keys: Array.from({ length: 11 }, x25519),
        })
      ).status,
      400,
    );
    t.strictSame(
      await vault.db.selectFrom('engine').select('id').where('name', '=', 'bad').execute(),
      [],
    );
  });

  await t.test('401 and 403: nobody but an operator, for every operation', async (t) => {
    const { id, keys } = (await demand(vault.call('operator', 'GET', '/v1/engines'), 200)).items[0];
    const calls = [
      ['POST', '/v1/engines', { name: 'x', subject: 'x', keys: [x25519()] }],
      ['GET', '/v1/engines'],
      ['GET', `/v1/engines/${id}`],
      ['PATCH', `/v1/engines/${id}`, { name: 'mine' }],
      ['DELETE', `/v1/engines/${id}`],
      ['POST', `/v1/engines/${id}/keys`, { key: x25519() }],
      ['DELETE', `/v1/engines/${id}/keys/${keys[0].kid}`],
    ] as const;
    for (const [method, url, body] of calls) {
      t.equal((await vault.call(null, method, url, body, any)).status, 401, `${method} ${url}`);
      for (const sub of ['alice', 'n8n', 'stranger'])
        t.equal(
          (await vault.call(sub, method, url, body, any)).status,
          403,
          `${sub} ${method} ${url}`,
        );
    }
  });

  await t.test('404: an engine that is none', async (t) => {
    for (const [method, body] of [['GET'], ['PATCH', { name: 'x' }], ['DELETE']] as const) {
      t.equal(
        (
          await vault.call(
            'operator',
            method,
            '/v1/engines/019aa7c2-5b1e-7c3a-9d52-0a4f6e1b2c3d',
            body,
            any,
          )
        ).status,
        404,
        method,
      );
    }
    t.equal((await vault.call('operator', 'GET', '/v1/engines/no-id')).status, 400);
  });

  await t.test(
    "409: a subject is one engine or a person, never both; a name is one engine's",
    async (t) => {
      const code = async (body: object): Promise<string> =>
        (await register(vault, { keys: [x25519()], ...body })).json.code;
      t.equal(await code({ name: 'second n8n', subject: 'n8n' }), 'subjectTaken');
      t.equal(await code({ name: 'n8n production', subject: 'n8n-2' }), 'engineNameTaken');
      t.equal(await code({ name: 'alice', subject: 'alice' }), 'holdsARole');
      for (const [role, expected] of [
        ['viewer', 'isAnEngine'],
        ['admin', 'isAnEngine'],
      ] as const) {
        t.equal(
          (await vault.call('alice', 'PUT', '/v1/teams/payments/members/n8n', { role }, any)).json
            .code,
          expected,
        );
      }
      t.equal(
        (
          await vault.call('operator', 'POST', '/v1/teams', {
            slug: 'robots',
            name: 'Robots',
            admins: ['n8n'],
          })
        ).json.code,
        'isAnEngine',
      );
      t.equal(
        (
          await vault.call(
            'alice',
            'PUT',
            '/v1/teams/payments/members/bob',
            { role: 'engine' },
            any,
          )
        ).json.code,
        'notAnEngine',
      );
      const { id } = await registerEngine(vault, 'sleeping');
      await demand(
        vault.call('operator', 'PATCH', `/v1/engines/${id}`, { state: 'disabled' }, any),
        200,
      );
      t.equal(
        (
          await vault.call(
            'alice',
            'PUT',
            '/v1/teams/payments/members/sleeping',
            { role: 'engine' },
            any,
          )
        ).json.code,
        'notAnEngine',
      );
    },
  );

  await t.test(
    'a person and an engine of one subject, at the same moment: one of them',
    async (t) => {
      for (let round = 0; round < 8; round += 1) {
        const sub = `both-${round}`;
        const [engine, member] = await Promise.all([
          register(vault, { name: sub, subject: sub, keys: [x25519()] }),
          vault.call('alice', 'PUT', `/v1/teams/payments/members/${sub}`, { role: 'viewer' }, any),
        ]);
        t.strictSame(
          [engine.status, member.status].sort(),
          [engine.status === 201 ? 201 : 200, 409].sort(),
        );
      }
    },
  );
});

test('changing', async (t) => {
  const vault = await startVault(t);
  await vault.team('payments');
  await vault.team('shipping', ['sam']);
  await vault.team('bystanders', ['bea']);
  const { id } = await registerEngine(vault, 'n8n');
  await vault.member('payments', 'n8n', 'engine');
  await vault.member('shipping', 'n8n', 'engine', 'sam');
  const url = `/v1/engines/${id}`;
  /** Which audit logs (teams, or the vault's) got an event of this action, and its details. */
  const trails = async (
    action: string,
  ): Promise<{ trails: (string | null)[]; details: object | undefined }> => {
    const rows = await vault.db
      .selectFrom('audit_event')
      .leftJoin('team', 'team.id', 'audit_event.team_id')
      .select(['slug', 'details'])
      .where('action', '=', action)
      .where('decision', '=', 'allow')
      .orderBy('slug')
      .execute();
    return { trails: rows.map(({ slug }) => slug), details: rows[0]?.details };
  };
  const everywhere = ['payments', 'shipping', null];

  await t.test('428 and 412: a change says which revision it means', async (t) => {
    for (const [method, path, body] of [
      ['PATCH', url, { name: 'x' }],
      ['DELETE', url],
      ['DELETE', `${url}/keys/${'A'.repeat(43)}`],
    ] as const) {
      t.equal((await vault.call('operator', method, path, body)).status, 428);
      t.equal(
        (await vault.call('operator', method, path, body, { 'if-match': '"7"' })).status,
        412,
      );
    }
  });

  await t.test('a rename and a state', async (t) => {
    const renamed = await vault.call(
      'operator',
      'PATCH',
      url,
      { name: 'renamed' },
      { 'if-match': '"1"' },
    );
    t.match(renamed, {
      status: 200,
      json: { name: 'renamed', state: 'enabled', revision: 2 },
      headers: { etag: '"2"' },
    });
    t.match(
      (await vault.call('operator', 'PATCH', url, { name: 'renamed' }, any)).json,
      { revision: 2 },
      'what changes nothing is no change',
    );
    t.match((await vault.call('operator', 'PATCH', url, { state: 'disabled' }, any)).json, {
      state: 'disabled',
      revision: 3,
    });
    t.match((await vault.call('operator', 'PATCH', url, { state: 'enabled' }, any)).json, {
      state: 'enabled',
      revision: 4,
    });
    t.strictSame(
      (await trails('engine.update')).trails,
      [...everywhere, ...everywhere, ...everywhere].sort((a, b) =>
        String(a ?? 'zzz').localeCompare(String(b ?? 'zzz')),
      ),
    );
    await registerEngine(vault, 'second');
    t.equal(
      (await vault.call('operator', 'PATCH', url, { name: 'the engine second' }, any)).json.code,
      'engineNameTaken',
    );
  });

  await t.test(
    'keys come and go, at most ten and never none; every team served is told',
    async (t) => {
      const key = p256();
      const added = await vault.call(
        'operator',
        'POST',
        `${url}/keys`,
        { key },
        { 'idempotency-key': 'k1' },
      );
      t.match(added, { status: 201, json: { revision: 5 } });
      t.strictSame(added.json.keys[1].jwk, key);
      t.match(
        await vault.call('operator', 'POST', `${url}/keys`, { key }, { 'idempotency-key': 'k1' }),
        { status: 201, json: { revision: 5 } },
      );
      t.match(await trails('engine.key.add'), {
        trails: everywhere,
        details: { kid: added.json.keys[1].kid },
      });
      t.equal(
        (await vault.call('operator', 'POST', `${url}/keys`, { key })).json.code,
        'engineKeyTaken',
      );
      const careless = generateEngineKey().privateJwk;
      t.match((await vault.call('operator', 'POST', `${url}/keys`, { key: careless })).json, {
        errors: [{ pointer: '/key/d', rule: 'privateKey' }],
      });
      for (let i = 0; i < 8; i += 1)
        await demand(vault.call('operator', 'POST', `${url}/keys`, { key: x25519() }), 201);
      t.equal(
        (await vault.call('operator', 'POST', `${url}/keys`, { key: x25519() })).json.code,
        'stateConflict',
      );
      const { keys } = await demand(vault.call('operator', 'GET', url), 200);
      t.equal(keys.length, 10);
      for (const { kid } of keys.slice(0, 9))
        t.equal(
          (await vault.call('operator', 'DELETE', `${url}/keys/${kid}`, undefined, any)).status,
          204,
        );
      t.equal(
        (await vault.call('operator', 'DELETE', `${url}/keys/${keys[9].kid}`, undefined, any)).json
          .code,
        'stateConflict',
      );
      t.equal(
        (await vault.call('operator', 'DELETE', `${url}/keys/${keys[0].kid}`, undefined, any))
          .status,
        404,
      );
      t.equal((await trails('engine.key.remove')).trails.length, 27);
    },
  );

  await t.test('the list, page by page', async (t) => {
    for (const sub of ['aa', 'bb', 'cc', 'dd']) await registerEngine(vault, sub);
    const names: string[] = [];
    for (let cursor: string | null | undefined; cursor !== null; ) {
      const page = await demand(
        vault.call(
          'operator',
          'GET',
          `/v1/engines?limit=2${cursor === undefined ? '' : `&cursor=${cursor}`}`,
        ),
        200,
      );
      t.ok(page.items.length <= 2);
      names.push(...page.items.map(({ name }: any) => name));
      cursor = page.nextCursor;
    }
    t.strictSame(names, [
      'renamed',
      'the engine aa',
      'the engine bb',
      'the engine cc',
      'the engine dd',
      'the engine second',
    ]);
    t.equal(
      (await vault.call('operator', 'GET', '/v1/engines?cursor=AAAA')).json.code,
      'invalidCursor',
    );
  });

  await t.test(
    '204: a removed engine is a member of nothing, and its subject can be a person',
    async (t) => {
      t.equal((await vault.call('operator', 'DELETE', url, undefined, any)).status, 204);
      t.strictSame((await trails('engine.delete')).trails, everywhere);
      t.strictSame((await trails('member.remove')).trails, ['payments', 'shipping']);
      t.equal((await vault.call('operator', 'GET', url)).status, 404);
      t.strictSame(
        (await demand(vault.call('alice', 'GET', '/v1/teams/payments/members'), 200)).items.map(
          ({ subject }: any) => subject,
        ),
        ['alice'],
      );
      t.equal((await vault.call('n8n', 'GET', '/v1/teams/payments')).status, 404);
      await vault.member('payments', 'n8n', 'viewer');
    },
  );

  await t.test('each membership that is given while the engine goes is gone with it', async (t) => {
    for (let round = 0; round < 8; round += 1) {
      const engine = await registerEngine(vault, `going-${round}`);
      await Promise.all([
        vault.call('operator', 'DELETE', `/v1/engines/${engine.id}`, undefined, any),
        vault.call(
          'alice',
          'PUT',
          `/v1/teams/payments/members/going-${round}`,
          { role: 'engine' },
          any,
        ),
      ]);
    }
    const left = await vault.db
      .selectFrom('membership')
      .leftJoin('engine', 'engine.subject_id', 'membership.subject_id')
      .select('membership.subject_id')
      .where('role', '=', 'engine')
      .where('engine.id', 'is', null)
      .execute();
    t.strictSame(left, []);
  });
});
