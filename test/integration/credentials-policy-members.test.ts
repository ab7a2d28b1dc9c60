// Every member of a policy, walked by the schema: it is bound into what is stored, it is judged,
// and it is off where an old policy lacks it.
import t from 'tap';
import type { Policy } from '../../src/credentials/policy.ts';
import { isWiderPolicy, policyJson, policyMembers } from '../../src/credentials/policy.ts';
import { policy as schema } from '../../src/credentials/schemas.ts';
import { canonicalJson } from '../../src/crypto/index.ts';
import { demand } from '../helpers/leases.ts';
import { startVault } from '../helpers/vault.ts';

/** Of each member a value, and one that lets more out. */
const samples: {
  readonly [K in keyof Required<Policy>]: {
    readonly narrow: Policy[K];
    readonly wide: NonNullable<Policy[K]>;
  };
} = {
  delivery: { narrow: [], wide: ['lease'] },
  allowedHosts: { narrow: [], wide: ['api.example'] },
  methods: { narrow: ['GET'], wide: ['GET', 'POST'] },
  pathPrefixes: { narrow: ['/v1/a'], wide: ['/v1'] },
  limits: { narrow: { concurrency: 1 }, wide: { concurrency: 2 } },
  renewOn: { narrow: [401], wide: [401, 403] },
  awsServices: { narrow: ['s3'], wide: ['s3', 'sqs'] },
  encodedSlashes: { narrow: false, wide: true },
  unscanned: { narrow: false, wide: true },
  webSockets: { narrow: false, wide: true },
};
const least: Policy = { delivery: [], allowedHosts: [] };
const members = Object.keys(schema.shape) as (keyof Policy)[];

t.test('the schema, the rules and this test know the same members', async (t) => {
  t.strictSame(members.toSorted(), Object.keys(samples).toSorted());
  t.strictSame([...policyMembers].sort(), members.toSorted());
});

t.test('a change of any member changes what is bound, and a wider value is wider', async (t) => {
  for (const member of members) {
    const { narrow, wide } = samples[member];
    const [before, after] = [
      { ...least, [member]: narrow },
      { ...least, [member]: wide },
    ];
    t.not(canonicalJson(policyJson(before)), canonicalJson(policyJson(after)), member);
    t.ok(isWiderPolicy(before, after), `${member}: wider`);
    t.notOk(isWiderPolicy(after, before), `${member}: narrower`);
    t.notOk(isWiderPolicy(before, before), `${member}: the same`);
  }
});

t.test('what an old policy lacks is off: to say it is wider, to leave it out is not', async (t) => {
  for (const renewOn of [[401, 403], [400], [403]] as const)
    t.ok(isWiderPolicy(least, { ...least, renewOn }), renewOn.join());
  t.notOk(isWiderPolicy({ ...least, renewOn: [401, 403] }, least));
  t.ok(isWiderPolicy({ ...least, renewOn: [403] }, least), '401 comes back');
  t.notOk(isWiderPolicy(least, { ...least, renewOn: [401] }), 'what counts without it');
  t.notOk(isWiderPolicy(least, { ...least, renewOn: [] }), 'none at all');
  for (const member of ['unscanned', 'webSockets'] as const) {
    t.ok(isWiderPolicy(least, { ...least, [member]: true }), member);
    t.notOk(isWiderPolicy(least, { ...least, [member]: false }), member);
    t.notOk(isWiderPolicy({ ...least, [member]: true }, least), member);
  }
});

t.test('a wider member without the secrets is refused', async (t) => {
  const vault = await startVault(t);
  await vault.team('payments');
  const store = (name: string, type: string, fields: object): Promise<{ id: string }> =>
    demand(
      vault.call('alice', 'POST', '/v1/teams/payments/credentials', {
        name,
        type,
        fields,
        policy: least,
      }),
      201,
    );
  const oauth = await store('sheets', 'oauth2', {
    authorizationUrl: 'https://id.example/authorize',
    tokenUrl: 'https://id.example/token',
    clientId: 'vault',
    clientSecret: 'a client secret',
  });
  const aws = await store('aws', 'aws', {
    accessKeyId: 'AKIA',
    secretAccessKey: 'a secret key',
    region: 'eu-west-1',
  });
  for (const member of members) {
    const { narrow, wide } = samples[member];
    const [{ id }, secret] =
      member === 'awsServices'
        ? [aws, { secretAccessKey: 'another secret' }]
        : [oauth, { clientSecret: 'another secret' }];
    const put = (policy: object, fields?: object) =>
      vault.call(
        'alice',
        'PATCH',
        `/v1/credentials/${id}`,
        { policy, fields },
        { 'if-match': '*' },
      );
    await demand(put({ ...least, [member]: narrow }, secret), 200);
    const refused = await put({ ...least, [member]: wide });
    t.match([refused.status, refused.json.code], [422, 'secretRequired'], member);
    const { policy } = await demand(put({ ...least, [member]: wide }, secret), 200);
    t.strictSame(policy[member], wide, `${member} is stored`);
  }
});

t.test('renewOn is for what has access tokens, and for three statuses', async (t) => {
  const vault = await startVault(t);
  await vault.team('payments');
  const store = (type: string, fields: object, renewOn: unknown) =>
    vault.call('alice', 'POST', '/v1/teams/payments/credentials', {
      name: 'one',
      type,
      fields,
      policy: { ...least, renewOn },
    });
  t.match((await store('openai', { apiKey: 'a key of an API' }, [401])).json, {
    code: 'invalidRequest',
    errors: [{ pointer: '/policy/renewOn', rule: 'notForType' }],
  });
  for (const wrong of [[404], [500], ['401'], [401, 401], 401, null])
    t.equal(
      (await store('oauth2', { tokenUrl: 'https://id.example', clientId: 'c' }, wrong)).status,
      400,
    );
});

t.test('ticketSeconds: without a word an hour, and more is wider', async (t) => {
  const of = (ticketSeconds: number): Policy => ({ ...least, limits: { ticketSeconds } });
  t.ok(isWiderPolicy(least, of(3_601)));
  t.notOk(isWiderPolicy(least, of(3_600)));
  t.ok(isWiderPolicy(of(60), least));
  t.notOk(schema.safeParse(of(43_201)).success);
  t.ok(schema.safeParse(of(43_200)).success);
});

t.test('hosts: a port is another host, the one of TLS is none', async (t) => {
  const of = (...allowedHosts: string[]): Policy => ({ ...least, allowedHosts });
  t.notOk(isWiderPolicy(of('a.example'), of('a.example:443')));
  t.notOk(isWiderPolicy(of('a.example:443'), of('a.example')));
  t.ok(isWiderPolicy(of('a.example'), of('a.example:8443')));
  t.ok(isWiderPolicy(of('a.example:8443'), of('a.example')));
  for (const good of ['a.example:1', 'a.example:65535', '*.a.example:9000'])
    t.ok(schema.safeParse(of(good)).success, good);
  for (const bad of [
    'a.example:0',
    'a.example:65536',
    'a.example:',
    'a.example:x',
    'a.example:080',
  ])
    t.notOk(schema.safeParse(of(bad)).success, bad);
});

t.test('awsServices: for aws alone, with a region, which is a destination then', async (t) => {
  const vault = await startVault(t);
  await vault.team('payments');
  await vault.member('payments', 'eddie', 'editor');
  const policy = { delivery: ['broker'], allowedHosts: [], awsServices: ['s3'] };
  const keys = { accessKeyId: 'AKIA', secretAccessKey: 'a-secret-key' };
  const store = (name: string, type: string, fields: object, more: object = {}) =>
    vault.call('alice', 'POST', '/v1/teams/payments/credentials', {
      name,
      type,
      fields,
      policy: { ...policy, ...more },
    });
  for (const type of ['s3', 'bearer'])
    t.match(
      (await store('one', type, type === 's3' ? keys : { token: 'a long token' })).json,
      { errors: [{ pointer: '/policy/awsServices', rule: 'notForType' }] },
      type,
    );
  for (const fields of [keys, { ...keys, region: 'evil.test' }])
    t.match((await store('one', 'aws', fields)).json, {
      errors: [{ pointer: '/fields/region', rule: 'required' }],
    });
  for (const awsServices of [['sts'], ['iam'], ['s3', 's3'], [], ['S3'], ['ec2']])
    t.equal(
      (await store('one', 'aws', { ...keys, region: 'eu-west-1' }, { awsServices })).status,
      400,
      awsServices.join(),
    );
  const made = await demand(store('one', 'aws', { ...keys, region: 'eu-west-1' }), 201);
  t.notOk('warnings' in made);
  const move = (fields: object) =>
    vault.call('eddie', 'PATCH', `/v1/credentials/${made.id}`, { fields }, { 'if-match': '*' });
  t.match((await move({ region: 'us-east-1' })).json, { code: 'secretRequired' });
  t.ok((await move({ region: null })).status >= 400);
  const { json: warned } = await vault.call(
    'alice',
    'PATCH',
    `/v1/credentials/${made.id}`,
    {
      policy: { ...policy, allowedHosts: ['api.example', 'sts.eu-west-1.amazonaws.com'] },
      fields: keys,
    },
    { 'if-match': '*' },
  );
  t.strictSame(warned.warnings, [{ pointer: '/policy/allowedHosts/1', rule: 'givesCredentials' }]);
});
