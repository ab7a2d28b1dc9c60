// A Secret shows nothing, however it is turned into text.
import { format, inspect } from 'node:util';
import t from 'tap';
import { Secret } from '../../src/crypto/index.ts';

const canary = 'canary-5f0c';

t.test('expose() is the only way to the value', async (t) => {
  const value = { apiKey: canary };
  const secret = new Secret(value);
  t.equal(secret.expose(), value);
  const holder = {
    secret,
    list: [secret],
    error: new Error(`with ${String(secret)}`, { cause: secret }),
  };
  const shown = [
    JSON.stringify(secret),
    JSON.stringify(holder),
    String(secret),
    `${secret}`,
    secret + '',
    inspect(secret),
    inspect(holder, { depth: 9, showHidden: true }),
    inspect(secret, { customInspect: false, showHidden: true }),
    format('%s %j %o %O', secret, secret, secret, secret),
    inspect(structuredClone(secret)),
    JSON.stringify(Object.entries(secret)),
    JSON.stringify(Object.getOwnPropertyDescriptors(secret)),
    inspect({ ...secret }),
    inspect(Object.assign({}, secret)),
    inspect(holder.error, { depth: 9 }),
  ];
  for (const text of shown) t.notMatch(text, canary);
  t.equal(JSON.stringify({ secret }), '{"secret":"[secret]"}');
  t.equal(`${secret}`, '[secret]');
  t.equal(inspect(secret), '[secret]');
});

t.test('the search of this test finds what is not hidden', async (t) => {
  t.match(inspect({ apiKey: canary }), canary);
});
