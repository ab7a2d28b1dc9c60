// A client by the types that openapi-typescript made, against a vault that runs: create, list, read,
// patch, bulk. Types are checked by tsc before.
declare const process: { env: Record<string, string | undefined> };
import createClient from 'openapi-fetch';
import type { paths } from './api.d.ts';

const { PEER_URL: baseUrl, PEER_TOKEN: token, PEER_TEAM: team = '' } = process.env;
const client = createClient<paths>({
  baseUrl: baseUrl ?? '',
  headers: { authorization: `Bearer ${token}` },
});
const check = (isGood: boolean, what: string): void => {
  if (!isGood) throw new Error(what);
};

const body = {
  name: 'from-ts',
  type: 'openai',
  fields: { apiKey: 'sk-of-ts' },
  policy: { delivery: ['broker'], methods: ['POST'] },
} as const;
const asked = {
  params: { path: { team } },
  body: { ...body, policy: { delivery: ['broker' as const] } },
};
const created = await client.POST('/v1/teams/{team}/credentials', asked);
if (created.data === undefined) throw new Error(`create: ${created.error.code}`);
check(created.data.policy.allowedHosts.length === 0, 'no hosts');
const again = await client.POST('/v1/teams/{team}/credentials', asked);
check(again.error?.code === 'nameTaken', 'a name that is taken');
const listed = await client.GET('/v1/teams/{team}/credentials', {
  params: { path: { team }, query: { namePrefix: 'from-ts' } },
});
check(listed.data?.items.length === 1, 'list');
const { id } = created.data;
const read = await client.GET('/v1/credentials/{id}', { params: { path: { id } } });
check(read.data?.secretFields[0] === 'apiKey', 'read');
const patched = await client.PATCH('/v1/credentials/{id}', {
  params: { path: { id }, header: { 'If-Match': read.response.headers.get('etag') ?? '' } },
  body: { labels: { from: 'ts' } },
});
check(patched.data?.labels['from'] === 'ts', 'patch');
const bulk = await client.POST('/v1/teams/{team}/credentials/bulk', {
  params: { path: { team } },
  body: {
    items: [
      { op: 'create', name: 'bulk-ts', type: 'openai', fields: { apiKey: 'sk-of-ts' } },
      { op: 'delete', id, revision: '*' },
    ],
  },
});
check(bulk.data?.results.map(({ status }) => status).join() === '201,204', 'bulk');
