import t from 'tap';
import { DatabaseUrlInvalid, parseDatabaseUrl } from '../../src/db/url.ts';

t.test('one host, the port by default', async (t) => {
  t.same(parseDatabaseUrl('postgresql://vault:pw@db/vault'), {
    hosts: [{ host: 'db', port: 5432 }],
    user: 'vault',
    password: 'pw',
    database: 'vault',
    isTls: false,
    caPath: undefined,
  });
});

t.test(
  'several hosts keep their order and their own ports, IPv6 and the socket folder included',
  async (t) => {
    t.same(parseDatabaseUrl('postgres://v@h1:6432,10.0.0.2,[::1]:5433/d').hosts, [
      { host: 'h1', port: 6432 },
      { host: '10.0.0.2', port: 5432 },
      { host: '::1', port: 5433 },
    ]);
    t.same(parseDatabaseUrl('postgresql://v@localhost/d?host=%2Fvar%2Frun%2Fpg').hosts, [
      { host: '/var/run/pg', port: 5432 },
    ]);
    t.same(parseDatabaseUrl('postgresql://v@/d?host=/a,/b&port=1,2').hosts, [
      { host: '/a', port: 1 },
      { host: '/b', port: 2 },
    ]);
    t.same(parseDatabaseUrl('postgresql://v@%2Fvar%2Frun%2Fpg/d').hosts, [
      { host: '/var/run/pg', port: 5432 },
    ]);
  },
);

t.test('user, password and database are percent-decoded', async (t) => {
  t.match(parseDatabaseUrl('postgresql://us%40er:p%3Aa%2Fs%40s%25@h/d%20b'), {
    user: 'us@er',
    password: 'p:a/s@s%',
    database: 'd b',
  });
  t.equal(parseDatabaseUrl('postgresql://u@h/d').password, undefined);
  t.equal(parseDatabaseUrl('postgresql://u:a:b@h/d').password, 'a:b');
  t.match(
    parseDatabaseUrl('postgresql://u:p@ss@h/d'),
    { password: 'p@ss', hosts: [{ host: 'h' }] },
    'no host holds an at sign',
  );
});

t.test('TLS is verified in full or not asked for at all', async (t) => {
  for (const mode of ['require', 'verify-ca', 'verify-full'])
    t.match(
      parseDatabaseUrl(`postgresql://u@h/d?sslmode=${mode}&sslrootcert=/ca.pem`),
      { isTls: true, caPath: '/ca.pem' },
      mode,
    );
  t.match(parseDatabaseUrl('postgresql://u@h/d?sslmode=verify-full&sslrootcert=system'), {
    isTls: true,
    caPath: undefined,
  });
  for (const mode of ['prefer', 'allow', 'no-verify', '', 'VERIFY-FULL'])
    t.throws(
      () => parseDatabaseUrl(`postgresql://u@h/d?sslmode=${mode}`),
      DatabaseUrlInvalid,
      mode,
    );
});

t.test('what cannot be meant is refused, without repeating it', async (t) => {
  const bad = [
    '',
    'zzz',
    'mysql://zzz@h/d',
    'postgresql://zzz@h',
    'postgresql://@h/d',
    'postgresql://h/d',
    'postgresql://zzz:p/w@h/d',
    'postgresql://zzz:p#w@h/d',
    'postgresql://zzz@/d',
    'postgresql://zzz@h1,/d',
    'postgresql://zzz@h:0/d',
    'postgresql://zzz@h:65536/d',
    'postgresql://zzz@h:x/d',
    'postgresql://zzz@a b/d',
    'postgresql://zzz@[::1/d',
    'postgresql://zzz@h/d?zzz=1',
    'postgresql://zzz@h/d?sslmode=disable&sslmode=require',
    'postgresql://zzz@h/d?options=-c%20zzz',
    'postgresql://zzz@h/d?sslrootcert=/zzz',
    'postgresql://zzz@h/d?host=zzz',
    'postgresql://zzz@h/d?port=1',
    'postgresql://zzz@/d?host=/a&sslmode=require',
    'postgresql://zzz@h/d%00',
    'postgresql://zzz%@h/d',
    'postgresql://zzz@h/d?target_session_attrs=any',
    `postgresql://zzz@${'h,'.repeat(16)}h/d`,
    'postgresql://zzz@/d?host=../zzz',
  ];
  for (const url of bad) {
    try {
      parseDatabaseUrl(url);
      t.fail(`accepted ${url}`);
    } catch (error) {
      t.type(error, DatabaseUrlInvalid, url);
      t.notMatch((error as Error).message, 'zzz');
    }
  }
});
