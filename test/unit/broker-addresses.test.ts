// Which address of a credential is given out.
import t from 'tap';
import { Addresses } from '../../src/broker/addresses.ts';
import { folded } from '../helpers/folded.ts';

const id = '019aa7c2-5b1e-7c3a-9d52-0a4f6e1b2c3d' as never;
const addresses = new Addresses({
  url: () => 'https://broker.example/base',
  hostSuffix: undefined,
});

t.test(
  'a base URL has the name where it stands in a URL as it is, and the id elsewhere',
  folded((t) => {
    for (const name of ['openai-prod', 'a.b', 'a_b~c', '-', "it's", '...'])
      t.equal(
        addresses.baseUrl({ id, team: 'payments', name }),
        `https://broker.example/base/payments/${name}/`,
        name,
      );
    // Botocore and others escape the path of their base URL once more.
    for (const name of ['open ai', 'ü', 'a+b', 'a/b', 'a%20b', 'a\\b', '.', '..', 'a?b', 'a#b'])
      t.equal(
        addresses.baseUrl({ id, team: 'payments', name }),
        `https://broker.example/base/-/${id}/`,
        name,
      );
  }),
);

t.test('an escaped name is read all the same, once', async (t) => {
  const read = (url: string): unknown => addresses.read({ url, host: undefined }).address;
  t.same(read('/payments/open%20ai/x'), { kind: 'name', team: 'payments', name: 'open ai' });
  t.same(read('/payments/open%2520ai/x'), { kind: 'name', team: 'payments', name: undefined });
});
