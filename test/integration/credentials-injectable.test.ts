// Through the broker goes only what fits its place: asked whenever a version comes to be, so that
// no call finds out later.
import { briefRule } from '../helpers/faults.ts';
import t from 'tap';
import { type Answer, startVault, type TestVault } from '../helpers/vault.ts';

const brokered = { delivery: ['broker'], allowedHosts: [] };
const rulesOf = ({ json }: Answer): string[] =>
  (json.errors ?? []).map(
    (fault: { pointer: string; rule: string }) => `${fault.pointer} ${briefRule(fault)}`,
  );
const create = (vault: TestVault, body: object): Promise<Answer> =>
  vault.call('alice', 'POST', '/v1/teams/payments/credentials', {
    name: 'x',
    type: 'openai',
    policy: brokered,
    ...body,
  });
const patch = (vault: TestVault, id: string, body: object): Promise<Answer> =>
  vault.call('alice', 'PATCH', `/v1/credentials/${id}`, body, { 'if-match': '*' });

t.test(
  '400: a value that the broker could not use is refused when it is stored, and named by its field only',
  async (t) => {
    const vault = await startVault(t);
    await vault.team('payments');
    const refused: readonly (readonly [object, string])[] = [
      [{ fields: { apiKey: 'short-1' } }, '/fields/apiKey minBytes:8'],
      [{ fields: { apiKey: 'sk-live-0123\r\nX-Evil: 1' } }, '/fields/apiKey headerUnsafe'],
      [{ fields: { apiKey: 'sk-live-0123\u00ff' } }, '/fields/apiKey headerUnsafe'],
      [
        { type: 'slack', fields: { webhookUrl: 'http://hooks.slack.com/services/x' } },
        '/fields/webhookUrl plainHttpsUrl',
      ],
      [
        { type: 'slack', fields: { webhookUrl: 'https://user:pass@hooks.slack.com/services/x' } },
        '/fields/webhookUrl plainHttpsUrl',
      ],
      [
        { type: 'telegram', fields: { botToken: '1:aaaaaa/../bot2' } },
        '/fields/botToken pathUnsafe',
      ],
      [
        { type: 'header', fields: { name: 'Host', value: 'sk-live-0123' } },
        '/fields/name headerTaken',
      ],
      [
        { type: 'httpBasic', fields: { username: 'a:b', password: 'sk-live-0123' } },
        '/fields/username noColon',
      ],
    ];
    for (const [body, rule] of refused) {
      const answer = await create(vault, body);
      t.equal(answer.status, 400, rule);
      t.strictSame(rulesOf(answer), [rule]);
      t.notMatch(answer.text, /sk-live|hooks\.slack|Evil/);
    }
    t.equal(
      (await vault.call('alice', 'GET', '/v1/teams/payments/credentials')).json.items.length,
      0,
    );
  },
);

t.test(
  "the same values are nobody's fault while the policy keeps them from the broker",
  async (t) => {
    const vault = await startVault(t);
    await vault.team('payments');
    t.equal((await create(vault, { policy: undefined, fields: { apiKey: 'short' } })).status, 201);
  },
);

t.test(
  '400: neither a change of fields nor of the policy brings an unfit value to the broker',
  async (t) => {
    const vault = await startVault(t);
    await vault.team('payments');
    const kept = (await create(vault, { fields: { apiKey: 'sk-live-0123' } })).json.id as string;
    t.strictSame(rulesOf(await patch(vault, kept, { fields: { apiKey: 'short' } })), [
      '/fields/apiKey minBytes:8',
    ]);
    const leased = (
      await create(vault, { name: 'y', policy: undefined, fields: { apiKey: 'short' } })
    ).json.id as string;
    t.strictSame(
      rulesOf(await patch(vault, leased, { policy: brokered, fields: { apiKey: 'short' } })),
      ['/fields/apiKey minBytes:8'],
    );
    t.equal(
      (await patch(vault, leased, { policy: brokered, fields: { apiKey: 'sk-live-0123' } })).status,
      200,
    );
    // What is kept counts as what is sent: the username changes beside a stored password.
    const basic = (
      await create(vault, {
        name: 'z',
        type: 'httpBasic',
        fields: { username: 'a', password: 'sk-live-0123' },
      })
    ).json.id as string;
    t.strictSame(rulesOf(await patch(vault, basic, { fields: { username: 'a:b' } })), [
      '/fields/username noColon',
    ]);
    t.equal((await vault.call('alice', 'GET', `/v1/credentials/${basic}`)).json.version, 1);
  },
);
