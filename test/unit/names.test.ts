import { randomBytes } from 'node:crypto';
import t from 'tap';
import { isPlainName } from '../../src/shared/names.ts';

t.test('a word may be said back', (t) => {
  for (const name of [
    'apiKey',
    'x',
    '_id',
    'oauth2Token',
    'x-api-key',
    'client.secret',
    'includeSecrets',
    'constructor',
    '__proto__',
    'ipv4',
    'key123',
  ])
    t.ok(isPlainName(name), name);
  t.end();
});

t.test('what could be a key in the wrong place may not', (t) => {
  const keys = [
    'sk-proj-4fYh38sLq0Zx91',
    'AKIAIOSFODNN7EXAMPLE1234',
    'xoxb-1234567890',
    '019aa7c2-5b1e-7c3a-9d52-0a4f6e1b2c3d',
    'eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.x',
    `a${randomBytes(16).toString('hex')}`,
    `t_${randomBytes(32).toString('base64url')}`,
    'a'.repeat(41),
    '',
    'two words',
    'é',
    'a/b',
    'a"b',
    '1a',
    'a\n',
  ];
  for (const name of keys) t.notOk(isPlainName(name), name);
  t.end();
});
