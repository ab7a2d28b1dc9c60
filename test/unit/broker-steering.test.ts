// What steers past a policy: headers that say another method, path or address, headers and
// parameters that name another resource, whatever their names look like.
import t from 'tap';
import { folded } from '../helpers/folded.ts';
import { isObjectStore } from '../../src/broker/ranges.ts';
import { requestHeaders } from '../../src/broker/headers.ts';
import { checkRequest } from '../../src/broker/policing.ts';
import { BrokerRefusal } from '../../src/broker/refusal.ts';
import type { Target } from '../../src/broker/target.ts';
import type { Policy } from '../../src/credentials/policy.ts';
import { findType } from '../../src/credentials/types/registry.ts';

const words = (text: string): string[] => text.trim().split(/\s+/);
const none = { headers: {}, defaults: {}, dropHeaders: [] };
const goesOn = (name: string): boolean =>
  name.toLowerCase() in requestHeaders([name, '1'], none, 'unknown');

t.test('what says another method, path or host never goes on', async (t) => {
  const names = words(`
    X-HTTP-Method X-HTTP-Method-Override X-Method-Override X_HTTP_Method_Override X-Method _method
    Http-Method-Override X-HTTP-Verb X-Override-Method X-HttpMethod-Override X-MethodOverride
    X-Original-Method X-Forwarded-Method x.http.method.override
    X-Original-URL X-Original-URI X-Rewrite-URL X-Rewrite-Uri X-Original-Path X-Original-Host
    X-Original-Query X-Override-URL X-HTTP-DestinationURL X-HTTP-Host-Override X-HTTP-Path-Override
    X-Forwarded-Uri X-Forwarded-Path X-Forwarded-Prefix X-Forwarded-Host X-Forwarded-Proto
    X-Forwarded-Server X-Forwarded-Port X-Forwarded-Scheme X-Forwarded X-Forward X-Original_Uri
    X-Accel-Redirect X-Accel-Mapping X-Sendfile-Type X-Sendfile X-Lighttpd-Send-File X-Reproxy-Url
    X-Request-Uri Request-Uri Script-Name SCRIPT_NAME X-Script-Name PATH_INFO Base-Url Http-Url
    X-Host X-Backend-Host X-Gateway-Host X-Envoy-Original-Path X-Envoy-Original-Host
    X-Envoy-Decorator-Operation X-Waws-Unencoded-Url X-MS-Original-Url X-Replaced-Path
    X-Matched-Path X-Invoke-Path X-Middleware-Subrequest X-Middleware-Rewrite X-Now-Route-Matches
    X-Netlify-Original-Pathname X-CouchDB-Requested-Path X-Real-Uri X-Proxy-Url X!Original!URL`);
  for (const name of names) t.notOk(goesOn(name), name);
});

t.test('what says where the caller comes from, or who they are, never goes on', async (t) => {
  const names = words(`
    X-Forwarded-For Forwarded Forwarded-For Forwarded-For-Ip X-Forward-For X-Forwarder-For
    X-Forwarded-By X-Forwarded-For-Original X-Original-Forwarded-For X-Originally-Forwarded-For
    X-Vercel-Forwarded-For X-Vercel-Proxied-For Z-Forwarded-For X-Forwarded_For x-forwarded.for
    X-Real-IP X_Real_IP Real-Ip X-Client-IP Client-IP ClientIP X-ClientIP True-Client-IP
    X-True-Client-IP X-True-IP CF-Connecting-IP CF-Connecting_IP CF-Connecting-IPv6 Cf-Pseudo-IPv4
    Fastly-Client-IP X-Cluster-Client-IP Cluster-Client-Ip WL-Proxy-Client-IP Proxy-Client-IP
    X-Azure-ClientIP X-Azure-SocketIP X-AppEngine-User-IP X-Appengine-Remote-Addr
    X-AppEngine-Trusted-IP-Request X-NF-Client-Connection-IP X-Sucuri-ClientIP Incap-Client-IP
    Ali-Cdn-Real-Ip X-Originating-IP X-Remote-IP X-Remote-Addr Remote-Addr X-Remote-Host
    X-Original-Remote-Addr X-Source-IP X-User-IP X-ProxyUser-Ip X-ProxyMesh-IP X-WAP-Client-IP
    X-Custom-IP-Authorization X-Ip X-From-IP X-Envoy-External-Address Via X-BlueCoat-Via
    X-Remote-User Remote-User X-Forwarded-User X-SSL-Client-Cert SSL_CLIENT_S_DN Client-Cert
    X-Auth-Request-User X-Amzn-Oidc-Identity X-Goog-Authenticated-User-Email
    X-Goog-Iap-Jwt-Assertion X-Ms-Client-Principal`);
  for (const name of names) t.notOk(goesOn(name), name);
});

t.test(
  "what SDKs and services send of their own goes on, people's words too",
  folded(async (t) => {
    const names = words(`
    Accept Accept-Language Content-Type User-Agent Origin Referer Range If-Match If-None-Match Date
    If-Range Prefer Depth Destination Overwrite Content-Location Link Slug DNT SOAPAction
    X-Stainless-Lang X-Stainless-OS X-Stainless-Runtime-Version OpenAI-Organization OpenAI-Project
    Anthropic-Version Anthropic-Beta X-Goog-Api-Client X-Goog-User-Project X-Goog-Request-Params
    X-GitHub-Api-Version X-Amz-Content-Sha256 X-Amz-Target X-Amz-Copy-Source X-Amz-Acl
    X-Amz-Meta-Original-Path X-Ms-Meta-Client-Ip X-Goog-Meta-Request-Uri X-Ms-Version X-Ms-Date
    X-Ms-Client-Request-Id X-Ms-Blob-Type X-Ms-Range X-Ms-Copy-Source X-Ms-Rename-Source
    X-Request-ID X-Correlation-ID Traceparent Tracestate X-B3-TraceId X-Cloud-Trace-Context
    X-Client-Info X-Client-Name X-Client-Version Client-Id X-User-Id X-User-Agent X-Csrf-Token
    X-Shopify-Access-Token X-Api-Version X-Requested-With Idempotency-Key X-RestLi-Method
    Access-Control-Request-Method Access-Control-Request-Headers PSU-IP-Address X-Payment-Method
    X-FAPI-Customer-IP-Address CF-Access-Client-Id CF-Access-Client-Secret Fastly-Key
    Fastly-Soft-Purge X-Source X-Origin X-Upload-Content-Type Upload-Offset Tus-Resumable
    X-Vault-Token X-Organization-Id X-Host-Id X-Vercel-Protection-Bypass Sec-Fetch-Site
    Upgrade-Insecure-Requests X-Target X-Bz-File-Name Dropbox-API-Arg`);
    for (const name of names) t.ok(goesOn(name), name);
  }),
);

const target = (host: string, basePath = '', port = 443): Target => ({
  origin: { protocol: 'https:', host, port },
  basePath,
});
interface Asked {
  readonly policy: Partial<Policy>;
  readonly to?: Target;
  readonly isObjectStore?: boolean;
  readonly method?: string;
  readonly path?: string;
}
const verdict = (
  headers: readonly string[],
  { policy, to = target('api.example'), isObjectStore: isStore = true, ...call }: Asked,
): string => {
  try {
    checkRequest(
      { delivery: ['broker'], allowedHosts: [], ...policy },
      { target: to, isObjectStore: isStore },
      {
        method: call.method ?? 'PUT',
        pathAndQuery: call.path ?? '/reports/new',
        rawHeaders: headers,
      },
    );
    return 'passes';
  } catch (error) {
    if (error instanceof BrokerRefusal) return error.reason;
    throw error;
  }
};
const reports = { pathPrefixes: ['/reports'] };

t.test(
  'a header that names a resource is under a prefix, or the call does not go out',
  folded(async (t) => {
    const rows: readonly (readonly [header: string, inside: string, outside: string])[] = [
      ['x-amz-copy-source', '/reports/2026.csv', '/payroll/2026.csv'],
      ['X_Amz_Copy_Source', 'reports/2026.csv', 'payroll/2026.csv'],
      ['x.amz.copy-source', 'reports%2F2026.csv', 'payroll%2F2026.csv'],
      ['x-amz-copy-source', 'reports/a.csv?versionId=3', 'payroll/a.csv?versionId=/reports'],
      ['x-amz-copy-source', 'reports/a%20b%25.csv', 'reports%2F..%2Fpayroll'],
      ['x-amz-copy-source', 'reports', 'arn:aws:s3:eu-west-1:1:accesspoint/ap/object/reports/x'],
      ['x-amz-copy-source', 'reports/x', 'reports/%2e%2e/payroll'],
      ['x-amz-copy-source', 'reports/x', 'reports/%252e%252e/payroll'],
      ['x-amz-copy-source', 'reports/x', 'reports/\uff0e\uff0e/payroll'],
      ['x-amz-copy-source', 'reports/x', 'reports/%EF%BC%8E%EF%BC%8E/payroll'],
      ['x-amz-copy-source', 'reports/x', 'reportsx/y'],
      ['x-amz-copy-source', 'reports/x', 'reports//../payroll'],
      ['x-amz-copy-source', 'reports/x', 'reports\\..\\payroll'],
      ['x-amz-copy-source', 'reports/x', '%zz'],
      ['x-amz-copy-source', 'reports/x', ''],
      ['x-amz-rename-source', '/reports/a', '/payroll/a'],
      ['x-goog-copy-source', 'reports/a', 'payroll/a'],
      ['x-oss-copy-source', '/reports/a', '/payroll/a'],
      ['x-cos-copy-source', 'api.example/reports/a', 'payroll-1.cos.example/reports/a'],
      ['x-obs-copy-source', '/reports/a', '/payroll/a'],
      ['x-bce-copy-source', '/reports/a', '/payroll/a'],
      [
        'x-ms-copy-source',
        'https://api.example/reports/a?sv=1',
        'https://api.example/payroll/a?sv=1',
      ],
      ['x-ms-copy-source', 'https://API.example:443/reports/a', 'https://other.example/reports/a'],
      ['x-ms-copy-source', 'https://api.example/reports', 'http://api.example/reports'],
      [
        'x-ms-copy-source',
        'https://api.example/reports',
        'https://api.example@evil.example/reports',
      ],
      ['x-ms-rename-source', '/reports/a', '/payroll/a'],
      ['x-ms-file-rename-source', 'https://api.example/reports/a', 'https://api.example/payroll/a'],
      ['x-ms-source-container-name', 'reports', 'payroll'],
      ['x-ms-deleted-share-name', 'reports', 'payroll'],
      ['Destination', '/reports/b', '/payroll/b'],
      ['Destination', 'https://api.example/reports/b', '//evil.example/reports/b'],
      ['destination', '/reports/b?rev=1', 'https://api.example:8443/reports/b'],
      ['Content-Location', '/reports/b', '/payroll/b'],
      ['If', '(<urn:uuid:1> ["e"])', '<https://api.example/payroll/> (<urn:uuid:1>)'],
      ['If', '</reports/a> (<opaquelocktoken:x>)', '</payroll/a> (<opaquelocktoken:x>)'],
      ['X-Copy-From', '/reports/a', '/payroll/a'],
      ['X-Object-Manifest', 'reports/parts', 'payroll/parts'],
      ['X-Symlink-Target', 'reports/a', 'payroll/a'],
      ['x-oss-symlink-target', 'reports/a', 'payroll/a'],
      ['X-Bz-File-Name', 'reports/a', 'payroll/a'],
      ['X-Source-Path', '/reports/a', '/payroll/a'],
      ['X-Move-To', '/reports/a', '/payroll/a'],
      ['Upload-Concat', 'partial', 'final;/reports/a /payroll/b'],
      ['Upload-Concat', 'final;/reports/a /reports/b', 'final;'],
      ['Dropbox-API-Arg', '{"path":"/reports/a","mode":"add"}', '{"path":"/payroll/a"}'],
      ['Dropbox-API-Arg', '{"commit":{"path":"/reports/a"}}', '{"commit":{"path":"/payroll/a"}}'],
      ['Dropbox-API-Arg', '{"cursor":{"session_id":"x","offset":0}}', '{"path":"id:abc"}'],
      ['Dropbox-API-Arg', '{"path":"/reports/\\u0061"}', '{"path":"/payroll'],
    ];
    for (const [header, inside, outside] of rows) {
      const encoded = (text: string): string => Buffer.from(text).toString('latin1');
      const asked = { policy: reports };
      if (inside !== 'reports')
        t.equal(verdict([header, encoded(inside)], asked), 'passes', `${header}: ${inside}`);
      t.equal(verdict([header, encoded(outside)], asked), 'pathPrefix', `${header}: ${outside}`);
      t.equal(
        verdict([header, encoded(inside), header, encoded(outside)], asked),
        'pathPrefix',
        `${header}: both`,
      );
      t.equal(
        verdict([header, encoded(outside)], { policy: {} }),
        'passes',
        'without a policy of paths',
      );
      t.equal(verdict([header, encoded(outside)], { policy: { pathPrefixes: ['/'] } }), 'passes');
    }
    for (const header of ['X-Copy-From-Account', 'Destination-Account', 'Dropbox-API-Path-Root'])
      t.equal(verdict([header, '{"root":"1"}'], { policy: reports }), 'pathPrefix', header);
    for (const header of ['x-amz-meta-copy-source', 'x-amz-copy-source-if-match', 'x-amz-acl'])
      t.equal(verdict([header, '/payroll/a'], { policy: reports }), 'passes', header);
  }),
);

t.test('what is named is read as the store reads it', async (t) => {
  const source = (value: string, host: string, policy: Partial<Policy>, basePath = ''): string =>
    verdict(['x-amz-copy-source', value], { policy, to: target(host, basePath) });
  const bucketHost = 'sales.s3.eu-west-1.amazonaws.com';
  t.equal(source('sales/reports/a', bucketHost, reports), 'passes', 'the bucket of the host');
  t.equal(source('sales/payroll/a', bucketHost, reports), 'pathPrefix');
  t.equal(source('reports/a', bucketHost, reports), 'pathPrefix', 'another bucket, named so');
  t.equal(source('reports/a', 's3.eu-west-1.amazonaws.com', reports), 'passes');
  t.equal(source('sales/reports/a', 's3.eu-west-1.amazonaws.com', reports), 'pathPrefix');
  t.equal(source('sales/reports/a', 'sales.storage.googleapis.com', reports), 'passes');
  t.equal(source('reports/a', 'sales.oss-eu-central-1.aliyuncs.com', reports), 'pathPrefix');
  t.equal(
    verdict(['destination', '/tenant/reports/a'], {
      policy: reports,
      to: target('dav.example', '/tenant'),
    }),
    'passes',
    'below the base path, as the caller sees it',
  );
  for (const value of ['/reports/a', '/other/reports/a', 'https://dav.example/tenants/reports/a'])
    t.equal(
      verdict(['destination', value], { policy: reports, to: target('dav.example', '/tenant') }),
      'pathPrefix',
      value,
    );
  const swift = { policy: { pathPrefixes: ['/v1/AUTH_a/reports'] }, path: '/v1/AUTH_a/reports/n' };
  t.equal(verdict(['x-copy-from', 'reports/a'], swift), 'passes', 'Swift: below the account');
  t.equal(verdict(['x-copy-from', '/payroll/a'], swift), 'pathPrefix');
  t.equal(verdict(['destination', 'b'], { policy: { pathPrefixes: ['/'] } }), 'passes');
  t.equal(
    verdict(['destination', 'b'], { policy: reports }),
    'pathPrefix',
    'relative to the call for some, to the root for others',
  );
});

t.test(
  'a parameter that overrides the method is allowed, or the call does not go out',
  async (t) => {
    const policy = { methods: ['GET', 'POST'] as const };
    const asked = (query: string): string =>
      verdict([], { policy, method: 'POST', path: `/reports/new?${query}` });
    for (const query of words(`
    _method=DELETE _method=delete a=b&_method=DELETE _METHOD=PUT %5fmethod=DELETE %5Fmethod=%44ELETE
    +_method=DELETE .method=DELETE -method=PUT _method[]=DELETE _method[0]=DELETE _method%5B%5D=DELETE
    a=b;_method=DELETE _method=POST&_method=DELETE _method=PURGE
    x-http-method-override=DELETE X-HTTP-Method-Override=DELETE x_http_method=PUT
    $method=DELETE $httpMethod=DELETE _httpMethod=DELETE method=delete http_method=PATCH verb=DELETE`))
      t.equal(asked(query), 'method', query);
    for (const query of words(`
    _method=post _method=GET _method= method=flickr.photos.getInfo method=card payment_method=DELETE
    methods=DELETE a=_method=DELETE a=DELETE verb=run _methods=DELETE`))
      t.equal(asked(query), 'passes', query);
    t.equal(verdict([], { policy: {}, path: '/x?_method=DELETE' }), 'passes', 'every method may');
  },
);

t.test(
  'a parameter that overrides the path is under a prefix, or the call does not go out',
  async (t) => {
    const policy = { pathPrefixes: ['/wp-json/wp/v2/posts', '/reports'] };
    const asked = (query: string): string => verdict([], { policy, path: `/reports/new?${query}` });
    for (const query of words(`
    rest_route=/wp/v2/users rest_route=%2Fwp%2Fv2%2Fusers REST_ROUTE=/wp/v2/users
    rest_route=/wp/v2/posts/../users x-original-url=/payroll X-Rewrite-Url=/payroll
    x_original_uri=/payroll x-amz-copy-source=/payroll/a X-Amz-Copy-Source=payroll%2Fa`))
      t.equal(asked(query), 'pathPrefix', query);
    for (const query of words(`
    rest_route=/wp/v2/posts/1 x-amz-copy-source=/reports/a destination=NYC original_url=/payroll
    url=/payroll path=/payroll`))
      t.equal(asked(query), 'passes', query);
  },
);

t.test(
  'so small a part is not asked for, but of a store of objects',
  folded(async (t) => {
    const asked = (headers: readonly string[], method = 'GET', isStore = false): string =>
      verdict(headers, { policy: {}, method, isObjectStore: isStore });
    const small = [
      'bytes=0-0',
      'bytes=0-9',
      'bytes=0-4094',
      'bytes=100-4194',
      'bytes=-1',
      'bytes=-4095',
      'bytes=0-4095,5000-9999',
      'bytes=0-,-1',
      'bytes=0-9,20-29',
      'Bytes=0-9',
      'BYTES = 0 - 9',
      'bytes=9-0',
      'bytes=',
      'bytes=-',
      'bytes',
      '',
      'bytes=a-b',
      'bytes=0-99999999999999999999',
      'bytes=0x0-0xffff',
      'octets=0-9999',
      'chars=0-9',
      'bytes=0-4095,',
      'bytes=-0',
      'items=bytes=0-1',
    ];
    const large = [
      'bytes=0-4095',
      'bytes=0-',
      'bytes=100-',
      'bytes=-4096',
      'bytes=100-4195',
      'BYTES=0-9999',
      '0-9',
      '0-',
      'items=0-9',
      'id ..',
      'id a..b; max=10',
    ];
    for (const value of small) {
      for (const name of ['Range', 'range', 'X-Range', 'X_Range', 'Request-Range', 'x-ms-range'])
        t.equal(asked([name, value]), 'range', `${name}: ${value}`);
      t.equal(asked(['Range', value], 'GET', true), 'passes', `${value} of a store`);
    }
    for (const value of large) t.equal(asked(['Range', value]), 'passes', value);
    t.equal(asked(['Range', 'bytes=0-9999', 'range', 'bytes=0-9999']), 'range', 'twice');
    t.equal(asked(['Range', 'bytes=0-9'], 'HEAD'), 'range');
    t.equal(asked(['Range', 'bytes=0-9'], 'POST'), 'range');
    t.equal(asked(['x-ms-range', 'bytes=0-511'], 'PUT'), 'passes', 'where bytes go that are sent');
    for (const name of ['If-Range', 'Content-Range', 'X-Date-Range', 'x-amz-copy-source-range'])
      t.equal(asked([name, 'bytes=0-9']), 'passes', name);
  }),
);

t.test('what stores objects is known by its type, and of AWS by its host', async (t) => {
  const is = (type: string, host: string): boolean => isObjectStore(findType(type)!, host);
  t.ok(is('s3', 'minio.example'));
  for (const host of [
    's3.eu-west-1.amazonaws.com',
    'sales.s3.eu-west-1.amazonaws.com',
    's3.amazonaws.com',
    'sales.s3-accelerate.amazonaws.com',
    'sales.s3.dualstack.eu-west-1.amazonaws.com',
  ])
    t.ok(is('aws', host), host);
  for (const host of [
    'sts.eu-west-1.amazonaws.com',
    'dynamodb.eu-west-1.amazonaws.com',
    's3.example',
  ])
    t.notOk(is('aws', host), host);
  for (const type of ['openai', 'bearer', 'supabase', 'googleDrive', 'oauth2'])
    t.notOk(is(type, 's3.eu-west-1.amazonaws.com'), type);
});
