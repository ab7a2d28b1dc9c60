// AWS Signature Version 4: AWS's own published examples, then an independent computation straight
// from the specification.
import { createHash, createHmac } from 'node:crypto';
import t from 'tap';
import { awsScope } from '../../src/broker/aws-hosts.ts';
import { BrokerRefusal } from '../../src/broker/refusal.ts';
import { type SignableRequest, signer } from '../../src/broker/sigv4.ts';

const empty = createHash('sha256').digest('hex');
const signatureOf = (authorization: string | undefined): string | undefined =>
  /Signature=([0-9a-f]{64})$/.exec(authorization ?? '')?.[1];
const documentation = {
  accessKeyId: 'AKIAIOSFODNN7EXAMPLE',
  secretAccessKey: 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY',
  region: 'us-east-1',
};
const suite = {
  accessKeyId: 'AKIDEXAMPLE',
  secretAccessKey: 'wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY',
};

t.test('the examples that AWS publishes', async (t) => {
  const s3 = signer(documentation, 's3').sign;
  const at = new Date('2013-05-24T00:00:00Z');
  const get = (pathAndQuery: string): SignableRequest => ({
    method: 'GET',
    host: 'examplebucket.s3.amazonaws.com',
    pathAndQuery,
    headers: { 'x-amz-content-sha256': empty },
    at,
  });
  t.equal(
    signatureOf((await s3(get('/?lifecycle'))).headers['authorization']),
    'fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543',
    'S3: GET Bucket Lifecycle',
  );
  t.equal(
    signatureOf((await s3(get('/?max-keys=2&prefix=J'))).headers['authorization']),
    '34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7',
    'S3: GET Bucket',
  );
  const listed = await signer(suite, undefined).sign({
    method: 'GET',
    host: 'iam.amazonaws.com',
    pathAndQuery: '/?Action=ListUsers&Version=2010-05-08',
    headers: {
      'content-type': 'application/x-www-form-urlencoded; charset=utf-8',
      accept: 'x',
      'user-agent': 'x',
    },
    at: new Date('2015-08-30T12:36:00Z'),
  });
  t.equal(
    listed.headers['authorization'],
    'AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/iam/aws4_request, SignedHeaders=content-type;host;x-amz-date, Signature=5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7',
    'IAM: ListUsers',
  );
});

/** The specification, once more, from the request as a server gets it. */
function expected(
  request: SignableRequest,
  headers: Readonly<Record<string, string>>,
  key: { secretAccessKey: string },
  isS3: boolean,
): string {
  const [, date, region, service, names = ''] =
    /Credential=[^/]+\/(\d{8})\/([^/]+)\/([^/]+)\/aws4_request, SignedHeaders=([^,]+), /.exec(
      headers['authorization'] ?? '',
    ) ?? [];
  const all: Record<string, string> = { ...request.headers, ...headers, host: request.host };
  const encode = (text: string): string =>
    [...Buffer.from(text)]
      .map((byte) =>
        /[A-Za-z0-9_.~-]/.test(String.fromCharCode(byte))
          ? String.fromCharCode(byte)
          : `%${byte.toString(16).toUpperCase().padStart(2, '0')}`,
      )
      .join('');
  const url = new URL(`https://h${request.pathAndQuery}`);
  const path = request.pathAndQuery
    .split('?')[0]!
    .split('/')
    .map((segment) => (isS3 ? encode(decodeURIComponent(segment)) : encode(segment)))
    .join('/');
  const query = url.search
    .slice(1)
    .split('&')
    .filter((part) => part !== '')
    .map((part) => {
      const [name, ...rest] = part.split('=');
      return `${encode(decodeURIComponent(name!))}=${encode(decodeURIComponent(rest.join('=')))}`;
    })
    .sort()
    .join('&');
  const hash =
    headers['x-amz-content-sha256'] ??
    createHash('sha256')
      .update(request.body ?? '')
      .digest('hex');
  const canonical = [
    request.method,
    path,
    query,
    ...names.split(';').map((name) => `${name}:${all[name]!.trim().replace(/ +/g, ' ')}`),
    '',
    names,
    hash,
  ].join('\n');
  const toSign = [
    'AWS4-HMAC-SHA256',
    headers['x-amz-date'],
    `${date}/${region}/${service}/aws4_request`,
    createHash('sha256').update(canonical).digest('hex'),
  ].join('\n');
  const signing = [date!, region!, service!, 'aws4_request'].reduce<string | Buffer>(
    (secret, part) => createHmac('sha256', secret).update(part).digest(),
    `AWS4${key.secretAccessKey}`,
  );
  return createHmac('sha256', signing).update(toSign).digest('hex');
}

t.test('every request is signed as the specification says', async (t) => {
  const at = new Date('2026-11-22T07:00:00Z');
  const s3 = { ...documentation, sessionToken: 'FwoGZXIvYXdzEJr//////////token' };
  const requests: readonly (readonly [string, 's3' | undefined, SignableRequest])[] = [
    [
      'put an object',
      's3',
      {
        method: 'PUT',
        host: 'b.s3.eu-west-1.amazonaws.com',
        pathAndQuery: '/a%20b/c(d)!/%C3%BC+?x-id=PutObject',
        headers: { 'content-type': 'text/plain', 'x-amz-meta-a': '  b   c ' },
        at,
      },
    ],
    [
      "a store of one's own",
      's3',
      {
        method: 'GET',
        host: 'minio.example:9000',
        pathAndQuery: '/bucket?list-type=2&prefix=a%2Fb&delimiter=%2F&a=2&a=1&empty',
        headers: {},
        at,
      },
    ],
    [
      "the caller's own hash",
      's3',
      {
        method: 'PUT',
        host: 's3.amazonaws.com',
        pathAndQuery: '/bucket/key',
        headers: { 'x-amz-content-sha256': empty },
        at,
      },
    ],
    [
      'a JSON service',
      undefined,
      {
        method: 'POST',
        host: 'dynamodb.eu-central-1.amazonaws.com',
        pathAndQuery: '/',
        headers: {
          'content-type': 'application/x-amz-json-1.0',
          'x-amz-target': 'DynamoDB_20120810.ListTables',
        },
        body: Buffer.from('{}'),
        at,
      },
    ],
    [
      'a path with escapes',
      undefined,
      {
        method: 'GET',
        host: 'lambda.us-west-2.amazonaws.com',
        pathAndQuery: '/2015-03-31/functions/a%3Ab%20c/invocations?Qualifier=%24LATEST&x=1%2B1',
        headers: {},
        at,
      },
    ],
  ];
  for (const [what, service, request] of requests) {
    const { headers, sensitive } = await signer(s3, service).sign(request);
    t.equal(
      signatureOf(headers['authorization']),
      expected(request, headers, s3, service === 's3'),
      what,
    );
    t.strictSame(
      sensitive,
      [signatureOf(headers['authorization'])],
      'an upstream that echoes the signature gives a call away',
    );
    t.equal(headers['x-amz-security-token'], s3.sessionToken);
    t.notOk(JSON.stringify(headers).includes(s3.secretAccessKey));
    t.notOk('host' in headers);
  }
  t.equal(
    (await signer(s3, 's3').sign(requests[0]![2])).headers['x-amz-content-sha256'],
    'UNSIGNED-PAYLOAD',
    'a stream to S3 is not read first',
  );
});

t.test("the caller's own signature and date do not count", async (t) => {
  const at = new Date('2026-11-22T07:00:00Z');
  const base: SignableRequest = {
    method: 'GET',
    host: 'sts.amazonaws.com',
    pathAndQuery: '/',
    headers: {},
    at,
  };
  const { sign } = signer(documentation, undefined);
  const forged = await sign({
    ...base,
    headers: {
      'x-amz-date': '20200101T000000Z',
      'x-amz-security-token': 'x',
      authorization: 'AWS4-HMAC-SHA256 x',
      'x-amz-content-sha256': 'x',
    },
  });
  t.strictSame(forged.headers, (await sign(base)).headers);
  for (const own of [
    'STREAMING-AWS4-HMAC-SHA256-PAYLOAD',
    'STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER',
    'nonsense',
  ]) {
    await t.rejects(
      signer(documentation, 's3').sign({
        ...base,
        host: 's3.amazonaws.com',
        headers: { 'x-amz-content-sha256': own },
      }),
      BrokerRefusal,
      own,
    );
  }
  for (const query of ['/?a=%ff', '/?%zz'])
    await t.rejects(sign({ ...base, pathAndQuery: query }), BrokerRefusal, query);
});

t.test('the host says service and region', async (t) => {
  const hosts: readonly (readonly [string, string, string])[] = [
    ['dynamodb.eu-central-1.amazonaws.com', 'dynamodb', 'eu-central-1'],
    ['iam.amazonaws.com', 'iam', 'us-east-1'],
    ['sts.us-gov-west-1.amazonaws.com', 'sts', 'us-gov-west-1'],
    ['ec2.cn-north-1.amazonaws.com.cn', 'ec2', 'cn-north-1'],
    ['bucket.s3.ap-southeast-2.amazonaws.com', 's3', 'ap-southeast-2'],
    ['my.bucket.s3.dualstack.us-west-2.amazonaws.com', 's3', 'us-west-2'],
    ['bucket.s3.amazonaws.com', 's3', 'eu-north-1'],
    ['bedrock-runtime.us-east-1.amazonaws.com', 'bedrock', 'us-east-1'],
    ['email.eu-west-1.amazonaws.com', 'ses', 'eu-west-1'],
    ['abc.execute-api.eu-west-1.amazonaws.com', 'execute-api', 'eu-west-1'],
    ['abc.lambda-url.eu-west-1.on.aws', 'lambda', 'eu-west-1'],
    ['runtime.sagemaker.us-east-2.amazonaws.com', 'sagemaker', 'us-east-2'],
    ['search-x.us-east-1.es.amazonaws.com', 'es', 'us-east-1'],
    ['x.us-east-1.aoss.amazonaws.com', 'aoss', 'us-east-1'],
    ['abc-ats.iot.eu-west-1.amazonaws.com', 'iotdata', 'eu-west-1'],
    ['kms-fips.us-east-1.amazonaws.com', 'kms', 'us-east-1'],
  ];
  for (const [host, service, region] of hosts)
    t.strictSame(awsScope(host, 'eu-north-1'), { service, region }, host);
  for (const host of [
    'example.com',
    'amazonaws.com',
    'amazonaws.com.evil.test',
    'evilamazonaws.com',
    'us-east-1.amazonaws.com',
  ])
    t.throws(() => awsScope(host, undefined), BrokerRefusal, host);
  t.notOk(signer(documentation, 's3').sign.needsBody('minio.example'));
  t.ok(signer(documentation, undefined).sign.needsBody('sts.amazonaws.com'));
});
