// Guards of cryptography that nothing else would miss.
import { randomBytes } from 'node:crypto';
import t from 'tap';
import {
  Keyring,
  openForeignToken,
  parseRootKeys,
  generateRootKey,
  RootKeys,
  Secret,
} from '../../src/crypto/index.ts';
import { newId, type TeamId } from '../../src/shared/ids.ts';
import { freshDataKey, freshKeyring, freshPlace, isRefused } from '../helpers/crypto.ts';

const fields = new Secret({ apiKey: 'sk-guards' });

t.test('a cached key does not serve a row that says another team', async (t) => {
  const keyring = freshKeyring();
  const place = freshPlace();
  const key = freshDataKey(keyring, place.team);
  keyring.seal(key, place, fields);
  const team = newId<TeamId>();
  t.throws(() => keyring.seal({ ...key, team }, { ...place, team }, fields), {
    name: 'KeyUnavailable',
  });
  t.type(keyring.seal(key, place, fields), 'string', 'its own team has it still');
});

t.test('a token of another system that none of the keys opens is refused', async (t) => {
  t.ok(isRefused(() => openForeignToken([randomBytes(32), randomBytes(32)], 'gAAAAA')));
  t.ok(isRefused(() => openForeignToken([], 'gAAAAA')));
});

t.test('without a root key there is no keyring', async (t) => {
  t.throws(() => new RootKeys([]), { name: 'RootKeyInvalid', message: 'there is no root key' });
  t.ok(new Keyring({ roots: parseRootKeys(generateRootKey()), now: Date.now }));
});
