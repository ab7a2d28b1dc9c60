// Where a ticket is found in a head, and where it is taken: every place beside every other one.
import { randomBytes } from 'node:crypto';
import t from 'tap';
import { isTakenAt, placesOf, extractTicket } from '../../src/broker/ticket-extraction.ts';
import { findType } from '../../src/credentials/types/registry.ts';

const ticketText = (): string => `vbt_${randomBytes(32).toString('base64url')}`;
const [one, other] = [ticketText(), ticketText()];
const base64 = (text: string): string => Buffer.from(text).toString('base64');
type Head = readonly (readonly [name: string, value: string])[];

const taken = (head: Head, type = 'openai', fields: Record<string, string> = {}): boolean => {
  const presented = extractTicket(head.flat());
  return (
    presented !== undefined &&
    presented.ticket === one &&
    isTakenAt(presented, placesOf(findType(type)!, fields))
  );
};

/** Headers in which a ticket is taken, and the words around it. */
const good = (ticket: string): Head => [
  ['Authorization', `Bearer ${ticket}`],
  ['Authorization', `bearer   ${ticket}`],
  ['Authorization', `token ${ticket}`],
  ['Authorization', `SSWS ${ticket}`],
  ['Authorization', ticket],
  ['Authorization', `Basic ${base64(`${ticket}:`)}`],
  ['Authorization', `Basic ${base64(`:${ticket}`)}`],
  ['Authorization', `Basic ${base64(ticket)}`],
  ['Authorization', `Basic ${base64(`${ticket}:${ticket}`)}`],
  ['Authorization', `Basic ${base64(`x-access-token:${ticket}`)}`],
  ['x-api-key', ticket],
  ['X-API-Key', ticket],
  ['x-goog-api-key', ticket],
  ['api-key', ticket],
];
/** Where it must not stand. */
const bad = (ticket: string): Head => [
  ['X-Auth', ticket],
  ['X-Auth', `Bearer ${ticket}`],
  ['x_api_key', ticket],
  ['Cookie', `session=${ticket}`],
  ['Referer', `https://broker.example/?key=${ticket}`],
  ['User-Agent', `sdk/1.0 (${ticket})`],
  ['Sec-WebSocket-Protocol', `realtime, openai-insecure-api-key.${ticket}`],
  ['Sec-WebSocket-Protocol', ticket],
  ['Proxy-Authorization', `Bearer ${ticket}`],
  ['Proxy-Authorization', `Basic ${base64(`:${ticket}`)}`],
  ['Authorization', `Bearer ${ticket}, ${ticket}`],
  ['Authorization', `Bearer x ${ticket}`],
  ['Authorization', `Token token="${ticket}"`],
  ['Authorization', `Basic ${base64(`any:${ticket}`)}`],
  ['Authorization', `Basic ${base64(`${ticket}:any`)}`],
  ['Authorization', `Basic ${base64(`a:b:${ticket}`)}`],
  ['Authorization', `Bearer ${ticket}AAAA`],
  ['x-api-key', `"${ticket}"`],
];

t.test('alone: in the four headers, behind a word or as a half of Basic', async (t) => {
  for (const [name, value] of good(one)) t.ok(taken([[name, value]]), `${name}: ${value}`);
  for (const [name, value] of bad(one)) t.notOk(taken([[name, value]]), `${name}: ${value}`);
});

t.test('all pairs of places: one distinct ticket, each of them where it is taken', async (t) => {
  let pairs = 0;
  const all = (ticket: string) => [
    ...good(ticket).map((line) => ({ line, isGood: true })),
    ...bad(ticket).map((line) => ({ line, isGood: false })),
  ];
  for (const first of all(one))
    for (const second of [...all(one), ...all(other)]) {
      pairs += 1;
      const isSame = all(one).some(({ line }) => line.join() === second.line.join());
      const [a, b] = [first.line[0], second.line[0]].map((name) =>
        name.toLowerCase().replaceAll('_', '-'),
      );
      const isTaken = first.isGood && second.isGood && isSame && a !== b;
      t.equal(
        taken([first.line, second.line]),
        isTaken,
        `${first.line.join(': ')} | ${second.line.join(': ')}`,
      );
    }
  t.ok(pairs > 1_500, `${pairs} pairs`);
});

t.test(
  "beside a ticket a key of another kind is nobody's, but not in its own header",
  async (t) => {
    t.ok(
      taken([
        ['x-api-key', one],
        ['Authorization', 'Bearer sk-something-else'],
      ]),
    );
    t.notOk(
      taken([
        ['x-api-key', one],
        ['x-api-key', 'sk-something-else'],
      ]),
      'a proxy may have looked at the other one',
    );
    t.notOk(
      taken([
        ['x-api-key', one],
        ['x_api_key', 'sk-something-else'],
      ]),
    );
    t.notOk(
      taken([
        ['Authorization', 'Bearer sk-a'],
        ['Authorization', 'Bearer sk-b'],
        ['x-api-key', one],
      ]),
    );
  },
);

t.test("in the header that the type injects, and in no other type's", async (t) => {
  const gitlab = { headerName: 'PRIVATE-TOKEN' };
  const nameField = Object.keys(findType('header')!.fields).find((name) => /name/i.test(name))!;
  const fields = { [nameField]: gitlab.headerName };
  t.ok(taken([['PRIVATE-TOKEN', one]], 'header', fields));
  t.ok(taken([['private-token', `Bearer ${one}`]], 'header', fields));
  t.notOk(taken([['PRIVATE-TOKEN', one]]));
  t.notOk(taken([['PRIVATE-TOKEN', one]], 'header', { [nameField]: 'X-Other' }));
  t.notOk(
    taken([['Sec-WebSocket-Protocol', one]], 'header', { [nameField]: 'Sec-WebSocket-Protocol' }),
  );
  const userField = Object.keys(findType('httpBasic')!.fields)[0]!;
  t.ok(
    taken([['Authorization', `Basic ${base64(`ada:${one}`)}`]], 'httpBasic', {
      [userField]: 'ada',
    }),
  );
  t.notOk(
    taken([['Authorization', `Basic ${base64(`bo:${one}`)}`]], 'httpBasic', { [userField]: 'ada' }),
  );
});

t.test('as the key of a signature of AWS, for a type that signs', async (t) => {
  const signature = (key: string): string =>
    `AWS4-HMAC-SHA256 Credential=${key}/20260101/eu-west-1/s3/aws4_request, SignedHeaders=host;x-amz-date, Signature=${'0f'.repeat(32)}`;
  for (const type of ['aws', 's3']) {
    t.ok(taken([['Authorization', signature(one)]], type), type);
    t.ok(
      taken(
        [
          ['Authorization', signature(one)],
          ['X-Amz-Security-Token', one],
        ],
        type,
      ),
      type,
    );
    t.notOk(
      taken(
        [
          ['Authorization', signature(one)],
          ['X-Amz-Security-Token', other],
        ],
        type,
      ),
      type,
    );
  }
  t.notOk(taken([['Authorization', signature(one)]], 'openai'));
  t.notOk(taken([['Authorization', `${signature(one)} ${one}`]], 'aws'));
});

t.test('none, and what is none', async (t) => {
  for (const head of [
    [],
    [['Authorization', 'Bearer vbt_short']],
    [['Authorization', `Bearer ${one.slice(0, -1)}`]],
    [['Authorization', `Basic ${base64('a:b')}`]],
    [['Authorization', 'Basic ???']],
  ] as Head[])
    t.equal(extractTicket(head.flat()), undefined);
});
