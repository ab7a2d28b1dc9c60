// From what a caller sends to what is stored: the cases by name. The laws stand in test/property.
import { brief } from '../helpers/faults.ts';
import { readFileSync } from 'node:fs';
import t from 'tap';
import {
  applyFields,
  demandAllSecrets,
  type FieldsInput,
  isWider,
  readNewFields,
} from '../../src/credentials/fields.ts';
import type { PublicFields } from '../../src/credentials/public-values.ts';
import { policyOf } from '../../src/credentials/policy.ts';
import { healthOf, problemNames } from '../../src/credentials/health.ts';
import { credentialTypes, findType, typeSchema } from '../../src/credentials/types/registry.ts';
import { AppError } from '../../src/shared/errors.ts';
import type { CredentialType } from '../../src/credentials/types/define.ts';

const defaultPolicy = policyOf(['lease']);

const typeOf = (name: string): CredentialType => {
  const type = findType(name);
  if (type === undefined) throw new Error(name);
  return type;
};
const faultsOf = (action: () => unknown): string[] => {
  try {
    action();
    return [];
  } catch (error) {
    if (!(error instanceof AppError)) throw error;
    return brief(error.errors ?? []).map(({ pointer, rule }) => `${pointer} ${rule}`);
  }
};

t.test('a new credential gets its defaults, and what it lacks is named', async (t) => {
  t.strictSame(readNewFields(typeOf('imap'), { host: 'h', username: 'u', password: 'p' }, []), {
    publicFields: { host: 'h', username: 'u', port: 993, mailbox: 'INBOX', useSsl: true },
    secrets: { password: 'p' },
  });
  t.strictSame(
    faultsOf(() => readNewFields(typeOf('imap'), {}, [])),
    ['/fields/host required', '/fields/username required', '/fields/password required'],
  );
  t.strictSame(
    readNewFields(
      typeOf('imap'),
      { host: 'h', username: 'u', password: 'p', port: null, useSsl: null },
      [],
    ).publicFields['port'],
    993,
  );
  t.strictSame(
    faultsOf(() =>
      readNewFields(
        typeOf('imap'),
        { host: 'h', username: 'u', password: 'p', port: 0, useSsl: 'yes' },
        [],
      ),
    ).length,
    2,
  );
  t.strictSame(
    faultsOf(() => readNewFields(typeOf('openai'), { apiKey: 'x' }, ['apiKey'])),
    ['/publicFieldNames customOnly'],
  );
  t.strictSame(
    faultsOf(() => readNewFields(typeOf('custom'), { a: 'x' }, ['a', 'b'])),
    ['/publicFieldNames/1 notInFields'],
  );
});

t.test('what no secret can be', async (t) => {
  const refused: readonly (readonly [unknown, string])[] = [
    ['', 'min:1'],
    ['***', 'mask'],
    ['••••', 'mask'],
    ['●●●', 'mask'],
    ['*•●', 'mask'],
    ['sk-proj**', 'mask'],
    ['\r\n', 'blank'],
    [' ', 'blank'],
    ['={{ $secrets.vault.api.key }}', 'reference'],
    ['__n8n_BLANK_VALUE_e5362baf-c777-4d57-a609-6eaf1f9e87f6', 'placeholder'],
    ['ENC[AES256_GCM,data:x]', 'encrypted'],
    ['a\0', 'nul'],
    ['\ud800', 'loneSurrogate'],
    ['\udc00\ud800', 'loneSurrogate'],
    ['x'.repeat(65_537), 'max:65536'],
    ['é'.repeat(32_769), 'maxBytes:65536'],
    [7, 'type:string'],
    [true, 'type:string'],
  ];
  for (const [value, rule] of refused) {
    t.ok(
      faultsOf(() => readNewFields(typeOf('bearer'), { token: value as string }, [])).includes(
        `/fields/token ${rule}`,
      ),
      rule,
    );
    t.ok(
      faultsOf(() =>
        applyFields(
          typeOf('custom'),
          { publicFields: {}, secretFieldNames: ['token'] },
          { token: value as string },
        ),
      ).includes(`/fields/token ${rule}`),
      rule,
    );
  }
  for (const value of [
    '**',
    '* *',
    '***\n',
    '••',
    'x'.repeat(65_536),
    'é'.repeat(32_768),
    '🔑'.repeat(16_384),
  ]) {
    t.equal(readNewFields(typeOf('bearer'), { token: value }, []).secrets['token'], value);
  }
});

t.test('names that objects have by themselves are fields like others', async (t) => {
  const type = typeOf('custom');
  const names = [
    'constructor',
    'toString',
    'valueOf',
    'hasOwnProperty',
    'isPrototypeOf',
    '__proto__',
    '__defineGetter__',
  ];
  const input = JSON.parse(`{${names.map((name) => `"${name}":"x"`).join()}}`) as FieldsInput;
  const made = applyFields(type, { publicFields: {}, secretFieldNames: [] }, input);
  t.strictSame(Object.keys(made.secrets).sort(), names.toSorted());
  t.strictSame(
    Object.entries(made.secrets).map(([, value]) => value),
    names.map(() => 'x'),
  );
  const shown = applyFields(
    type,
    { publicFields: {}, secretFieldNames: [] },
    input,
    new Set(names),
  );
  t.strictSame(Object.keys(shown.publicFields).sort(), names.toSorted());
  t.strictSame(
    faultsOf(() =>
      applyFields(typeOf('openai'), { publicFields: {}, secretFieldNames: ['apiKey'] }, input),
    ).sort(),
    names.map((name) => `/fields/${name} unknownField`).sort(),
  );
  for (const name of names) {
    t.ok(
      isWider(
        type,
        { publicFields: {}, policy: defaultPolicy },
        { publicFields: Object.fromEntries([[name, 'x']]), policy: defaultPolicy },
      ),
      name,
    );
    t.ok(
      isWider(
        type,
        { publicFields: Object.fromEntries([[name, 'x']]), policy: defaultPolicy },
        { publicFields: {}, policy: defaultPolicy },
      ),
      name,
    );
  }
});

t.test('a stored secret of an open type stays secret, whoever declares what', async (t) => {
  const stored = { publicFields: { region: 'eu' }, secretFieldNames: ['token'] };
  const change = applyFields(
    typeOf('custom'),
    stored,
    { token: 'x', region: 'us', fresh: 'y' },
    new Set(['token', 'fresh']),
  );
  t.strictSame(
    [Object.keys(change.secrets), change.publicFields],
    [['token'], { region: 'us', fresh: 'y' }],
  );
});

t.test('secretRequired names each secret that would come along', async (t) => {
  t.doesNotThrow(() => {
    demandAllSecrets([]);
  });
  t.strictSame(
    faultsOf(() => {
      demandAllSecrets(['a', 'b']);
    }),
    ['/fields/a secretRequired', '/fields/b secretRequired'],
  );
});

t.test('one of several: whichever is set, and the last one is not cleared', async (t) => {
  const type = typeOf('postgres');
  const stored = {
    publicFields: { port: 5432, tls: true },
    secretFieldNames: ['connectionString'],
  };
  t.strictSame(
    faultsOf(() => applyFields(type, stored, { connectionString: null })),
    ['/fields/host requiredAnyOf'],
  );
  t.strictSame(applyFields(type, stored, { connectionString: null, host: 'pg' }).cleared, [
    'connectionString',
  ]);
  t.strictSame(
    applyFields(
      type,
      { publicFields: {}, secretFieldNames: [] },
      { connectionString: 'postgres://h/d' },
    ).secrets,
    { connectionString: 'postgres://h/d' },
  );
  t.strictSame((typeSchema(type) as { anyOf: unknown }).anyOf, [
    { required: ['host'] },
    { required: ['connectionString'] },
  ]);
});

t.test('every destination of every type widens, nothing else of it does', async (t) => {
  for (const type of credentialTypes) {
    for (const [name, field] of Object.entries(type.fields)) {
      if (field.class === 'secret') {
        t.notOk(field.isDestination, `${type.name}.${name}`);
        continue;
      }
      const before = { publicFields: { [name]: 'a' }, policy: defaultPolicy };
      t.equal(
        isWider(type, before, { publicFields: { [name]: 'b' }, policy: defaultPolicy }),
        field.isDestination,
        `${type.name}.${name}`,
      );
      t.equal(
        isWider(type, before, { publicFields: {}, policy: defaultPolicy }),
        field.isDestination,
        `${type.name}.${name}, gone`,
      );
    }
  }
  const where = /^host|port|url|uri|ssl|tls|secure/i;
  for (const { name: type, fields } of credentialTypes) {
    for (const [name, field] of Object.entries(fields))
      if (field.class === 'public' && where.test(name))
        t.ok(field.isDestination, `${type}.${name} says where, so it is a destination`);
  }
  t.ok(typeOf('header').fields['name']?.isDestination, "a header's name too");
});

t.test(
  'the registry: secret unless said otherwise, names that hold, and a schema that hides what is secret',
  async (t) => {
    t.equal(new Set(credentialTypes.map(({ name }) => name)).size, credentialTypes.length);
    for (const type of credentialTypes) {
      t.match(type.name, /^[a-z][A-Za-z0-9]{1,59}$/);
      t.throws(() => {
        (type as { name: string }).name = 'x';
      }, 'a type is frozen');
      const schema = typeSchema(type) as {
        properties: Record<string, { writeOnly?: boolean; default?: unknown }>;
        required: string[];
      };
      for (const [name, field] of Object.entries(type.fields)) {
        t.match(name, /^[A-Za-z_][A-Za-z0-9_.-]{0,63}$/);
        t.equal(
          schema.properties[name]?.writeOnly === true,
          field.class === 'secret',
          `${type.name}.${name}`,
        );
        t.equal(schema.required.includes(name), field.isRequired);
        if (field.default !== undefined)
          t.ok(field.schema.safeParse(field.default).success, 'a default is a value of its field');
        if (
          /key|token|password|secret|passphrase|webhook|value/i.test(name) &&
          ![
            'publicKey',
            'keyId',
            'accessKeyId',
            'apiKeySid',
            'tokenUrl',
            'tokenExpiry',
            'tokenParameters',
            'tokenPath',
          ].includes(name)
        )
          t.equal(field.class, 'secret', `${type.name}.${name}`);
      }
    }
    t.equal(findType('constructor'), undefined);
    t.equal(findType('__proto__'), undefined);
  },
);

t.test('health is the worst problem', async (t) => {
  t.equal(healthOf([]), 'ok');
  t.equal(healthOf(['expired', 'expiring']), 'expired');
  t.strictSame(
    [...problemNames],
    [
      'disabled',
      'undecryptable',
      'exposed',
      'refreshFailed',
      'notConnected',
      'rejectedByUpstream',
      'expired',
      'expiring',
      'providerOutdated',
    ],
    'worst first',
  );
});

t.test('a base URL of openai is stored without its version, once', async (t) => {
  const { baseUrl } = readNewFields(
    typeOf('openai'),
    { apiKey: 'k', baseUrl: 'https://gw.test/api/v1/' },
    [],
  ).publicFields;
  t.equal(baseUrl, 'https://gw.test/api');
  const sentAndStored: readonly (readonly [string, string])[] = [
    ['https://api.openai.com/v1', 'https://api.openai.com'],
    ['https://api.openai.com/v1//', 'https://api.openai.com'],
    ['https://api.openai.com/V1', 'https://api.openai.com/V1'],
    ['https://api.openai.com/', 'https://api.openai.com/'],
    ['https://gw.test/v1/proxy', 'https://gw.test/v1/proxy'],
    ['https://gw.test/xv1', 'https://gw.test/xv1'],
    ['https://gw.test/v1/v1', 'https://gw.test/v1'],
    ['https://v1', 'https://v1'],
  ];
  for (const [sent, stored] of sentAndStored)
    t.equal(
      readNewFields(typeOf('openai'), { apiKey: 'k', baseUrl: sent }, []).publicFields['baseUrl'],
      stored,
      sent,
    );
  t.equal(
    readNewFields(typeOf('customLlm'), { apiKey: 'k', baseUrl: 'https://gw.test/v1' }, [])
      .publicFields['baseUrl'],
    'https://gw.test/v1',
    'which is complete',
  );
});

t.test(
  'a base URL that was stored with its version stays, and is sent back unchanged',
  async (t) => {
    const type = typeOf('openai');
    const policy = defaultPolicy;
    const before = { baseUrl: 'https://gw.test/v1' };
    const after = (baseUrl: string): Readonly<Record<string, unknown>> & { baseUrl?: string } =>
      applyFields(type, { publicFields: before, secretFieldNames: ['apiKey'] }, { baseUrl })
        .publicFields;
    t.strictSame(after('https://gw.test/v1'), before);
    t.equal(
      isWider(
        type,
        { publicFields: before, policy },
        { publicFields: after('https://gw.test/v1') as never, policy },
      ),
      false,
    );
    for (const sent of ['https://gw.test/v1/', 'https://gw.test'])
      t.equal(
        isWider(
          type,
          { publicFields: before, policy },
          { publicFields: after(sent) as never, policy },
        ),
        true,
        `${sent} is another destination: the secrets come along`,
      );
  },
);

t.test(
  'a type has a test, or says why not; it goes through the broker, or says why not',
  async (t) => {
    for (const { name, test, noTest, broker, noBroker } of credentialTypes) {
      t.equal(test === undefined, noTest !== undefined, `${name}: test`);
      t.equal(broker === undefined, noBroker !== undefined, `${name}: broker`);
      t.notMatch(name, /\./, "names with a dot are a platform's own");
    }
  },
);

t.test('what 0.1 stored of each type is whole, and nothing is written into it', async (t) => {
  const stored = JSON.parse(
    readFileSync(new URL('../vectors/types-0.1.json', import.meta.url), 'utf8'),
  ) as Record<string, { publicFields: PublicFields; secretFields: string[] }>;
  t.equal(Object.keys(stored).length, 45);
  for (const [name, { publicFields, secretFields }] of Object.entries(stored)) {
    const change = applyFields(typeOf(name), { publicFields, secretFieldNames: secretFields }, {});
    t.strictSame(
      change,
      { publicFields, secrets: {}, cleared: [], kept: secretFields },
      `${name}: a change of nothing writes nothing`,
    );
  }
});
