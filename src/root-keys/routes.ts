// The operator's face of root keys, and the vault's counts. Fingerprints only: key material has no
// place here.
import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import { addOperation } from '../http/operation.ts';
import { count, fingerprint, id, line, slug, time, timeOrNull } from '../http/schemas.ts';
import { waitNames, type Waits } from '../shared/waits.ts';
import { failuresNamedMax, type RootKeysService } from './service.ts';
import { showEach } from '../shared/showing.ts';

const rootKey = z
  .strictObject({
    fingerprint,
    isConfigured: z.boolean(),
    isPrimary: z.boolean().meta({ description: 'Wraps what is made now.' }),
    dataKeys: count.meta({ description: 'Data keys that it wraps now.' }),
    systemKeys: count,
    createdAt: time.meta({ description: 'When this database first met it.' }),
    compromisedAt: timeOrNull,
    compromiseReason: line(200).nullable(),
  })
  .meta({ id: 'RootKey' });
const rootKeyList = z
  .strictObject({ items: z.array(rootKey).max(1000) })
  .meta({ id: 'RootKeyList' });
const rewrapped = z
  .strictObject({
    primary: fingerprint,
    dataKeys: count,
    systemKeys: count,
    failed: count.meta({
      description: 'Keys that stay as they are. While there are any, keep the other root keys.',
    }),
    failures: z
      .array(
        z.strictObject({
          kind: z.enum(['dataKey', 'systemKey']),
          id,
          team: slug.nullable().meta({ description: "Whose key it is; null of the vault's own." }),
          rootKey: fingerprint.meta({ description: 'The root key that its row names.' }),
          reason: z.enum(['damaged', 'rootKeyMissing']).meta({
            description: '`damaged`: its row was changed. `rootKeyMissing`: not configured.',
          }),
        }),
      )
      .max(failuresNamedMax)
      .meta({ description: 'The first of them; events and log have all.' }),
  })
  .meta({ id: 'RootKeyRotation' });
const compromise = z
  .strictObject({ reason: line(200).min(1) })
  .meta({ id: 'RootKeyCompromise', examples: [{ reason: 'the machine that held it was stolen' }] });
const marked = z
  .strictObject({
    keys: count.meta({ description: 'Data keys marked.' }),
    teams: count.meta({ description: 'Teams whose keys were marked; each rotates.' }),
  })
  .meta({ id: 'RootKeyCompromised' });
const wait = z
  .strictObject({
    name: z.enum(waitNames),
    inUse: count.meta({ description: 'Now: what is under way, or who waits.' }),
    max: count.meta({ description: 'What there is room for.' }),
    refused: count.meta({ description: 'How often there was none, since the start.' }),
  })
  .meta({ id: 'Wait' });
const status = z
  .strictObject({
    teams: count,
    credentials: count,
    engines: count,
    rotationsRunning: count,
    keysOverdue: count,
    keysCompromised: count,
    keysCompromisedInUse: count.meta({
      description:
        'Of these, those that are active or that tokens are still under: 0 when all of it was ' +
        'moved.',
    }),
    versionsUndecryptable: count,
    notificationsPending: count,
    notificationsFailed: count.meta({ description: 'Given up within the last 35 days.' }),
    receiversFailing: count,
    waits: z
      .array(wait)
      .max(waitNames.length)
      .meta({
        description:
          'What is bounded on the answering replica: `databaseConnections` and `tokenRefreshes` ' +
          'count who waits, the others what is under way.',
      }),
  })
  .meta({ id: 'Status' });

/** Adds the operations on root keys and the status. */
export function registerRootKeys(
  app: FastifyInstance,
  { service, waits }: { service: RootKeysService; waits: Waits },
): void {
  addOperation(app, {
    method: 'GET',
    url: '/v1/root-keys',
    access: { operator: 'rootKey.rotate' },
    operationId: 'listRootKeys',
    tag: 'root keys',
    summary: 'List the root keys',
    success: {
      status: 200,
      schema: rootKeyList,
      description: 'Every root key that the database has seen.',
    },
    handler: async () => ({
      items: showEach(await service.listRootKeys(), (row) => ({
        fingerprint: row.fingerprint,
        isConfigured: row.isConfigured,
        isPrimary: row.isPrimary,
        dataKeys: row.dataKeys,
        systemKeys: row.systemKeys,
        createdAt: row.createdAt,
        compromisedAt: row.compromisedAt,
        compromiseReason: row.compromiseReason,
      })),
    }),
  });
  addOperation(app, {
    method: 'POST',
    url: '/v1/root-key-rotations',
    access: { operator: 'rootKey.rotate' },
    operationId: 'rotateRootKey',
    tag: 'root keys',
    summary: 'Rewrap every key under the primary root key',
    description:
      'As many rows as there are keys; no token is touched. A key that does not unwrap is ' +
      'passed over and named. Where none failed, the other root keys can be taken out of the ' +
      'configuration afterwards.',
    success: { status: 200, schema: rewrapped, description: 'How many keys were rewrapped.' },
    handler: async ({ caller }) => {
      const { failures, ...counts } = await service.rewrap(caller);
      return { ...counts, failures: [...failures] };
    },
  });
  addOperation(app, {
    method: 'POST',
    url: '/v1/root-keys/:fingerprint/mark-compromised',
    access: { operator: 'rootKey.rotate' },
    operationId: 'markRootKeyCompromised',
    tag: 'root keys',
    summary: 'Mark a root key compromised',
    description:
      'Marks every data key that it ever wrapped, rotates every team with priority, makes new ' +
      'system keys. Not for the primary one.',
    params: z.strictObject({ fingerprint }),
    body: compromise,
    success: { status: 200, schema: marked, description: 'What was marked.' },
    problems: ['stateConflict', 'notFound', 'keyUnavailable'],
    handler: ({ caller, params, body }) =>
      service.markCompromised(caller, params.fingerprint, body.reason),
  });
  addOperation(app, {
    method: 'GET',
    url: '/v1/status',
    access: { operator: 'status.read' },
    operationId: 'getStatus',
    tag: 'service',
    summary: 'Read the counts of the vault',
    success: { status: 200, schema: status, description: 'Counts; nothing of any one team.' },
    handler: async () => {
      const counts = waits();
      return {
        ...(await service.status()),
        waits: waitNames.map((name) => ({ name, ...counts[name] })),
      };
    },
  });
}
