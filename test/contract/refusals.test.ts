// Every rule by which a lease, a ticket or a call is refused stands where people look for it.
import { readFileSync } from 'node:fs';
import t from 'tap';
import { leaseRules } from '../../src/leases/decide.ts';
import { broker } from '../../src/http/document-parts.ts';
import { parse } from 'yaml';
import { type Json, operationsOf } from '../helpers/openapi.ts';

/** What is found only once there is an access token to be had. */
const ofTokens = ['notConnected', 'refreshFailed', 'refreshUnavailable', 'rejectedByUpstream'];

const document = parse(
  readFileSync(new URL('../../openapi.yaml', import.meta.url), 'utf8'),
) as Json;
const descriptionOf = (operationId: string): string =>
  String(
    document &&
      operationsOf(document).find((each) => each.operation['operationId'] === operationId)
        ?.operation['description'],
  );
const named = (text: string): ReadonlySet<string> =>
  new Set([...text.matchAll(/`([A-Za-z]+)`/g)].map(([, name = '']) => name));

t.test('the refusals of a lease stand in the document and in docs/engines.md', async (t) => {
  const inDocument = named(descriptionOf('createLease'));
  const page = readFileSync(new URL('../../docs/engines.md', import.meta.url), 'utf8');
  const table = page.slice(page.indexOf('## Lease'), page.indexOf('A replica opens 32 MiB'));
  const inTable = named(
    [...table.matchAll(/^\| (`[^|]*)\|/gm)].map(([, cell = '']) => cell).join(' '),
  );
  for (const rule of [...leaseRules, 'size', 'notInLease']) {
    t.ok(inDocument.has(rule), `createLease says ${rule}`);
    t.ok(inTable.has(rule), `docs/engines.md says ${rule}`);
  }
});

t.test('the refusals of a ticket stand in the document', async (t) => {
  const inDocument = named(descriptionOf('createBrokerTicket'));
  const own = ['notBrokerable', 'hostRequired', 'hostNotAllowed'];
  for (const rule of [...leaseRules, ...own])
    if (rule !== 'duplicate' && !ofTokens.includes(rule))
      t.ok(inDocument.has(rule), `createBrokerTicket says ${rule}`);
});

t.test('the refusals of a call stand in the document', async (t) => {
  const said: readonly string[] = broker.rules.brokerRefused;
  const own = [
    'notBrokerable',
    'hostNotAllowed',
    'methodNotAllowed',
    'pathNotAllowed',
    'ticketPlace',
  ];
  t.same([...said].sort(), [...leaseRules.filter((rule) => rule !== 'duplicate'), ...own].sort());
});
